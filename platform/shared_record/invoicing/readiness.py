"""Whether a period of a customer can be put on an invoice, and what to do where it cannot. Advice, never a score."""

from __future__ import annotations

from dataclasses import dataclass

from shared_record.access.links import Link
from shared_record.clock import rfc3339
from shared_record.ledger.records import Period
from shared_record.tenancy.policies import Policy


@dataclass(frozen=True, slots=True)
class Blocker:
    """One thing that stands between a period and its invoice, and the way to settle it."""

    code: str
    message: str
    action: str


def find_blockers(
    period: Period, link: Link, policy: Policy, *, has_methods: bool, late_records: int
) -> tuple[Blocker, ...]:
    """Return what blocks the invoice of ``period``; empty when it is ready.

    ``policy`` is the one in force for the customer, ``has_methods`` whether its tenant offers a way to step up,
    ``late_records`` how many corrections of this period were recorded after it was closed.
    """
    found = []
    if period.status == "open":
        end = rfc3339(period.bounds[1])
        found.append(Blocker("period_open", "The period is still open.", f"It closes after {end}."))
    uncovered = period.size - period.psize
    if uncovered:
        found.append(
            Blocker(
                "records_not_covered",
                f"{uncovered} of {period.size} records are not covered by a checkpoint.",
                "Wait for the next checkpoint; see `shared-record ledger status`.",
            )
        )
    if link.revoked_at is not None:
        found.append(Blocker("no_link", "The customer has no working link.", "Run `shared-record link issue`."))
    if link.host is None:
        found.append(
            Blocker("domain_not_bound", "The tenant has no serving host.", "Add one to its file and apply it.")
        )
    if policy is not Policy.OPEN and not has_methods:
        found.append(
            Blocker(
                "code_missing", "Nobody can step up: no method is enabled.", "Enable a method in the tenant's file."
            )
        )
    if late_records:
        found.append(
            Blocker(
                "late_records_after_close",
                f"{late_records} records that correct this period were recorded after it was closed.",
                "They are part of the next period; say so on the invoice.",
            )
        )
    return tuple(found)
