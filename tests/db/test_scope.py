"""The tenant scope: what the check refuses before it reaches the driver, and what PostgreSQL refuses behind it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import (
    Connection,
    and_,
    bindparam,
    column,
    delete,
    exists,
    func,
    insert,
    lateral,
    literal_column,
    not_,
    or_,
    select,
    table,
    text,
    union,
    union_all,
    update,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.sql import ClauseElement

from shared_record.clock import SteppedClock
from shared_record.db.engine import APP_ROLE, Database
from shared_record.db.schema import (
    audit_event,
    customer,
    day_counter,
    host,
    installation,
    leaf,
    link,
    metadata,
    period_tree,
    tenant,
    tenant_method,
)
from shared_record.db.scope import Scope, TenantScopeError, check_statement
from shared_record.keys import KeyRing
from world import Shop, open_shop

MINE, TEST, OTHER = UUID(int=1), UUID(int=2), UUID(int=3)
LIVE_SCOPE, TEST_SCOPE = Scope.of(MINE), Scope.of(TEST, MINE)
T = bindparam("t")
MY_CUSTOMERS = select(customer.c.customer_id).where(customer.c.tenant_id == T)
BOTH = (link.c.tenant_id == customer.c.tenant_id) & (link.c.customer_id == customer.c.customer_id)
ALIAS = customer.alias("c2")
NESTED = customer.alias("inner_name").alias("outer_name")
SAME = ALIAS.c.customer_id == customer.c.customer_id
NEW = {"customer_id": uuid4(), "external_id": "x"}

GOOD: dict[str, ClauseElement] = {
    "select": MY_CUSTOMERS,
    "select, value in the statement": select(customer).where(customer.c.tenant_id == MINE),
    "select, value on the left": select(customer).where(customer.c.tenant_id == T, customer.c.slot > 3),
    "no table": select(func.now()),
    "global table": select(installation),
    "count": select(func.count()).select_from(customer).where(customer.c.tenant_id == T),
    "alias": select(ALIAS).where(ALIAS.c.tenant_id == T),
    "alias of an alias": select(NESTED).where(NESTED.c.tenant_id == T),
    "join": select(customer).join(link, BOTH).where(customer.c.tenant_id == T),
    "join, bound in its condition": select(customer).join(link, and_(BOTH, link.c.tenant_id == T)),
    "nested join": select(link)
    .select_from(link.join(customer.join(ALIAS, SAME & (ALIAS.c.tenant_id == customer.c.tenant_id)), BOTH))
    .where(link.c.tenant_id == T),
    "outer join": select(customer).outerjoin(link, BOTH).where(customer.c.tenant_id == T),
    "outer join, right side bound by its condition": select(customer.c.slot)
    .outerjoin(tenant, tenant.c.tenant_id == T)
    .where(customer.c.tenant_id == T),
    "two tables in FROM": select(customer, link).where(customer.c.tenant_id == T, BOTH),
    "subquery in FROM": select(MY_CUSTOMERS.subquery()),
    "subquery in a condition": select(leaf).where(leaf.c.tenant_id == T, leaf.c.customer_id.in_(MY_CUSTOMERS)),
    "CTE": select(MY_CUSTOMERS.cte("mine")),
    "exists": select(customer.c.slot).where(
        customer.c.tenant_id == T, exists().where(link.c.tenant_id == customer.c.tenant_id)
    ),
    "exists, correlated by name": select(customer.c.slot).where(
        customer.c.tenant_id == T,
        select(link.c.epoch).where(link.c.tenant_id == customer.c.tenant_id).correlate(customer).exists(),
    ),
    "scalar subquery in the columns": select(
        customer.c.slot, select(link.c.epoch).where(BOTH, link.c.tenant_id == T).scalar_subquery()
    ).where(customer.c.tenant_id == T),
    "union": union(MY_CUSTOMERS, select(ALIAS.c.customer_id).where(ALIAS.c.tenant_id == T)),
    "update": update(customer).where(customer.c.tenant_id == T).values(slot=1),
    "update from": update(customer).where(customer.c.tenant_id == T, BOTH).values(slot=link.c.epoch),
    "update, subquery as a value": update(customer)
    .where(customer.c.tenant_id == T)
    .values(slot=select(link.c.epoch).where(link.c.tenant_id == customer.c.tenant_id).scalar_subquery()),
    "delete": delete(link).where(link.c.tenant_id == T),
    "delete using": delete(link).where(link.c.tenant_id == T, BOTH),
    "insert": insert(customer).values(tenant_id=MINE, **NEW),
    "insert returning": insert(customer).values(tenant_id=MINE, **NEW).returning(customer.c.slot),
}

BAD: dict[str, ClauseElement] = {
    "select": select(customer),
    "select of one column": select(customer.c.slot),
    "count": select(func.count()).select_from(customer),
    "or": select(customer).where(or_(customer.c.tenant_id == T, customer.c.slot == 0)),
    "or within and": select(customer).where(and_(or_(customer.c.tenant_id == T, customer.c.slot == 0), True)),
    "not": select(customer).where(not_(customer.c.tenant_id == T)),
    "not equal": select(customer).where(customer.c.tenant_id != T),
    "greater": select(customer).where(customer.c.tenant_id >= T),
    "in": select(customer).where(customer.c.tenant_id.in_([MINE])),
    "compared with itself": select(customer).where(customer.c.tenant_id == customer.c.tenant_id),
    "other column": select(customer).where(customer.c.customer_id == T),
    "alias": select(ALIAS),
    "alias bound, table not": select(ALIAS, customer).where(ALIAS.c.tenant_id == T, SAME),
    "table bound, alias not": select(ALIAS, customer).where(customer.c.tenant_id == T, SAME),
    "alias of an alias": select(NESTED),
    "join": select(customer).join(link, link.c.customer_id == customer.c.customer_id).where(customer.c.tenant_id == T),
    "nested join": select(link).select_from(link.join(customer.join(ALIAS, SAME), BOTH)).where(link.c.tenant_id == T),
    "outer join, left side bound by its condition only": select(customer).outerjoin(
        link, BOTH & (customer.c.tenant_id == T)
    ),
    "outer join, left side bound through the right": select(customer).outerjoin(link, BOTH & (link.c.tenant_id == T)),
    "full join": select(customer.c.slot)
    .select_from(customer.join(link, BOTH & (link.c.tenant_id == T), full=True))
    .where(customer.c.tenant_id == T),
    "outer join, right side unbound": select(customer)
    .outerjoin(link, link.c.customer_id == customer.c.customer_id)
    .where(customer.c.tenant_id == T),
    "subquery in FROM": select(select(customer).subquery()),
    "subquery bound from outside": select(sub := select(customer).subquery()).where(sub.c.tenant_id == T),
    "lateral": select(customer.c.slot, lateral(select(link.c.epoch)).c.epoch).where(customer.c.tenant_id == T),
    "subquery in a condition": select(leaf).where(
        leaf.c.tenant_id == T, leaf.c.customer_id.in_(select(customer.c.customer_id))
    ),
    "only the subquery is bound": select(leaf).where(leaf.c.customer_id.in_(MY_CUSTOMERS)),
    "only a subquery over the same table is bound": select(customer).where(
        customer.c.external_id.in_(select(customer.c.external_id).where(customer.c.tenant_id == T))
    ),
    "subquery over the same table unbound": select(customer).where(
        customer.c.tenant_id == T, customer.c.external_id.in_(select(customer.c.external_id))
    ),
    "scalar subquery in the columns": select(customer.c.slot, select(func.max(link.c.epoch)).scalar_subquery()).where(
        customer.c.tenant_id == T
    ),
    "order by a subquery": select(customer)
    .where(customer.c.tenant_id == T)
    .order_by(select(func.max(link.c.epoch)).scalar_subquery()),
    "CTE": select(select(customer).cte("all_of_them")),
    "exists": select(customer.c.slot).where(
        customer.c.tenant_id == T, exists().where(link.c.customer_id == customer.c.customer_id)
    ),
    "exists, over both tables uncorrelated": select(customer.c.slot).where(
        customer.c.tenant_id == T,
        select(link.c.epoch).where(link.c.tenant_id == customer.c.tenant_id).correlate(None).exists(),
    ),
    "union, second half": union_all(MY_CUSTOMERS, select(customer.c.customer_id)),
    "union, first half": union_all(select(customer.c.customer_id), MY_CUSTOMERS),
    "update": update(customer).values(slot=1),
    "update by key alone": update(customer).where(customer.c.customer_id == T).values(slot=1),
    "update or": update(customer).where(or_(customer.c.tenant_id == T, customer.c.slot == 0)).values(slot=1),
    "update from": update(customer)
    .where(customer.c.tenant_id == T, link.c.customer_id == customer.c.customer_id)
    .values(slot=link.c.epoch),
    "update, subquery as a value": update(customer)
    .where(customer.c.tenant_id == T)
    .values(slot=select(func.max(link.c.epoch)).scalar_subquery()),
    "update gives the row away": update(customer).where(customer.c.tenant_id == T).values(tenant_id=OTHER),
    "update gives the row away, in order": update(customer)
    .where(customer.c.tenant_id == T)
    .ordered_values((customer.c.tenant_id, OTHER)),
    "delete": delete(link),
    "delete using": delete(link).where(link.c.tenant_id == T, customer.c.slot == 1),
    "delete using, named": delete(link).using(customer).where(link.c.tenant_id == T),
    "insert": insert(customer).values(**NEW),
    "insert with an expression": insert(customer).values(tenant_id=func.sr_plane(), **NEW),
    "insert of many": insert(customer).values([{"tenant_id": MINE, **NEW}, {"tenant_id": OTHER, **NEW}]),
    "insert from select": insert(customer).from_select(["tenant_id"], select(customer.c.tenant_id)),
    "insert within a CTE": select(
        insert(customer).values(tenant_id=OTHER, **NEW).returning(customer.c.slot).cte("made")
    ),
    "delete within a CTE": select(delete(link).returning(link.c.epoch).cte("gone")),
    "insert, value from an unbound subquery": insert(customer).values(
        tenant_id=MINE, slot=select(func.max(customer.c.slot)).scalar_subquery()
    ),
    "insert or update": sqlite.insert(customer)
    .values(tenant_id=MINE, **NEW)
    .on_conflict_do_update(index_elements=["external_id"], set_={"slot": 1}),
    "plain SQL": text("SELECT * FROM customer WHERE tenant_id = :t"),
    "plain SQL with columns": text("SELECT slot FROM customer").columns(column("slot")),
    "plain SQL in a condition": select(customer).where(customer.c.tenant_id == T, text("1 = 1")),
    "plain SQL as a column": select(literal_column("(SELECT count(*) FROM customer)")),
    "a table made up by name": select(column("slot")).select_from(table("customer")),
    "parameters kept in the statement": MY_CUSTOMERS.params(t=OTHER),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_statement_that_binds_its_tenant_passes(name: str) -> None:
    check_statement(GOOD[name], [{"t": MINE}], LIVE_SCOPE, reviewed=False)


@pytest.mark.parametrize("name", [name for name in GOOD if name not in ("no table", "global table")])
@pytest.mark.parametrize("scope", [Scope.of(OTHER), None], ids=["another scope", "no scope"])
def test_the_same_statement_is_refused_in_another_scope_or_none(name: str, scope: Scope | None) -> None:
    with pytest.raises(TenantScopeError):
        check_statement(GOOD[name], [{"t": MINE}], scope, reviewed=False)


@pytest.mark.parametrize("name", BAD)
def test_a_statement_that_leaves_or_does_not_name_its_tenant_is_refused(name: str) -> None:
    for rows in ([{"t": MINE}], [{"t": MINE, "tenant_id": MINE}]):
        if name == "insert" and rows[0].get("tenant_id"):
            continue  # now it names it
        with pytest.raises(TenantScopeError):
            check_statement(BAD[name], rows, LIVE_SCOPE, reviewed=False)


def test_statements_without_a_tenant_need_no_scope() -> None:
    for name in ("no table", "global table"):
        check_statement(GOOD[name], [], None, reviewed=False)


@pytest.mark.parametrize("rows", [[], [{}], [{"t": None}], [{"t": str(MINE)}], [{"t": MINE}, {"t": OTHER}]], ids=str)
def test_every_parameter_set_counts_and_only_a_uuid_does(rows: list[dict[str, Any]]) -> None:
    with pytest.raises(TenantScopeError):
        check_statement(MY_CUSTOMERS, rows, LIVE_SCOPE, reviewed=False)


def test_what_is_passed_beats_what_the_statement_holds() -> None:
    held = select(customer).where(customer.c.tenant_id == bindparam("t", MINE))
    check_statement(held, [], LIVE_SCOPE, reviewed=False)
    with pytest.raises(TenantScopeError):
        check_statement(held, [{"t": OTHER}], LIVE_SCOPE, reviewed=False)


def test_inserts_are_judged_row_by_row_and_by_every_value_given() -> None:
    check_statement(insert(customer), [{"tenant_id": MINE}, {"tenant_id": MINE}], LIVE_SCOPE, reviewed=False)
    for statement, rows in (
        (insert(customer), [{"tenant_id": MINE}, {"tenant_id": OTHER}]),
        (insert(customer), [{"tenant_id": MINE}, {}]),
        (insert(customer).values(tenant_id=OTHER), [{"tenant_id": MINE}]),
        (insert(customer).values(tenant_id=MINE), [{"tenant_id": OTHER}]),
    ):
        with pytest.raises(TenantScopeError):
            check_statement(statement, rows, LIVE_SCOPE, reviewed=False)


def test_an_update_cannot_take_the_tenant_from_its_parameters() -> None:
    with pytest.raises(TenantScopeError):
        check_statement(
            update(customer).where(customer.c.tenant_id == T),
            [{"t": MINE, "tenant_id": OTHER}],
            LIVE_SCOPE,
            reviewed=False,
        )


@pytest.mark.parametrize(
    ("kind", "allowed"),
    [
        (customer, {TEST}),  # data of the plane
        (host, {MINE}),  # settings of the live tenant
        (tenant_method, {MINE}),
        (tenant, {MINE, TEST}),  # either
        (audit_event, {MINE, TEST}),
    ],
)
def test_the_test_plane_has_its_own_data_and_the_live_tenants_settings(kind: Any, allowed: set[UUID]) -> None:
    for statement in (
        select(kind).where(kind.c.tenant_id == T),
        update(kind).where(kind.c.tenant_id == T).values(**{kind.c.keys()[1]: None}),
        delete(kind).where(kind.c.tenant_id == T),
    ):
        for who in (MINE, TEST, OTHER):
            if who in allowed:
                check_statement(statement, [{"t": who}], TEST_SCOPE, reviewed=False)
            else:
                with pytest.raises(TenantScopeError):
                    check_statement(statement, [{"t": who}], TEST_SCOPE, reviewed=False)


def test_every_table_says_whose_rows_it_holds() -> None:
    assert {t.info.get("scope") for t in metadata.sorted_tables} == {"plane", "config", "either", "global"}


def test_the_check_stands_before_every_execution(shop: Shop) -> None:
    other = Scope.of(uuid4())
    with shop.db.read(shop.scope) as connection, pytest.raises(TenantScopeError):
        connection.execute(MY_CUSTOMERS, {"t": other.plane})
    with shop.db.read(None) as connection, pytest.raises(TenantScopeError):
        connection.execute(MY_CUSTOMERS, {"t": shop.scope.plane})
    with shop.db.read(shop.scope) as connection, pytest.raises(TenantScopeError):
        connection.execute(text("SELECT 1"))


def test_rescope_works_for_another_tenant_and_returns(shop: Shop, two: Shop) -> None:
    shop.record("cust_a", "1")
    with shop.db.read(two.scope) as connection:
        with shop.db.rescope(connection, shop.scope):
            assert len(connection.execute(MY_CUSTOMERS, {"t": shop.scope.plane}).all()) == 1
            with pytest.raises(TenantScopeError):
                connection.execute(MY_CUSTOMERS, {"t": two.scope.plane})
        assert connection.execute(MY_CUSTOMERS, {"t": two.scope.plane}).all() == []
        with pytest.raises(TenantScopeError):
            connection.execute(MY_CUSTOMERS, {"t": shop.scope.plane})


def test_rescope_returns_after_a_failure_that_is_caught(shop: Shop, two: Shop) -> None:
    two.record("cust_b", "1")
    with shop.db.write(two.scope) as connection:
        with pytest.raises(KeyError), shop.db.rescope(connection, shop.scope):
            raise KeyError
        assert len(connection.execute(MY_CUSTOMERS, {"t": two.scope.plane}).all()) == 1
        inner = connection.begin_nested()
        with pytest.raises(DBAPIError), shop.db.rescope(connection, shop.scope):
            connection.execute(update(tenant).where(tenant.c.tenant_id == T).values(name=None), {"t": shop.scope.plane})
        inner.rollback()
        assert len(connection.execute(MY_CUSTOMERS, {"t": two.scope.plane}).all()) == 1


# --- PostgreSQL: the second wall ------------------------------------------------------------------------------------


@pytest.fixture
def two(shop: Shop, keys: KeyRing, clock: SteppedClock, tmp_path: Any) -> Shop:
    """A second tenant in the same database."""
    return open_shop(shop.db, keys, clock, tmp_path, slug="other", hosts=("usage.other.localhost",))


@pytest.fixture
def walled(shop: Shop, two: Shop) -> Shop:
    """Two tenants with usage."""
    shop.record("cust_a", "1", "2")
    two.record("cust_b", "4")
    shop.checkpoint()
    two.checkpoint()
    return shop


on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


def unchecked(connection: Connection) -> Callable[..., Any]:
    """Return ``execute`` with the Python check off."""
    reviewed = {"sr_reviewed": True}

    def execute(statement: Any, *parameters: Any) -> Any:
        return connection.execute(
            text(statement) if isinstance(statement, str) else statement, *parameters, execution_options=reviewed
        )

    return execute


TENANT_TABLES = [t for t in metadata.sorted_tables if t.info["scope"] != "global"]


@on_postgresql
def test_the_application_is_sr_app_without_privileges(walled: Shop) -> None:
    with walled.db.read(walled.scope) as connection:
        row = unchecked(connection)(
            "SELECT current_user, rolsuper, rolbypassrls FROM pg_roles WHERE rolname = current_user"
        ).one()
    assert tuple(row) == (APP_ROLE, False, False)


@on_postgresql
def test_row_level_security_is_on_for_every_tenant_table_and_binds_the_application(walled: Shop) -> None:
    with walled.db.read(walled.scope) as connection:
        rows = unchecked(connection)(
            "SELECT relname FROM pg_class WHERE relrowsecurity AND relowner <> 'sr_app'::regrole"
        ).scalars()
    assert {t.name for t in TENANT_TABLES} == set(rows)


@on_postgresql
def test_only_rows_of_the_scope_are_there(walled: Shop, two: Shop) -> None:
    def seen(kind: Any, scope: Scope | None) -> set[UUID]:
        with walled.db.read(scope) as connection:
            return set(unchecked(connection)(select(kind.c.tenant_id)).scalars())

    for kind in TENANT_TABLES:
        assert seen(kind, walled.scope) <= {walled.scope.plane}, kind
        assert seen(kind, walled.test_scope) <= {walled.scope.plane, walled.test_scope.plane}, kind
        assert seen(kind, two.scope) <= {two.scope.plane}, kind
        assert seen(kind, None) == set(), kind
    assert seen(leaf, walled.scope) == {walled.scope.plane}
    assert seen(host, walled.test_scope) == {walled.scope.plane}


@on_postgresql
def test_writes_to_another_tenant_change_nothing_or_fail(walled: Shop, two: Shop) -> None:
    theirs = two.scope.plane
    for statement in (
        update(customer).where(customer.c.tenant_id == theirs).values(epoch=99),
        update(tenant).where(tenant.c.tenant_id == theirs).values(name="stolen"),
        update(host).values(epoch=7).where(host.c.tenant_id == theirs),
        delete(link).where(link.c.tenant_id == theirs),
        delete(day_counter).where(day_counter.c.tenant_id == theirs),
    ):
        with walled.db.write(walled.scope) as connection:
            assert unchecked(connection)(statement).rowcount == 0
    stolen = update(day_counter).values(tenant_id=theirs)
    added = insert(audit_event).values(
        tenant_id=theirs, event_id=uuid4(), at=walled.clock.now(), event="x", actor="x", detail={}
    )
    for statement in (stolen, added):
        with (
            pytest.raises(ProgrammingError, match="row-level security"),
            walled.db.write(walled.scope) as connection,
        ):
            unchecked(connection)(statement)


FORBIDDEN = (
    "UPDATE leaf SET qty = 9",
    "UPDATE leaf SET hash = hash",
    "UPDATE leaf SET reference_key = NULL",
    "UPDATE leaf SET seq = seq + 1",
    "DELETE FROM leaf",
    "UPDATE audit_event SET actor = 'x'",
    "DELETE FROM audit_event",
    "UPDATE epoch SET entry = ''",
    "DELETE FROM epoch",
    "UPDATE epoch_member SET size = 0",
    "DELETE FROM epoch_member",
    "DELETE FROM checkpoint",
    "UPDATE statement SET head = ''",
    "DELETE FROM statement",
    "TRUNCATE leaf CASCADE",
    "ALTER TABLE leaf DISABLE ROW LEVEL SECURITY",
    "DROP POLICY tenant_scope ON leaf",
    "CREATE TABLE mine (x int)",
    "DELETE FROM alembic_version",
)


@on_postgresql
def test_append_only_tables_refuse_change(walled: Shop) -> None:
    for statement in FORBIDDEN:
        with pytest.raises(ProgrammingError), walled.db.write(walled.scope) as connection:
            unchecked(connection)(statement)


@on_postgresql
def test_an_entry_may_be_erased_and_never_written_anew(walled: Shop, two: Shop) -> None:
    mine = leaf.c.tenant_id == walled.scope.plane
    with pytest.raises(DBAPIError), walled.db.write(walled.scope) as connection:
        connection.execute(update(leaf).where(mine).values(entry="forged"))
    with walled.db.write(walled.scope) as connection:
        assert connection.execute(update(leaf).where(mine, leaf.c.seq == 1).values(entry=None)).rowcount == 1
    with pytest.raises(DBAPIError), walled.db.write(walled.scope) as connection:
        connection.execute(update(leaf).where(mine, leaf.c.seq == 1).values(entry="back again"))
    with walled.db.read(two.scope) as connection:
        (kept,) = connection.execute(select(leaf.c.entry).where(leaf.c.tenant_id == two.scope.plane)).scalars()
    assert kept is not None


@on_postgresql
def test_g04_a_pooled_connection_keeps_no_tenant(walled: Shop) -> None:
    one = Database(walled.db.url, pool_size=1)
    try:
        for end in ("commit", "rollback"):
            try:
                with one.write(walled.scope) as connection:
                    pid = unchecked(connection)("SELECT pg_backend_pid()").scalar_one()
                    assert unchecked(connection)("SELECT count(*) FROM customer").scalar_one() == 1
                    if end == "rollback":
                        raise KeyError
            except KeyError:
                pass
            with one.engine.connect() as raw:
                answer = unchecked(raw)(
                    "SELECT pg_backend_pid(), current_setting('sr.plane', true), sr_config(),"
                    " (SELECT count(*) FROM leaf)"
                ).one()
            assert (answer[0], answer[1] or "", answer[2], answer[3]) == (pid, "", None, 0)
    finally:
        one.dispose()


@on_postgresql
def test_g04_threads_that_share_a_pool_see_their_own_tenant_only(walled: Shop, two: Shop) -> None:
    shared = Database(walled.db.url, pool_size=2)
    scopes = [walled.scope, two.scope, None, walled.test_scope]

    def look(turn: int) -> bool:
        scope = scopes[turn % len(scopes)]
        with shared.read(scope) as connection:
            found = set(unchecked(connection)(select(period_tree.c.tenant_id)).scalars())
        return found == ({scope.plane} if scope in (walled.scope, two.scope) else set())

    try:
        with ThreadPoolExecutor(8) as threads:
            assert all(threads.map(look, range(400)))
    finally:
        shared.dispose()
