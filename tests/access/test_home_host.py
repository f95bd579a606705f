"""Each link lives on one host, whatever becomes of the tenant's others."""

from __future__ import annotations

import pytest

from client import PORT, Visitor, serve, url_of
from shared_record.access import links
from shared_record.db.schema import host
from world import Shop, add_host

HOSTS = ("usage.acme.localhost", "record.acme.localhost", "a.acme.localhost")


@pytest.fixture
def shop(shop: Shop) -> Shop:
    with shop.db.write(shop.scope) as connection:
        add_host(connection, shop.clock, shop.scope.config, HOSTS[2], primary=False)
    shop.record("cust_a", "1")
    return shop


def set_role(shop: Shop, name: str, role: str) -> None:
    mine = (host.c.tenant_id == shop.scope.config) & (host.c.host == name)
    with shop.db.write(shop.scope) as connection:
        connection.execute(host.update().where(mine).values(role=role, epoch=host.c.epoch + 1))


def where(shop: Shop, *names: str) -> dict[str, str]:
    """Return what a fresh application answers on each host: its page, where it leads, or a status."""
    found = {}
    path = url_of(shop, "cust_a").partition("/")[2]
    for name in (*names, "localhost"):
        answer = Visitor(serve(shop)).get(f"{name}/{path}")
        location = answer.headers.get("Location", "").partition("/c/")[0]
        found[name] = "here" if answer.status_code == 200 else location or str(answer.status_code)
    return found


def test_exactly_one_host_serves_a_link_while_the_primary_one_is_suspended(shop: Shop) -> None:
    first = f"http://{HOSTS[0]}:{PORT}"
    assert where(shop, *HOSTS) == {HOSTS[0]: "here", HOSTS[1]: first, HOSTS[2]: first, "localhost": first}
    set_role(shop, HOSTS[0], "suspended")
    instead = f"http://{HOSTS[2]}:{PORT}"  # the first by name
    assert where(shop, *HOSTS) == {HOSTS[0]: "421", HOSTS[1]: instead, HOSTS[2]: "here", "localhost": instead}
    answer = Visitor(serve(shop)).get(f"{HOSTS[1]}/{url_of(shop, 'cust_a').partition('/')[2]}.json")
    assert (answer.status_code, answer.json["error"]["code"]) == (409, "RECORD_MOVED")
    set_role(shop, HOSTS[2], "suspended")
    assert where(shop, *HOSTS[1:])[HOSTS[1]] == "here"
    set_role(shop, HOSTS[1], "suspended")
    assert where(shop)["localhost"] == "here", "without a host that serves, the platform host does"


def test_a_home_of_its_own_comes_before_the_primary_host_and_falls_back_with_it(shop: Shop) -> None:
    with shop.db.write(shop.scope) as connection:
        links.move_host(connection, shop.keys, shop.clock, shop.scope, "cust_a", HOSTS[1], "test")
    set_role(shop, HOSTS[0], "suspended")
    home = f"http://{HOSTS[1]}:{PORT}"
    assert where(shop, *HOSTS[1:]) == {HOSTS[1]: "here", HOSTS[2]: home, "localhost": home}
    set_role(shop, HOSTS[1], "suspended")
    assert where(shop, HOSTS[2])[HOSTS[2]] == "here"


def test_s05_a_session_of_the_stand_in_host_ends_when_the_primary_one_is_back(shop: Shop) -> None:
    set_role(shop, HOSTS[0], "suspended")
    visitor, path = Visitor(serve(shop)), url_of(shop, "cust_a").partition("/")[2]
    assert visitor.unlock(f"{HOSTS[2]}/{path}", shop.code("cust_a")).status_code == 303
    assert visitor.get(f"{HOSTS[2]}/{path}/activity").status_code == 200
    set_role(shop, HOSTS[0], "serving")
    away = visitor.get(f"{HOSTS[2]}/{path}/activity")
    assert (away.status_code, away.headers["Location"]) == (302, f"http://{HOSTS[0]}:{PORT}/{path}/activity")
    visitor.jars[HOSTS[0]] = dict(visitor.jars[HOSTS[2]])
    assert visitor.get(f"{HOSTS[0]}/{path}/activity").status_code == 303
