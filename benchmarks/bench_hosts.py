"""Finding whose host it is, among ten and among a hundred thousand."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import ExitStack

from measure import Limit, Result, alternate, scaled, seconds
from stage import add_hosts, shop_on_sqlite, temporary_folder

from shared_record.hosts.resolver import Resolver

FEW, MANY = 10, 100_000
LOOKUPS = 2_000
ROUNDS = 7


def host_lookup(scale: float) -> Result:
    """Resolve random hosts among many, each asked of the database; against among few.

    Each name is forgotten by the resolver's cache first, which would otherwise hide the query that is measured.
    """
    many, lookups = scaled(MANY, scale, least=100), scaled(LOOKUPS, scale, least=50)
    with ExitStack() as stack:
        among_many, among_few = (_lookups(stack, count, lookups) for count in (many, FEW))
        rounds = alternate(among_many, among_few, ROUNDS)
    return Result(
        "host-lookup",
        rounds.measured * 1e6,
        rounds.reference * 1e6,
        rounds.ratio,
        Limit("≤", 1.5),
        "µs/lookup",
        f"uncached look-ups of random hosts on SQLite: among {many:,}; among {FEW}",
    )


def _lookups(stack: ExitStack, count: int, lookups: int) -> Callable[[], float]:
    shop = stack.enter_context(shop_on_sqlite(stack.enter_context(temporary_folder()), hosts=()))
    names = add_hosts(shop, count)
    resolver, chance = Resolver(shop.db, ["localhost"]), random.Random(7)

    def ask(wanted: list[str]) -> None:
        for name in wanted:
            resolver.forget(name)
            if resolver.resolve(name) is None:
                raise RuntimeError(f"{name} was not found")

    def mean() -> float:
        wanted = chance.choices(names, k=lookups)
        return seconds(lambda: ask(wanted)) / lookups

    mean()
    return mean
