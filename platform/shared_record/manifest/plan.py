"""Compare a tenant's file with what was last applied and with the database. Pure.

The database is the truth. A key changes only where its value in the file differs from the file as last applied; a key
that was changed elsewhere is drift, which is shown and kept unless forced.

Values are flat: a setting by its name, ``hosts.<host>`` with its role, ``primary_host``, ``methods.<slug>`` with its
settings, ``method_order``. A key that is absent from all three sides, or that the file does not manage, has no change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from shared_record.manifest.check import Checked
from shared_record.manifest.schema import DEFAULTS, SETTINGS

Values = Mapping[str, Any]

HOSTS, PRIMARY = "hosts.", "primary_host"
METHODS, ORDER = "methods.", "method_order"


class Kind(StrEnum):
    """What happens to a key."""

    CREATE = "create"
    UPDATE = "update"
    DRIFT_KEPT = "drift-kept"
    DRIFT_OVERRIDDEN = "drift-overridden"
    UNCHANGED = "unchanged"


_WRITES = {Kind.CREATE, Kind.UPDATE, Kind.DRIFT_OVERRIDDEN}


@dataclass(frozen=True, slots=True)
class Change:
    """One key: ``before`` is the database's value, ``after`` the file's; ``None`` is "not there"."""

    key: str
    before: Any
    after: Any
    kind: Kind

    @property
    def writes(self) -> bool:
        """Whether the database is changed."""
        return self.kind in _WRITES

    @property
    def result(self) -> Any:
        """The value after the plan is carried out."""
        return self.after if self.writes else self.before


@dataclass(frozen=True, slots=True)
class Plan:
    """What applying one file does.

    ``method_order``: the methods that remain, in order. ``applied``: the file's values, kept as the last applied ones
    where ``remember`` says that they are not yet.
    """

    slug: str
    is_new: bool
    changes: tuple[Change, ...]
    method_order: tuple[str, ...]
    applied: dict[str, Any]
    remember: bool

    @property
    def effective(self) -> tuple[Change, ...]:
        """The changes that are written."""
        return tuple(change for change in self.changes if change.writes)

    @property
    def drift(self) -> tuple[Change, ...]:
        """The keys that differ from the file and stay as they are."""
        return tuple(change for change in self.changes if change.kind is Kind.DRIFT_KEPT)

    @property
    def is_empty(self) -> bool:
        """Whether applying it writes nothing at all."""
        return not (self.is_new or self.remember or self.effective)


def file_values(checked: Checked) -> dict[str, Any]:
    """Return a checked file as flat values."""
    values = dict(checked.settings)
    values |= {HOSTS + host.host: host.role for host in checked.hosts}
    values.update((PRIMARY, host.host) for host in checked.hosts if host.primary)
    values |= {METHODS + slug: settings for slug, settings in checked.methods}
    if checked.methods:
        values[ORDER] = [slug for slug, _ in checked.methods]
    return values


def compare(slug: str, file: Values, applied: Values | None, database: Values | None, *, force: bool = False) -> Plan:
    """Plan how ``file`` is applied. ``applied``: its values the last time, if ever; ``database``: ``None`` if new."""
    if database is None:
        changes = {key: Change(key, None, value, Kind.CREATE) for key, value in file.items() if key != ORDER}
        order = tuple(file.get(ORDER, ()))
    else:
        before = applied or {}
        changes = {key: _compare_key(key, file, before, database, force=force) for key in _keys(file, before, database)}
        _settle_primary(changes, file, database)
        order = _settle_order(changes, file, applied, database, force=force)
    return Plan(slug, database is None, tuple(changes.values()), order, dict(file), remember=dict(file) != applied)


def _keys(file: Values, applied: Values, database: Values) -> list[str]:
    """The keys the file manages or managed: settings it names, and whole lists of which it names any item."""
    mentioned = file.keys() | applied.keys()
    keys = [key for key in SETTINGS if key in mentioned]
    for prefix in (HOSTS, METHODS):
        if any(key.startswith(prefix) for key in mentioned):
            sides: Iterable[str] = [*file, *applied, *database]
            keys += dict.fromkeys(key for key in sides if key.startswith(prefix))
    if any(key.startswith(HOSTS) for key in mentioned):
        keys.append(PRIMARY)
    return keys


def _compare_key(key: str, file: Values, applied: Values, database: Values, *, force: bool) -> Change:
    value, now = file.get(key, DEFAULTS.get(key)), database.get(key)
    last = applied.get(key, DEFAULTS.get(key) if key not in file else None)
    if value == now:
        return Change(key, now, value, Kind.UNCHANGED)
    if value != last:
        return Change(key, now, value, Kind.UPDATE)
    return Change(key, now, value, Kind.DRIFT_OVERRIDDEN if force else Kind.DRIFT_KEPT)


def _settle_primary(changes: dict[str, Change], file: Values, database: Values) -> None:
    """See to it that the primary host, whoever chose it, is one of the hosts that remain."""
    if PRIMARY not in changes:
        return
    roles = {key: change.result for key, change in changes.items() if key.startswith(HOSTS)}
    able = [key.removeprefix(HOSTS) for key, role in roles.items() if role in ("serving", "suspended")]
    change = changes[PRIMARY]
    if change.result in able or (not able and change.result is None):
        return
    choices = [host for host in (file.get(PRIMARY), database.get(PRIMARY), *able) if host in able]
    after = choices[0] if choices else None
    if after == change.before:
        changes[PRIMARY] = Change(PRIMARY, change.before, change.after, Kind.DRIFT_KEPT)
    else:
        changes[PRIMARY] = Change(PRIMARY, change.before, after, Kind.UPDATE)


def _settle_order(
    changes: dict[str, Change], file: Values, applied: Values | None, database: Values, *, force: bool
) -> tuple[str, ...]:
    """Return the methods that remain, in order; record a change only where methods that stay change places."""
    wanted, now = list(file.get(ORDER, [])), list(database.get(ORDER, []))
    last = None if applied is None else applied.get(ORDER)
    differs = _common(wanted, now) != _common(now, wanted)
    moved = last is None or _common(wanted, last) != _common(last, wanted)
    if not differs:
        order = _merge(wanted, now)
    elif moved or force:
        order = [*wanted, *now]
        changes[ORDER] = Change(ORDER, now, wanted, Kind.UPDATE if moved else Kind.DRIFT_OVERRIDDEN)
    else:
        order = [*now, *wanted]
        changes[ORDER] = Change(ORDER, now, wanted, Kind.DRIFT_KEPT)
    remaining = {slug for slug in order if METHODS + slug not in changes or changes[METHODS + slug].result is not None}
    return tuple(slug for slug in dict.fromkeys(order) if slug in remaining)


def _common(one: list[str], other: list[str]) -> list[str]:
    return [slug for slug in one if slug in other]


def _merge(wanted: list[str], now: list[str]) -> list[str]:
    """Return both lists as one that keeps the order of each; what they share must be in one order in both."""
    merged, rest = [], list(now)
    for slug in wanted:
        while slug in rest:
            merged.append(rest.pop(0))
        merged.append(slug)
    return [*merged, *rest]
