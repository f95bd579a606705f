"""``apikey`` and ``token``: made, listed, rotated, revoked, on both planes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from shared_record.access import apikeys
from shared_record.access.apikeys import CODE_REVEAL, RECORD_WRITE, authenticate, authenticate_bearer
from shared_record.cli import apikey, cli, context, token
from shared_record.errors import AccessDeniedError
from shared_record.settings import Settings
from world import Shop, open_shop

OF = ("--tenant", "acme")


class Cli:
    """The command line over one test installation."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop

    def __call__(self, *words: str, code: int = 0) -> str:
        result = CliRunner().invoke(cli, [*words, *OF])
        assert result.exit_code == code, result.stderr
        return result.stderr if code else result.stdout

    def json(self, *words: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self(*words, "--json"))
        return found


@pytest.fixture
def run(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Cli:
    class Here(context.Installation):
        db = shop.db
        keys = shop.keys

    for module in (apikey, token):
        monkeypatch.setattr(module, "open_installation", lambda: Here(Settings(), shop.clock))
    return Cli(shop)


def test_a_key_is_shown_once_and_listed_ever_after(run: Cli, shop: Shop) -> None:
    made = run.json("apikey", "create", "--name", "meter", "--scope", RECORD_WRITE, "--expires", "30d")
    test = run.json("apikey", "create", "--test")
    assert made["api_key"].startswith(f"pk_live_{made['id']}.")
    assert test["api_key"].startswith(f"pk_test_{test['id']}.")
    assert authenticate(shop.db, shop.clock, test["api_key"]).scope == shop.test_scope
    live_row, test_row = run.json("apikey", "list")["keys"]
    assert live_row == {
        "id": made["id"],
        "name": "meter",
        "environment": "live",
        "state": "active",
        "scopes": [RECORD_WRITE],
        "created_at": "2026-11-22T12:00:00.000Z",
        "expires_at": "2026-12-22T12:00:00.000Z",
        "revoked_at": None,
        "last_used_at": None,
    }
    assert (test_row["environment"], test_row["scopes"]) == ("test", list(apikeys.DEFAULT_SCOPES))
    listed = run("apikey", "list")
    assert made["id"] in listed
    assert "last used never" in listed
    assert made["api_key"].partition(".")[2] not in listed


def test_a_key_is_rotated_with_an_overlap_and_then_revoked(run: Cli, shop: Shop) -> None:
    old = run.json("apikey", "create", "--name", "billing", "--test")
    shop.clock.advance(seconds=1)
    fresh = run.json("apikey", "rotate", old["id"], "--overlap", "24h")
    assert fresh["name"] == "billing"
    for made in (old, fresh):
        authenticate(shop.db, shop.clock, made["api_key"])
    shop.clock.advance(hours=24)
    with pytest.raises(AccessDeniedError):
        authenticate(shop.db, shop.clock, old["api_key"])
    assert run.json("apikey", "revoke", fresh["id"])["state"] == "revoked"
    with pytest.raises(AccessDeniedError):
        authenticate(shop.db, shop.clock, fresh["api_key"])
    assert [row["state"] for row in run.json("apikey", "list")["keys"]] == ["expired", "revoked"]
    assert "cannot be rotated" in run("apikey", "rotate", fresh["id"], code=7)


def test_a_token_has_its_own_list(run: Cli, shop: Shop) -> None:
    made = run.json("token", "create", "--name", "kim", "--expires", "2027-01-01", "--scope", CODE_REVEAL)
    assert made["token"].startswith(f"srp_{made['id']}.")
    assert authenticate_bearer(shop.db, shop.clock, f"Bearer {made['token']}").scopes == [CODE_REVEAL]
    [row] = run.json("token", "list")["tokens"]
    assert (row["name"], row["expires_at"]) == ("kim", "2027-01-01T00:00:00.000Z")
    assert run.json("apikey", "list")["keys"] == []
    assert "no key" in run("apikey", "revoke", made["id"], code=1)
    run("token", "revoke", made["id"])
    with pytest.raises(AccessDeniedError):
        authenticate_bearer(shop.db, shop.clock, f"Bearer {made['token']}")


@pytest.mark.parametrize(
    "words",
    [
        ("apikey", "create", "--scope", "record:writer"),
        ("apikey", "create", "--expires", "2026-11-22"),
        ("apikey", "create", "--expires", "2026-02-30"),
        ("apikey", "create", "--expires", "soon"),
        ("token", "create"),
    ],
)
def test_wrong_use_is_named_and_makes_nothing(run: Cli, words: tuple[str, ...]) -> None:
    assert run(*words, code=2)
    assert run.json("apikey", "list")["keys"] == run.json("token", "list")["tokens"] == []


def test_another_tenants_key_is_unknown(run: Cli, shop: Shop, tmp_path: Any) -> None:
    other = open_shop(shop.db, shop.keys, shop.clock, tmp_path, slug="other", hosts=())
    key = other.api_key()
    for action in ("rotate", "revoke"):
        assert "no key" in run("apikey", action, key[8:24], code=1)
    authenticate(shop.db, shop.clock, key)
