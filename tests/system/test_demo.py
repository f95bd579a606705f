"""``shared-record demo`` as a stranger runs it: what it makes and what it prints."""

from __future__ import annotations

import re
import stat
from collections import Counter
from datetime import UTC, datetime, timedelta
from html import unescape

import pytest

from demo_server import Browser, Demo, wait_for
from shared_record.cli.seed import MAILED, PROFILES, email_of
from shared_record.clock import period_bounds, period_of

pytestmark = pytest.mark.xdist_group("demo")


def periods() -> tuple[str, str]:
    """Return the month before this one, and this one."""
    current = period_of(datetime.now(UTC))
    return period_of(period_bounds(current)[0] - timedelta(days=1)), current


def test_the_ready_file_has_exactly_the_promised_shape(demo: Demo) -> None:
    ready = demo.ready
    assert set(ready) == {"platform", "tenants"}
    assert ready["platform"] == {"url": f"http://localhost:{demo.port}"}
    for tenant in ready["tenants"]:
        assert set(tenant) == {"slug", "hosts", "theme", "policy", "api_key", "test_api_key", "customers"}
        assert tenant["api_key"].startswith("pk_live_")
        assert tenant["test_api_key"].startswith("pk_test_")
        for customer in tenant["customers"]:
            assert set(customer) == {"customer_id", "url", "access_code"}
            assert customer["url"].startswith(f"http://{tenant['hosts'][0]}:{demo.port}/c/")
            assert len(customer["access_code"]) == 6


def test_three_tenants_show_the_three_policies_on_hosts_and_themes_of_their_own(demo: Demo) -> None:
    tenants = demo.ready["tenants"]
    assert {tenant["policy"] for tenant in tenants} == {"TWO_TIER", "GATED", "OPEN"}
    assert len({tenant["theme"] for tenant in tenants}) == len(tenants) >= 3
    hosts = Counter(host for tenant in tenants for host in tenant["hosts"])
    assert set(hosts.values()) == {1}
    assert any(len(tenant["hosts"]) >= 2 for tenant in tenants)
    assert all(len(tenant["customers"]) >= 3 for tenant in tenants)


def test_one_tenant_lets_its_customers_choose_and_the_mail_appears_in_the_terminal(demo: Demo) -> None:
    person, browser = demo.seeded(MAILED), Browser(demo)
    address = email_of(MAILED, person.customer_id)
    assert address is not None
    assert address in demo.card
    chooser = browser.get(f"{person.url}/unlock").text
    assert re.findall(r'name="method" value="([a-z_]+)"', chooser) == ["access_code", "email_otp"]
    form = browser.get(f"{person.url}/unlock?method=email_otp").text
    asked = browser.post(f"{person.url}/unlock", hidden(form) | {"field-address": address})
    assert asked.status == 200
    mail = wait_for("the mail", lambda: re.search(rf"To: {address}.*?Your code: ([0-9 ]+)", printed(demo), re.DOTALL))
    opened = browser.post(f"{person.url}/unlock", hidden(asked.text) | {"field-code": mail[1]})
    assert opened.status == 303
    assert browser.get(person.url + "/activity").status == 200


def hidden(form: str) -> dict[str, str]:
    found = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', form)
    return {name: unescape(value) for name, value in found}


def printed(demo: Demo) -> str:
    return (demo.folder / "stdout").read_text()


@pytest.mark.parametrize("slug", PROFILES)
def test_every_link_opens_and_every_code_unlocks(demo: Demo, slug: str) -> None:
    for customer in demo.tenant(slug)["customers"]:
        browser = Browser(demo)
        assert browser.get(customer["url"]).status == 200
        assert browser.unlock(customer["url"], customer["access_code"]).status == 303
        assert browser.get(customer["url"] + "/activity").status == 200


def test_one_customer_has_more_than_5000_deltas_and_the_first_month_is_closed(demo: Demo) -> None:
    before, current = periods()
    query = (
        "SELECT c.external_id, p.period, p.status, p.size, s.tree_id IS NOT NULL FROM period_tree p"
        " JOIN customer c ON c.tenant_id = p.tenant_id AND c.customer_id = p.customer_id"
        " LEFT JOIN statement s ON s.tenant_id = p.tenant_id AND s.tree_id = p.tree_id"
    )
    found = {(name, period): rest for name, period, *rest in demo.rows(query)}
    for profile in (profile for some in PROFILES.values() for profile in some):
        assert found[profile.external_id, before] == ["closed", profile.before, 1]
        assert found[profile.external_id, current] == ["open", profile.current, 0]
    assert max(found[name, before][1] + found[name, current][1] for name, _ in found if (name, before) in found) > 5000


def test_secrets_are_readable_by_their_owner_alone(demo: Demo) -> None:
    files = [demo.data_dir / "keys.json", demo.data_dir / "demo.json", demo.ready_file, demo.data_dir / "demo.log"]
    assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o600] * len(files)
    assert stat.S_IMODE(demo.data_dir.stat().st_mode) == 0o700


def test_the_card_names_every_link_code_and_key_and_how_to_stop(demo: Demo) -> None:
    printed = demo.card
    for tenant in demo.ready["tenants"]:
        assert tenant["api_key"] in printed
        assert tenant["test_api_key"] in printed
        for customer in tenant["customers"]:
            assert f"{customer['url']}  code {customer['access_code']}" in printed
    assert demo.ready["platform"]["url"] in printed
    assert "Ctrl-C" in printed
