"""API keys: what is stored, what is accepted, and that every refusal is the same."""

from __future__ import annotations

import hashlib
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from shared_record.access import apikeys
from shared_record.access.apikeys import (
    ACCESS_MANAGE,
    CODE_REVEAL,
    KEY,
    RECORD_READ,
    RECORD_WRITE,
    SCOPES,
    TOKEN,
    KeyInfo,
    KeyUses,
    authenticate,
    authenticate_bearer,
    require_scope,
)
from shared_record.db.schema import api_key, audit_event, tenant
from shared_record.errors import AccessDeniedError, ConflictError, InvalidInputError, NotFoundError
from world import Shop, open_shop


def refusal(shop: Shop, presented: str | None) -> tuple[str, str, int]:
    with pytest.raises(AccessDeniedError) as caught:
        authenticate(shop.db, shop.clock, presented)
    return caught.value.message, caught.value.code, caught.value.status


SAME = ("The API key is missing or not valid.", "INVALID_API_KEY", 401)


def test_a_key_names_its_plane_and_is_the_tenants(shop: Shop) -> None:
    live, test = shop.api_key(), shop.api_key(test=True)
    assert re.fullmatch(r"pk_live_[0-9a-z]{16}\.[A-Za-z0-9_-]{43}", live)
    assert re.fullmatch(r"pk_test_[0-9a-z]{16}\.[A-Za-z0-9_-]{43}", test)
    assert authenticate(shop.db, shop.clock, live).scope == shop.scope
    assert authenticate(shop.db, shop.clock, test).scope == shop.test_scope
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
    assert authenticate(shop.db, shop.clock, key).public_id == head[-16:]


def change(shop: Shop, table: Any, *where: Any, **values: Any) -> None:
    with shop.db.write(shop.scope) as connection:
        connection.execute(table.update().where(table.c.tenant_id == shop.scope.plane, *where).values(**values))


def test_g01_a_revoked_key_is_refused_at_once_and_others_are_not(shop: Shop) -> None:
    gone, stays = shop.api_key(), shop.api_key()
    authenticate(shop.db, shop.clock, gone)
    change(shop, api_key, api_key.c.public_id == gone[8:24], revoked_at=shop.clock.now())
    assert refusal(shop, gone) == SAME
    authenticate(shop.db, shop.clock, stays)


def test_suspending_the_tenant_stops_both_planes(shop: Shop) -> None:
    keys = [shop.api_key(), shop.api_key(test=True)]
    change(shop, tenant, state="suspended")
    assert [refusal(shop, key) for key in keys] == [SAME, SAME]
    change(shop, tenant, state="active")
    assert [authenticate(shop.db, shop.clock, key).state for key in keys] == ["active", "active"]


@pytest.mark.parametrize("scopes", [[], [RECORD_READ], [RECORD_WRITE], [RECORD_READ, RECORD_WRITE], [CODE_REVEAL]])
def test_g02_a_key_does_what_its_scopes_say(shop: Shop, scopes: list[str]) -> None:
    row = authenticate(shop.db, shop.clock, shop.api_key(scopes=scopes))
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
    assert authenticate(shop.db, shop.clock, mine).scope == shop.scope
    assert authenticate(shop.db, shop.clock, theirs).scope == other.scope
    crossed = f"{mine.partition('.')[0]}.{theirs.partition('.')[2]}"
    assert refusal(shop, crossed) == SAME


# --- Ends, successors, tokens ----------------------------------------------------------------------------------------


def rotate(shop: Shop, key: str, **overlap: float) -> str:
    shop.clock.advance(seconds=1)
    with shop.db.write(shop.scope) as connection:
        return apikeys.rotate_key(
            connection, shop.clock, shop.scope, key[8:24], overlap=timedelta(**overlap), actor="test"
        )


def infos(shop: Shop, kind: str = KEY) -> dict[str, KeyInfo]:
    with shop.db.read(shop.scope) as connection:
        return {info.public_id: info for info in apikeys.list_keys(connection, shop.scope, kind)}


def events(shop: Shop) -> list[tuple[str, Any]]:
    with shop.db.read(shop.scope) as connection:
        mine = select(audit_event).where(audit_event.c.tenant_id == shop.scope.plane).order_by(audit_event.c.at)
        return [(row.event, row.detail["key"]) for row in connection.execute(mine)]


def test_a_key_ends_at_its_date(shop: Shop) -> None:
    until = shop.clock.now() + timedelta(days=1)
    with shop.db.write(shop.scope) as connection:
        key = apikeys.create_key(connection, shop.clock, shop.scope, name="x", actor="test", expires_at=until)
    shop.clock.advance(hours=23, minutes=59)
    authenticate(shop.db, shop.clock, key)
    shop.clock.advance(minutes=1)
    assert refusal(shop, key) == SAME
    assert infos(shop)[key[8:24]].condition(shop.clock.now()) == "expired"


def test_a_key_and_its_successor_work_side_by_side_as_one_owner(shop: Shop) -> None:
    first = shop.api_key(scopes=[RECORD_READ])
    second = rotate(shop, first, hours=24)
    third = rotate(shop, second, hours=1)
    rows = [authenticate(shop.db, shop.clock, key) for key in (first, second, third)]
    assert {row.owner for row in rows} == {first[8:24]}
    assert [row.scopes for row in rows] == [[RECORD_READ]] * 3
    shop.clock.advance(hours=1)
    assert refusal(shop, second) == SAME
    shop.clock.advance(hours=23)
    assert refusal(shop, first) == SAME
    authenticate(shop.db, shop.clock, third)
    assert events(shop) == [
        ("key.created", first[8:24]),
        ("key.rotated", second[8:24]),
        ("key.rotated", third[8:24]),
    ]


def test_without_overlap_the_old_key_ends_with_the_rotation(shop: Shop) -> None:
    old = shop.api_key()
    fresh = rotate(shop, old)
    assert refusal(shop, old) == SAME
    authenticate(shop.db, shop.clock, fresh)


def test_only_a_living_key_that_has_no_successor_is_rotated(shop: Shop) -> None:
    old, gone = shop.api_key(), shop.api_key()
    rotate(shop, old, hours=24)
    with shop.db.write(shop.scope) as connection:
        apikeys.revoke_key(connection, shop.clock, shop.scope, gone[8:24], actor="test")
    for key in (old, gone):
        with pytest.raises(ConflictError):
            rotate(shop, key, hours=24)
    with pytest.raises(NotFoundError):
        rotate(shop, "pk_live_" + "0" * 16)
    assert len(infos(shop)) == 3


def test_the_successor_of_a_key_with_an_end_lives_as_long_as_that_did(shop: Shop) -> None:
    start = shop.clock.now()
    with shop.db.write(shop.scope) as connection:
        old = apikeys.create_key(
            connection, shop.clock, shop.scope, name="x", actor="test", expires_at=start + timedelta(days=90)
        )
    shop.clock.advance(days=89)
    fresh = rotate(shop, old, days=30)
    assert infos(shop)[old[8:24]].expires_at == start + timedelta(days=90)
    assert infos(shop)[fresh[8:24]].expires_at == shop.clock.now() + timedelta(days=90)


def test_revoking_is_immediate_audited_and_may_be_repeated(shop: Shop) -> None:
    key = shop.api_key()
    for _ in range(2):
        shop.clock.advance(seconds=1)
        with shop.db.write(shop.scope) as connection:
            apikeys.revoke_key(connection, shop.clock, shop.scope, key[8:24], actor="test")
        assert refusal(shop, key) == SAME
    assert [event for event, _ in events(shop)] == ["key.created", "key.revoked"]


def test_g02_new_keys_neither_see_codes_nor_change_access_unless_asked_to(shop: Shop) -> None:
    row = authenticate(shop.db, shop.clock, shop.api_key())
    assert set(SCOPES) - set(row.scopes) == {CODE_REVEAL, ACCESS_MANAGE}
    assert authenticate(shop.db, shop.clock, shop.api_key(scopes=[CODE_REVEAL])).scopes == [CODE_REVEAL]
    with pytest.raises(InvalidInputError):
        shop.api_key(scopes=["record:writer"])


def make_token(shop: Shop) -> str:
    with shop.db.write(shop.scope) as connection:
        return apikeys.create_token(connection, shop.clock, shop.scope, name="kim", actor="test")


def test_g01_a_token_is_no_key_and_a_key_no_token(shop: Shop) -> None:
    token, key = make_token(shop), shop.api_key()
    assert re.fullmatch(r"srp_[0-9a-z]{16}\.[A-Za-z0-9_-]{43}", token)
    found = authenticate_bearer(shop.db, shop.clock, f"Bearer {token}")
    assert (found.scope, tuple(found.scopes), found.kind) == (shop.scope, apikeys.TOKEN_SCOPES, TOKEN)
    public, _, secret = token.removeprefix("srp_").partition(".")
    assert refusal(shop, f"pk_live_{public}.{secret}") == SAME
    answers = set()
    for wrong in (None, "", token, f"Basic {token}", f"Bearer {token}x", f"Bearer {key}", f"Bearer srp_{key[8:]}"):
        with pytest.raises(AccessDeniedError) as caught:
            authenticate_bearer(shop.db, shop.clock, wrong)
        answers.add((caught.value.message, caught.value.code, caught.value.status, caught.value.challenge))
    assert answers == {("The access token is missing or not valid.", "INVALID_TOKEN", 401, "Bearer")}
    with shop.db.write(shop.scope) as connection:
        apikeys.revoke_key(connection, shop.clock, shop.scope, public, actor="test")
    with pytest.raises(AccessDeniedError):
        authenticate_bearer(shop.db, shop.clock, f"Bearer {token}")
    assert ("token.revoked", public) in events(shop)
    assert (list(infos(shop)), list(infos(shop, TOKEN))) == ([key[8:24]], [public])


def test_a_use_is_due_once_a_minute_for_each_key(shop: Shop) -> None:
    uses = KeyUses()
    one, other = (authenticate(shop.db, shop.clock, shop.api_key()) for _ in range(2))
    now = shop.clock.now()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: uses.is_due(one, now), range(32))).count(True) == 1
    assert uses.is_due(other, now)
    assert not uses.is_due(one, now + timedelta(seconds=59))
    assert uses.is_due(one, now + timedelta(seconds=60))


def test_two_processes_that_note_the_first_use_make_one_event(shop: Shop) -> None:
    key = authenticate(shop.db, shop.clock, shop.api_key())
    for _ in range(2):
        apikeys.note_use(shop.db, shop.clock, key)
    assert [event for event, _ in events(shop)].count("key.used_first") == 1
