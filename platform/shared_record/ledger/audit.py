"""The audit (invariant I8): everything the ledger stores is worked out anew from its entries and compared.

Deltas -> period trees -> what epochs say of them; heads -> slot tree -> epoch record -> tenant log -> checkpoints ->
signatures -> lock store. It writes nothing, takes no lock, and memory does not grow with the ledger. In each place
(a period tree, the log, the heads of one epoch, …) it names the first thing that is wrong, and goes on with the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import BindParameter, Select, bindparam, func, select

from shared_record.db.engine import Database
from shared_record.db.schema import period_tree, statement
from shared_record.db.scope import Scope
from shared_record.keys import KeyRing
from shared_record.ledger.audit_heads import check_heads, check_slot_tree, check_statement
from shared_record.ledger.audit_log import check_checkpoints, check_keys, check_log, read_origins
from shared_record.ledger.audit_reading import NEWEST, PAGE, UNREADABLE, Reader, Tally, Wrong, reason_of
from shared_record.ledger.audit_trees import TreeAudit
from shared_record.ledger.locks import LockStore
from shared_record.ledger.origin import number_of
from shared_record.ledger.slots import kept_epochs
from shared_record.ledger.status import compare_with_store
from shared_record.tenancy.tenants import tenant_key

_T: BindParameter[UUID] = bindparam("t")
_TREE_IDS = (
    select(period_tree.c.tree_id)
    .where(period_tree.c.tenant_id == _T, period_tree.c.tree_id > bindparam("after_tree"))
    .order_by(period_tree.c.tree_id)
    .limit(bindparam("most"))
)
_SAMPLE = (
    select(period_tree.c.tree_id).where(period_tree.c.tenant_id == _T).order_by(func.random()).limit(bindparam("most"))
)
_STATEMENT_IDS = (
    select(statement.c.tree_id)
    .where(statement.c.tenant_id == _T, statement.c.tree_id > bindparam("after_tree"))
    .order_by(statement.c.tree_id)
    .limit(bindparam("most"))
)


class Finding(NamedTuple):
    """The first thing that is wrong in one ``place``; ``problem`` is a sentence that names it."""

    place: str
    problem: str


def audit(
    db: Database,
    keys: KeyRing,
    locks: LockStore,
    scope: Scope,
    *,
    sample: int | None = None,
    tally: Tally | None = None,
    pause: Callable[[], None] | None = None,
) -> Iterator[Finding]:
    """Yield what is wrong in one ledger; nothing when all of it agrees.

    ``sample``: look into that many period trees only, picked at random; the log, heads and statements are always
    looked at in full. ``tally`` is kept up to date while this runs. ``pause`` is called again and again, between pages
    of rows, and may wait or raise.
    """
    run = _Audit(db, keys, scope, tally or Tally(), pause)
    yield from run.check_everything_above()
    for tree_id in run.tree_ids(sample):
        yield from run.place(tree_id, partial(run.check_tree, tree_id))
    store = compare_with_store(db, locks, scope)
    if store.problem is not None:
        yield Finding("lock store", store.problem)


class _Audit(Reader):
    """One run. Each check reads one snapshot of its own, so that none of them lasts as long as the whole."""

    def __init__(
        self, db: Database, keys: KeyRing, scope: Scope, tally: Tally, pause: Callable[[], None] | None
    ) -> None:
        super().__init__(scope, pause)
        self.db, self.keys, self.tally = db, keys, tally
        with db.read(scope) as connection:
            self.origins = read_origins(self, connection)
            self.secret = tenant_key(connection, keys, scope)

    def place(self, name: str, check: Callable[[], None], prefix: str = "") -> Iterator[Finding]:
        """Yield what ``check`` finds first."""
        try:
            check()
        except Wrong as wrong:
            yield Finding(name, f"{prefix}{wrong}")
        except UNREADABLE as error:
            yield Finding(name, f"{prefix}{name}: a stored value is not of its type ({reason_of(error)})")

    def check_everything_above(self) -> Iterator[Finding]:
        """Check all that stands above the period trees."""
        yield from self.place("keys", partial(self._read, check_keys, self.keys, self.origins))
        # The log may grow while this runs, so its own row is read in the snapshot of each check.
        for position, of in enumerate(self.origins):
            yield from self.place("log", partial(self._of_origin, check_log, position), of.prefix)
        for position, of in enumerate(self.origins):
            yield from self.place("checkpoints", partial(self._of_origin, check_checkpoints, position), of.prefix)
        with self.db.read(self.scope, snapshot=True) as connection:
            size = read_origins(self, connection)[-1].size
            for n in kept_epochs(self.scalar(connection, NEWEST) or 0, size):
                yield from self.place(
                    f"slot tree of epoch {number_of(n)}", partial(check_slot_tree, self, connection, n)
                )
        yield from self.place("heads", partial(self._read, check_heads, self.secret, self.tally))
        for tree_id in self._ids(_STATEMENT_IDS):
            yield from self.place(f"statement of {tree_id}", partial(self._read, check_statement, tree_id))
            self.tally.statements += 1

    def _read(self, check: Callable[..., None], *arguments: Any) -> None:
        with self.db.read(self.scope, snapshot=True) as connection:
            check(self, connection, *arguments)

    def _of_origin(self, check: Callable[..., None], position: int) -> None:
        with self.db.read(self.scope, snapshot=True) as connection:
            check(self, connection, read_origins(self, connection)[position], self.tally)

    def tree_ids(self, sample: int | None) -> Iterator[str]:
        """Yield the trees to look into, page by page: one that is made meanwhile may or may not be among them."""
        if sample is not None:
            with self.db.read(self.scope) as connection:
                chosen = connection.execute(_SAMPLE, {"t": self.scope.plane, "most": sample}).scalars().all()
            yield from chosen
            return
        yield from self._ids(_TREE_IDS)

    def _ids(self, query: Select[Any]) -> Iterator[str]:
        """Yield tree ids in order, page by page, each page in a transaction of its own."""
        after = ""
        while True:
            with self.db.read(self.scope) as connection:
                parameters = {"t": self.scope.plane, "after_tree": after, "most": PAGE}
                page = connection.execute(query, parameters).scalars().all()
            if not page:
                return
            yield from page
            after = page[-1]

    def check_tree(self, tree_id: str) -> None:
        with self.db.read(self.scope, snapshot=True) as connection:
            TreeAudit(self, connection, tree_id, self.secret, self.tally).check()
        self.tally.trees += 1
