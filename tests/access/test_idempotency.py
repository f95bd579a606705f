"""Idempotency keys in the database: who shares one, what a killed process leaves, and how long it is kept."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, func, select

from shared_record.access.idempotency import KEPT, Claim, Kept, TakenError, purge_answers
from shared_record.db.engine import Database
from shared_record.db.schema import customer, kept_answer, leaf
from shared_record.errors import ConflictError, InvalidInputError
from shared_record.ledger.intake import Delta, record_deltas
from shared_record.worker import Worker
from world import Shop

MOST_STATEMENTS = 60
ANSWER = Kept(201, b'{"success":true}')


def claim(shop: Shop, key: str = "k-1", **other: Any) -> Claim:
    fields = {"owner": "owner-1", "route": "POST /a", "request": b"{}"} | other
    return Claim(shop.keys, shop.clock, fields.pop("scope", shop.scope), key=key, **fields)


class Keeper:
    """Keeps a constant answer, as the API does with its own."""

    def __init__(self, of: Claim) -> None:
        self.of = of

    def begin(self, connection: Any) -> None:
        self.of.begin(connection)

    def finish(self, connection: Any, results: list[Any]) -> None:
        self.of.finish(connection, ANSWER)


def test_the_first_answer_is_found_again_by_whoever_shares_key_owner_route_and_request(shop: Shop) -> None:
    assert claim(shop).find(shop.db) is None
    claim(shop).keep(shop.db, ANSWER)
    assert claim(shop).find(shop.db) == ANSWER
    with pytest.raises(TakenError):
        claim(shop).keep(shop.db, Kept(200, b"other"))
    with pytest.raises(ConflictError) as caught:
        claim(shop, request=b"[]").find(shop.db)
    assert caught.value.code == "IDEMPOTENCY_CONFLICT"
    assert claim(shop).find(shop.db) == ANSWER


def test_g06_an_idempotency_key_is_apart_for_each_plane_owner_and_route(shop: Shop) -> None:
    claim(shop).keep(shop.db, ANSWER)
    for other in ({"owner": "owner-2"}, {"route": "POST /b"}, {"scope": shop.test_scope}, {"key": "K-1"}):
        assert claim(shop, **other).find(shop.db) is None
        claim(shop, **other).keep(shop.db, Kept(200, repr(other).encode()))
    assert claim(shop).find(shop.db) == ANSWER


def test_what_is_stored_of_a_request_tells_nothing_of_it(shop: Shop) -> None:
    claim(shop, request=b"a reason").keep(shop.db, ANSWER)
    claim(shop, request=b"a reason", scope=shop.test_scope).keep(shop.db, ANSWER)
    digests = []
    for scope in (shop.scope, shop.test_scope):
        with shop.db.read(scope) as connection:
            digests.append(
                connection.execute(select(kept_answer.c.digest).where(kept_answer.c.tenant_id == scope.plane)).scalar()
            )
    assert len(set(digests)) == 2


def test_answers_are_kept_for_thirty_days_or_for_the_tenants_retention(shop: Shop) -> None:
    claim(shop).keep(shop.db, ANSWER)
    claim(shop, scope=shop.test_scope).keep(shop.db, ANSWER)
    shop.clock.advance(days=29)
    assert purge_answers(shop.db, shop.clock, shop.scope) == 0
    assert purge_answers(shop.db, shop.clock, shop.scope, retention_days=90) == 0
    assert purge_answers(shop.db, shop.clock, shop.test_scope, retention_days=7) == 1
    shop.clock.advance(days=2)
    assert timedelta(days=30) == KEPT
    assert purge_answers(shop.db, shop.clock, shop.scope) == 1
    assert claim(shop).find(shop.db) is None


def test_the_worker_removes_what_was_kept_long_enough(shop: Shop) -> None:
    claim(shop).keep(shop.db, ANSWER)
    for days, left in ((0, ANSWER), (29, ANSWER), (2, None)):
        shop.clock.advance(days=days)
        Worker(shop.db, shop.keys, shop.clock, shop.locks, 10).sweep_once()
        assert claim(shop).find(shop.db) == left


# --- With the effect -------------------------------------------------------------------------------------------------


def count(shop: Shop, name: str) -> int:
    with shop.db.read(shop.scope) as connection:
        query = (
            select(func.count())
            .select_from(leaf.join(customer, leaf.c.customer_id == customer.c.customer_id))
            .where(leaf.c.tenant_id == shop.scope.plane, customer.c.tenant_id == shop.scope.plane)
        )
        return int(connection.execute(query.where(customer.c.external_id == name)).scalar_one())


def test_an_effect_that_fails_leaves_no_answer_and_an_answer_that_fails_no_effect(shop: Shop) -> None:
    class Failing(Keeper):
        def finish(self, connection: Any, results: list[Any]) -> None:
            super().finish(connection, results)
            raise InvalidInputError("no answer")

    mine = claim(shop)
    for deltas in ([Delta("c-1", "1", "usage")], [Delta("c-1", "1", "usage", adjusts_record="rec_none")]):
        with pytest.raises(InvalidInputError):
            record_deltas(shop.db, shop.keys, shop.clock, shop.scope, deltas, once=Failing(mine))
    assert (count(shop, "c-1"), claim(shop).find(shop.db)) == (0, None)


def test_a_request_that_records_nothing_is_kept_too(shop: Shop) -> None:
    mine = claim(shop)
    nothing = [Delta("c-1", "1", "usage", adjusts_record="rec_none")]
    record_deltas(shop.db, shop.keys, shop.clock, shop.scope, nothing, once=Keeper(mine))
    assert (count(shop, "c-1"), claim(shop).find(shop.db)) == (0, ANSWER)


def test_g07_a_process_killed_at_any_statement_leaves_effect_and_answer_or_neither(
    shop: Shop, database_url: str
) -> None:
    outcomes = []
    for number in range(1, MOST_STATEMENTS):
        name = f"c-{number}"
        ended = in_a_child(lambda number=number, name=name: record_and_die(shop, database_url, number, name))
        before = claim(shop, name).find(shop.db)
        assert count(shop, name) == (1 if before else 0)
        if before is None:
            record_deltas(shop.db, shop.keys, shop.clock, shop.scope, [one(name)], once=Keeper(claim(shop, name)))
        with pytest.raises(TakenError):
            record_deltas(shop.db, shop.keys, shop.clock, shop.scope, [one(name)], once=Keeper(claim(shop, name)))
        assert count(shop, name) == 1
        outcomes.append(before)
        if os.WIFEXITED(ended):
            break
        assert os.WTERMSIG(ended) == signal.SIGKILL
    assert outcomes[0] is None
    assert outcomes[-1] == ANSWER
    assert len(outcomes) > 10


def one(name: str) -> Delta:
    return Delta(name, "1", "usage")


def in_a_child(work: Any) -> int:
    """Run ``work`` in a process of its own; return how it ended."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1]


def record_and_die(shop: Shop, url: str, at: int, name: str) -> None:
    """Record one delta; kill this process at the ``at``-th statement, or at the commit after the last one."""
    db, left = Database(url), at

    def step(*_: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(db.engine, "before_cursor_execute", step)
    event.listen(db.engine, "commit", step)
    record_deltas(db, shop.keys, shop.clock, shop.scope, [one(name)], once=Keeper(claim(shop, name)))
