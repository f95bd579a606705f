"""Links and codes: what each change does, which epoch it raises, and what it leaves in the audit trail."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from shared_record.access import links
from shared_record.access.links import normalise_code, normalise_handle
from shared_record.db import lookup
from shared_record.db.schema import audit_event, customer, host, link, tenant
from shared_record.errors import ConflictError, InvalidInputError, NotFoundError
from shared_record.keys import CODE_ALPHABET, KeyRing, handle_digest
from shared_record.tenancy.policies import Policy
from world import Shop, open_shop

Change = Callable[[Any, Shop], Any]


def args(shop: Shop) -> tuple[Any, ...]:
    return shop.clock, shop.scope, "cust_a"


CHANGES: dict[str, tuple[Change, str, str, dict[str, Any]]] = {
    # what -> (how, which epoch rises, audit event, audit detail)
    "revoke": (lambda c, s: links.revoke_link(c, s.keys, *args(s), "me"), "link", "link.revoked", {}),
    "reissue": (lambda c, s: links.reissue_link(c, s.keys, *args(s), "me"), "link", "link.reissued", {}),
    "rotate": (
        lambda c, s: links.rotate_code(c, s.keys, *args(s), "me", overlap=timedelta(hours=1)),
        "code",
        "code.rotated",
        {"version": 2, "overlap_seconds": 3600},
    ),
    "move": (
        lambda c, s: links.move_host(c, s.keys, *args(s), s.hosts[1], "me"),
        "customer",
        "customer.moved",
        {"from": "usage.acme.localhost", "to": "record.acme.localhost"},
    ),
    "own policy": (
        lambda c, s: links.set_customer_policy(c, *args(s), "OPEN", "me"),
        "customer",
        "policy.changed",
        {"policy": "OPEN"},
    ),
    "tenant policy": (
        lambda c, s: links.set_tenant_policy(c, s.clock, s.scope, Policy.GATED, "me"),
        "tenant",
        "policy.changed",
        {"policy": "GATED"},
    ),
    "reveal": (lambda c, s: links.reveal_code(c, s.keys, *args(s), "me"), "none", "code.revealed", {}),
}


@pytest.fixture
def shop(shop: Shop) -> Shop:
    shop.record("cust_a", "1")
    shop.record("cust_b", "1")
    return shop


def epochs(shop: Shop, name: str = "cust_a") -> dict[str, int]:
    with shop.db.read(shop.scope) as connection:
        row = connection.execute(
            select(customer.c.customer_id, customer.c.epoch, customer.c.code_epoch).where(
                customer.c.tenant_id == shop.scope.plane, customer.c.external_id == name
            )
        ).one()
        return {
            "customer": row.epoch,
            "code": row.code_epoch,
            "link": connection.execute(
                select(link.c.epoch).where(link.c.tenant_id == shop.scope.plane, link.c.customer_id == row.customer_id)
            ).scalar_one(),
            "tenant": connection.execute(
                select(tenant.c.epoch).where(tenant.c.tenant_id == shop.scope.config)
            ).scalar_one(),
            "host": sum(
                connection.execute(select(host.c.epoch).where(host.c.tenant_id == shop.scope.config)).scalars()
            ),
        }


def audit_rows(shop: Shop) -> list[Any]:
    with shop.db.read(shop.scope) as connection:
        return connection.execute(select(audit_event).where(audit_event.c.tenant_id == shop.scope.plane)).all()


def change(shop: Shop, what: str) -> Any:
    with shop.db.write(shop.scope) as connection:
        return CHANGES[what][0](connection, shop)


@pytest.mark.parametrize("what", CHANGES)
def test_each_change_raises_one_epoch_and_leaves_one_audit_row_without_secrets(shop: Shop, what: str) -> None:
    _, rises, event, detail = CHANGES[what]
    before, others = epochs(shop), epochs(shop, "cust_b")
    secrets = [shop.link("cust_a").handle, shop.code("cust_a")]
    known = {row.event_id for row in audit_rows(shop)}
    change(shop, what)
    after = epochs(shop)
    assert {name for name in after if after[name] != before[name]} == ({rises} - {"none"})
    assert all(after[name] - before[name] in (0, 1) for name in after)
    if rises != "tenant":
        assert epochs(shop, "cust_b") == others
    (row,) = [row for row in audit_rows(shop) if row.event_id not in known]
    assert (row.event, row.actor, row.detail) == (event, "me", detail)
    assert row.at == shop.clock.now()
    assert (row.customer_id == shop.link("cust_a").customer_id) == (what != "tenant policy")
    secrets += [shop.link("cust_a").handle, shop.code("cust_a")]
    text = json.dumps(row.detail) + row.actor + row.event
    assert not any(secret in text for secret in secrets if secret)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("what", CHANGES)
def test_a_change_that_is_rolled_back_leaves_no_trace(shop: Shop, what: str) -> None:
    before, rows, handle = epochs(shop), len(audit_rows(shop)), shop.link("cust_a").handle
    with shop.db.write(shop.scope) as connection:
        CHANGES[what][0](connection, shop)
        connection.rollback()
    assert (epochs(shop), len(audit_rows(shop)), shop.link("cust_a").handle) == (before, rows, handle)


def test_revoke_issue_and_reissue(shop: Shop) -> None:
    first = shop.link("cust_a")
    with shop.db.write(shop.scope) as connection, pytest.raises(ConflictError, match="has a link that works"):
        links.issue_link(connection, shop.keys, *args(shop), "me")
    revoked = change(shop, "revoke")
    assert (revoked.handle, revoked.path, revoked.revoked_at) == (None, None, shop.clock.now())
    assert lookup.find_link(shop.db, handle_digest(first.handle)) is None
    with shop.db.write(shop.scope) as connection, pytest.raises(ConflictError, match="already revoked"):
        links.revoke_link(connection, shop.keys, *args(shop), "me")
    with shop.db.write(shop.scope) as connection:
        second = links.issue_link(connection, shop.keys, *args(shop), "me")
    third = change(shop, "reissue")
    assert len({first.handle, second.handle, third.handle}) == 3
    for old in (first, second):
        assert lookup.find_link(shop.db, handle_digest(old.handle)) is None
    found = lookup.find_link(shop.db, handle_digest(third.handle))
    assert found is not None
    assert (found.customer_id, found.scope) == (first.customer_id, shop.scope)


@pytest.mark.parametrize("what", ["reissue", "rotate"])
def test_wrong_tries_start_again(shop: Shop, what: str) -> None:
    mine = link.c.tenant_id == shop.scope.plane
    with shop.db.write(shop.scope) as connection:
        connection.execute(link.update().where(mine).values(tries=100))
    change(shop, what)
    with shop.db.read(shop.scope) as connection:
        tries = connection.execute(select(link.c.tries).where(mine)).scalars()
        assert sorted(tries) == [0, 100]


def test_d07_a_host_name_tells_of_no_customer(shop: Shop) -> None:
    """Anybody can read the names for which certificates were made."""
    made = shop.link("cust_a")
    assert made.host in shop.hosts
    assert made.path == f"/c/{made.handle}"


def test_rotating_the_code_keeps_the_link_and_counts_versions(shop: Shop) -> None:
    handle = shop.link("cust_a").handle
    codes = [shop.code("cust_a"), change(shop, "rotate"), change(shop, "rotate")]
    assert len(set(codes)) == 3
    assert shop.code("cust_a") == codes[2]
    assert shop.link("cust_a").handle == handle
    assert shop.code("cust_b") not in codes


def test_a_new_key_serves_from_the_next_version_on(shop: Shop) -> None:
    handle, code = shop.link("cust_a").handle, shop.code("cust_a")
    shop.keys = KeyRing("k2", shop.keys.roots | {"k2": b"2" * 32})
    assert (shop.link("cust_a").handle, shop.code("cust_a")) == (handle, code)
    who = shop.link("cust_a").customer_id
    assert change(shop, "rotate") == shop.keys.access_code("k2", shop.scope.plane, who, 2)
    assert change(shop, "reissue").handle == shop.keys.handle("k2", shop.scope.plane, who, 2)
    assert shop.link("cust_b").handle == shop.keys.handle("k1", shop.scope.plane, shop.link("cust_b").customer_id, 1)


def test_a_change_to_the_same_value_is_none(shop: Shop) -> None:
    before, rows = epochs(shop), len(audit_rows(shop))
    with shop.db.write(shop.scope) as connection:
        assert not links.set_customer_policy(connection, *args(shop), links.INHERIT, "me")
        assert not links.set_tenant_policy(connection, shop.clock, shop.scope, Policy.TWO_TIER, "me")
        links.move_host(connection, shop.keys, *args(shop), shop.hosts[0], "me")
    assert (epochs(shop), len(audit_rows(shop))) == (before, rows)


def test_a_customer_moves_to_a_serving_host_of_its_tenant_only(shop: Shop, keys: KeyRing, tmp_path: Any) -> None:
    open_shop(shop.db, keys, shop.clock, tmp_path, slug="other", hosts=("usage.other.localhost",))
    with shop.db.write(shop.scope) as connection:
        connection.execute(
            host.update()
            .where(host.c.tenant_id == shop.scope.config, host.c.host == shop.hosts[1])
            .values(role="alias")
        )
    for name in ("usage.other.localhost", "nowhere.example", shop.hosts[1], ""):
        with shop.db.write(shop.scope) as connection, pytest.raises(InvalidInputError, match="not a serving host"):
            links.move_host(connection, shop.keys, *args(shop), name, "me")


def test_an_own_policy_wins_and_can_be_taken_back(shop: Shop) -> None:
    change(shop, "own policy")
    assert shop.link("cust_a").policy == "OPEN"
    with shop.db.write(shop.scope) as connection:
        assert links.set_customer_policy(connection, *args(shop), links.INHERIT, "me")
    assert shop.link("cust_a").policy == links.INHERIT
    with shop.db.write(shop.scope) as connection, pytest.raises(ValueError):
        links.set_customer_policy(connection, *args(shop), "WIDE_OPEN", "me")


def test_unknown_customers_are_not_found(shop: Shop) -> None:
    calls: list[Callable[[Any], Any]] = [
        lambda c: links.show_link(c, shop.keys, shop.scope, "nobody"),
        lambda c: links.revoke_link(c, shop.keys, shop.clock, shop.scope, "nobody", "me"),
        lambda c: links.issue_link(c, shop.keys, shop.clock, shop.scope, "nobody", "me"),
        lambda c: links.reissue_link(c, shop.keys, shop.clock, shop.scope, "nobody", "me"),
        lambda c: links.reveal_code(c, shop.keys, shop.clock, shop.scope, "nobody", "me"),
        lambda c: links.rotate_code(c, shop.keys, shop.clock, shop.scope, "nobody", "me"),
        lambda c: links.set_customer_policy(c, shop.clock, shop.scope, "nobody", "OPEN", "me"),
        lambda c: links.move_host(c, shop.keys, shop.clock, shop.scope, "nobody", shop.hosts[1], "me"),
        lambda c: links.show_link(c, shop.keys, shop.test_scope, "cust_a"),
    ]
    for number, call in enumerate(calls):
        scope = shop.test_scope if number == len(calls) - 1 else shop.scope
        with shop.db.write(scope) as connection, pytest.raises(NotFoundError, match="there is no customer"):
            call(connection)


def test_links_are_listed_in_the_order_they_were_made(shop: Shop) -> None:
    change(shop, "revoke")
    with shop.db.read(shop.scope) as connection:
        found = links.list_links(connection, shop.keys, shop.scope)
    assert found == [shop.link("cust_a"), shop.link("cust_b")]


@given(st.text(CODE_ALPHABET, min_size=6, max_size=6), st.data())
def test_a_code_is_read_however_it_is_typed(code: str, data: st.DataObject) -> None:
    typed = "".join(
        data.draw(st.sampled_from(["", " ", "-", "  ", "\t"])) + data.draw(st.sampled_from([c, c.lower()]))
        for c in code
    )
    assert normalise_code(typed) == code


@given(st.text(max_size=80))
def test_a_code_is_plain_or_nothing(text: str) -> None:
    found = normalise_code(text)
    assert found == "" or (found.isascii() and found.isalnum() and found == found.upper() and 6 <= len(found) <= 12)


@pytest.mark.parametrize(
    "text", ["", "K7M4", "K7M4QX" * 3, "Ｋ７Ｍ４ＱＸ", "\u212a7M4QX", "K7M4QX\0", "K7M_4QX", "é" * 6, "A" * 1000]
)
def test_what_can_be_no_code_is_nothing(text: str) -> None:
    assert normalise_code(text) == ""


def test_handles_are_lower_cased_and_nothing_else() -> None:
    assert normalise_handle("ABCDEFGHJKMNPQRSTVWXYZ0123") == "abcdefghjkmnpqrstvwxyz0123"
    for text in (
        "",
        "a" * 19,
        "a" * 65,
        "a" * 20 + "/",
        "a" * 20 + "\n",
        "a" * 19 + "\u212a",
        "ａ" * 20,
        "a" * 20 + "\0",
    ):
        assert normalise_handle(text) is None
