"""Isolation, cell by cell: who asks, for whose record, on which host, by which route, under which policy.

The routes are those of the two applications, and what each may show follows from the tier it declares. Each customer
of each data plane has strings and numbers of their own; none may be in an answer that is not theirs to give.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest
from flask import Blueprint, Flask
from pypdf import PdfReader
from sqlalchemy import select
from werkzeug.test import TestResponse

from client import Visitor, serve
from shared_record.access import apikeys, entitlements, links
from shared_record.access.policy import Surface, needs_session
from shared_record.access.sessions import cookie_name
from shared_record.access.throttle import Spent
from shared_record.app import PLATFORM, SERVING, create_app
from shared_record.clock import period_bounds
from shared_record.db.schema import link, metadata
from shared_record.db.scope import Scope
from shared_record.errors import ConfigurationError
from shared_record.ledger.intake import Delta, record_deltas
from shared_record.ledger.receipts import issue_receipt
from shared_record.settings import Settings
from shared_record.tenancy.policies import Policy
from shared_record.tenancy.tenants import public_id
from shared_record.web import csrf
from shared_record.web.api.operations import operations
from shared_record.web.tiers import Gatekeeper, Tier, tier_of
from stepup_methods import Unlimited
from world import Shop, open_shop

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
PLATFORM_HOST = "localhost"
PRINCIPALS = (
    "stranger",
    "session of this record",
    "session of another customer",
    "session of another customer, under this record's name",
    "session of another customer, at its own link",
    "session of another tenant's customer, under this record's name",
    "session of this record on its former host",
    "session of this record that was closed",
    "live key",
    "test key",
    "token",
    "other tenant's key",
    "other tenant's token",
    "everything of the other tenant",
)
PAGE_QUERY = ("period", "format", "reference", "a", "b")
AT_HOME = ("session of this record", "session of another customer, at its own link")
SILENT = {
    "/c/<handle>/access-log",
    "/c/<handle>/access-log.json",
    "/c/<handle>/export",
    "/c/<handle>/export/prepared",
    "/api/v1/c/<handle>/disclosure",
    "/api/v1/c/<handle>/history",
    "/api/v1/balance/customers",
    "/api/v1/balance/customers/summary",
    "/api/v1/balance/gaps/<customer_id>",
    "/api/v1/balance/limits",
    "/api/v1/balance/usage",
    "/api/v1/balance/webhooks",
}
"""Routes that show no amount, text or id of a record, or nothing of these records."""
SIBLINGS = {0: 1, 1: 0, 2: 0, 3: 0}
"""Who is the other customer, for each target."""
PLACES = ("home", "other host", "foreign host", "platform")


# --- What is asked ---------------------------------------------------------------------------------------------------


class Route(NamedTuple):
    """One rule, by one method, with where it is mounted, its declared tier and, for API calls, an example body."""

    mounted: frozenset[str]
    method: str
    rule: str
    tier: Tier
    body: Any
    query: tuple[str, ...]


def routes() -> Iterator[Route]:
    found: dict[tuple[str, str], Route] = {}
    for place, blueprints in (("serving", SERVING), ("platform", PLATFORM)):
        app = Flask(place, static_folder=None)
        for one in blueprints:
            app.register_blueprint(one)
        declared = operations(app)
        for rule in app.url_map.iter_rules():
            for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
                call = declared.get((rule.rule, method))
                body = next(iter(call[0].examples.values()), {}) if call else {}
                query = [one.alias or name for name, one in call[0].query.model_fields.items()] if call else PAGE_QUERY
                before = found.get((method, rule.rule))
                mounted = frozenset({place}) | (before.mounted if before else frozenset())
                found[method, rule.rule] = Route(
                    mounted, method, rule.rule, tier_of(app, rule.endpoint), body, tuple(query)
                )
    yield from found.values()


class Cell(NamedTuple):
    """One request of the matrix."""

    route: Route
    principal: str
    target: int
    place: str
    policy: Policy


def cells(everything: bool) -> list[Cell]:
    """Return every cell, or so many that each pair of values of any two sides of the matrix occurs.

    Each principal then also takes each route where that route leads somewhere.
    """
    all_routes = list(routes())
    around = list(product(range(4), PLACES, Policy))
    if everything:
        return [Cell(route, who, *rest) for route, who, rest in product(all_routes, PRINCIPALS, around)]
    chosen, seen = [], set[tuple[Any, ...]]()
    for (number, route), who in product(enumerate(all_routes), PRINCIPALS):
        at = "home" if "serving" in route.mounted else "platform"
        for among in (around, [one for one in around if one[1] == at]):
            options = []
            for rest in among:
                sides = (number, who, *rest)
                pairs = {(i, j, sides[i], sides[j]) for j in range(5) for i in range(j)}
                options.append((len(pairs - seen), rest, pairs))
            most = max(count for count, *_ in options)
            equal = [one for one in options if one[0] == most]
            _, best, pairs = equal[len(chosen) % len(equal)]
            seen |= pairs
            chosen.append(Cell(route, who, *best))
    wanted = {
        (i, j, a, b)
        for j, right in enumerate([[*range(len(all_routes))], PRINCIPALS, range(4), PLACES, Policy])
        for i, left in enumerate([[*range(len(all_routes))], PRINCIPALS, range(4), PLACES, Policy][:j])
        for a, b in product(left, right)
    }
    assert wanted <= seen
    return chosen


# --- The tenants -----------------------------------------------------------------------------------------------------


@dataclass
class Person:
    """A customer with what is theirs alone, and the ids by which it is asked for."""

    shop: Shop
    scope: Scope
    name: str
    canary: str
    amount: str
    handle: str = ""
    receipt: str = ""
    root: str = ""
    record: str = ""
    webhook: str = ""
    link_id: Any = None
    jars: dict[str, str] = field(default_factory=dict)

    @property
    def total(self) -> str:
        return str(Decimal(self.amount) + 1)


class Town:
    """Two tenants: the first with two customers and one in its test plane, the second with a customer of that name."""

    def __init__(self, one: Shop, two: Shop) -> None:
        self.one, self.two = one, two
        self.people = [
            Person(one, one.scope, "cust_a", "canary-one-a", "7101.5"),
            Person(one, one.scope, "cust_b", "canary-one-b", "7202.5"),
            Person(one, one.test_scope, "cust_a", "canary-test-a", "7303.5"),
            Person(two, two.scope, "cust_a", "canary-two-a", "7404.5"),
        ]
        for month in range(2):
            one.clock.advance(days=15 * month)
            for person in self.people:
                self.record(person)
        for person in self.people:
            self.name(person)
        self.headers = {
            "live key": {"X-Api-Key": one.api_key(scopes=[*apikeys.SCOPES])},
            "test key": {"X-Api-Key": one.api_key(test=True, scopes=[*apikeys.SCOPES])},
            "other tenant's key": {"X-Api-Key": two.api_key(scopes=[*apikeys.SCOPES])},
            "token": {"Authorization": f"Bearer {self.token(one)}"},
            "other tenant's token": {"Authorization": f"Bearer {self.token(two)}"},
        }
        self.headers["everything of the other tenant"] = (
            self.headers["other tenant's key"] | self.headers["other tenant's token"]
        )

    def record(self, person: Person) -> None:
        number = f"-ref{'-2' if person.record else ''}"
        deltas = [
            Delta(person.name, person.amount, person.canary, reference_id=person.canary + number),
            Delta(person.name, "1", person.canary),
        ]
        shop = person.shop
        done = record_deltas(shop.db, shop.keys, shop.clock, person.scope, deltas)
        person.record = person.record or done[0].record_id  # type: ignore[union-attr]

    def name(self, person: Person) -> None:
        shop = person.shop
        with shop.db.write(person.scope) as connection:
            found = links.show_link(connection, shop.keys, person.scope, person.name)
            mine = (link.c.tenant_id == person.scope.plane) & (link.c.customer_id == found.customer_id)
            person.link_id = connection.execute(select(link.c.link_id).where(mine)).scalar_one()
            person.handle = found.handle or ""
            rule = entitlements.email(f"{person.canary}@customer.example")
            entitlements.allow(connection, shop.keys, shop.clock, person.scope, person.name, rule, "test")
            if person.scope == shop.scope:
                span = period_bounds("2026-11")
                issued = issue_receipt(connection, shop.clock, person.scope, found.customer_id, *span)
                person.receipt, person.root = issued.receipt_id, "0x" + issued.proof_root.hex()

    def add_webhooks(self, visitor: Visitor) -> None:
        """Let each plane have a webhook, with the canary of one of its customers."""
        of = {0: "live key", 1: "live key", 2: "test key", 3: "other tenant's key"}
        for number, key in of.items():
            body = {"url": "https://hooks.acme.example/in", "description": self.people[number].canary}
            made = ask(visitor, "localhost/api/v1/webhooks", {}, "POST", self.headers[key], json=body)
            assert made.status_code == 201, made.text
            self.people[number].webhook = made.json["data"]["id"]

    def token(self, shop: Shop) -> str:
        with shop.db.write(shop.scope) as connection:
            return apikeys.create_token(connection, shop.clock, shop.scope, name="test", actor="test")

    def open_all(self, visitor: Visitor, policy: Policy) -> None:
        """Set the policy, and open the sessions that principals have: one dead by a move, one closed, one alive."""
        for shop in (self.one, self.two):
            with shop.db.write(shop.scope) as connection:
                links.set_tenant_policy(connection, shop.clock, shop.scope, policy, "test")
        for person in self.people:
            person.jars = {}
            if person.shop is self.one:
                self.move(person, 1)
                person.jars["former"] = self.unlock(visitor, person, self.one.hosts[1])
                self.move(person, 0)
            person.jars["closed"] = self.unlock(visitor, person, person.shop.hosts[0])
            path = f"{person.shop.hosts[0]}/c/{person.handle}/close"
            jar = {cookie_name(person.link_id, secure=False): person.jars["closed"]}
            token = re.search(r'"csrf_token" value="([^"]+)"', ask(visitor, f"{path[:-6]}/activity", jar).text)
            assert token
            assert ask(visitor, path, jar, "POST", data={"csrf_token": token[1]}).status_code == 303
            person.jars["own"] = self.unlock(visitor, person, person.shop.hosts[0])

    def move(self, person: Person, to: int) -> None:
        shop = person.shop
        with shop.db.write(person.scope) as connection:
            links.move_host(connection, shop.keys, shop.clock, person.scope, person.name, shop.hosts[to], "test")

    def unlock(self, visitor: Visitor, person: Person, host: str) -> str:
        shop = person.shop
        with shop.db.write(person.scope) as connection:
            code = links.reveal_code(connection, shop.keys, shop.clock, person.scope, person.name, "test")
        answer = {"factor": "ACCESS_HINT", "value": code}
        opened = ask(visitor, f"{host}/api/v1/c/{person.handle}/access/verify", {}, "POST", json=answer)
        assert opened.status_code == 200, opened.text
        return opened.headers["Set-Cookie"].partition("=")[2].partition(";")[0]


def ask(
    visitor: Visitor, url: str, jar: dict[str, str], method: str = "GET", headers: Any = None, **options: Any
) -> TestResponse:
    cookie = {"Cookie": "; ".join(f"{name}={value}" for name, value in jar.items())}
    return visitor.request(method, url, headers=cookie | (headers or {}), **options)


@pytest.fixture
def town(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Town:
    monkeypatch.setattr("shared_record.app.Throttle", Unlimited)
    monkeypatch.setattr(Unlimited, "spend", lambda self, rate, key: unspent(rate), raising=False)
    two = open_shop(
        shop.db, shop.keys, shop.clock, tmp_path, slug="borealis", hosts=("usage.two.localhost", "record.two.localhost")
    )
    town = Town(shop, two)
    for one in (shop, two):
        one.checkpoint()
    town.add_webhooks(Visitor(serve(shop)))
    return town


def unspent(rate: Any) -> Any:
    """Say that a key made no request yet."""
    return Spent(True, rate.burst, 1, 0)


# --- One cell --------------------------------------------------------------------------------------------------------


def host_of(town: Town, cell: Cell) -> str:
    own, other = (town.one, town.two) if town.people[cell.target].shop is town.one else (town.two, town.one)
    return {"home": own.hosts[0], "other host": own.hosts[1], "foreign host": other.hosts[0]}.get(
        cell.place, PLATFORM_HOST
    )


def carried(town: Town, cell: Cell) -> tuple[dict[str, str], dict[str, str]]:
    """Return the cookies and headers of the principal, who asks for the target."""
    target = town.people[cell.target]
    sibling = town.people[SIBLINGS[cell.target]]
    foreigner = town.people[0 if target.shop is town.two else 3]
    here = cookie_name(target.link_id, secure=False)
    jars = {
        "session of this record": {here: target.jars["own"]},
        "session of another customer": {cookie_name(sibling.link_id, secure=False): sibling.jars["own"]},
        "session of another customer, under this record's name": {here: sibling.jars["own"]},
        "session of another customer, at its own link": {
            cookie_name(sibling.link_id, secure=False): sibling.jars["own"]
        },
        "session of another tenant's customer, under this record's name": {here: foreigner.jars["own"]},
        "session of this record on its former host": {here: target.jars.get("former", "x")},
        "session of this record that was closed": {here: target.jars["closed"]},
        "everything of the other tenant": {
            cookie_name(one.link_id, secure=False): one.jars["own"]
            for one in town.people
            if one.shop is not target.shop
        },
    }
    return jars.get(cell.principal, {}), town.headers.get(cell.principal, {})


def link_of(town: Town, cell: Cell) -> int:
    """Return by whose link is asked: the target's, or for one principal the other customer's own."""
    return SIBLINGS[cell.target] if cell.principal == AT_HOME[1] else cell.target


def arguments(town: Town, cell: Cell) -> dict[str, str]:
    """Return what stands for each argument of a rule: the target's own, wherever it has some."""
    target = town.people[cell.target]
    document = target.receipt or target.record
    with target.shop.db.read(target.scope) as connection:
        log = public_id(connection, target.scope)
    return {
        "handle": town.people[link_of(town, cell)].handle,
        "period": "2026-11",
        "customer_id": target.name,
        "record_id": target.record,
        "document_id": document,
        "receipt_id": document,
        "root": target.root or "0x" + "0" * 64,
        "webhook_id": target.webhook,
        "event_id": "evt_none",
        "public_id": log,
        "vendor_id": log,
        "ordinal": "2",
        "name": "0/000",
        "digest": "0" * 16,
        "slug": "default",
        "method": "access_code",
        "choice": "x",
    }


def address(town: Town, cell: Cell) -> str:
    """Return path and query; a rule with an argument that is not known here fails."""
    target, given = town.people[cell.target], arguments(town, cell)
    named = re.findall(r"<(?:[^:<>]+:)?(\w+)>", cell.route.rule)
    unknown = set(named) - given.keys()
    assert not unknown, f"{cell.route.rule}: `arguments` above has to say what {unknown} of a customer is"
    path = re.sub(r"<(?:[^:<>]+:)?(\w+)>", lambda found: given[found[1]], cell.route.rule)
    values = {"customerId": target.name, "period": "2026-11", "format": "json", "reference": f"{target.canary}-ref"}
    values |= {"a": "2026-11", "b": "2026-12"} | ({"from": "1"} if "consistency" in path else {})
    return f"{path}?{urlencode({name: values[name] for name in cell.route.query if name in values})}"


def planes(town: Town, headers: dict[str, str], tier: Tier) -> set[int]:
    """Return whose data these headers may see: a key where a key is asked for, a token where a token is."""
    name = "X-Api-Key" if tier is Gatekeeper.API_KEY else "Authorization"
    owners = {
        "live key": {0, 1},
        "token": {0, 1},
        "test key": {2},
        "other tenant's key": {3},
        "other tenant's token": {3},
    }
    given = headers.get(name)
    return next((them for who, them in owners.items() if given and town.headers[who].get(name) == given), set())


def asked_of(town: Town, cell: Cell) -> int:
    """Return whose record the route shows: that of the link in it, else the target's."""
    return link_of(town, cell) if "<handle>" in cell.route.rule else cell.target


def is_foreign(town: Town, cell: Cell) -> bool:
    """Tell whether the host belongs to another tenant than what is asked for."""
    return host_of(town, cell) not in (*town.people[asked_of(town, cell)].shop.hosts, PLATFORM_HOST)


def allowed(town: Town, cell: Cell, headers: dict[str, str]) -> set[int]:
    """Return whose canaries the answer may hold, by the tier that the route declares."""
    asked, tier = asked_of(town, cell), cell.route.tier
    if tier in (Gatekeeper.API_KEY, Gatekeeper.BEARER):
        return planes(town, headers, tier)
    if not isinstance(tier, Surface) or is_foreign(town, cell):
        return set()
    is_home = host_of(town, cell) == town.people[asked].shop.hosts[0]
    if "<handle>" in cell.route.rule and not is_home:
        return set()
    has_session = cell.principal == "session of this record" or asked != cell.target
    return {asked} if (has_session and is_home) or not needs_session(cell.policy, tier) else set()


def found_in(town: Town, text: str, asked: str) -> set[int]:
    """Return whose canaries, amounts or ids stand in ``text``; what was ``asked`` for with them may be repeated."""
    plain = re.sub(r"[,\u202f\u2009\u00a0' ]", "", re.sub(r"canary-[\w-]+-ref", "", text))
    return {
        number
        for number, person in enumerate(town.people)
        if re.search(rf"{person.canary}|{re.escape(person.amount)}|{re.escape(person.total)}", plain)
        or any(one in text and one not in asked for one in (person.handle, person.record, person.receipt) if one)
    }


def text_of(answer: TestResponse) -> str:
    """Return what an answer says: of a PDF its words and what is attached to it, and what is written in base64."""
    if answer.mimetype != "application/pdf":
        return f"{answer.text}\n{answer.headers.get('Location', '')}\n{decoded(answer.text)}"
    pdf = PdfReader(io.BytesIO(answer.data))
    return "\n".join(page.extract_text() for page in pdf.pages) + pdf.attachments["record.json"][0].decode()


def decoded(text: str) -> str:
    """Return what the base64 in ``text`` says."""
    found = (one + "=" * (-len(one) % 4) for one in re.findall(r"[A-Za-z0-9+/]{40,}", text) if len(one) % 4 != 1)
    return "\n".join(base64.b64decode(one).decode("latin-1") for one in found)


def sent(town: Town, cell: Cell, jar: dict[str, str]) -> dict[str, Any]:
    """Return the body: JSON in an API, else a form with the token that the browser of ``jar`` was given."""
    if cell.route.method == "GET":
        return {}
    if not cell.route.rule.startswith("/c/"):
        return {"json": cell.route.body}
    asked, host = town.people[asked_of(town, cell)], host_of(town, cell)
    held = jar.get(cookie_name(asked.link_id, secure=False), "x")
    token = csrf.token(asked.shop.keys, held, host, asked.link_id)
    return {"data": {"csrf_token": token, "period": "2026-11", "format": "json"}}


def check(town: Town, visitor: Visitor, cell: Cell) -> set[int]:
    """Send one request and hold its answer against what its route declares; return whose canaries it showed."""
    jar, headers = carried(town, cell)
    options = sent(town, cell, jar)
    url = f"{host_of(town, cell)}{address(town, cell)}"
    answer = ask(visitor, url, jar, cell.route.method, headers, **options)
    text = text_of(answer)
    told = (cell, answer.status_code, text[:500])
    assert answer.status_code < 500, told
    shown, may = found_in(town, text, url), allowed(town, cell, headers)
    assert shown <= may, told
    is_mounted = ("platform" if cell.place == "platform" else "serving") in cell.route.mounted
    tier = cell.route.tier
    if not is_mounted or (is_foreign(town, cell) and "<handle>" in cell.route.rule):
        assert answer.status_code in (404, 405), told
    elif tier in (Gatekeeper.API_KEY, Gatekeeper.BEARER) and not may:
        assert answer.status_code == 401, told
    elif may:
        assert answer.status_code in (200, 201, 202, 303, 400, 404, 409), told
    elif isinstance(tier, Surface) and answer.status_code == 200:
        assert cell.route.rule in ("/c/<handle>", "/receipt/<document_id>", "/verify/<root>"), told  # the way in
    return shown


def snapshot(shop: Shop) -> dict[str, str]:
    """Return a digest of every row of a tenant's planes, by table."""
    found = {}
    for scope in (shop.scope, shop.test_scope):
        with shop.db.read(scope) as connection:
            for table in metadata.sorted_tables:
                if "tenant_id" in table.c:
                    mine = select(table).where(table.c.tenant_id == scope.plane)
                    rows = connection.execute(mine, execution_options={"sr_reviewed": True}).all()
                    text = "\n".join(sorted(map(repr, rows)))
                    found[f"{table.name} {scope.plane}"] = hashlib.sha256(text.encode()).hexdigest()
    return found


# --- The tests -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", Policy)
def test_p01_p05_no_cell_shows_more_than_its_tier(town: Town, policy: Policy, soak: bool) -> None:
    visitor, shown, asked = Visitor(serve(town.one)), Counter[int](), 0
    town.open_all(visitor, policy)
    for cell in cells(soak):
        # What changes the vendor's data is asked by strangers to it in the test below; whoever is in may end that.
        if cell.policy is not policy or not (cell.route.method == "GET" or "/c/" in cell.route.rule):
            continue
        if cell.route.tier is Gatekeeper.STEP_UP and cell.principal in AT_HOME:
            continue
        shown.update(check(town, visitor, cell))
        asked += 1
    print(f"{policy}: {asked} cells; answers that showed what they may, by customer: {dict(shown)}")
    assert all(shown[number] > 0 for number in range(4))


def test_each_route_shows_those_who_may_see_it_what_it_is_about(town: Town) -> None:
    """Else what the matrix says of it would be empty."""
    visitor, silent = Visitor(serve(town.one)), set[str]()
    town.open_all(visitor, Policy.TWO_TIER)
    for route in routes():
        if route.method == "GET" and (isinstance(route.tier, Surface) or route.tier is Gatekeeper.API_KEY):
            who, place = (AT_HOME[0], "home") if isinstance(route.tier, Surface) else ("live key", "platform")
            if not check(town, visitor, Cell(route, who, 0, place, Policy.TWO_TIER)):
                silent.add(route.rule)
    assert silent == SILENT, "a new route shows nothing here: give it arguments that lead somewhere, or name it above"


def test_nothing_of_one_tenant_changes_by_what_the_other_asks(town: Town) -> None:
    visitor = Visitor(serve(town.one))
    town.open_all(visitor, Policy.TWO_TIER)
    before = snapshot(town.one)
    strangers = ("other tenant's key", "other tenant's token", "everything of the other tenant")
    for route, who, target in product(list(routes()), strangers, range(3)):
        if route.tier in (Gatekeeper.API_KEY, Gatekeeper.BEARER):
            check(town, visitor, Cell(route, who, target, "platform", Policy.TWO_TIER))
    assert snapshot(town.one) == before


def test_an_application_with_a_route_without_tier_does_not_start(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Blueprint("plain", __name__)
    plain.add_url_rule("/plain", "view", lambda: "no tier")
    for name, mounted in (("SERVING", SERVING), ("PLATFORM", PLATFORM)):
        with monkeypatch.context() as changed:
            changed.setattr(f"shared_record.app.{name}", (*mounted, plain))
            with pytest.raises(ConfigurationError, match="declares no tier"):
                create_app(Settings(), keys=shop.keys, db=shop.db, clock=shop.clock)
