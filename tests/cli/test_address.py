"""Commands print links as the running server serves them, without being told its port."""

from __future__ import annotations

import pytest

from shared_record.cli.address import as_served, note_address
from shared_record.db.engine import Database
from shared_record.settings import Settings


def test_links_have_the_scheme_and_port_last_served(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    assert as_served(db, Settings()) == Settings()
    note_address(db, Settings(port=8451))
    note_address(db, Settings(port=8452))
    assert as_served(db, Settings()).url_for_host("usage.acme.localhost") == "http://usage.acme.localhost:8452"
    note_address(db, Settings(port=8452, public_scheme="https"))
    assert as_served(db, Settings()).url_for_host("usage.acme.example") == "https://usage.acme.example"
    monkeypatch.setenv("SHARED_RECORD_PUBLIC_PORT", "9000")
    assert as_served(db, Settings(public_port=9000)).url_for_host("x.example") == "http://x.example:9000"
