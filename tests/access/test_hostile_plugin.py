"""A hostile method beside an honest one, in the whole application: whatever it does, it harms nobody but itself."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import unescape
from typing import Any, ClassVar

import pytest
from shared_record_access_code import AccessCode
from sqlalchemy import select

from client import PORT, Visitor, url_of
from shared_record.app import create_app
from shared_record.db.schema import session
from shared_record.hooks.loader import Plugins, load_plugins
from shared_record.plugin import Challenge, Field, Passed, StepUpContext, StepUpMethod, Verdict
from shared_record.settings import Settings
from shared_record.tenancy.methods import put_methods
from world import Shop

STEPS = ("availability", "choices", "begin", "start", "verify")
FAULTS = ("raises", "exits", "hangs", "makes something up")
WAYS = [(step, fault) for step in STEPS for fault in FAULTS if (step, fault) != ("availability", FAULTS[-1])]
"""Whatever counts as true makes a method available."""


class Hostile(StepUpMethod):
    """Does what ``fault`` says at ``step``, and passes everybody elsewhere."""

    slug = "hostile"
    title = "Hostile"
    factor = "HOSTILE"
    deadline = 0.2
    step: ClassVar[str] = ""
    fault: ClassVar[str] = ""
    release: ClassVar[threading.Event] = threading.Event()

    def act(self, step: str) -> Any:
        if step != self.step:
            return None
        match self.fault:
            case "raises":
                raise RuntimeError("a secret that no page shows")
            case "exits":
                raise SystemExit(3)
            case "hangs":
                self.release.wait(20)
        return object()

    def availability(self, ctx: StepUpContext) -> bool:
        return self.act("availability") or True

    def choices(self, ctx: StepUpContext) -> Any:
        return self.act("choices") or super().choices(ctx)

    def begin(self, ctx: StepUpContext) -> Any:
        return self.act("begin") or Challenge((Field("code", "Code"),))

    def start(self, ctx: StepUpContext, answer: Mapping[str, str]) -> Any:
        return self.act("start") or Challenge((Field("code", "Code"),), state=b"x")

    def verify(self, ctx: StepUpContext, answer: Mapping[str, str]) -> Any:
        return self.act("verify") or Passed()


@dataclass(frozen=True)
class Claim(Passed):
    """A verdict that also says for whom."""

    customer_id: str = "cust_b"
    tenant_id: str = "another"
    host: str = "record.acme.localhost"
    policy: str = "OPEN"


class Claims(AccessCode):
    """Passes everybody, in the name of somebody else, and writes to whatever it is given."""

    slug = "claims"

    def verify(self, ctx: StepUpContext, answer: Mapping[str, str]) -> Verdict:
        for name in ("host", "customer_label", "now", "settings"):
            object.__setattr__(ctx, name, "record.acme.localhost")
        return Claim(subject_hint="cust_b")


@pytest.fixture
def visitor(shop: Shop) -> Iterator[Visitor]:
    for name in ("cust_a", "cust_b"):
        shop.record(name, "1")
    real = load_plugins()
    kinds = {one.slug: one for one in (AccessCode, Hostile, Claims)}
    plugins = Plugins(kinds, real.export_formats, real.theme_roots)
    Hostile.release.clear()
    yield Visitor(create_app(Settings(port=PORT), keys=shop.keys, db=shop.db, clock=shop.clock, plugins=plugins))
    Hostile.release.set()


def offer(shop: Shop, *slugs: str) -> None:
    with shop.db.write(shop.scope) as connection:
        put_methods(connection, shop.scope, [(slug, {}) for slug in slugs])


def fill(visitor: Visitor, url: str, method: str, value: str) -> Any:
    page = visitor.get(f"{url}/unlock?method={method}")
    fields = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page.text))
    data = {name: unescape(text) for name, text in fields.items()} | {"method": method, "field-code": value}
    return visitor.post(f"{url}/unlock", data=data)


def sessions_of(shop: Shop) -> list[Any]:
    with shop.db.read(shop.scope) as connection:
        return list(connection.execute(select(session).where(session.c.tenant_id == shop.scope.plane)))


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("step", "fault"), WAYS)
def test_n01_whatever_a_method_does_at_any_step_others_open_and_the_page_is_there(
    shop: Shop, visitor: Visitor, monkeypatch: pytest.MonkeyPatch, step: str, fault: str
) -> None:
    monkeypatch.setattr(Hostile, "step", step)
    monkeypatch.setattr(Hostile, "fault", fault)
    offer(shop, "hostile", "access_code")
    url, (host, _, handle) = url_of(shop, "cust_a"), url_of(shop, "cust_a").partition("/c/")
    answers = [fill(visitor, url, "hostile", "x")]
    body = {"factor": "HOSTILE", "value": "x"}
    begun = visitor.post(f"{host}/api/v1/c/{handle}/access/verify", json=body)
    if begun.status_code == 202:
        ticket = begun.json["data"]["challenge"]
        begun = visitor.post(f"{host}/api/v1/c/{handle}/access/verify", json=body | {"challenge": ticket})
    for answer in (*answers, begun):
        assert "secret" not in answer.text
        assert not any(re.match(r"sr-[0-9a-f]{8}=", line) for line in answer.headers.getlist("Set-Cookie"))
    assert begun.status_code in (400, 403, 503)
    assert sessions_of(shop) == []
    assert visitor.get(url).status_code == 200
    assert fill(visitor, url, "access_code", shop.code("cust_a")).status_code == 303
    assert visitor.get(f"{url}/activity").status_code == 200


def test_n02_n03_a_claim_opens_the_record_at_hand_and_no_other(shop: Shop, visitor: Visitor) -> None:
    offer(shop, "claims", "access_code")
    own, other = url_of(shop, "cust_a"), url_of(shop, "cust_b")
    assert fill(visitor, own, "claims", "x").status_code == 303
    (row,) = sessions_of(shop)
    assert (row.customer_id, row.host, row.method) == (shop.link("cust_a").customer_id, shop.hosts[0], "claims")
    jar = visitor.jars[shop.hosts[0]]
    (held,) = [value for name, value in jar.items() if re.fullmatch(r"sr-[0-9a-f]{8}", name)]
    assert visitor.get(f"{own}/activity").status_code == 200
    assert visitor.get(f"{other}/activity").status_code == 303
    jar |= {name.replace("dv-", ""): held for name in jar}  # its cookie under every name there is
    assert visitor.get(f"{other}/activity").status_code == 303
    visitor.jars[shop.hosts[1]] = dict(jar)
    assert visitor.get(f"{url_of(shop, 'cust_a', shop.hosts[1])}/activity").status_code in (302, 303)
