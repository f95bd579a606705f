"""Tiers: which surface shows what, under which policy. Pure."""

from __future__ import annotations

from enum import StrEnum

from shared_record.tenancy.policies import Policy


class Surface(StrEnum):
    """What a route shows, as the tier table of the design names it."""

    LANDING = "landing"
    DETAIL = "detail"
    ACCESS_LOG = "access log"


_OUTER = {
    Policy.TWO_TIER: {Surface.LANDING},
    Policy.GATED: frozenset[Surface](),
    Policy.OPEN: {Surface.LANDING, Surface.DETAIL},
}


def needs_session(policy: Policy, surface: Surface) -> bool:
    """Tell whether ``surface`` belongs to the inner tier under ``policy``."""
    return surface not in _OUTER[policy]
