"""Step-up: the core runs the tenant's method, limits it, and alone issues the session.

Order of one attempt: soft limit -> hard reserve in the database -> the method's verdict -> session. What a method
raises counts as a refusal; a success gives the attempts back.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError
from sqlalchemy import bindparam

from shared_record.access import audit, sessions
from shared_record.access.links import codes_now_valid, normalise_code
from shared_record.access.sessions import Visit
from shared_record.access.throttle import STEP_UP, Throttle, Wait, network_of
from shared_record.clock import Clock
from shared_record.db.engine import Database
from shared_record.db.schema import link
from shared_record.keys import KeyRing
from shared_record.plugin import Challenge, NotMine, Passed, Refused, StepUpContext, StepUpMethod, Verdict
from shared_record.tenancy.methods import list_methods

HARD_CAP = 100
"""Wrong answers in a row after which codes stop working for a link until its code is rotated or the link reissued."""

_log = logging.getLogger("shared_record.stepup")
_RESERVE = (
    link.update()
    .where(
        link.c.tenant_id == bindparam("t"),
        link.c.customer_id == bindparam("who"),
        link.c.tries < HARD_CAP,
    )
    .values(tries=link.c.tries + 1)
    .returning(link.c.tries)
)


@dataclass(frozen=True, slots=True)
class Offer:
    """One method that the customer may use now, with what to show; ``epoch`` is its settings' at this moment."""

    method: StepUpMethod
    context: StepUpContext
    challenge: Challenge
    epoch: int


@dataclass(frozen=True, slots=True)
class Opened:
    """The person passed; ``sid`` goes into the cookie."""

    sid: str
    open_until: datetime


@dataclass(frozen=True, slots=True)
class NotOpened:
    """The person did not pass: a public reason, and how long to wait where a limit is reached."""

    reason: str
    code: str
    wait: Wait | None = None


def offers(
    db: Database, keys: KeyRing, clock: Clock, installed: Mapping[str, type[StepUpMethod]], seen: Visit
) -> list[Offer]:
    """Return the tenant's methods that this customer may use now, in the tenant's order."""
    with db.read(seen.scope) as connection:
        rows = list_methods(connection, seen.scope)
    found = []
    for row in rows:
        kind = installed.get(row.slug)
        if kind is None:
            _log.error("plugin.missing method=%s", row.slug)
            continue
        try:
            method = kind()
            settings = kind.settings_model.model_validate(row.settings)
            context = StepUpContext(
                tenant_name=seen.row.vendor,
                host=seen.host,
                customer_label=seen.row.display_name,
                now=clock.now(),
                settings=settings,
                matches_access_code=lambda text: _matches(keys, clock, seen, text),
            )
            if method.availability(context):
                challenge = method.begin(context)
                if not isinstance(challenge, Challenge):
                    raise TypeError(f"begin returned {type(challenge).__name__}, not a Challenge")
                found.append(Offer(method, context, challenge, row.epoch))
        except ValidationError:
            _log.error("config.rejected method=%s", row.slug)
        except Exception:
            _log.exception("plugin.fault method=%s", row.slug)
    return found


def attempt(
    db: Database,
    clock: Clock,
    throttle: Throttle,
    seen: Visit,
    offer: Offer,
    answer: Mapping[str, str],
    *,
    client: str,
) -> Opened | NotOpened:
    """Judge one answer and, if the person passed, issue a session bound to host, customer and current epochs."""
    key = (network_of(client), seen.row.link_id.hex)
    wait = throttle.hit(STEP_UP, *key)
    if wait is not None:
        return NotOpened("Too many attempts were made from this connection.", "STEP_UP_THROTTLED", wait)
    with db.write(seen.scope) as connection:
        reserved = connection.execute(_RESERVE, {"t": seen.scope.plane, "who": seen.customer_id}).scalar_one_or_none()
    if reserved is None:
        return NotOpened("This method is paused for this record. Contact the vendor.", "STEP_UP_PAUSED", Wait(3600))
    verdict = _verdict(offer, answer)
    slug = offer.method.slug
    with db.write(seen.scope) as connection:
        if isinstance(verdict, Passed):
            replaced = seen.session.sid_hash if seen.session else None
            issued = sessions.issue(
                connection, clock, seen, slug, verdict.subject_hint, method_epoch=offer.epoch, replaces=replaced
            )
            if issued is not None:
                throttle.clear(STEP_UP, *key)
                return Opened(*issued)
            reason = "This record changed while it was being opened. Try again."
        else:
            reason = verdict.public_reason if isinstance(verdict, Refused) else "This answer was not recognised."
        audit.record(
            connection,
            seen.scope,
            clock,
            "stepup.failed",
            actor="customer",
            customer_id=seen.customer_id,
            detail={"method": slug, "in_a_row": reserved},
        )
    return NotOpened(reason, "ACCESS_CODE_INVALID" if offer.method.factor == "ACCESS_HINT" else "STEP_UP_REFUSED")


def _verdict(offer: Offer, answer: Mapping[str, str]) -> Verdict:
    try:
        verdict = offer.method.verify(offer.context, answer)
        if not _is_sound(verdict):
            raise TypeError(f"verify returned {type(verdict).__name__}, or text that cannot be kept")
    except Exception:
        _log.exception("plugin.fault method=%s", offer.method.slug)
        return NotMine()
    return verdict


def _is_sound(verdict: object) -> bool:
    match verdict:
        case Passed(subject_hint=text) | Refused(public_reason=text):
            return isinstance(text, str) and "\0" not in text
        case _:
            return isinstance(verdict, NotMine)


def _matches(keys: KeyRing, clock: Clock, seen: Visit, text: str) -> bool:
    row = seen.row
    candidate = normalise_code(text).encode()
    valid = codes_now_valid(
        keys,
        seen.scope.plane,
        seen.customer_id,
        version=row.code_version,
        kid=row.code_kid,
        former_kid=row.former_code_kid,
        former_until=row.former_code_until,
        now=clock.now(),
    )
    matches = [hmac.compare_digest(candidate, code.encode()) for code in valid]  # each one, for equal time
    return any(matches)
