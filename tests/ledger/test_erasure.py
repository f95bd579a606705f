"""Erasing: one delta's details, what is past retention, one customer; everybody else's proofs hold as before."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from shared_record_export_json import Json
from sqlalchemy import func, select

from client import Visitor, serve, url_of
from proofs_of import prove
from shared_record.access import links
from shared_record.db import lookup
from shared_record.db.schema import audit_event, customer, delta_detail, leaf, link, period_tree, session, statement
from shared_record.errors import NotFoundError
from shared_record.exports.service import build_export
from shared_record.keys import handle_digest
from shared_record.ledger import checkpoints, erasure
from shared_record.ledger.agenda import agenda
from shared_record.ledger.audit import audit
from shared_record.ledger.checkpoints import make_checkpoint
from shared_record.ledger.erasure import erase_customer, erase_details, purge_details
from shared_record.ledger.intake import Accepted, Delta
from shared_record.ledger.merkle import split_hashes
from shared_record.ledger.proofs import prove_record
from shared_record.ledger.receipts import find_receipt, issue_receipt, list_receipts, proof_root
from shared_record.ledger.records import find_delta
from shared_record.ledger.status import read_status
from shared_record.tenancy.customers import set_language
from shared_record.tenancy.tenants import update_tenant
from shared_record.verifier.checks import Result, check_export
from shared_record.worker import Worker
from world import Shop

NOVEMBER = "2026-11"


@pytest.fixture
def filled(shop: Shop) -> Shop:
    """November closed for three customers, December open and covered."""
    for name in ("cust_a", "cust_b", "cust_c"):
        shop.record_many(
            [
                Delta(name, "5", "usage", reference_id=f"{name}-1", metadata='{"team":"red"}'),
                Delta(name, "-1.25", "credit", reference_id=f"{name}-2"),
            ]
        )
    shop.checkpoint()
    shop.clock.advance(days=10)
    shop.close()
    for name in ("cust_a", "cust_b", "cust_c"):
        shop.record(name, "7")
    shop.checkpoint()
    shop.checkpoint()
    return shop


def erase(shop: Shop, name: str) -> erasure.Erased:
    with shop.db.write(shop.scope) as connection:
        return erase_customer(connection, shop.clock, shop.scope, name, "test")


def findings(shop: Shop) -> list[str]:
    return [str(found) for found in audit(shop.db, shop.keys, shop.locks, shop.scope)]


def verify(shop: Shop, name: str, period: str = NOVEMBER) -> Result:
    out = io.BytesIO()
    build_export(shop.db, shop.keys, shop.clock, shop.scope, shop.link(name).customer_id, period, Json, out)
    out.seek(0)
    return check_export(out).result


def count(shop: Shop, table, *conditions) -> int:
    with shop.db.read(shop.scope) as connection:
        query = select(func.count()).select_from(table).where(table.c.tenant_id == shop.scope.plane, *conditions)
        return connection.execute(query).scalar_one()


def worker_of(shop: Shop) -> Worker:
    return Worker(shop.db, shop.keys, shop.clock, shop.locks, 10)


def test_an_erased_customer_is_gone_and_everybody_else_is_proved_before_and_after(filled: Shop) -> None:
    shop, seen = filled, filled.link("cust_a")
    assert seen.handle is not None
    before = {
        (name, period): prove(shop, name, period) for name in ("cust_b", "cust_c") for period in (NOVEMBER, "2026-12")
    }
    with shop.db.read(shop.scope) as connection:
        receipts = {name: list_receipts(connection, shop.scope, shop.link(name).customer_id) for name in ("cust_b",)}
    with shop.db.write(shop.scope) as connection:
        set_language(connection, shop.scope, "cust_a", "de")
    assert erase(shop, "cust_a").deltas == 3
    for _ in range(3):
        for place, old in before.items():
            new = prove(shop, *place)
            assert (new.root, new.size) == (old.root, old.size)
            assert verify(shop, *place) is Result.MATCHES
        assert findings(shop) == []
        shop.record("cust_c", "1")
        shop.checkpoint()
        before["cust_c", "2026-12"] = prove(shop, "cust_c", "2026-12")

    who = seen.customer_id
    assert lookup.find_link(shop.db, handle_digest(seen.handle)) is None
    with pytest.raises(NotFoundError):
        shop.link("cust_a")
    with pytest.raises(NotFoundError):
        build_export(shop.db, shop.keys, shop.clock, shop.scope, who, NOVEMBER, Json, io.BytesIO())
    with pytest.raises(NotFoundError):
        erase(shop, "cust_a")
    assert count(shop, leaf, leaf.c.customer_id == who) == 3
    assert count(shop, leaf, leaf.c.customer_id == who, leaf.c.entry.is_not(None)) == 0
    with shop.db.read(shop.scope, snapshot=True) as connection:
        row = connection.execute(
            select(customer).where(customer.c.tenant_id == shop.scope.plane, customer.c.customer_id == who)
        ).one()
        assert (row.display_name, row.sealed_key, row.head, row.next_head, row.language) == (None,) * 5
        assert row.external_id.startswith("erased-")
        trees = connection.execute(
            select(period_tree).where(period_tree.c.tenant_id == shop.scope.plane, period_tree.c.customer_id == who)
        ).all()
        assert sorted((tree.period, tree.status, tree.size, tree.total) for tree in trees) == [
            (NOVEMBER, "erased", 2, "3.75"),
            ("2026-12", "erased", 1, "7"),
        ]
        for tree in trees:
            assert prove_record(connection, shop.keys, shop.scope, tree.tree_id) is None
            of_tree = (delta_detail.c.tenant_id == shop.scope.plane, delta_detail.c.tree_id == tree.tree_id)
            assert connection.execute(select(func.count()).select_from(delta_detail).where(*of_tree)).scalar_one() == 0
            stated = select(statement).where(
                statement.c.tenant_id == shop.scope.plane, statement.c.tree_id == tree.tree_id
            )
            assert connection.execute(stated).one_or_none() is None
        assert all(
            one.entry is None
            for one in connection.execute(
                select(leaf.c.entry).where(leaf.c.tenant_id == shop.scope.plane, leaf.c.customer_id == who)
            )
        )
        assert list_receipts(connection, shop.scope, shop.link("cust_b").customer_id) == receipts["cust_b"]
        for receipt in receipts["cust_b"]:
            assert find_receipt(connection, shop.scope, receipt.receipt_id) == receipt
            assert proof_root(connection, shop.scope, receipt.spans) == receipt.proof_root
        revoked = connection.execute(
            select(link).where(link.c.tenant_id == shop.scope.plane, link.c.customer_id == who)
        ).one()
        assert revoked.revoked_at is not None
        assert revoked.epoch == 1
        told = connection.execute(
            select(audit_event).where(
                audit_event.c.tenant_id == shop.scope.plane, audit_event.c.event == "customer.erased"
            )
        ).one()
        assert (told.customer_id, told.actor, told.detail) == (who, "test", {})
    assert count(shop, session, session.c.customer_id == who) == 0


def test_the_slot_of_an_erased_customer_holds_other_random_bytes_in_each_epoch(filled: Shop) -> None:
    def slot_hash(shop: Shop, size: int) -> bytes:
        with shop.db.read(shop.scope) as connection:
            return split_hashes(checkpoints.tile_reader(connection, shop.scope, size - 1)(0, 0, 1))[0]

    erase(filled, "cust_a")
    first, second = slot_hash(filled, filled.checkpoint()), slot_hash(filled, filled.checkpoint())
    assert first != second


def test_the_same_id_makes_a_new_customer(filled: Shop) -> None:
    old = filled.link("cust_a").customer_id
    erase(filled, "cust_a")
    (result,) = filled.record("cust_a", "9", reference_id="cust_a-1")
    assert isinstance(result, Accepted)
    assert (result.replayed, result.sequence) == (False, 1)
    assert filled.link("cust_a").customer_id != old
    filled.checkpoint()
    assert prove(filled, "cust_a", "2026-12").size == 1
    assert verify(filled, "cust_a", "2026-12") is Result.MATCHES
    assert findings(filled) == []


def _nothing(shop: Shop) -> None:
    """Recorded, not yet integrated."""


def _integrated(shop: Shop) -> None:
    checkpoints.integrate(shop.db, shop.lease())


def _closing(shop: Shop) -> None:
    shop.clock.advance(days=31)
    shop.close()


def _covered_and_closing(shop: Shop) -> None:
    shop.checkpoint()
    _closing(shop)


def _prepared(shop: Shop) -> None:
    checkpoints._prepare(shop.db, shop.keys, shop.clock, _leased_and_integrated(shop))


def _prepared_final(shop: Shop) -> None:
    shop.checkpoint()
    _closing(shop)
    _prepared(shop)


def _leased_and_integrated(shop: Shop):
    lease = shop.lease()
    checkpoints.integrate(shop.db, lease)
    return lease


@pytest.mark.parametrize(
    "stage",
    [_nothing, _integrated, _closing, _covered_and_closing, _prepared, _prepared_final],
    ids=lambda f: f.__name__,
)
def test_a_log_comes_to_rest_wherever_its_customer_was_erased(filled: Shop, stage) -> None:
    shop = filled
    shop.record("cust_a", "11", "12")
    stage(shop)
    erase(shop, "cust_a")
    worker = worker_of(shop)
    for _ in range(4):
        shop.clock.advance(minutes=20)
        worker.run_once()
        worker.audit_once()
    wanted = agenda(shop.db, shop.clock, shop.scope, timedelta(seconds=10))
    assert not wanted.anything
    assert [row.slug for row in lookup.list_due(shop.db, shop.clock.now())] == []
    assert worker.run_once() == 0
    assert read_status(shop.db, shop.locks, shop.scope).behind == 0
    assert findings(shop) == []
    prove(shop, "cust_b")
    prove(shop, "cust_c", "2026-12")
    shop.record("cust_b", "1")
    shop.checkpoint()
    assert findings(shop) == []


def test_erasing_a_customer_that_recorded_in_no_epoch_at_all(shop: Shop) -> None:
    shop.record("cust_a", "1")
    shop.record("cust_b", "2")
    erase(shop, "cust_a")
    shop.checkpoint()
    assert prove(shop, "cust_b").slot_count == 2
    assert findings(shop) == []


def test_erased_details_leave_the_amount_the_proof_and_the_reference(filled: Shop) -> None:
    shop = filled
    (again,) = shop.record_many([Delta("cust_a", "5", "usage", reference_id="cust_a-1", metadata='{"team":"red"}')])
    assert isinstance(again, Accepted)
    assert again.replayed
    for expected in (True, False):
        with shop.db.write(shop.scope) as connection:
            assert erase_details(connection, shop.clock, shop.scope, again.record_id, "test") is expected
    found = find_delta(shop.db, shop.scope, again.record_id)
    assert found is not None
    assert (found.purged, found.reason, found.reference_id, found.metadata) == (True, None, None, None)
    assert (found.amount, found.receipt_id, found.state) == ("5", again.receipt_id, "verified")
    assert verify(shop, "cust_a") is Result.MATCHES
    assert findings(shop) == []
    (third,) = shop.record_many([Delta("cust_a", "5", "usage", reference_id="cust_a-1", metadata='{"team":"red"}')])
    assert isinstance(third, Accepted)
    assert (third.replayed, third.record_id) == (True, again.record_id)
    (other,) = shop.record_many([Delta("cust_a", "5", "usage", reference_id="cust_a-1", metadata='{"team":"blue"}')])
    assert not isinstance(other, Accepted)
    assert other.code == "REFERENCE_CONFLICT"
    with shop.db.write(shop.scope) as connection, pytest.raises(NotFoundError):
        erase_details(connection, shop.clock, shop.scope, "rec_unknown", "test")


def test_a_receipt_keeps_its_root_when_details_go(filled: Shop) -> None:
    shop = filled
    with shop.db.write(shop.scope) as connection:
        who = shop.link("cust_b").customer_id
        receipt = issue_receipt(connection, shop.clock, shop.scope, who, *_window(shop))
    assert receipt is not None
    purge_details(shop.db, shop.clock, shop.scope, shop.clock.now() + timedelta(days=1))
    with shop.db.write(shop.scope) as connection:
        assert issue_receipt(connection, shop.clock, shop.scope, who, *_window(shop)) == receipt
        assert proof_root(connection, shop.scope, receipt.spans) == receipt.proof_root


def _window(shop: Shop):
    day = shop.clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
    return day - timedelta(days=1), day + timedelta(days=1)


def test_retention_removes_exactly_what_is_older_and_a_second_run_nothing(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasure, "CHUNK", 2)
    kept, gone = [], []
    for name in ("cust_a", "cust_b"):
        gone += [one.record_id for one in shop.record(name, "1", "2", "3")]
    shop.clock.advance(milliseconds=1)
    moment = shop.clock.now()
    for name in ("cust_b", "cust_c"):
        kept += [one.record_id for one in shop.record(name, "4", "5")]
    assert purge_details(shop.db, shop.clock, shop.scope, moment) == 6
    for _ in range(2):
        assert [find_delta(shop.db, shop.scope, record_id).purged for record_id in gone] == [True] * 6
        assert [find_delta(shop.db, shop.scope, record_id).purged for record_id in kept] == [False] * 4
        assert purge_details(shop.db, shop.clock, shop.scope, moment) == 0
    shop.checkpoint()
    for name in ("cust_a", "cust_b", "cust_c"):
        assert verify(shop, name) is Result.MATCHES
    assert findings(shop) == []


def test_the_worker_applies_a_tenants_retention_once_a_day(shop: Shop) -> None:
    worker = worker_of(shop)
    shop.record("cust_a", "1", "2")
    worker.run_once()
    assert count(shop, delta_detail) == 2
    with shop.db.write(shop.scope) as connection:
        update_tenant(connection, shop.scope, {"retention_days": 7})
    for _ in range(6):
        shop.clock.advance(days=1)
        worker.run_once()
    assert count(shop, delta_detail) == 2
    for _ in range(2):
        shop.clock.advance(days=1)
        worker.run_once()
    assert count(shop, delta_detail) == 0
    assert findings(shop) == []


def test_an_erased_customers_link_cannot_be_issued_anew(filled: Shop) -> None:
    name = erase(filled, "cust_a").name
    with filled.db.write(filled.scope) as connection:
        for action in (links.issue_link, links.reissue_link, links.rotate_code):
            with pytest.raises(NotFoundError):
                action(connection, filled.keys, filled.clock, filled.scope, name, "test")
        assert [one.external_id for one in links.list_links(connection, filled.keys, filled.scope)] == [
            "cust_b",
            "cust_c",
        ]


def test_a_checkpoint_that_was_under_way_when_its_customer_was_erased_stores_no_head(filled: Shop) -> None:
    filled.record("cust_a", "3")
    lease = _leased_and_integrated(filled)
    checkpoints._prepare(filled.db, filled.keys, filled.clock, lease)
    erase(filled, "cust_a")
    make_checkpoint(filled.db, filled.keys, filled.clock, filled.locks, lease)
    assert count(filled, customer, customer.c.head.is_not(None)) == 2
    assert count(filled, customer, customer.c.next_head.is_not(None), customer.c.sealed_key.is_(None)) == 0


def test_its_link_and_its_documents_are_404(filled: Shop) -> None:
    visitor = Visitor(serve(filled))
    who, url = filled.link("cust_a").customer_id, url_of(filled, "cust_a")
    code = filled.code("cust_a")
    visitor.unlock(url, code)
    with filled.db.read(filled.scope) as connection:
        mine = list_receipts(connection, filled.scope, who)[0].receipt_id
        other = list_receipts(connection, filled.scope, filled.link("cust_b").customer_id)[0].receipt_id
        leaf_hash = connection.execute(
            select(leaf.c.hash).where(leaf.c.tenant_id == filled.scope.plane, leaf.c.customer_id == who).limit(1)
        ).scalar_one()
    documents = [f"localhost/receipt/{mine}", f"localhost/api/v1/verify/0x{leaf_hash.hex()}"]
    pages = [url, f"{url}/activity", f"{url}/periods"]
    assert [visitor.get(page).status_code for page in (*documents, *pages)] == [200] * 5
    erase(filled, "cust_a")
    assert [visitor.get(page).status_code for page in (*documents, *pages)] == [404] * 5
    assert visitor.get(f"localhost/receipt/{other}").status_code == 200


def test_intake_and_checkpoints_go_on_beside_erasing(shop: Shop) -> None:
    shop.record("cust_b", "1")

    def write(_: int) -> None:
        for _ in range(10):
            for result in shop.record_many([Delta("cust_a", "1", "u"), Delta("cust_b", "1", "u")]):
                assert isinstance(result, Accepted)

    def wipe() -> int:
        done = 0
        for _ in range(6):
            try:
                erase(shop, "cust_a")
                done += 1
            except NotFoundError:
                pass
            purge_details(shop.db, shop.clock, shop.scope, shop.clock.now() + timedelta(days=1))
        return done

    with ThreadPoolExecutor(4) as pool:
        writers, wiping = [pool.submit(write, n) for n in range(3)], pool.submit(wipe)
        for _ in range(4):
            shop.checkpoint()
        assert [writer.result() for writer in writers] == [None] * 3
        assert wiping.result() > 0
    shop.checkpoint()
    assert findings(shop) == []
    assert prove(shop, "cust_b").size == 31
    erased = select(func.count()).where(
        leaf.c.tenant_id == shop.scope.plane,
        customer.c.tenant_id == shop.scope.plane,
        customer.c.customer_id == leaf.c.customer_id,
        customer.c.sealed_key.is_(None),
        leaf.c.entry.is_not(None),
    )
    with shop.db.read(shop.scope) as connection:
        assert connection.execute(erased).scalar_one() == 0


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_the_application_can_delete_no_other_statement(filled: Shop) -> None:
    before = count(filled, statement)
    with filled.db.write(filled.scope) as connection:
        trees = connection.execute(select(statement.c.tree_id).where(statement.c.tenant_id == filled.scope.plane))
        for tree in trees.scalars().all():
            connection.execute(select(func.sr_erase_statement(tree)))
    assert count(filled, statement) == before == 3
