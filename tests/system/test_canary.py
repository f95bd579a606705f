"""A live server at its most talkative: nothing that opens a record is in its log, nor in what the database keeps."""

from __future__ import annotations

import http.client
import re
import shutil
from pathlib import Path
from urllib.parse import urlencode

import pytest
from sqlalchemy import inspect, text

from live_server import LiveServer, serving
from shared_record.access import apikeys
from shared_record.access.chain import seal
from shared_record.clock import SystemClock
from shared_record.db.engine import Database
from shared_record.keys import KeyRing
from world import Shop, open_shop


class Browser:
    """One browser on one host of a live server."""

    def __init__(self, server: LiveServer, host: str) -> None:
        self.server, self.host = server, host
        self.jar: dict[str, str] = {}

    def send(self, method: str, path: str, form: dict[str, str] | None = None, **headers: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20)
        headers = {"Host": f"{self.host}:{self.server.port}", "Accept": "text/html", **headers}
        if self.jar:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.jar.items())
        body = urlencode(form) if form is not None else None
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        for line in answer.headers.get_all("Set-Cookie") or ():
            name, _, rest = line.partition("=")
            self.jar[name] = rest.partition(";")[0]
        found = answer.status, answer.read().decode("utf-8", "replace")
        connection.close()
        return found

    def unlock(self, path: str, code: str) -> int:
        _, page = self.send("GET", f"{path}/unlock")
        hidden = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page))
        return self.send("POST", f"{path}/unlock", hidden | {"field-code": code})[0]


def dump(db: Database, *, but: tuple[str, ...] = ()) -> str:
    """Return every value of every table, as text."""
    with db.engine.connect().execution_options(sr_reviewed=True) as connection:
        names = [name for name in inspect(connection).get_table_names() if name not in but]
        return "\n".join(str(row) for name in names for row in connection.execute(text(f"SELECT * FROM {name}")))


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_l06_a12_no_handle_code_or_cookie_is_in_any_log_or_row(
    database_url: str, keys: KeyRing, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    db = Database(f"sqlite:///{folder}/shared-record.sqlite3")
    db.dispose()
    shutil.move(database_url.removeprefix("sqlite:///"), folder / "shared-record.sqlite3")
    shop: Shop = open_shop(db, keys, SystemClock(), tmp_path)  # type: ignore[arg-type]
    other = open_shop(db, keys, SystemClock(), tmp_path, slug="other", hosts=("usage.other.localhost",))  # type: ignore[arg-type]
    shop.record("cust_a", "1")
    other.record("cust_z", "1")
    handle, code = shop.link("cust_a").handle or "", shop.code("cust_a")
    with db.write(shop.scope) as connection:
        key = apikeys.create_key(connection, shop.clock, shop.scope, name="canary", actor="test")
    unknown, path = "canary0canary0canary0canary", f"/c/{handle}"
    with serving(shop, folder, log_level="debug") as server:
        mine = Browser(server, shop.hosts[0])
        assert mine.unlock(path, "222222") == 403
        assert mine.unlock(path, code) == 303
        for page in ("", "/activity", "/access-log", "/export/file?format=csv", "/activity?period=x", "/nothing"):
            mine.send("GET", path + page)
        stolen = Browser(server, other.hosts[0])
        stolen.jar = dict(mine.jar)
        assert stolen.send("GET", path)[0] == 404
        mine.send("GET", f"/c/{unknown}?code={code}")
        mine.send("POST", f"/api/v1/c/{handle}/access/verify", {"value": code})
        mine.send("GET", "/api/v1/customers", **{"X-Api-Key": key})
        Browser(server, "usage.nobody.example").send("GET", path)
        mine.send("GET", "/c/%ff%fe")
        with db.write(shop.scope) as connection:
            connection.exec_driver_sql("ALTER TABLE leaf RENAME TO leaf_away")  # now pages fail with an exception
        assert mine.send("GET", path)[0] in (500, 503)
        with db.write(shop.scope) as connection:
            connection.exec_driver_sql("ALTER TABLE leaf_away RENAME TO leaf")
    logged = server.log.read_text()
    assert "session.host_mismatch" in logged
    assert "host.unknown" in logged
    secrets = {handle, code, unknown, key.partition(".")[2], *mine.jar.values()}
    assert len(mine.jar) >= 2
    assert not [secret for secret in secrets if secret.lower() in logged.lower()]
    seal(db, shop.scope)
    kept = dump(db)
    assert "stepup.failed" in kept
    assert not [secret for secret in secrets - {unknown} if secret in kept]
    db.dispose()
