"""Deriving a balance after a thousand and after a million deltas of one customer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta

from measure import Limit, Result, alternate, scaled, seconds
from stage import CUSTOMER, PORT, answer, fill, get, shop_on_sqlite, temporary_folder

from client import serve
from shared_record.tenancy.tenants import update_tenant

SHORT, LONG = 1_000, 1_000_000
REQUESTS = 50
ROUNDS = 9
UNLIMITED = 1_000_000


def derive_history(scale: float) -> Result:
    """Derive a window that cuts a long history, with its days and a page of rows; against a short one's."""
    counts = (scaled(LONG, scale, least=2_000), scaled(SHORT, scale, least=200))
    requests = scaled(REQUESTS, scale, least=10)
    with ExitStack() as stack:
        long, short = (_derive(stack, count) for count in counts)
        rounds = alternate(lambda: long(requests), lambda: short(requests), ROUNDS)
    return Result(
        "derive-history",
        rounds.measured * 1000,
        rounds.reference * 1000,
        rounds.ratio,
        Limit("≤", 1.5),
        "ms/request",
        f"GET derive in-process on SQLite: a window that cuts a period of {counts[0]:,} deltas; of {counts[1]:,}",
    )


def _derive(stack: ExitStack, deltas: int) -> Callable[[int], float]:
    """Return what measures the mean time of a call over so many deltas, all but one checkpointed."""
    folder = stack.enter_context(temporary_folder())
    shop = stack.enter_context(shop_on_sqlite(folder))
    fill(shop, deltas - 1)
    shop.checkpoint()
    shop.record(CUSTOMER, "2.5")
    with shop.db.write(shop.scope) as connection:
        update_tenant(connection, shop.scope, {"api_rate": UNLIMITED, "api_burst": UNLIMITED})
    last = shop.clock.now()
    start, end = ((last - timedelta(**ago)).strftime("%Y-%m-%dT%H:%M:%SZ") for ago in ({"days": 1}, {"seconds": 1}))
    environ = get(f"/api/v1/balance/derive/{CUSTOMER}") | {
        "HTTP_HOST": f"localhost:{PORT}",
        "HTTP_X_API_KEY": shop.api_key(),
        "QUERY_STRING": f"startDate={start}&endDate={end}&granularity=day&limit=20",
    }
    application = serve(shop)
    for _ in range(5):
        answer(application, environ)

    def mean(requests: int) -> float:
        return seconds(lambda: [answer(application, environ) for _ in range(requests)]) / requests

    return mean
