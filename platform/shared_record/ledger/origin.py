"""The origins of a log, one after another, and how their epochs are numbered in the database. Pure.

A log that cannot go on (its database fell behind the lock store, its key is lost or known to others) begins anew
under another origin: ``<origin>/2``, then ``/3``. Each has a tree of its own, whose epochs count from 0 and whose
checkpoints have sizes from 1. In the database they stand side by side under *serials*: origin ``k`` has the serials
from ``(k - 1) * 2**32`` on. Of the first origin a serial is the number itself.
"""

from __future__ import annotations

import re

SPAN = 2**32
"""Serials of one origin: an epoch each second for 136 years."""

_LATER = re.compile(r"(.+)/([2-9]|[1-9][0-9]{1,8})", re.ASCII | re.DOTALL)


def number_of(serial: int) -> int:
    """Return the number of an epoch within its origin, or the size of a checkpoint of that origin."""
    return serial % SPAN


def start_of(serial: int) -> int:
    """Return the first serial of the origin that ``serial`` belongs to."""
    return serial - serial % SPAN


def ordinal_of(serial: int) -> int:
    """Return which origin of its log ``serial`` belongs to: 1 for the first."""
    return serial // SPAN + 1


def start_of_ordinal(ordinal: int) -> int:
    """Return the first serial of a log's origin number ``ordinal``, from 1."""
    return (ordinal - 1) * SPAN


def name_origin(first: str, ordinal: int) -> str:
    """Return the origin number ``ordinal`` of the log whose first origin is ``first``."""
    return first if ordinal == 1 else f"{first}/{ordinal}"


def is_later_origin(origin: str, of: str) -> bool:
    """Tell whether ``origin`` is one that the log of origin ``of`` would declare after it, by its name alone."""
    first, ordinal = _split(of)
    later = _LATER.fullmatch(origin)
    return later is not None and later[1] in (of, first) and int(later[2]) > (ordinal if later[1] == first else 1)


def _split(origin: str) -> tuple[str, int]:
    found = _LATER.fullmatch(origin)
    return (origin, 1) if found is None else (found[1], int(found[2]))
