"""The chain of the audit trail: what was sealed can neither be changed nor removed without showing."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import DBAPIError

from shared_record.access import audit, chain
from shared_record.access.chain import START, Head, Row
from shared_record.db import lookup
from shared_record.db.engine import Database
from shared_record.db.schema import audit_event
from world import Shop


@pytest.fixture
def shop(shop: Shop) -> Shop:
    shop.record("cust_a", "1")
    return shop


def note(shop: Shop, *names: str) -> None:
    who = shop.link("cust_a").customer_id
    for name in names:
        with shop.db.write(shop.scope) as connection:
            detail = {"b": 1, "a": "\N{SNOWMAN}", "list": [1, None, True], "ratio": 0.1}
            audit.record(connection, shop.scope, shop.clock, name, actor="test", customer_id=who, detail=detail)


def rows_of(shop: Shop) -> list[Row]:
    with shop.db.read(shop.scope) as connection:
        return list(chain.sealed_rows(connection, shop.scope))


def verified(shop: Shop, known: Head | None = None) -> chain.Verdict:
    with shop.db.read(shop.scope) as connection:
        return chain.verify(connection, shop.scope, known=known)


def as_owner(shop: Shop, *statements: str) -> None:
    """Do what no part of the program can: change the database behind its back."""
    engine = create_engine(shop.db.url)
    with engine.begin() as connection:
        if not shop.db.is_postgresql:
            for name in ("audit_event_kept", "audit_event_sealed_once"):
                connection.execute(text(f"DROP TRIGGER {name}"))
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def test_rows_are_sealed_in_the_order_of_their_time_and_id(shop: Shop) -> None:
    note(shop, "one")
    shop.clock.advance(minutes=-5)
    note(shop, "earlier")
    assert verified(shop).waiting == 2
    head = chain.seal(shop.db, shop.scope)
    assert next(row.event for row in rows_of(shop)) == "earlier"
    assert head is not None
    assert (head.position, verified(shop).head, verified(shop).problems) == (2, head, [])
    assert chain.seal(shop.db, shop.scope) is None
    note(shop, "later")
    assert [one.slug for one in lookup.list_unsealed(shop.db)] == ["acme"]
    assert chain.seal(shop.db, shop.scope) != head
    assert lookup.list_unsealed(shop.db) == []
    assert verified(shop, known=head).problems == []


def test_the_hash_is_what_the_documentation_says(shop: Shop) -> None:
    note(shop, "one", "two")
    chain.seal(shop.db, shop.scope)
    before = bytes(32)
    for position, row in enumerate(rows_of(shop), 1):
        line = json.loads(chain.as_line(row))
        content = {name: line[name] for name in ("id", "at", "event", "actor", "customer", "detail")}
        text_of = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        before = hashlib.sha256(before + position.to_bytes(8, "big") + text_of.encode()).digest()
        assert line["hash"] == before.hex()
        assert chain.read_line(chain.as_line(row)) == row


@pytest.mark.parametrize(
    ("what", "statement"),
    [
        ("changed", "UPDATE audit_event SET actor = 'nobody' WHERE position = 3"),
        ("changed", "UPDATE audit_event SET detail = '{}' WHERE position = 3"),
        ("changed", "UPDATE audit_event SET customer_id = NULL WHERE position = 3"),
        ("removed", "DELETE FROM audit_event WHERE position = 3"),
        ("moved", "UPDATE audit_event SET position = 99 WHERE position = 3"),
    ],
)
def test_a_row_changed_removed_or_moved_shows_at_its_place(shop: Shop, what: str, statement: str) -> None:
    note(shop, "one", "two", "three", "four", "five")
    chain.seal(shop.db, shop.scope)
    as_owner(shop, statement)
    verdict = verified(shop)
    assert verdict.head.position == 2, what
    assert verdict.problems[0].startswith("position 3:")


def test_two_rows_that_changed_places_show(shop: Shop) -> None:
    note(shop, "one", "two", "three")
    chain.seal(shop.db, shop.scope)
    as_owner(
        shop,
        "UPDATE audit_event SET position = 100 WHERE position = 2",
        "UPDATE audit_event SET position = 2 WHERE position = 3",
        "UPDATE audit_event SET position = 3 WHERE position = 100",
    )
    assert verified(shop).problems[0].startswith("position 2:")


def test_rows_removed_from_the_end_show_by_a_head_that_was_noted(shop: Shop) -> None:
    note(shop, "one", "two")
    head = chain.seal(shop.db, shop.scope)
    as_owner(shop, "DELETE FROM audit_event WHERE position = 2")
    assert verified(shop).problems == []
    assert verified(shop, known=head).problems == ["the chain ends at position 1; it once went to 2"]
    note(shop, "another in its place")
    chain.seal(shop.db, shop.scope)
    assert verified(shop, known=head).problems == ["position 2: its hash is not the one that was noted"]


def test_the_application_itself_cannot_change_or_remove_a_row(shop: Shop) -> None:
    note(shop, "one")
    mine = audit_event.c.tenant_id == shop.scope.plane
    chain.seal(shop.db, shop.scope)
    note(shop, "not sealed")
    refused = (
        audit_event.update().where(mine, audit_event.c.position == 1).values(position=7),
        audit_event.update().where(mine, audit_event.c.position == 1).values(hash=bytes(32)),
        audit_event.update().where(mine, audit_event.c.position.is_(None)).values(actor="nobody"),
        audit_event.update().where(mine, audit_event.c.position.is_(None)).values(hash=bytes(32)),
        audit_event.delete().where(mine, audit_event.c.event == "one"),
        audit_event.delete().where(mine, audit_event.c.event == "not sealed"),
    )
    before = rows_of(shop)
    for statement in refused:
        changed = 0
        try:
            with shop.db.write(shop.scope) as connection:
                changed = connection.execute(statement).rowcount
        except DBAPIError:
            pass
        assert changed == 0, statement
    assert rows_of(shop) == before
    assert verified(shop).waiting == 1


def test_a_row_cannot_be_slipped_in_with_a_place_of_its_choice(shop: Shop) -> None:
    note(shop, "one")
    chain.seal(shop.db, shop.scope)
    row = {
        "tenant_id": shop.scope.plane,
        "event_id": uuid4(),
        "at": shop.clock.now(),
        "event": "forged",
        "actor": "nobody",
        "detail": {},
        "position": 1,
        "hash": bytes(32),
    }
    with pytest.raises(DBAPIError), shop.db.write(shop.scope) as connection:
        connection.execute(audit_event.insert(), row)


def test_several_workers_seal_one_trail_without_a_gap(shop: Shop) -> None:
    with ThreadPoolExecutor(6) as pool:
        for turn in range(8):
            note(shop, *(f"event {turn}.{n}" for n in range(5)))
            list(pool.map(lambda _: chain.seal(shop.db, shop.scope), range(6)))
    chain.seal(shop.db, shop.scope)
    verdict = verified(shop)
    assert (verdict.head.position, verdict.waiting, verdict.problems) == (40, 0, [])


def test_trails_of_tenants_and_planes_are_chained_apart(shop: Shop) -> None:
    note(shop, "one")
    with shop.db.write(shop.test_scope) as connection:
        audit.record(connection, shop.test_scope, shop.clock, "twin", actor="test")
    assert str(chain.seal(shop.db, shop.test_scope))[:2] == "1:"
    assert str(chain.seal(shop.db, shop.scope))[:2] == "1:"


def test_writing_a_row_reads_nothing_of_the_trail(shop: Shop) -> None:
    """Two changes at once never wait for each other because of the trail."""
    statements: list[str] = []
    event.listen(shop.db.engine, "before_cursor_execute", lambda *call: statements.append(call[2]))
    note(shop, "one")
    assert [line.split()[0] for line in statements if "audit_event" in line] == ["INSERT"]


@pytest.mark.parametrize("line", ["", "{}", "[]", "null", '{"position": 1}', "x"])
def test_what_is_no_exported_line_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        chain.read_line(line)


@pytest.mark.parametrize("text_of", ["", "1", "x:y", "1:ab", "-1:" + "0" * 64])
def test_what_is_no_head_is_refused(text_of: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Head.parse(text_of)


SOME = st.integers(min_value=0, max_value=11)


@given(SOME, SOME, st.sampled_from(["change", "remove", "swap", "copy"]))
def test_every_single_manipulation_of_a_sealed_trail_shows(first: int, second: int, how: str) -> None:
    rows, head = _sealed(12), _sealed(12)[-1]
    known = Head(12, head.hash or START)
    assert chain.check(rows, known=known).problems == []
    forged = list(rows)
    match how:
        case "change":
            forged[first] = replace(forged[first], actor=forged[first].actor + "x")
        case "remove":
            del forged[first]
        case "swap":
            one, other = forged[first], forged[second]
            forged[first], forged[second] = replace(other, position=one.position), replace(one, position=other.position)
        case "copy":
            forged.insert(second, forged[first])
    same = how == "swap" and first == second
    assert bool(chain.check(forged, known=known).problems) != same


def _sealed(count: int) -> list[Row]:
    from datetime import UTC, datetime
    from uuid import UUID

    rows, before = [], START
    for n in range(1, count + 1):
        row = Row(n, UUID(int=n), datetime(2026, 11, 22, tzinfo=UTC), f"event.{n}", "a", None, {"n": n}, None)
        before = chain.link_hash(before, n, row.content())
        rows.append(replace(row, hash=before))
    return rows


def test_the_database_is_asked_page_by_page(db: Database, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    note(shop, *(f"event {n}" for n in range(7)))
    chain.seal(db, shop.scope)
    pages = chain._SEALED.limit(3)
    monkeypatch.setattr(chain, "_SEALED", pages)
    assert verified(shop).head.position == 7
