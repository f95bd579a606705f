"""What a benchmark returns, and how two things are measured against each other on a noisy machine."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple


@dataclass(frozen=True, slots=True)
class Limit:
    """What a ratio has to keep to."""

    sign: Literal["≥", "≤"]
    value: float

    def holds(self, ratio: float) -> bool:
        """Tell whether ``ratio`` keeps to it."""
        return ratio >= self.value if self.sign == "≥" else ratio <= self.value

    def __str__(self) -> str:
        return f"{self.sign} {self.value:g}"


@dataclass(frozen=True, slots=True)
class Result:
    """One comparison: ``measured`` and ``reference`` in ``unit``, with ``ratio`` as ``Rounds`` has them.

    Without a ``limit`` it is only reported.
    """

    name: str
    measured: float
    reference: float
    ratio: float
    limit: Limit | None
    unit: str
    note: str

    @property
    def held(self) -> bool:
        """Whether the limit is kept, if there is one."""
        return self.limit is None or self.limit.holds(self.ratio)


class Rounds(NamedTuple):
    """Both figures and their ratio over all rounds: medians, or the best."""

    measured: float
    reference: float
    ratio: float


def alternate(ours: Callable[[], float], reference: Callable[[], float], rounds: int) -> Rounds:
    """Run both in turn ``rounds`` times; the median of the ratios is what a busy neighbour disturbs least.

    Each call returns its own figure (seconds, or a rate), so that what it has to prepare is not counted.
    """
    pairs = []
    for _ in range(rounds):
        gc.collect()
        pairs.append((ours(), reference()))
    return Rounds(
        statistics.median(mine for mine, _ in pairs),
        statistics.median(other for _, other in pairs),
        statistics.median(mine / other for mine, other in pairs),
    )


def best_of(ours: Callable[[], float], reference: Callable[[], float], rounds: int) -> Rounds:
    """Run both in turn ``rounds`` times; return the best of each, and their ratio.

    For figures in processor time, which others on the machine can only make longer.
    """
    pairs = []
    for _ in range(rounds):
        gc.collect()
        pairs.append((ours(), reference()))
    mine, other = (min(figures) for figures in zip(*pairs, strict=True))
    return Rounds(mine, other, mine / other)


def processor_seconds(work: Callable[[], object]) -> float:
    """Return how much processor time of this process ``work`` took, all its threads and the kernel's part included."""
    start = time.process_time()
    work()
    return time.process_time() - start


def seconds(work: Callable[[], object]) -> float:
    """Return how long ``work`` took."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def scaled(count: int, scale: float, least: int = 1) -> int:
    """Return ``count`` shrunk by ``scale``, but not below ``least``."""
    return max(least, round(count * scale))
