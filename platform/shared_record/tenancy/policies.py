"""Access policies: what possession of a link shows, and what needs step-up."""

from __future__ import annotations

from enum import StrEnum


class Policy(StrEnum):
    """``TWO_TIER``: summary by handle, the rest by step-up. ``GATED``: all by step-up. ``OPEN``: all by handle."""

    TWO_TIER = "TWO_TIER"
    GATED = "GATED"
    OPEN = "OPEN"

    @classmethod
    def stored(cls, value: str) -> Policy:
        """Return the policy of a database value; one this version does not know shows the least: ``GATED``."""
        return cls.__members__.get(value, cls.GATED)
