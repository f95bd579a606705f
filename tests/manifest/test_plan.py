"""The three-way comparison: the file wins where it changed since it was last applied, else the database stays."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shared_record.manifest.check import Checked, CheckedHost
from shared_record.manifest.plan import Change, Kind, Plan, compare, file_values
from shared_record.manifest.schema import DEFAULTS

HOSTS = ("a.example", "b.example", "c.example")
METHODS = ("code", "mail", "sso")

Values = dict[str, Any]


@st.composite
def flat(draw: st.DrawFn, *, complete: bool = False) -> Values:
    """Draw a file's values; ``complete``: a database's, which has every setting."""
    values: Values = {"name": draw(st.sampled_from("AB"))}
    choices = {"theme": ["default", "x"], "policy": ["OPEN", "TWO_TIER"], "export_formats": [[], ["csv"]]}
    for key, options in choices.items():
        if complete or draw(st.booleans()):
            values[key] = draw(st.sampled_from(options))
    if complete:
        values["checkpoint_seconds"] = draw(st.sampled_from([None, 30]))
    elif draw(st.booleans()):
        values["checkpoint_seconds"] = 30
    roles = ["serving", "alias", "suspended"] if complete else ["serving", "alias"]
    hosts = draw(st.dictionaries(st.sampled_from(HOSTS), st.sampled_from(roles)))
    able = [host for host, role in hosts.items() if role != "alias"]
    if able:
        values |= {f"hosts.{host}": role for host, role in hosts.items()}
        values["primary_host"] = draw(st.sampled_from(able))
    order = draw(st.lists(st.sampled_from(METHODS), unique=True))
    values |= {f"methods.{slug}": draw(st.sampled_from([{}, {"x": 1}])) for slug in order}
    if complete or order:
        values["method_order"] = order
    return values


def carry_out(plan: Plan, database: Values) -> Values:
    """Do to the values what ``manifest.apply`` does to the rows."""
    after = dict(database)
    for change in plan.effective:
        after[change.key] = change.after
    if any(change.key.startswith("method") for change in plan.effective):
        after["method_order"] = list(plan.method_order)
    return {key: value for key, value in after.items() if value is not None or key in DEFAULTS}


def kinds(plan: Plan) -> dict[str, Kind]:
    return {change.key: change.kind for change in plan.changes if change.kind is not Kind.UNCHANGED}


@given(flat(), st.none() | flat(), flat(complete=True), st.booleans())
def test_a_second_run_writes_nothing(file: Values, applied: Values | None, database: Values, force: bool) -> None:
    first = compare("t", file, applied, database, force=force)
    after = carry_out(first, database)
    second = compare("t", file, first.applied, after, force=force)
    assert second.is_empty
    assert second.effective == ()
    assert carry_out(second, after) == after
    if force:
        assert second.drift == ()
    else:
        assert {change.key for change in second.drift} <= {change.key for change in first.drift} | {"primary_host"}


@given(flat(), st.none() | flat(), flat(complete=True), st.booleans())
def test_a_key_is_the_files_only_if_it_changed_there(
    file: Values, applied: Values | None, database: Values, force: bool
) -> None:
    plan = compare("t", file, applied, database, force=force)
    before, after = applied or {}, carry_out(plan, database)
    for key in (set(file) | set(before) | set(database)) - {"primary_host", "method_order"}:
        wanted = file.get(key, DEFAULTS.get(key))
        collection = key.partition(".")[0] + "."
        managed = any(other == key or ("." in key and other.startswith(collection)) for other in [*file, *before])
        changed_in_file = key in file and file[key] != before.get(key)
        changed_in_file |= key in before and key not in file and before[key] != wanted
        if managed and (changed_in_file or force):
            assert after.get(key) == wanted
        else:
            assert after.get(key) == database.get(key)


@given(flat(), st.none() | flat(), flat(complete=True), st.booleans())
def test_the_primary_host_is_one_that_remains(
    file: Values, applied: Values | None, database: Values, force: bool
) -> None:
    after = carry_out(compare("t", file, applied, database, force=force), database)
    able = [key for key, role in after.items() if key.startswith("hosts.") and role != "alias"]
    if able:
        assert f"hosts.{after['primary_host']}" in able
    else:
        assert after.get("primary_host") is None


@given(flat(), st.none() | flat(), flat(complete=True), st.booleans())
def test_the_order_has_each_method_once(file: Values, applied: Values | None, database: Values, force: bool) -> None:
    plan = compare("t", file, applied, database, force=force)
    after = carry_out(plan, database)
    assert sorted(plan.method_order) == sorted(key[8:] for key in after if key.startswith("methods."))


@given(flat(), flat(complete=True))
def test_force_makes_the_database_say_what_the_file_says(file: Values, database: Values) -> None:
    after = carry_out(compare("t", file, file, database, force=True), database)
    assert {key: after.get(key) for key in file} == file
    for prefix in ("hosts.", "methods."):
        if any(key.startswith(prefix) for key in file):
            assert {k for k in after if k.startswith(prefix)} == {k for k in file if k.startswith(prefix)}


@given(flat())
def test_a_new_tenant_is_created_as_the_file_says(file: Values) -> None:
    plan = compare("t", file, None, None)
    assert plan.is_new
    assert set(kinds(plan).values()) == {Kind.CREATE}
    assert {change.key: change.after for change in plan.changes} == {
        key: value for key, value in file.items() if key != "method_order"
    }
    assert list(plan.method_order) == file.get("method_order", [])


BASE = {"name": "A", "theme": "x"}
DATABASE = {"name": "A", "theme": "x", "policy": "TWO_TIER", "method_order": []}


def test_what_was_changed_elsewhere_is_shown_and_kept() -> None:
    database = DATABASE | {"theme": "y"}
    assert compare("t", BASE, BASE, database).drift == (Change("theme", "y", "x", Kind.DRIFT_KEPT),)
    assert compare("t", BASE, BASE, database, force=True).effective == (
        Change("theme", "y", "x", Kind.DRIFT_OVERRIDDEN),
    )
    assert compare("t", BASE | {"theme": "z"}, BASE, database).effective == (Change("theme", "y", "z", Kind.UPDATE),)


def test_a_line_taken_out_returns_to_the_default_and_is_then_free() -> None:
    plan = compare("t", {"name": "A"}, BASE, DATABASE)
    assert plan.effective == (Change("theme", "x", "default", Kind.UPDATE),)
    assert compare("t", {"name": "A"}, plan.applied, DATABASE | {"theme": "y"}).is_empty


def test_a_setting_the_file_never_named_is_not_touched_even_by_force() -> None:
    assert compare("t", BASE, BASE, DATABASE | {"policy": "OPEN"}, force=True).is_empty


def test_a_host_added_elsewhere_stays_while_the_file_changes_others() -> None:
    old = BASE | {"hosts.a.example": "serving", "primary_host": "a.example"}
    new = BASE | {"hosts.b.example": "serving", "primary_host": "b.example"}
    database = DATABASE | old | {"hosts.c.example": "serving"}
    plan = compare("t", new, old, database)
    assert kinds(plan) == {
        "hosts.b.example": Kind.UPDATE,
        "hosts.a.example": Kind.UPDATE,
        "hosts.c.example": Kind.DRIFT_KEPT,
        "primary_host": Kind.UPDATE,
    }
    after = carry_out(plan, database)
    assert "hosts.a.example" not in after
    assert after["primary_host"] == "b.example"


def test_a_primary_chosen_elsewhere_gives_way_only_when_its_host_goes() -> None:
    both = BASE | {"hosts.a.example": "serving", "hosts.b.example": "serving", "primary_host": "a.example"}
    database = DATABASE | both | {"primary_host": "b.example"}
    assert kinds(compare("t", both, both, database)) == {"primary_host": Kind.DRIFT_KEPT}
    one = {key: value for key, value in both.items() if key != "hosts.b.example"}
    assert kinds(compare("t", one, both, database)) == {"hosts.b.example": Kind.UPDATE, "primary_host": Kind.UPDATE}


def test_a_new_method_takes_its_place_and_leaves_the_order_of_others() -> None:
    old = BASE | {"methods.code": {}, "methods.sso": {}, "method_order": ["code", "sso"]}
    new = old | {"methods.mail": {}, "method_order": ["code", "mail", "sso"]}
    plan = compare("t", new, old, DATABASE | old)
    assert kinds(plan) == {"methods.mail": Kind.UPDATE}
    assert plan.method_order == ("code", "mail", "sso")
    turned = old | {"method_order": ["sso", "code"]}
    assert kinds(compare("t", turned, old, DATABASE | old)) == {"method_order": Kind.UPDATE}
    assert kinds(compare("t", old, old, DATABASE | turned)) == {"method_order": Kind.DRIFT_KEPT}


def test_a_file_as_flat_values() -> None:
    checked = Checked(
        "acme",
        "acme.toml",
        {"name": "A"},
        (
            CheckedHost("a.example", "a.example", "alias", False, 1),
            CheckedHost("b.example", "b.example", "serving", True, 2),
        ),
        (("code", {"x": 1}), ("mail", {})),
    )
    assert file_values(checked) == {
        "name": "A",
        "hosts.a.example": "alias",
        "hosts.b.example": "serving",
        "primary_host": "b.example",
        "methods.code": {"x": 1},
        "methods.mail": {},
        "method_order": ["code", "mail"],
    }
