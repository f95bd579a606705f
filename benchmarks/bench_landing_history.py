"""The landing page after a thousand and after a million deltas of one customer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from measure import Limit, Result, alternate, scaled, seconds
from stage import CUSTOMER, answer, fill, get, shop_on_sqlite, temporary_folder

from client import serve

SHORT, LONG = 1_000, 1_000_000
REQUESTS = 200
ROUNDS = 7


def landing_history(scale: float) -> Result:
    """Request the landing page in-process over a long history; against a short one in a database of its own."""
    counts = (scaled(LONG, scale, least=2_000), scaled(SHORT, scale, least=200))
    requests = scaled(REQUESTS, scale, least=10)
    with ExitStack() as stack:
        long, short = (_page(stack, count) for count in counts)
        rounds = alternate(lambda: long(requests), lambda: short(requests), ROUNDS)
    return Result(
        "landing-history",
        rounds.measured * 1000,
        rounds.reference * 1000,
        rounds.ratio,
        Limit("≤", 1.5),
        "ms/request",
        f"the landing page in-process on SQLite: one customer with {counts[0]:,} deltas; with {counts[1]:,}",
    )


def _page(stack: ExitStack, deltas: int) -> Callable[[int], float]:
    """Return what measures the mean time of a request to a customer with so many deltas, all but one checkpointed."""
    folder = stack.enter_context(temporary_folder())
    shop = stack.enter_context(shop_on_sqlite(folder))
    fill(shop, deltas - 1)
    shop.checkpoint()
    shop.record(CUSTOMER, "2.5")
    application, environ = serve(shop), get(shop.link(CUSTOMER).path)
    for _ in range(5):
        answer(application, environ)

    def mean(requests: int) -> float:
        return seconds(lambda: [answer(application, environ) for _ in range(requests)]) / requests

    return mean
