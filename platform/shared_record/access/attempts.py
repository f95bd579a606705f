"""Limits on answers: soft ones first, then a place reserved in the database, and only then is the answer judged.

A device that passed once has limits of its own, which nobody else can use up. All others share those of the record.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import BindParameter, Connection, bindparam

from shared_record.access import audit, devices, throttle
from shared_record.access.devices import Device
from shared_record.access.sessions import Visit
from shared_record.access.throttle import Throttle, Wait, network_of, wider_network_of
from shared_record.clock import Clock, rfc3339
from shared_record.db.schema import link
from shared_record.delivery import outbox
from shared_record.delivery.events import STEP_UP_FAILED
from shared_record.plugin import Guessing

HARD_CAP = 100
"""Wrong answers in a row after which secrets that stay the same stop working for a link, until its code is rotated or
the link reissued; and as many for each trusted device."""

REPEATEDLY = (10, HARD_CAP)
"""Wrong answers in a row at which the vendor is told."""

_log = logging.getLogger("shared_record.stepup")
_T: BindParameter[Any] = bindparam("t")
_LINK = (link.c.tenant_id == _T) & (link.c.customer_id == bindparam("who"))
_RESERVE = (
    link.update().where(_LINK, link.c.tries < bindparam("most")).values(tries=link.c.tries + 1).returning(link.c.tries)
)
_GIVE_BACK = link.update().where(_LINK, link.c.tries > 0).values(tries=link.c.tries - 1)
_UNBOUNDED = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Browser:
    """Who answers: the client's address, the pre-session cookie, and the cookie of a trusted device if it sent one.

    ``may_be_trusted``: whether it can be given such a cookie.
    """

    client: str
    binding: str = field(default="", repr=False)
    device: str = field(default="", repr=False)
    may_be_trusted: bool = True


@dataclass(frozen=True, slots=True)
class Attempt:
    """One answer under way: whose limits it counts against."""

    seen: Visit
    slug: str
    guessing: Guessing
    browser: Browser
    device: Device | None

    @property
    def network(self) -> tuple[str, str]:
        """The key of the client's own limit at this record."""
        return network_of(self.browser.client), self.link

    @property
    def link(self) -> str:
        """The key of the record's limits."""
        return str(self.seen.row.link_id.hex)

    @property
    def tenant(self) -> str:
        """The key of the tenant's alarm."""
        return self.seen.scope.plane.hex


def is_limited(limits: Throttle, attempt: Attempt) -> Wait | None:
    """Count the answer against the soft limits; return how long to wait if one of them is used up.

    The client's own limits come first, so that what they refuse does not use up the record's.
    """
    if attempt.guessing is Guessing.NONE:
        return None
    if attempt.device is not None:
        wait = limits.take(throttle.DEVICE, attempt.device.digest.hex())
    else:
        wait = _is_network_limited(limits, attempt)
        if wait is None and attempt.guessing is Guessing.REUSED:
            wait = limits.take(throttle.SHARED, attempt.link)
    if wait is None and attempt.guessing is Guessing.ONE_TIME:
        wait = limits.take(throttle.ONE_TIME, attempt.link, attempt.slug)
    if wait is not None:  # logged, not written: a flood must not fill the trail
        _log.info("stepup.throttled tenant=%s method=%s", attempt.seen.scope.plane, attempt.slug)
    return wait


def tries_left(limits: Throttle, attempt: Attempt) -> int | None:
    """Return how many more answers with a secret that stays the same are judged before one has to wait."""
    if attempt.guessing is not Guessing.REUSED:
        return None
    if attempt.device is not None:
        return limits.left(throttle.DEVICE, attempt.device.digest.hex())
    return min(limits.hits_left(throttle.STEP_UP, *attempt.network), limits.left(throttle.SHARED, attempt.link))


def is_start_limited(limits: Throttle, seen: Visit, client: str) -> Wait | None:
    """Count one challenge begun, or sent again; return how long to wait if that happened too often."""
    key = str(seen.row.link_id.hex)
    return limits.hit(throttle.STARTS, network_of(client), key) or limits.take(throttle.RECORD_STARTS, key)


def reserve(connection: Connection, attempt: Attempt) -> int | None:
    """Count the answer in the database and return which in a row it is; ``None`` when the hard limit is reached."""
    seen = attempt.seen
    if attempt.guessing is Guessing.NONE:
        return 0
    if attempt.device is not None:
        return devices.reserve(connection, seen, attempt.device, HARD_CAP)
    most = HARD_CAP if attempt.guessing is Guessing.REUSED else _UNBOUNDED
    parameters = {"t": seen.scope.plane, "who": seen.customer_id, "most": most}
    return connection.execute(_RESERVE, parameters).scalar_one_or_none()


def give_back(connection: Connection, limits: Throttle, attempt: Attempt) -> None:
    """Take back an answer that was counted but could not be judged."""
    give_back_soft(limits, attempt)
    if attempt.guessing is Guessing.NONE:
        return
    if attempt.device is not None:
        devices.give_back(connection, attempt.seen, attempt.device)
    else:
        connection.execute(_GIVE_BACK, {"t": attempt.seen.scope.plane, "who": attempt.seen.customer_id})


def give_back_soft(limits: Throttle, attempt: Attempt) -> None:
    """Take back an answer from the limits that others share; the client's own are forgotten when it passes."""
    if attempt.guessing is Guessing.ONE_TIME:
        limits.give_back(throttle.ONE_TIME, attempt.link, attempt.slug)
    elif attempt.guessing is Guessing.REUSED and attempt.device is None:
        limits.give_back(throttle.SHARED, attempt.link)


def passed(limits: Throttle, attempt: Attempt) -> None:
    """Give a person who passed their attempts back."""
    give_back_soft(limits, attempt)
    limits.clear(throttle.STEP_UP, *attempt.network)
    # Many people of one network open records of their own: only who does not get in counts against it.
    limits.one_less(throttle.RECORDS_TRIED, wider_network_of(attempt.browser.client), attempt.link)
    if attempt.device is not None:
        limits.forget(throttle.DEVICE, attempt.device.digest.hex())


def failed(
    connection: Connection, clock: Clock, limits: Throttle, attempt: Attempt, in_a_row: int, event: str = ""
) -> None:
    """Write down a wrong answer, with the method's own ``event`` if it named one; tell the vendor of many."""
    seen = attempt.seen
    detail = {"method": attempt.slug, "in_a_row": in_a_row, "trusted_device": attempt.device is not None}
    _record(connection, seen, clock, "stepup.failed", detail)
    if event:
        note_event(connection, seen, clock, attempt.slug, event)
    if in_a_row in REPEATEDLY:
        told = _failures(seen, attempt.slug, in_a_row, clock)
        outbox.emit(connection, clock, seen.scope, STEP_UP_FAILED, told, seen.customer_id)
    if in_a_row == HARD_CAP and attempt.guessing is Guessing.REUSED:
        _record(connection, seen, clock, "stepup.paused", detail)
    if attempt.device is None and attempt.guessing is not Guessing.NONE:
        limits.count(throttle.NETWORK_FAILURES, wider_network_of(attempt.browser.client))
        if limits.count(throttle.TENANT_FAILURES, attempt.tenant) == throttle.TENANT_FAILURES.amount + 1:
            _log.warning("stepup.alarm tenant=%s", seen.scope.plane)
            _record(connection, seen, clock, "stepup.alarm", {"failures_in_an_hour": throttle.TENANT_FAILURES.amount})


def note_event(connection: Connection, seen: Visit, clock: Clock, slug: str, event: str) -> None:
    """Write down what a method wants the vendor to learn of."""
    _record(connection, seen, clock, f"{slug}.{event}", {})


def _is_network_limited(limits: Throttle, attempt: Attempt) -> Wait | None:
    wider = wider_network_of(attempt.browser.client)
    if limits.is_above(throttle.NETWORK_FAILURES, wider):
        return Wait(throttle.NETWORK_FAILURES.get_expiry())
    wait = limits.hit(throttle.STEP_UP, *attempt.network)
    if wait is not None:
        return wait
    is_alarm = limits.is_above(throttle.TENANT_FAILURES, attempt.tenant)
    different = throttle.RECORDS_TRIED_IN_ALARM if is_alarm else throttle.RECORDS_TRIED
    return limits.take_one_more(different, wider, attempt.link)


def _record(connection: Connection, seen: Visit, clock: Clock, event: str, detail: dict[str, Any]) -> None:
    audit.record(connection, seen.scope, clock, event, actor="customer", customer_id=seen.customer_id, detail=detail)


def _failures(seen: Visit, slug: str, in_a_row: int, clock: Clock) -> dict[str, object]:
    """Return what the vendor is told: which customer's link, never what was entered."""
    return {
        "customerId": seen.row.external_id,
        "method": slug,
        "failuresInARow": in_a_row,
        "paused": in_a_row >= HARD_CAP,
        "at": rfc3339(clock.now()),
    }
