"""Large files on the pages and by API: prepared first, progress without scripts, and access asked at each download."""

from __future__ import annotations

import base64
import hashlib
import re
from html import unescape
from pathlib import Path

import pytest
from sqlalchemy import select
from werkzeug.test import TestResponse

from client import Visitor, serve, url_of
from shared_record.access import links
from shared_record.db import leases
from shared_record.db.schema import audit_event
from shared_record.exports import jobs
from shared_record.exports.building import Builder, folder_of
from shared_record.exports.service import PLAIN
from shared_record.hooks.loader import load_plugins
from shared_record.tenancy.tenants import update_tenant
from shared_record.worker import Worker
from web.api_client import ApiClient
from world import Shop

FILE = "period=2026-11&format=csv"


@pytest.fixture(autouse=True)
def _few_rows_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "AT_ONCE", 2)


@pytest.fixture
def worker(shop: Shop, tmp_path: Path) -> Worker:
    formats = load_plugins(strict=True).export_formats
    builder = Builder(shop.db, shop.keys, shop.clock, formats, tmp_path / "exports", lambda _scope, _who: PLAIN)
    return Worker(shop.db, shop.keys, shop.clock, shop.locks, 10, exports=builder)


@pytest.fixture
def visitor(shop: Shop, tmp_path: Path) -> Visitor:
    shop.record("cust_a", "5", "7.25", "1")
    shop.record("cust_b", "5", "6", "7")
    visitor = Visitor(serve(shop, data_dir=tmp_path))
    assert visitor.unlock(url_of(shop, "cust_a"), shop.code("cust_a")).status_code == 303
    return visitor


def send(shop: Shop, visitor: Visitor, slug: str = "csv", **changes: str) -> TestResponse:
    """Fill in the form of the export page as a person does."""
    url = url_of(shop, "cust_a")
    answer = visitor.get(f"{url}/export")
    page = answer.text
    assert answer.status_code == 200, page
    form = page[page.index('<form method="post" action="/c/') :]
    hidden = {
        name: unescape(value) for name, value in re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', form)
    }
    return visitor.post(f"{url}/export", data=hidden | {"period": "2026-11", "format": slug} | changes)


def test_a_large_file_is_prepared_then_offered_then_sent(shop: Shop, visitor: Visitor, worker: Worker) -> None:
    url = url_of(shop, "cust_a")
    asked = send(shop, visitor)
    path = url.partition("/")[2]
    assert (asked.status_code, asked.location) == (303, f"/{path}/export/prepared?{FILE}")
    waiting = visitor.get(f"{url}/export/prepared?{FILE}")
    assert waiting.status_code == 200
    for text in ("Preparing your file. 3 records.", 'value="0" max="3"', "0 of 3 records so far.", "Check again"):
        assert text in waiting.text
    assert "/export/file" not in waiting.text
    assert visitor.get(f"{url}/export/file?{FILE}").location == f"/{path}/export/prepared?{FILE}"
    assert worker.export_once() == 1
    ready = visitor.get(f"{url}/export/prepared?{FILE}")
    for text in ("Your file is ready.", "13.25", "3 records", "23 November 2026, 12:00 UTC"):
        assert text in ready.text
    sent = visitor.get(f"{url}/export/file?{FILE}")
    assert (sent.status_code, sent.mimetype) == (200, "text/csv")
    assert sent.headers["Content-Length"] == str(len(sent.data))
    digest = hashlib.sha256(sent.data)
    assert sent.headers["Repr-Digest"] == f"sha-256=:{base64.b64encode(digest.digest()).decode()}:"
    assert digest.hexdigest() in ready.text
    assert re.fullmatch(r'attachment; filename="usage-2026-11-[0-9a-f]{8}\.csv"', sent.headers["Content-Disposition"])
    assert sent.headers["Content-Security-Policy"].startswith("default-src 'none'; sandbox")
    assert sent.data.count(b"\r\n") == 5
    assert "November 2026, CSV: ready" in visitor.get(f"{url}/export").text


def test_the_trail_tells_that_a_file_was_asked_for_once(shop: Shop, visitor: Visitor) -> None:
    send(shop, visitor)
    send(shop, visitor)  # still the same file
    noted = select(audit_event.c.actor, audit_event.c.detail).where(
        audit_event.c.tenant_id == shop.scope.plane, audit_event.c.event == "export.started"
    )
    with shop.db.read(shop.scope) as connection:
        rows = connection.execute(noted).all()
    assert [tuple(row) for row in rows] == [("customer", {"period": "2026-11", "format": "csv"})]


def test_get_asks_for_nothing(shop: Shop, visitor: Visitor, worker: Worker) -> None:
    url = url_of(shop, "cust_a")
    for path in ("export", f"export/prepared?{FILE}", f"export/file?{FILE}"):
        assert visitor.get(f"{url}/{path}").status_code in (200, 303)
    assert (
        "This period has 3 records, so its file is prepared first." in visitor.get(f"{url}/export/prepared?{FILE}").text
    )
    assert worker.export_once() == 0


def test_a_small_file_is_sent_at_once(shop: Shop, visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "AT_ONCE", 3)
    url = url_of(shop, "cust_a")
    answer = send(shop, visitor)
    assert answer.location == f"/{url.partition('/')[2]}/export/file?{FILE}"
    assert visitor.get(f"{url}/export/file?{FILE}").status_code == 200
    assert visitor.get(f"{url}/export/prepared?{FILE}").location == answer.location


def test_m05_a_form_that_is_not_ours_prepares_nothing(shop: Shop, visitor: Visitor, worker: Worker) -> None:
    url = url_of(shop, "cust_a")
    for data, headers in (
        ({}, {}),
        ({"csrf_token": "x.y"}, {}),
        ({}, {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}),
    ):
        answer = visitor.post(f"{url}/export", data=data | {"period": "2026-11", "format": "csv"}, headers=headers)
        assert answer.status_code == 403
    assert worker.export_once() == 0


def test_an_unknown_format_or_period_is_not_found(shop: Shop, visitor: Visitor) -> None:
    for changes in ({"format": "parquet"}, {"period": "2026-10"}, {"period": "../.."}):
        assert send(shop, visitor, **changes).status_code == 404
    for query in ("", "format=csv&period=2026-10", "format=nosuch&period=2026-11"):
        assert visitor.get(f"{url_of(shop, 'cust_a')}/export/prepared?{query}").status_code == 404


def test_x03_a_second_file_has_to_wait_and_the_page_says_so(shop: Shop, visitor: Visitor) -> None:
    send(shop, visitor)
    second = send(shop, visitor, "json")
    assert (second.status_code, second.headers["Retry-After"]) == (429, "60")
    assert "Another file of this record is being prepared. Ask again when it is ready." in second.text
    assert send(shop, visitor).status_code == 303  # the same one


def test_x03_ten_files_an_hour_are_enough_for_one_record(shop: Shop, visitor: Visitor, worker: Worker) -> None:
    answers = [send(shop, visitor).status_code for _ in range(11)]
    assert answers == [303] * 10 + [429]


def test_x01_s13_a_prepared_file_opens_with_a_session_only(shop: Shop, visitor: Visitor, worker: Worker) -> None:
    send(shop, visitor)
    worker.export_once()
    url = f"{url_of(shop, 'cust_a')}/export/file?{FILE}"
    assert visitor.get(url).status_code == 200
    stranger = Visitor(visitor.application)
    assert stranger.unlock(url_of(shop, "cust_b"), shop.code("cust_b")).status_code == 303
    for who in (Visitor(visitor.application), stranger):
        answer = who.get(url)
        assert (answer.status_code, b"13.25" in answer.data) == (303, False)
    mine = stranger.get(f"{url_of(shop, 'cust_b')}/export/file?{FILE}")
    assert (mine.status_code, "prepared" in (mine.location or "")) == (303, True)
    with shop.db.write(shop.scope) as connection:
        links.rotate_code(connection, shop.keys, shop.clock, shop.scope, "cust_a", "me")
    assert visitor.get(url).status_code == 303
    with shop.db.write(shop.scope) as connection:
        links.revoke_link(connection, shop.keys, shop.clock, shop.scope, "cust_a", "me")
    assert visitor.get(url).status_code == 404


def test_a_format_that_the_tenant_takes_back_is_not_found(shop: Shop, visitor: Visitor, worker: Worker) -> None:
    send(shop, visitor)
    worker.export_once()
    with shop.db.write(shop.scope) as connection:
        update_tenant(connection, shop.scope, {"export_formats": ["json"]})
    assert visitor.get(f"{url_of(shop, 'cust_a')}/export/file?{FILE}").status_code == 404
    assert "ready" not in visitor.get(f"{url_of(shop, 'cust_a')}/export").text


def test_x04_a_file_that_is_not_whole_on_this_disk_is_not_sent(
    shop: Shop, visitor: Visitor, worker: Worker, tmp_path: Path
) -> None:
    send(shop, visitor)
    worker.export_once()
    [path] = folder_of(tmp_path / "exports", shop.scope).iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    url = url_of(shop, "cust_a")
    assert visitor.get(f"{url}/export/file?{FILE}").status_code == 303
    assert "is prepared first" in visitor.get(f"{url}/export/prepared?{FILE}").text
    assert send(shop, visitor).status_code == 303
    assert worker.export_once() == 1
    assert visitor.get(f"{url}/export/file?{FILE}").status_code == 200


def test_what_was_recorded_since_is_told(shop: Shop, visitor: Visitor, worker: Worker) -> None:
    send(shop, visitor)
    worker.export_once()
    shop.record("cust_a", "1", "1")
    page = visitor.get(f"{url_of(shop, 'cust_a')}/export/prepared?{FILE}").text
    assert "Recorded since: 2 records." in page
    assert "Prepare the file" in page


def test_under_open_no_session_is_needed(shop: Shop, visitor: Visitor, worker: Worker) -> None:
    with shop.db.write(shop.scope) as connection:
        update_tenant(connection, shop.scope, {"policy": "OPEN"})
    anybody = Visitor(visitor.application)
    assert send(shop, anybody).status_code == 303
    worker.export_once()
    assert anybody.get(f"{url_of(shop, 'cust_a')}/export/file?{FILE}").status_code == 200
    foreign = anybody.post(
        f"{url_of(shop, 'cust_a')}/export",
        data={"period": "2026-11", "format": "json"},
        headers={"Origin": "https://evil.example"},
    )
    assert foreign.status_code == 403


# --- As data ---------------------------------------------------------------------------------------------------------


def test_the_api_says_202_until_the_file_is_there(shop: Shop, visitor: Visitor, worker: Worker) -> None:
    host, _, path = url_of(shop, "cust_a").partition("/")
    url = f"{host}/api/v1/{path}/export"
    early = visitor.get(f"{url}?{FILE}")
    assert (early.status_code, early.get_json()["error"]["code"]) == (409, "EXPORT_NOT_PREPARED")
    asked = visitor.post(url, json={"period": "2026-11", "format": "csv"})
    assert asked.status_code == 202
    assert asked.get_json()["data"] == {
        "period": "2026-11",
        "format": "csv",
        "state": "preparing",
        "records": 3,
        "written": 0,
        "bytes": None,
        "sha256": None,
        "expiresAt": "2026-11-23T12:00:00.000Z",
    }
    waiting = visitor.get(f"{url}?{FILE}")
    assert (waiting.status_code, waiting.headers["Retry-After"], "Location" in waiting.headers) == (202, "10", False)
    busy = visitor.post(url, json={"period": "2026-11", "format": "json"})
    assert (busy.status_code, busy.get_json()["error"]["code"]) == (429, "EXPORT_BUSY")
    assert worker.export_once() == 1
    sent = visitor.get(f"{url}?{FILE}")
    assert (sent.status_code, sent.headers["Content-Length"]) == (200, str(len(sent.data)))
    again = visitor.post(url, json={"period": "2026-11", "format": "csv"}).get_json()["data"]
    assert (again["state"], again["bytes"], again["sha256"]) == (
        "ready",
        len(sent.data),
        hashlib.sha256(sent.data).hexdigest(),
    )


def test_the_vendors_key_has_the_same_calls(shop: Shop, visitor: Visitor, worker: Worker, tmp_path: Path) -> None:
    api = ApiClient(shop, data_dir=tmp_path)
    path = "/api/v1/middleware/customers/cust_a/export"
    wanted = {"period": "2026-11", "format": "csv"}
    assert api.get(path, status=409, **wanted)["code"] == "EXPORT_NOT_PREPARED"
    assert api.post(path, wanted, status=202)["state"] == "preparing"
    assert worker.export_once() == 1
    assert api.post(path, wanted, status=202)["state"] == "ready"
    sent = api.visitor.get(f"localhost{path}?{FILE}", headers={"X-Api-Key": api.key})
    assert (sent.status_code, sent.data.count(b"\r\n")) == (200, 5)
    shop.clock.advance(hours=24)
    assert api.get(path, status=409, **wanted)["code"] == "EXPORT_NOT_PREPARED"


def test_a_small_file_is_ready_at_once_by_api_too(
    shop: Shop, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "AT_ONCE", 3)
    host, _, path = url_of(shop, "cust_a").partition("/")
    asked = visitor.post(f"{host}/api/v1/{path}/export", json={"format": "csv"})
    assert (asked.status_code, asked.get_json()["data"]["state"]) == (202, "ready")
    with shop.db.read(shop.scope) as connection:
        assert leases.find_due(connection, shop.scope, jobs.EXPORT) is None  # nothing was queued
