"""The landing page and the page of a period, over a long history and among many hosts.

Each request has the page made: a remembered landing page would cost the same whatever it shows.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from measure import Limit, Result, alternate, processor_seconds, scaled
from stage import CUSTOMER, add_hosts, answer, fill, get, shop_on_sqlite, temporary_folder

from client import serve
from shared_record.clock import period_of
from world import Shop

SHORT, LONG = 1_000, 1_000_000
FEW, MANY = 10, 100_000
REQUESTS = 100
ROUNDS = 7
LIMIT = Limit("≤", 1.5)
UNIT = "ms/request"


def landing_history(scale: float) -> Result:
    """Request the landing page of a customer with a long history, against one with a short one."""
    return _over_history("landing", scale)


def period_history(scale: float) -> Result:
    """Request the page of a long period, against that of a short one."""
    return _over_history("period", scale)


def landing_hosts(scale: float) -> Result:
    """Request the landing page where very many hosts are served, against few."""
    return _among_hosts("landing", scale)


def period_hosts(scale: float) -> Result:
    """Request the page of a period where very many hosts are served, against few."""
    return _among_hosts("period", scale)


def _over_history(page: str, scale: float) -> Result:
    counts = scaled(LONG, scale, least=2_000), scaled(SHORT, scale, least=200)
    with ExitStack() as stack:
        long, short = (_requests(_shop(stack, deltas=count), page, scale) for count in counts)
        rounds = alternate(long, short, ROUNDS)
    note = f"the {page} page in-process on SQLite: a customer with {counts[0]:,} deltas; with {counts[1]:,}"
    return Result(f"{page}-history", rounds.measured, rounds.reference, rounds.ratio, LIMIT, UNIT, note)


def _among_hosts(page: str, scale: float) -> Result:
    many = scaled(MANY, scale, least=100)
    with ExitStack() as stack:
        among_many, among_few = (_requests(_shop(stack, hosts=count), page, scale) for count in (many, FEW))
        rounds = alternate(among_many, among_few, ROUNDS)
    note = f"the {page} page in-process on SQLite: where {many:,} hosts are served; where {FEW}"
    return Result(f"{page}-hosts", rounds.measured, rounds.reference, rounds.ratio, LIMIT, UNIT, note)


def _shop(stack: ExitStack, *, deltas: int = 3, hosts: int = 0) -> Shop:
    """Open a tenant whose one customer has so many deltas, all but the newest covered by a checkpoint."""
    folder = stack.enter_context(temporary_folder())
    shop = stack.enter_context(shop_on_sqlite(folder, policy="OPEN"))
    add_hosts(shop, hosts)
    fill(shop, deltas - 1)
    shop.checkpoint()
    shop.record(CUSTOMER, "2.5")
    return shop


def _requests(shop: Shop, page: str, scale: float) -> Callable[[], float]:
    """Return what measures the mean processor time of a request, in milliseconds."""
    path = shop.link(CUSTOMER).path
    if page == "period":
        path += f"/periods/{period_of(shop.clock.now())}"
    application, environ = serve(shop), get(path) | {"QUERY_STRING": "again=1"}
    count = scaled(REQUESTS, scale, least=10)
    for _ in range(5):
        answer(application, environ)

    def mean() -> float:
        return processor_seconds(lambda: [answer(application, environ) for _ in range(count)]) / count * 1000

    return mean
