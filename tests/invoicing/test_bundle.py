"""The invoice bundle: its figures are the ledger's, its code is asked for and audited, its texts are whole."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from datetime import UTC, datetime

import pytest
from sqlalchemy import func, select

from shared_record.access import links
from shared_record.db.schema import audit_event
from shared_record.errors import NotFoundError
from shared_record.hooks.loader import load_plugins
from shared_record.invoicing.bundle import InvoiceBundle, as_data, build_all, build_bundle
from shared_record.invoicing.package import render_page, write_archive
from shared_record.invoicing.texts import LOCALES, grouped
from shared_record.ledger.records import find_period
from world import Shop

MONTH = "2026-11"


def url(host: str | None, path: str) -> str:
    return f"https://{host or 'platform.example'}{path}"


def bundle_of(shop: Shop, customer: str, period: str = MONTH, actor: str | None = None) -> InvoiceBundle:
    return build_bundle(shop.db, shop.keys, shop.clock, shop.scope, customer, period, url, actor=actor)


def codes(bundle: InvoiceBundle) -> list[str]:
    return [one.code for one in bundle.blockers]


def test_a_closed_and_covered_period_is_ready(shop: Shop) -> None:
    shop.record("cust_a", "12480.5", "-0.125")
    shop.clock.set(datetime(2026, 12, 1, 0, 5, tzinfo=UTC))
    shop.close()
    shop.checkpoint()
    found = bundle_of(shop, "cust_a")
    assert found.ready
    assert found.blockers == ()
    assert (found.records, found.total) == (found.verified_records, found.verified_total) == (2, "12480.375")
    with shop.db.read(shop.scope) as connection:
        link = links.show_link(connection, shop.keys, shop.scope, "cust_a")
        period = find_period(connection, shop.scope, link.customer_id, MONTH)
    assert period is not None
    assert period.proot is not None
    assert found.proof_root == f"0x{period.proot.hex()}"
    assert found.link == found.verify_url == url(link.host, f"/c/{link.handle}")
    assert found.receipt_url == url(link.host, f"/receipt/{found.receipt_id}")
    assert found.verification_api_url == url(link.host, f"/api/v1/verify/{found.proof_root}")
    assert found.fingerprint is not None
    assert len(found.fingerprint.replace("-", "")) == 8
    assert found.verified_through == datetime(2026, 12, 1, tzinfo=UTC)


def test_blockers_name_what_to_do(shop: Shop) -> None:
    shop.record("cust_a", "1")
    assert codes(bundle_of(shop, "cust_a")) == ["period_open", "records_not_covered"]
    shop.checkpoint()
    assert codes(bundle_of(shop, "cust_a")) == ["period_open"]
    with shop.db.write(shop.scope) as connection:
        links.revoke_link(connection, shop.keys, shop.clock, shop.scope, "cust_a", "test")
    found = bundle_of(shop, "cust_a")
    assert codes(found) == ["period_open", "no_link"]
    assert found.link is None
    assert all(one.action for one in found.blockers)


def test_before_the_first_checkpoint_there_is_no_fingerprint(shop: Shop) -> None:
    shop.record("cust_a", "1")
    found = bundle_of(shop, "cust_a")
    assert (found.fingerprint, found.proof_root, found.verification_api_url) == (None, None, None)
    assert all("{" not in text and "None" not in text for text in found.texts.values())


def test_the_code_is_shown_only_when_asked_for_and_each_reveal_is_audited(shop: Shop) -> None:
    shop.record("cust_a", "1")
    assert bundle_of(shop, "cust_a").access_code is None
    found = bundle_of(shop, "cust_a", actor="key:x")
    code = shop.code("cust_a")
    assert found.access_code == f"{code[:3]}-{code[3:]}"
    assert links.normalise_code(found.access_code or "") == code
    assert all(found.access_code in text for text in found.texts.values())
    with shop.db.read(shop.scope) as connection:
        revealed = connection.execute(
            select(func.count())
            .select_from(audit_event)
            .where(
                audit_event.c.tenant_id == shop.scope.plane,
                audit_event.c.event == "code.revealed",
                audit_event.c.actor == "key:x",
            )
        ).scalar_one()
    assert revealed == 1


def test_what_is_not_there_is_said(shop: Shop) -> None:
    shop.record("cust_a", "1")
    with pytest.raises(NotFoundError) as unknown:
        bundle_of(shop, "cust_x")
    assert unknown.value.code == "CUSTOMER_NOT_FOUND"
    with pytest.raises(NotFoundError) as empty:
        bundle_of(shop, "cust_a", "2026-10")
    assert empty.value.code == "PERIOD_NOT_FOUND"


def test_all_customers_of_a_period_in_order(shop: Shop) -> None:
    shop.record("cust_b", "1")
    shop.record("cust_a", "2")
    found = list(build_all(shop.db, shop.keys, shop.clock, shop.scope, MONTH, url, actor=None))
    assert [one.customer_id for one in found] == ["cust_b", "cust_a"]


def test_the_archive_names_the_digest_of_every_file(shop: Shop) -> None:
    shop.record("cust_a", "1", "2")
    shop.checkpoint()
    found = bundle_of(shop, "cust_a", actor="test")
    with shop.db.read(shop.scope) as connection:
        who = links.show_link(connection, shop.keys, shop.scope, "cust_a").customer_id
    out = io.BytesIO()
    write_archive(shop.db, shop.keys, shop.clock, shop.scope, who, found, load_plugins().export_formats, out)
    with zipfile.ZipFile(out) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(files.pop("manifest.json"))["files"]
    assert manifest == {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    assert {"bundle.json", "qr.svg", "records.csv", "verification.zip", "text/en.txt", "text/ar.txt"} <= set(files)
    assert json.loads(files["bundle.json"]) == json.loads(json.dumps(as_data(found)))


@pytest.mark.parametrize("locale", LOCALES)
def test_the_page_is_whole_and_loads_nothing(shop: Shop, locale: str) -> None:
    shop.record("cust_a", "1234567.25")
    page = render_page(bundle_of(shop, "cust_a"), locale)
    assert f'lang="{locale}"' in page
    assert "<script" not in page
    assert 'src="' not in page
    assert "<svg" in page


def test_figures_are_grouped_and_never_rounded() -> None:
    assert grouped("12345678901234567890.123456789012345678901234", "en") == (
        "12,345,678,901,234,567,890.123456789012345678901234"
    )
    assert grouped("-1234.5", "de") == "-1.234,5"
    assert grouped("0", "es") == "0"
