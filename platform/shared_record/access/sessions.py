"""Who is at a link: the one query behind every customer page, and the sessions it recognises.

A session is valid for one host and one customer, within its two clocks, and only while all six epochs it was issued
under still stand. Whatever cannot be checked is no session.
"""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import BindParameter, Connection, Row, bindparam, func, select

from shared_record.access import audit
from shared_record.access.policy import Surface, needs_session
from shared_record.clock import Clock
from shared_record.db import lookup
from shared_record.db.engine import Database
from shared_record.db.prepared import fetch_all
from shared_record.db.schema import checkpoint, customer, epoch, host, link, period_tree, session, tenant, tenant_method
from shared_record.db.scope import Scope
from shared_record.db.types import is_set
from shared_record.keys import handle_digest
from shared_record.tenancy.policies import Policy

IDLE = timedelta(minutes=30)
ABSOLUTE = timedelta(hours=12)
TOUCH_EVERY = timedelta(minutes=1)
MAX_COOKIES = 20
"""Session cookies of one browser that are looked up; each record has its own."""
MAX_TRACED = 3
"""Session cookies that opened nothing which are looked up wherever they may come from, for the log."""
MAX_LIVE = 10
"""Sessions that one link has at a time; a further one ends the oldest."""
MAX_ENDED = 50
"""Ended sessions that are kept of one link, for its access log."""
KEPT = timedelta(days=30)
"""How long an ended session is kept, for the access log of its link."""
_COOKIE = re.compile(r"(?:__Host-)?sr-[0-9a-f]{8}")

_log = logging.getLogger("shared_record.access")

_T: BindParameter[UUID] = bindparam("t")
_C: BindParameter[UUID] = bindparam("config_id")
_primary, _home, _serving = host.alias("primary_host"), host.alias("home_host"), host.alias("serving_host")
_FIRST_SERVING = (
    select(func.min(_serving.c.host))
    .where(_serving.c.tenant_id == tenant.c.tenant_id, _serving.c.role == "serving")
    .scalar_subquery()
)
"""Where a tenant's links live while its primary host does not serve: one host, and always the same."""
_LOOK = (
    select(
        link.c.link_id,
        link.c.customer_id,
        link.c.version,
        link.c.kid,
        link.c.epoch.label("link_epoch"),
        link.c.tries,
        customer.c.external_id,
        customer.c.display_name,
        customer.c.language,
        customer.c.ref,
        _home.c.host.label("home_host"),
        customer.c.policy.label("own_policy"),
        customer.c.epoch.label("customer_epoch"),
        customer.c.code_epoch,
        customer.c.code_version,
        customer.c.code_kid,
        customer.c.former_code_kid,
        customer.c.former_code_until,
        tenant.c.name.label("vendor"),
        tenant.c.contact,
        tenant.c.state,
        tenant.c.epoch.label("tenant_epoch"),
        tenant.c.policy,
        tenant.c.theme,
        tenant.c.language.label("tenant_language"),
        tenant.c.zone,
        tenant.c.unit,
        tenant.c.hide_amounts,
        tenant.c.export_formats,
        tenant.c.embed_origins,
        tenant.c.checkpoint_seconds,
        host.c.role,
        host.c.epoch.label("host_epoch"),
        func.coalesce(_primary.c.host, _FIRST_SERVING).label("primary_host"),
        session.c.sid_hash,
        session.c.host.label("session_host"),
        session.c.method,
        session.c.choice,
        session.c.tenant_epoch.label("s_tenant"),
        session.c.host_epoch.label("s_host"),
        session.c.link_epoch.label("s_link"),
        session.c.code_epoch.label("s_code"),
        session.c.customer_epoch.label("s_customer"),
        session.c.method_epoch.label("s_method"),
        session.c.last_seen_at,
        session.c.expires_at,
        session.c.revoked_at.label("session_revoked_at"),
        tenant_method.c.epoch.label("method_epoch"),
        tenant_method.c.enabled.label("method_enabled"),
    )
    .select_from(
        link.join(customer, (customer.c.tenant_id == link.c.tenant_id) & (customer.c.customer_id == link.c.customer_id))
        .join(tenant, tenant.c.tenant_id == _C)
        .outerjoin(host, (host.c.tenant_id == tenant.c.tenant_id) & (host.c.host == bindparam("here")))
        .outerjoin(
            _primary,
            (_primary.c.tenant_id == tenant.c.tenant_id)
            & is_set(_primary.c.is_primary)
            & (_primary.c.role == "serving"),
        )
        .outerjoin(
            _home,
            (_home.c.tenant_id == tenant.c.tenant_id)
            & (_home.c.host == customer.c.home_host)
            & (_home.c.role == "serving"),
        )
        .outerjoin(
            session,
            (session.c.tenant_id == link.c.tenant_id)
            & (session.c.customer_id == link.c.customer_id)
            & session.c.sid_hash.in_(bindparam("sids", expanding=True)),
        )
        .outerjoin(
            tenant_method,
            (tenant_method.c.tenant_id == tenant.c.tenant_id) & (tenant_method.c.slug == session.c.method),
        )
    )
    .where(link.c.tenant_id == _T)
)
_VISIT = _LOOK.where(link.c.digest == bindparam("digest"), link.c.revoked_at.is_(None))
_WITH_FIGURES = (
    _VISIT.add_columns(
        select(epoch.c.n)
        .select_from(
            epoch.join(checkpoint, (checkpoint.c.tenant_id == epoch.c.tenant_id) & (checkpoint.c.size == epoch.c.n + 1))
        )
        .where(epoch.c.tenant_id == _T, checkpoint.c.state == "published")
        .order_by(epoch.c.n.desc())
        .limit(1)
        .scalar_subquery()
        .label("newest_epoch"),
        period_tree.c.tree_id,
        period_tree.c.status,
        period_tree.c.size,
        period_tree.c.vsize,
        period_tree.c.psize,
    )
    .outerjoin(
        period_tree,
        (period_tree.c.tenant_id == link.c.tenant_id)
        & (period_tree.c.customer_id == link.c.customer_id)
        & (period_tree.c.status != "erased")
        & ((period_tree.c.period >= bindparam("since")) | (period_tree.c.psize < period_tree.c.size)),
    )
    .order_by(period_tree.c.period.desc())
)
_LOOK_AT_CUSTOMER = _LOOK.where(link.c.customer_id == bindparam("who"), customer.c.sealed_key.is_not(None))
_REVOKE = (
    session.update()
    .where(session.c.tenant_id == _T, session.c.sid_hash == bindparam("sid"), session.c.revoked_at.is_(None))
    .values(revoked_at=bindparam("now"))
)
_OF_CUSTOMER = (session.c.tenant_id == _T) & (session.c.customer_id == bindparam("who"))
_NOT_OVER = session.c.revoked_at.is_(None) & (session.c.expires_at > bindparam("now", type_=session.c.expires_at.type))
_NEWEST_FIRST = (session.c.created_at.desc(), session.c.sid_hash)
_UNREVOKED = select(session.c.sid_hash).where(_OF_CUSTOMER, _NOT_OVER).order_by(*_NEWEST_FIRST)
_OVER = select(session.c.sid_hash).where(_OF_CUSTOMER, ~_NOT_OVER).order_by(*_NEWEST_FIRST).offset(MAX_ENDED)
_LIVE = (
    select(session)
    .select_from(
        session.join(
            customer,
            (customer.c.tenant_id == session.c.tenant_id) & (customer.c.customer_id == session.c.customer_id),
        )
        .join(link, (link.c.tenant_id == session.c.tenant_id) & (link.c.customer_id == session.c.customer_id))
        .join(tenant, tenant.c.tenant_id == _C)
        .join(
            tenant_method,
            (tenant_method.c.tenant_id == tenant.c.tenant_id) & (tenant_method.c.slug == session.c.method),
        )
        .outerjoin(host, (host.c.tenant_id == tenant.c.tenant_id) & (host.c.host == session.c.host))
    )
    .where(
        _OF_CUSTOMER,
        _NOT_OVER,
        session.c.last_seen_at > bindparam("idle_since", type_=session.c.last_seen_at.type),
        session.c.tenant_epoch == tenant.c.epoch,
        session.c.host_epoch == func.coalesce(host.c.epoch, 0),
        session.c.link_epoch == link.c.epoch,
        session.c.code_epoch == customer.c.code_epoch,
        session.c.customer_epoch == customer.c.epoch,
        session.c.method_epoch == tenant_method.c.epoch,
        tenant_method.c.enabled,
        link.c.revoked_at.is_(None),
    )
    .order_by(*_NEWEST_FIRST)
)
_RECENT = select(session).where(_OF_CUSTOMER).order_by(*_NEWEST_FIRST).limit(MAX_LIVE + MAX_ENDED)
_REVOKE_ALL = session.update().where(_OF_CUSTOMER, session.c.revoked_at.is_(None)).values(revoked_at=bindparam("now"))
_FORGET = session.delete().where(session.c.tenant_id == _T, session.c.sid_hash == bindparam("sid"))
_SWEEP = session.delete().where(
    session.c.tenant_id == _T,
    (session.c.expires_at < bindparam("before", type_=session.c.expires_at.type))
    | (session.c.revoked_at < bindparam("before", type_=session.c.expires_at.type)),
)
_TOUCH = (
    session.update()
    .where(session.c.tenant_id == _T, session.c.sid_hash == bindparam("sid"))
    .values(last_seen_at=bindparam("now"))
)
_LOCK_LINK = (
    select(link.c.epoch)
    .where(link.c.tenant_id == _T, link.c.customer_id == bindparam("who"), link.c.revoked_at.is_(None))
    .with_for_update(key_share=True)
)
"""Not for sharing: its tries are reset at the end, and two that shared it would wait for each other for ever."""
_LOCK_CUSTOMER = (
    select(customer.c.epoch, customer.c.code_epoch)
    .where(customer.c.tenant_id == _T, customer.c.customer_id == bindparam("who"))
    .with_for_update(read=True)
)
_LOCK_TENANT = select(tenant.c.epoch, tenant.c.state).where(tenant.c.tenant_id == _C).with_for_update(read=True)
_LOCK_HOST = (
    select(host.c.epoch, host.c.role).where(host.c.tenant_id == _C, host.c.host == bindparam("here"))
).with_for_update(read=True)
_LOCK_METHOD = (
    select(tenant_method.c.epoch, tenant_method.c.enabled).where(
        tenant_method.c.tenant_id == _C, tenant_method.c.slug == bindparam("slug")
    )
).with_for_update(read=True)
_RESET_TRIES = link.update().where(link.c.tenant_id == _T, link.c.customer_id == bindparam("who")).values(tries=0)


@dataclass(frozen=True, slots=True)
class Here:
    """Where a request arrived: the stored host, and the tenant it belongs to (``None`` on the platform host)."""

    host: str
    config: UUID | None
    twin: UUID | None


@dataclass(frozen=True, slots=True)
class OpenSession:
    """A valid session."""

    sid_hash: bytes
    method: str
    choice: str
    last_seen_at: datetime
    expires_at: datetime

    @property
    def open_until(self) -> datetime:
        """When it ends unless it is used again."""
        return min(self.last_seen_at + IDLE, self.expires_at)


@dataclass(frozen=True, slots=True)
class Behind:
    """What a session rests on beside the six epochs: the way its method was used, and a sign-in at another site."""

    choice: str = ""
    account: bytes | None = None
    elsewhere: bytes | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """A session as its own reader may see it: when, how and where it was opened; never its id."""

    reference: str
    method: str
    subject_hint: str
    host: str
    created_at: datetime
    last_seen_at: datetime
    is_this: bool = False


@dataclass(frozen=True, slots=True)
class Visit:
    """One look at a link that exists: whose it is, what its tenant chose, and the session, if there is a valid one."""

    scope: Scope
    host: str
    row: Any
    session: OpenSession | None

    @property
    def customer_id(self) -> UUID:
        """The customer whose link this is."""
        found: UUID = self.row.customer_id
        return found

    @property
    def policy(self) -> Policy:
        """The customer's own policy, else the tenant's."""
        return Policy.stored(self.row.own_policy or self.row.policy)

    @property
    def home_host(self) -> str | None:
        """Where this link lives; ``None`` for a tenant without a branded host (then: the platform host)."""
        found: str | None = self.row.home_host or self.row.primary_host
        return found

    @property
    def is_test(self) -> bool:
        """Whether this is the test plane."""
        return self.scope.plane != self.scope.config

    def may_see(self, surface: Surface) -> bool:
        """Tell whether ``surface`` may be shown in this visit."""
        return self.session is not None or not needs_session(self.policy, surface)


@dataclass(frozen=True, slots=True)
class Moved:
    """The link exists but lives on another host of its tenant."""

    host: str


def cookie_name(link_id: UUID, *, secure: bool) -> str:
    """Return the name of the session cookie of one link; ``__Host-`` wherever the page is served by TLS."""
    return f"{'__Host-' if secure else ''}sr-{link_id.hex[:8]}"


def visit(
    db: Database, clock: Clock, here: Here, handle: str, cookies: Mapping[str, str], *, secure: bool
) -> Visit | Moved | None:
    """Return the visit of ``handle`` (normalised) at ``here``; ``None`` for an unknown, revoked or foreign link.

    ``cookies``: the request's, without any name that occurred twice.
    """
    digest, sids = handle_digest(handle), _sids(cookies)
    for scope in _scopes(db, here, digest):
        of = {"t": scope.plane, "config_id": scope.config, "here": here.host, "digest": digest, "sids": sids}
        with db.read(scope) as connection:
            rows = fetch_all(connection, _VISIT, of)
        if rows:
            presented = _presented(rows[0], cookies, secure=secure)
            if presented is not None and all(row.sid_hash != presented for row in rows):
                _look_elsewhere(db, here, [presented])
            return _judge(scope, here, rows, cookies, clock.now(), secure=secure)
    _look_elsewhere(db, here, sids)
    return None


def look_with_figures(db: Database, scope: Scope, host_name: str, handle: str, since: str) -> list[Any]:
    """Return, in one query, what a visit without a cookie rests on and how far the record's figures have come.

    One row for each period from ``since`` (``YYYY-MM``) on, or not yet covered to its end, newest first: the columns of
    ``Visit.row``, the newest published epoch, and the period's tree id, status and three sizes. One row with none of
    these if there is no such period, and no row if there is no such link.
    """
    of = {"t": scope.plane, "config_id": scope.config, "here": host_name, "digest": handle_digest(handle), "sids": []}
    with db.look_up(scope) as connection:
        return fetch_all(connection, _WITH_FIGURES, of | {"since": since})


def look_at_customer(
    db: Database,
    clock: Clock,
    here: Here,
    scope: Scope,
    customer_id: UUID,
    cookies: Mapping[str, str],
    *,
    secure: bool,
) -> Visit | None:
    """Return a visit of a customer's documents, which have ids of their own and outlive the link.

    ``None`` on a host of another tenant, and once the customer is erased. Such a document stays where it is asked for:
    it never redirects.
    """
    if here.config not in (None, scope.config):
        return None
    of = {"t": scope.plane, "config_id": scope.config, "who": customer_id, "here": here.host, "sids": _sids(cookies)}
    with db.read(scope) as connection:
        rows = fetch_all(connection, _LOOK_AT_CUSTOMER, of)
    found = _judge(scope, here, rows, cookies, clock.now(), secure=secure, may_move=False) if rows else None
    return found if isinstance(found, Visit) else None


def issue(
    connection: Connection,
    clock: Clock,
    seen: Visit,
    method: str,
    subject: str,
    *,
    method_epoch: int,
    replaces: bytes | None,
    new_device: bool = False,
    behind: Behind = Behind(),
) -> tuple[str, datetime] | None:
    """Issue a session for the visit; return (session id for the cookie, open until), or ``None`` if what it would rest
    on changed since.

    The epochs are read under a row lock that conflicts with every change of them, in the transaction of the insert.
    ``method_epoch``: the method's when it judged the person. ``replaces``: the hash of the session this one takes
    over from, which ends. ``new_device``: nobody passed in this browser before, as far as its cookies tell.
    """
    scope, who = seen.scope, seen.customer_id
    of_tenant, of_config = {"t": scope.plane, "who": who}, {"config_id": scope.config}
    chosen = connection.execute(_LOCK_TENANT, of_config).one()
    place = connection.execute(_LOCK_HOST, of_config | {"here": seen.host}).one_or_none()
    way = connection.execute(_LOCK_METHOD, of_config | {"slug": method}).one_or_none()
    person = connection.execute(_LOCK_CUSTOMER, of_tenant).one()
    printed = connection.execute(_LOCK_LINK, of_tenant).one_or_none()
    now = clock.now()
    expected = (seen.row.tenant_epoch, seen.row.link_epoch, seen.row.code_epoch, seen.row.customer_epoch, method_epoch)
    if printed is None or way is None or not way.enabled or chosen.state != "active":
        return None
    if (chosen.epoch, printed.epoch, person.code_epoch, person.epoch, way.epoch) != expected:
        return None
    if (place.epoch if place else None) != seen.row.host_epoch or (place is not None and place.role != "serving"):
        return None
    sid = secrets.token_urlsafe(32)
    sid_hash = hashlib.sha256(sid.encode()).digest()
    connection.execute(
        session.insert(),
        {
            "tenant_id": scope.plane,
            "sid_hash": sid_hash,
            "customer_id": who,
            "host": seen.host,
            "method": method,
            "subject": subject[:200],
            "choice": behind.choice,
            "account": behind.account,
            "elsewhere": behind.elsewhere,
            "tenant_epoch": chosen.epoch,
            "host_epoch": place.epoch if place else 0,
            "link_epoch": printed.epoch,
            "code_epoch": person.code_epoch,
            "customer_epoch": person.epoch,
            "method_epoch": way.epoch,
            "created_at": now,
            "last_seen_at": now,
            "expires_at": now + ABSOLUTE,
        },
    )
    if replaces is not None:
        connection.execute(_REVOKE, {"t": scope.plane, "sid": replaces, "now": now})
    _make_room(connection, clock, scope, who, sid_hash)
    connection.execute(_RESET_TRIES, of_tenant)
    audit.record(
        connection,
        scope,
        clock,
        "session.issued",
        actor="customer",
        customer_id=who,
        detail={
            "method": method,
            "host": seen.host,
            "session": reference_of(sid_hash),
            "new_device": new_device,
        },
    )
    return sid, now + IDLE


def _make_room(connection: Connection, clock: Clock, scope: Scope, who: UUID, newest: bytes) -> None:
    """End the oldest sessions of a link that has too many, and forget the oldest that ended. Its row is locked."""
    of = {"t": scope.plane, "who": who, "now": clock.now()}
    others = [one for one in connection.execute(_UNREVOKED, of).scalars() if one != newest]
    for sid_hash in others[MAX_LIVE - 1 :]:
        connection.execute(_REVOKE, {"t": scope.plane, "sid": sid_hash, "now": of["now"]})
        detail = {"session": reference_of(sid_hash), "reason": "more than the limit"}
        audit.record(connection, scope, clock, "session.revoked", actor="system", customer_id=who, detail=detail)
    for sid_hash in list(connection.execute(_OVER, of).scalars()):
        connection.execute(_FORGET, {"t": scope.plane, "sid": sid_hash})


def reference_of(sid_hash: bytes) -> str:
    """Return what stands for a session in the audit trail: 64 bits of a hash of its hash."""
    return hashlib.sha256(sid_hash).hexdigest()[:16]


def end(db: Database, clock: Clock, seen: Visit) -> None:
    """End the session of this visit, if there is one."""
    if seen.session is None:
        return
    with db.write(seen.scope) as connection:
        ended = connection.execute(_REVOKE, {"t": seen.scope.plane, "sid": seen.session.sid_hash, "now": clock.now()})
        if ended.rowcount:
            detail = {"session": reference_of(seen.session.sid_hash), "reason": "closed"}
            audit.record(
                connection,
                seen.scope,
                clock,
                "session.revoked",
                actor="customer",
                customer_id=seen.customer_id,
                detail=detail,
            )


def end_all(db: Database, clock: Clock, seen: Visit) -> int:
    """End every session of this link, in whatever browser; return how many that were."""
    with db.write(seen.scope) as connection:
        ended = connection.execute(
            _REVOKE_ALL, {"t": seen.scope.plane, "who": seen.customer_id, "now": clock.now()}
        ).rowcount
        if ended:
            detail = {"sessions": ended, "reason": "all closed"}
            audit.record(
                connection,
                seen.scope,
                clock,
                "session.revoked",
                actor="customer",
                customer_id=seen.customer_id,
                detail=detail,
            )
    return ended


def list_live(connection: Connection, clock: Clock, seen: Visit) -> list[Device]:
    """Return the sessions that are valid now, newest first."""
    now = clock.now()
    parameters = {"t": seen.scope.plane, "config_id": seen.scope.config, "who": seen.customer_id}
    rows = connection.execute(_LIVE, parameters | {"now": now, "idle_since": now - IDLE})
    return [_device(row, seen) for row in rows]


def list_recent(connection: Connection, seen: Visit) -> list[Device]:
    """Return the newest sessions that are kept, ended or not, newest first."""
    return [_device(row, seen) for row in connection.execute(_RECENT, {"t": seen.scope.plane, "who": seen.customer_id})]


def sweep(db: Database, clock: Clock, scope: Scope) -> int:
    """Delete sessions that ended long ago; return how many."""
    with db.write(scope) as connection:
        return connection.execute(_SWEEP, {"t": scope.plane, "before": clock.now() - KEPT}).rowcount


def _device(row: Row[*tuple[Any, ...]], seen: Visit) -> Device:
    mine = seen.session is not None and seen.session.sid_hash == row.sid_hash
    reference = reference_of(row.sid_hash)
    return Device(reference, row.method, row.subject, row.host, row.created_at, row.last_seen_at, mine)


def needs_touch(clock: Clock, found: OpenSession) -> bool:
    """Tell whether the time a session was last used is worth writing down: at most once a minute."""
    return clock.now() - found.last_seen_at >= TOUCH_EVERY


def touch(db: Database, clock: Clock, scope: Scope, sid_hash: bytes) -> None:
    """Write down that a session was used now. Called after the answer was sent."""
    with db.write(scope) as connection:
        connection.execute(_TOUCH, {"t": scope.plane, "sid": sid_hash, "now": clock.now()})


def _sids(cookies: Mapping[str, str]) -> list[bytes]:
    mine = [value for name, value in cookies.items() if _COOKIE.fullmatch(name)]
    return [hashlib.sha256(value.encode()).digest() for value in mine[:MAX_COOKIES]]


def _scopes(db: Database, here: Here, digest: bytes) -> list[Scope]:
    """Return where the link may be: the host's tenant and its test twin; on the platform host, wherever it is."""
    if here.config is not None:
        scopes = [Scope.of(here.config)]
        return scopes if here.twin is None else [*scopes, Scope.of(here.twin, here.config)]
    found = lookup.find_link(db, digest)
    return [] if found is None else [found.scope]


def _judge(
    scope: Scope,
    here: Here,
    rows: Sequence[Any],
    cookies: Mapping[str, str],
    now: datetime,
    *,
    secure: bool,
    may_move: bool = True,
) -> Visit | Moved | None:
    row = rows[0]
    if row.state != "active":
        return None
    if here.config is not None and row.role != "serving":
        return None
    home = row.home_host or row.primary_host
    presented = _presented(row, cookies, secure=secure)
    found = next((one for one in rows if presented is not None and one.sid_hash == presented), None)
    denial = None if found is None else _denial(found, here, now)
    if denial is not None:
        _log_denial(scope, here, denial)
    if may_move and home is not None and home != here.host:
        return Moved(home)
    if found is None or denial is not None:
        return Visit(scope, here.host, row, None)
    opened = OpenSession(found.sid_hash, found.method, found.choice, found.last_seen_at, found.expires_at)
    return Visit(scope, here.host, found, opened)


def _presented(row: Any, cookies: Mapping[str, str], *, secure: bool) -> bytes | None:
    mine = cookies.get(cookie_name(row.link_id, secure=secure))
    return hashlib.sha256(mine.encode()).digest() if mine else None


def _denial(row: Any, here: Here, now: datetime) -> str | None:
    """Return why a session that exists opens nothing, or ``None`` if it is valid."""
    epochs = {
        "tenant changed": (row.s_tenant, row.tenant_epoch),
        "host changed": (row.s_host, row.host_epoch or 0),
        "link changed": (row.s_link, row.link_epoch),
        "code rotated": (row.s_code, row.code_epoch),
        "customer changed": (row.s_customer, row.customer_epoch),
        "method changed": (row.s_method, row.method_epoch),
    }
    if row.session_host != here.host:
        return "host mismatch"
    if row.session_revoked_at is not None:
        return "ended"
    if not row.method_enabled:
        return "method disabled"
    if not (now < row.expires_at and now < row.last_seen_at + IDLE):
        return "expired"
    return next((reason for reason, (issued, current) in epochs.items() if issued != current), None)


def _log_denial(scope: Scope, here: Here, reason: str) -> None:
    """Tell the operator: looking at a page writes nothing, so it is no row of the trail."""
    if reason == "host mismatch":
        _log.warning("session.host_mismatch host=%s tenant=%s", here.host, scope.plane)
    else:
        _log.info("session.denied tenant=%s reason=%r", scope.plane, reason)


def _look_elsewhere(db: Database, here: Here, digests: Sequence[bytes]) -> None:
    """Tell the operator of cookies that were made on another host, perhaps another tenant's. They open nothing here."""
    for digest in digests[:MAX_TRACED]:
        found = lookup.find_session(db, digest)
        if found is not None and found.host != here.host:
            _log.warning("session.host_mismatch host=%s tenant=%s", here.host, found.tenant_id)
