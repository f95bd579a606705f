"""``shared-record key``: the installation's root keys and the signing keys of its logs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import click
from sqlalchemy import BindParameter, Connection, LargeBinary, Table, bindparam, func, select

from shared_record.access import audit as trail
from shared_record.cli.context import Installation, emit, json_option, open_installation
from shared_record.cli.link import ACTOR
from shared_record.db import lookup
from shared_record.db.lookup import TenantRow
from shared_record.db.schema import (
    customer,
    customer_secret,
    entitlement,
    imported_code,
    job,
    link,
    mail,
    method_secret,
    signing_key,
    tenant,
    webhook_endpoint,
)
from shared_record.db.scope import Scope
from shared_record.errors import ConflictError, Detail, InvalidInputError, NotFoundError
from shared_record.keys import KeyRing, changing, write_private
from shared_record.ledger import logs
from shared_record.ledger.note import VerifierKey
from shared_record.ledger.tiles import LogKeys, read_keys

RESTART = "Restart every web server and worker now: those that run do not know {kid}, and what it makes fails in them."
SIGN_TOGETHER = (
    "Leave both for 90 days or more, so that everyone who watches the log learns of the new key, then run:\n"
    "  shared-record key retire --log {old} --tenant {slug}"
)

_T: BindParameter[UUID] = bindparam("t")
_LIVE_LINK = (link.c.tenant_id == _T) & link.c.revoked_at.is_(None) & link.c.sealed_handle.is_(None)
_LIVE_CUSTOMER = (customer.c.tenant_id == _T) & customer.c.sealed_key.is_not(None)
_FORMER = _LIVE_CUSTOMER & (customer.c.former_code_until > bindparam("now"))
_LINKS = select(link.c.kid, func.count()).where(_LIVE_LINK).group_by(link.c.kid)
_CODES = select(customer.c.code_kid, func.count()).where(_LIVE_CUSTOMER).group_by(customer.c.code_kid)
_FORMER_CODES = select(customer.c.former_code_kid, func.count()).where(_FORMER).group_by(customer.c.former_code_kid)
_OF_A_LINK = (
    select(customer.c.external_id)
    .select_from(
        customer.join(link, (link.c.tenant_id == customer.c.tenant_id) & (link.c.customer_id == customer.c.customer_id))
    )
    .where(customer.c.tenant_id == _T, _LIVE_LINK, link.c.kid == bindparam("kid"))
    .order_by(customer.c.slot)
)
_OF_A_CODE = (
    select(customer.c.external_id)
    .where(_LIVE_CUSTOMER, customer.c.code_kid == bindparam("kid"))
    .order_by(customer.c.slot)
)
_OF_A_FORMER_CODE = select(func.count(), func.max(customer.c.former_code_until)).where(
    _FORMER, customer.c.former_code_kid == bindparam("kid")
)
_FORGET_FORMER_CODES = (
    customer.update()
    .where(
        customer.c.tenant_id == _T,
        customer.c.former_code_kid == bindparam("kid"),
        customer.c.former_code_until.is_(None) | (customer.c.former_code_until <= bindparam("now")),
    )
    .values(former_code_kid=None, former_code_until=None)
)
_LOCK_SEQUENCER = select(job.c.fence).where(job.c.tenant_id == _T, job.c.kind == logs.SEQUENCER).with_for_update()

_SEALED = (
    (tenant, "sealed_key", "tenant_id"),
    (customer, "sealed_key", "customer_id"),
    (signing_key, "sealed_seed", "key_id"),
    (webhook_endpoint, "sealed_secret", "endpoint_id"),
    (webhook_endpoint, "sealed_former", "endpoint_id"),
    (link, "sealed_handle", "customer_id"),
    (imported_code, "sealed_pepper", "customer_id"),
    (customer_secret, "sealed_secret", "secret_id"),
    (method_secret, "sealed_secret", "secret_id"),
    (entitlement, "sealed_value", "entitlement_id"),
    (mail, "sealed_message", "mail_id"),
)
"""Every sealed value: table, column, and the column that names the row in the place it is sealed for."""


@dataclass(slots=True)
class Uses:
    """What rests on one root key: links that open, codes that count, former codes within their overlap, seals."""

    links: int = 0
    codes: int = 0
    former_codes: int = 0
    sealed: int = 0


@click.group()
def key() -> None:
    """The root keys, from which links and codes come and under which all else is sealed, and the logs' signing keys."""


# --- List ------------------------------------------------------------------------------------------------------------


@key.command("list", epilog="Example:  shared-record key list --tenant acme")
@click.option("--tenant", metavar="SLUG", help="Only this tenant (SLUG~test: its test data).")
@json_option
def list_command(tenant: str | None, as_json: bool) -> None:
    """List the root keys with what uses each of them, and the signing keys of each log. No secret is shown."""
    installation = open_installation()
    ring = KeyRing.load(installation.settings.keys_path)
    rows = lookup.list_tenants(installation.db) if tenant is None else [installation.tenant(tenant)]
    now = installation.clock.now()
    uses: dict[str, Uses] = {kid: Uses() for kid in ring.roots}
    found: list[tuple[TenantRow, LogKeys]] = []
    for row in rows:
        with installation.db.read(row.scope) as connection:
            _count_uses(connection, row.scope, uses, now)
            log = read_keys(connection, row.scope)
        if log is not None:
            found.append((row, log))
    roots = [
        {"kid": kid, "active": kid == ring.active, "missing": kid not in ring.roots, **_camel(asdict(used))}
        for kid, used in uses.items()
    ]
    text = "\n\n".join(
        ["\n".join(_root_text(root) for root in roots), *(_log_text(row.slug, log) for row, log in found)]
    )
    emit({"roots": roots, "logs": [_log_data(row.slug, log) for row, log in found]}, as_json=as_json, text=text)


def _count_uses(connection: Connection, scope: Scope, uses: dict[str, Uses], now: datetime) -> None:
    of_tenant = {"t": scope.plane}
    for kid, count in connection.execute(_LINKS, of_tenant).all():
        uses.setdefault(kid, Uses()).links += count
    for kid, count in connection.execute(_CODES, of_tenant).all():
        uses.setdefault(kid, Uses()).codes += count
    for kid, count in connection.execute(_FORMER_CODES, of_tenant | {"now": now}).all():
        uses.setdefault(kid, Uses()).former_codes += count
    for kid, used in uses.items():
        used.sealed += _count_sealed(connection, scope, kid)


def _count_sealed(connection: Connection, scope: Scope, kid: str) -> int:
    return sum(
        connection.execute(
            select(func.count()).select_from(table).where(_sealed_under(table, column, kid)), {"t": scope.plane}
        ).scalar_one()
        for table, column, _ in _SEALED
    )


def _sealed_under(table: Table, column: str, kid: str) -> Any:
    prefix = kid.encode() + b"\0"
    start = func.substr(table.c[column], 1, len(prefix), type_=LargeBinary)
    return (table.c.tenant_id == _T) & (start == prefix)


def _camel(used: Mapping[str, int]) -> dict[str, int]:
    return {{"former_codes": "formerCodes"}.get(name, name): count for name, count in used.items()}


def _root_text(root: Mapping[str, Any]) -> str:
    state = "active" if root["active"] else "MISSING from the key ring" if root["missing"] else "older"
    former = f" and {root['formerCodes']:,} former ones" if root["formerCodes"] else ""
    return (
        f"{root['kid']}  {state}: links {root['links']:,}, codes {root['codes']:,}{former},"
        f" sealed values {root['sealed']:,}"
    )


def _log_data(slug: str, log: LogKeys) -> dict[str, Any]:
    keys = [
        {"id": VerifierKey.parse(one.vkey).id.hex(), "vkey": one.vkey, "since": one.since, "until": one.until}
        for one in log.keys
    ]
    return {"tenant": slug, "origin": log.origin, "keys": keys}


def _log_text(slug: str, log: LogKeys) -> str:
    lines = [f"{slug}  {log.origin}"]
    for one in log.keys:
        until = "" if one.until is None else f", retired: below size {one.until}"
        lines += [
            f"  {VerifierKey.parse(one.vkey).id.hex()}  signs from size {one.since}{until}",
            f"            {one.vkey}",
        ]
    return "\n".join(lines)


# --- Rotate ----------------------------------------------------------------------------------------------------------


@key.command(
    epilog="""\b
Examples:
  shared-record key rotate
  shared-record key rotate --log --tenant acme"""
)
@click.option("--log", "of_log", is_flag=True, help="Add a signing key to a tenant's log instead.")
@click.option("--tenant", metavar="SLUG", help="With --log: whose log (SLUG~test: that of its test data).")
@json_option
def rotate(of_log: bool, tenant: str | None, as_json: bool) -> None:
    """Add a new root key and make it the active one; or, with --log, add a signing key to one log.

    Links and codes that are printed keep working: a link gets the new root key when it is reissued, a code when it is
    rotated. Web servers and workers must be restarted after a new root key, and need not be after a signing key.

    With --log the older key and the new one both sign from the next checkpoint on, and the log itself names the new
    one there.
    """
    if of_log != (tenant is not None):
        raise click.UsageError("--log and --tenant belong together; without them a root key is added.")
    installation = open_installation()
    if tenant is None:
        _rotate_root(installation, as_json=as_json)
    else:
        _rotate_log(installation, installation.tenant(tenant), as_json=as_json)


def _rotate_root(installation: Installation, *, as_json: bool) -> None:
    path = installation.settings.keys_path
    with changing(path) as ring:
        fresh = ring.with_new_root()
        with _recorded(installation, "key.rotated", {"kid": fresh.active, "former": ring.active}):
            fresh.replace(path)
    text = (
        f"{fresh.active} is the active root key; {ring.active} still opens what it made.\n"
        f"{RESTART.format(kid=fresh.active)}\nThen keep a copy of the new key ring: shared-record key backup FILE"
    )
    emit({"active": fresh.active, "former": ring.active, "restart": ["serve", "worker"]}, as_json=as_json, text=text)


def _rotate_log(installation: Installation, row: TenantRow, *, as_json: bool) -> None:
    path = installation.settings.keys_path
    with changing(path) as ring, installation.db.write(row.scope) as connection:
        added = logs.add_signing_key(connection, ring, row.scope)
        key_id = added.vkey.id.hex()
        detail = {"log": added.vkey.name, "key": key_id, "since": added.size}
        trail.record(connection, row.scope, installation.clock, "key.rotated", actor=ACTOR, detail=detail)
        found = read_keys(connection, row.scope)
    older = [VerifierKey.parse(one.vkey).id.hex() for one in found.keys if one.until is None] if found else []
    old = next((one for one in older if one != key_id), key_id)
    text = (
        f"{key_id} signs {added.vkey.name} from size {added.size} on, beside the older key:\n  {added.vkey}\n"
        f"{SIGN_TOGETHER.format(old=old, slug=row.slug)}"
    )
    data = {"tenant": row.slug, "origin": added.vkey.name, "id": key_id, "vkey": str(added.vkey), "since": added.size}
    emit(data, as_json=as_json, text=text)


@contextmanager
def _recorded(installation: Installation, event: str, detail: Mapping[str, str]) -> Iterator[None]:
    """Write ``event`` into the trail of each tenant, in one transaction of which the change itself is the last act."""
    rows = [row for row in lookup.list_tenants(installation.db) if row.config_of is None]
    if not rows:
        yield
        return
    with installation.db.write(rows[0].scope) as connection:
        for row in rows:
            with installation.db.rescope(connection, row.scope):
                trail.record(connection, row.scope, installation.clock, event, actor=ACTOR, detail=detail)
        yield


# --- Retire ----------------------------------------------------------------------------------------------------------


@key.command(
    epilog="""\b
Examples:
  shared-record key retire k1
  shared-record key retire --log 1f2e3d4c --tenant acme"""
)
@click.argument("kid", required=False)
@click.option("--log", "log_key", metavar="KEYID", help="Retire this signing key of a tenant's log instead.")
@click.option("--tenant", metavar="SLUG", help="With --log: whose log (SLUG~test: that of its test data).")
@json_option
def retire(kid: str | None, log_key: str | None, tenant: str | None, as_json: bool) -> None:
    """Remove the root key KID from the key ring; or, with --log, let a signing key sign no further checkpoint.

    What is sealed under KID is first sealed anew under the active key. While links or codes still use KID it stays,
    and they are named (exit status 7). It can be run again at any time. A root key that was removed is gone: make a
    copy with `key backup` before, and restart web servers and workers between `key rotate` and this.
    """
    if (kid is None) == (log_key is None) or (log_key is None) != (tenant is None):
        raise click.UsageError("Give KID alone, or --log KEYID with --tenant SLUG.")
    installation = open_installation()
    if kid is not None:
        _retire_root(installation, kid, as_json=as_json)
    elif log_key is not None and tenant is not None:
        _retire_log(installation, installation.tenant(tenant), log_key, as_json=as_json)


def _retire_root(installation: Installation, kid: str, *, as_json: bool) -> None:
    path = installation.settings.keys_path
    with changing(path) as ring:
        if kid not in ring.roots:
            raise NotFoundError(f"the key ring has no key {kid!r}. Its keys: {', '.join(ring.roots)}.")
        if kid == ring.active:
            raise ConflictError(f"{kid} is the active key. First run: shared-record key rotate")
        rows = lookup.list_tenants(installation.db)
        resealed = sum(_seal_anew(installation, ring, row.scope, kid) for row in rows)
        uses = [use for row in rows for use in _still_used(installation, row, kid)]
        if uses:
            raise ConflictError(
                f"{kid} is still used; it stays in the key ring. Sealed anew under {ring.active}: {resealed:,}.",
                details=tuple(uses),
            )
        with _recorded(installation, "key.retired", {"kid": kid}):
            ring.without(kid).replace(path)
    text = (
        f"{kid} is retired and removed from the key ring. Sealed anew under {ring.active}: {resealed:,}.\n"
        "Restart every web server and worker, so that none keeps it in memory."
    )
    data = {"retired": kid, "active": ring.active, "sealedAnew": resealed, "restart": ["serve", "worker"]}
    emit(data, as_json=as_json, text=text)


def _seal_anew(installation: Installation, ring: KeyRing, scope: Scope, kid: str) -> int:
    """Seal under the active key what a tenant has under ``kid``, in one transaction; return how many values."""
    count = 0
    with installation.db.write(scope) as connection:
        # A checkpoint that is published meanwhile would change the same customers in another order: a deadlock.
        connection.execute(_LOCK_SEQUENCER, {"t": scope.plane})
        for table, column, name in _SEALED:
            wanted = select(table.c[name].label("id"), table.c[column].label("sealed")).where(
                _sealed_under(table, column, kid)
            )
            # A value that changed meanwhile, because its customer was erased, must not come back.
            change = (
                table.update()
                .where(table.c.tenant_id == _T, table.c[name] == bindparam("id"), table.c[column] == bindparam("old"))
                .values({column: bindparam("new")})
            )
            changes = []
            for row in connection.execute(wanted, {"t": scope.plane}):
                place = f"{table.name}.{column}/{row.id}"
                value = ring.open(row.sealed, tenant=scope.plane, place=place)
                fresh = ring.seal(value, tenant=scope.plane, place=place)
                changes.append({"t": scope.plane, "id": row.id, "old": row.sealed, "new": fresh})
            if changes:
                connection.execute(change, changes)
            count += len(changes)
        # A former code is computed, whether or not it still counts, as long as the row names its key.
        connection.execute(_FORGET_FORMER_CODES, {"t": scope.plane, "kid": kid, "now": installation.clock.now()})
    return count


def _still_used(installation: Installation, row: TenantRow, kid: str) -> Iterator[Detail]:
    parameters = {"t": row.scope.plane, "kid": kid}
    with installation.db.read(row.scope) as connection:
        of_links = connection.execute(_OF_A_LINK, parameters).scalars().all()
        of_codes = connection.execute(_OF_A_CODE, parameters).scalars().all()
        former, until = connection.execute(_OF_A_FORMER_CODE, parameters | {"now": installation.clock.now()}).one()
        sealed = _count_sealed(connection, row.scope, kid)
    if of_links:
        yield _use(row, f"links of {_some(of_links)}", "link reissue CUSTOMER")
    if of_codes:
        yield _use(row, f"access codes of {_some(of_codes)}", "code rotate CUSTOMER --overlap 30d")
    if former:
        yield Detail(row.slug, "KEY_IN_USE", f"{former:,} former codes count until {until:%Y-%m-%d %H:%M} UTC at most.")
    if sealed:
        yield Detail(row.slug, "KEY_IN_USE", f"{sealed:,} values were sealed under it just now. Restart all servers.")


def _use(row: TenantRow, what: str, command: str) -> Detail:
    return Detail(row.slug, "KEY_IN_USE", f"{what}. Run for each: shared-record {command} --tenant {row.slug}")


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    rest = f" and {len(listed) - 5:,} more" if len(listed) > 5 else ""
    return ", ".join(listed[:5]) + rest


def _retire_log(installation: Installation, row: TenantRow, key_id: str, *, as_json: bool) -> None:
    with installation.db.write(row.scope) as connection:
        retired = logs.retire_signing_key(connection, row.scope, key_id)
        detail = {"log": retired.vkey.name, "key": key_id, "until": retired.size}
        trail.record(connection, row.scope, installation.clock, "key.retired", actor=ACTOR, detail=detail)
    text = (
        f"{key_id} signs {retired.vkey.name} below size {retired.size} only; what it signed stays valid.\n"
        "It stays listed in the log's policy, for checking older checkpoints and receipts."
    )
    data = {"tenant": row.slug, "origin": retired.vkey.name, "id": key_id, "until": retired.size}
    emit(data, as_json=as_json, text=text)


# --- Backup ----------------------------------------------------------------------------------------------------------


@key.command(epilog="Example:  shared-record key backup /media/safe/keys-2026-11-22.json")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def backup(file: Path, as_json: bool) -> None:
    """Write a copy of the key ring to FILE, mode 0600, and print its SHA-256. A file that exists is not overwritten.

    Whoever has it and the database can open every link: keep it apart from the database's backups.
    """
    path = open_installation().settings.keys_path
    ring = KeyRing.load(path)
    data = path.read_bytes()
    try:
        write_private(file, data)
    except FileExistsError as error:
        raise ConflictError(f"{file} is there already, and is not overwritten. Choose another name.") from error
    except OSError as error:
        raise InvalidInputError(f"{file} cannot be written: {error.strerror}.") from error
    digest = hashlib.sha256(data).hexdigest()
    emit({"file": str(file), "sha256": digest, "keys": list(ring.roots)}, as_json=as_json, text=f"{digest}  {file}")
