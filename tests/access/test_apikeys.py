"""API keys: what is stored, what is accepted, and that every refusal is the same."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import pytest
from sqlalchemy import select

from shared_record.access import apikeys
from shared_record.access.apikeys import RECORD_READ, RECORD_WRITE, authenticate, require_scope
from shared_record.db.schema import api_key, audit_event, tenant
from shared_record.errors import AccessDeniedError
from world import Shop, open_shop


def refusal(shop: Shop, presented: str | None) -> tuple[str, str, int]:
    with pytest.raises(AccessDeniedError) as caught:
        authenticate(shop.db, presented)
    return caught.value.message, caught.value.code, caught.value.status


SAME = ("The API key is missing or not valid.", "INVALID_API_KEY", 401)


def test_a_key_names_its_plane_and_is_the_tenants(shop: Shop) -> None:
    live, test = shop.api_key(), shop.api_key(test=True)
    assert re.fullmatch(r"pk_live_[0-9a-z]{16}\.[A-Za-z0-9_-]{43}", live)
    assert re.fullmatch(r"pk_test_[0-9a-z]{16}\.[A-Za-z0-9_-]{43}", test)
    assert authenticate(shop.db, live).scope == shop.scope
    assert authenticate(shop.db, test).scope == shop.test_scope
    assert len({shop.api_key() for _ in range(20)}) == 20


def test_g01_only_a_hash_is_stored_and_making_one_is_audited(shop: Shop) -> None:
    key = shop.api_key(scopes=[RECORD_READ])
    public, _, secret = key.removeprefix("pk_live_").partition(".")
    with shop.db.read(shop.scope) as connection:
        row = connection.execute(select(api_key).where(api_key.c.tenant_id == shop.scope.plane)).one()
        event = connection.execute(select(audit_event).where(audit_event.c.tenant_id == shop.scope.plane)).one()
    assert row.secret_hash == hashlib.sha256(secret.encode()).digest()
    assert (event.event, event.actor, event.detail) == ("key.created", "test", {"key": public, "scopes": [RECORD_READ]})
    assert secret not in repr(row) + repr(event)


def test_g01_every_refusal_is_the_same(shop: Shop) -> None:
    key = shop.api_key()
    head, _, secret = key.partition(".")
    wrong = "A" * 43
    for presented in (
        None,
        "",
        "x",
        head,
        f"{head}.",
        f"{head}.{wrong}",
        f"{head}.{secret[:-1]}",
        f"{head}.{secret}x",
        f"{head}.{secret.swapcase()}",
        f" {key}",
        f"{key}\n",
        f"Bearer {key}",
        key.replace("pk_live_", "pk_test_"),
        key.replace("pk_live_", "pk_LIVE_"),
        key.replace("pk_live_", "sk_live_"),
        f"pk_live_{'0' * 16}.{secret}",
        f"pk_live_{head[-16:].upper()}.{secret}",
        key.replace("l", "ｌ", 1),
        key + "\0",
        "pk_live_" + "a" * 100_000,
    ):
        assert refusal(shop, presented) == SAME, presented
    assert refusal(shop, shop.api_key(test=True).replace("pk_test_", "pk_live_")) == SAME
    assert authenticate(shop.db, key).public_id == head[-16:]


def change(shop: Shop, table: Any, *where: Any, **values: Any) -> None:
    with shop.db.write(shop.scope) as connection:
        connection.execute(table.update().where(table.c.tenant_id == shop.scope.plane, *where).values(**values))


def test_a_revoked_key_is_refused_at_once_and_others_are_not(shop: Shop) -> None:
    gone, stays = shop.api_key(), shop.api_key()
    authenticate(shop.db, gone)
    change(shop, api_key, api_key.c.public_id == gone[8:24], revoked_at=shop.clock.now())
    assert refusal(shop, gone) == SAME
    authenticate(shop.db, stays)


def test_suspending_the_tenant_stops_both_planes(shop: Shop) -> None:
    keys = [shop.api_key(), shop.api_key(test=True)]
    change(shop, tenant, state="suspended")
    assert [refusal(shop, key) for key in keys] == [SAME, SAME]
    change(shop, tenant, state="active")
    assert [authenticate(shop.db, key).state for key in keys] == ["active", "active"]


@pytest.mark.parametrize("scopes", [[], [RECORD_READ], [RECORD_WRITE], [RECORD_READ, RECORD_WRITE], ["record:writer"]])
def test_g02_a_key_does_what_its_scopes_say(shop: Shop, scopes: list[str]) -> None:
    row = authenticate(shop.db, shop.api_key(scopes=scopes))
    for scope in (RECORD_READ, RECORD_WRITE):
        if scope in scopes:
            require_scope(row, scope)
            continue
        with pytest.raises(AccessDeniedError) as caught:
            require_scope(row, scope)
        assert (caught.value.code, caught.value.status) == ("FORBIDDEN_SCOPE", 403)


def test_g03_keys_of_two_tenants_lead_to_their_own(shop: Shop, tmp_path: Any) -> None:
    other = open_shop(shop.db, shop.keys, shop.clock, tmp_path, slug="other", hosts=("usage.other.localhost",))
    mine, theirs = shop.api_key(), other.api_key()
    assert authenticate(shop.db, mine).scope == shop.scope
    assert authenticate(shop.db, theirs).scope == other.scope
    crossed = f"{mine.partition('.')[0]}.{theirs.partition('.')[2]}"
    assert refusal(shop, crossed) == SAME
    assert apikeys.DEFAULT_SCOPES == (RECORD_READ, RECORD_WRITE)
