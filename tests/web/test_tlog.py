"""The log as the public reads it: the C2SP tlog-tiles endpoints, with nothing but HTTP to go by."""

from __future__ import annotations

import re
from typing import Any

import pytest
from sqlalchemy import select

from client import Visitor, serve
from shared_record.db.schema import tenant
from shared_record.ledger import checkpoints, merkle
from shared_record.ledger.entry import parse_epoch
from shared_record.ledger.note import VerifierKey, open_note, parse_checkpoint, parse_policy
from shared_record.ledger.tiles import TileName, parse_tile_name
from shared_record.web.headers import IMMUTABLE
from world import Shop, open_shop


@pytest.fixture
def log_path(shop: Shop) -> str:
    """The path of the live log of the shop."""
    return path_of(shop, shop.scope)


def path_of(shop: Shop, scope: Any) -> str:
    with shop.db.read(scope) as connection:
        query = select(tenant.c.public_id).where(tenant.c.tenant_id == scope.plane)
        return f"log/{connection.execute(query).scalar_one()}"


def grow(shop: Shop, count: int) -> None:
    """Publish ``count`` epochs under one lease, without waiting for the clock."""
    lease = shop.lease()
    for _ in range(count):
        shop.clock.advance(milliseconds=1)
        checkpoints.make_checkpoint(shop.db, shop.keys, shop.clock, shop.locks, lease)


def tile_path(level: int | str, index: int, width: int = 256) -> str:
    digits = f"{index:03d}" if index < 1000 else f"x{index // 1000:03d}/{index % 1000:03d}"
    return f"tile/{level}/{digits}" + ("" if width == 256 else f".p/{width}")


def unbundle(data: bytes) -> list[bytes]:
    entries, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 2])
        entries.append(data[at + 2 : at + 2 + size])
        at += 2 + size
    assert at == len(data)
    return entries


def test_the_whole_log_is_rebuilt_from_tiles_and_from_entries(shop: Shop, log_path: str) -> None:
    epochs = 300 if shop.db.is_postgresql else 600
    shop.record("cust_a", "1")
    grow(shop, epochs)
    visitor = Visitor(serve(shop))
    base = f"localhost/{log_path}"
    vkeys = [key["vkey"] for key in visitor.get(f"{base}/keys.json").json["keys"]]
    note = visitor.get(f"{base}/checkpoint")
    assert note.content_type == "text/plain; charset=utf-8"
    signed = parse_checkpoint(open_note(note.text, [VerifierKey.parse(key) for key in vkeys]))
    assert (signed.origin, signed.size) == ("localhost/log/acme", epochs)
    leaves: list[bytes] = []
    entries: list[bytes] = []
    for index in range(-(-epochs // 256)):
        width = min(256, epochs - 256 * index)
        hashes = visitor.get(f"{base}/{tile_path(0, index, width)}")
        assert (hashes.status_code, hashes.content_type) == (200, "application/octet-stream")
        assert len(hashes.data) == 32 * width
        leaves += merkle.split_hashes(hashes.data)
        entries += unbundle(visitor.get(f"{base}/{tile_path('entries', index, width)}").data)
    assert [merkle.leaf_hash(entry) for entry in entries] == leaves
    assert merkle.root(leaves) == signed.root
    assert [parse_epoch(entry.decode()).epoch for entry in entries] == list(range(epochs))
    above = merkle.split_hashes(visitor.get(f"{base}/{tile_path(1, 0, epochs // 256)}").data)
    assert above == [merkle.root(leaves[at : at + 256]) for at in range(0, epochs - 255, 256)]
    assert visitor.get(f"{base}/{tile_path(2, 0, 1)}").status_code == 404
    for size in (1, 255, 256, 257, 299, 300, epochs // 2, epochs):  # partial tiles of every earlier checkpoint stay
        index, width = divmod(size, 256)
        if width:
            found = visitor.get(f"{base}/{tile_path(0, index, width)}").data
            assert merkle.split_hashes(found) == leaves[256 * index : size]
    caching = {
        tile_path(0, 0): IMMUTABLE,
        tile_path("entries", 0): IMMUTABLE,
        tile_path(0, 1, 44): "no-cache",
        tile_path("entries", 1, 44): "no-cache",
        tile_path(1, 0, 1): "no-cache",
        "checkpoint": "no-cache",
    }
    for path, expected in caching.items():
        response = visitor.get(f"{base}/{path}")
        assert response.status_code == 200
        assert response.headers["Cache-Control"] == expected, path
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        assert "Access-Control-Allow-Credentials" not in response.headers
        assert "Set-Cookie" not in response.headers


def test_nothing_is_served_before_it_is_published(shop: Shop, log_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    visitor = Visitor(serve(shop))
    base = f"localhost/{log_path}"
    assert visitor.get(f"{base}/checkpoint").status_code == 404
    assert visitor.get(f"{base}/policy").status_code == 200
    shop.record("cust_a", "1")
    grow(shop, 2)
    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "_publish", _killed)
        with pytest.raises(KeyboardInterrupt):
            grow(shop, 1)
    assert visitor.get(f"{base}/checkpoint").text.splitlines()[1] == "2"
    assert visitor.get(f"{base}/{tile_path(0, 0, 2)}").status_code == 200
    for level in (0, "entries"):
        missing = visitor.get(f"{base}/{tile_path(level, 0, 3)}")
        assert (missing.status_code, missing.headers["Cache-Control"]) == (404, "no-cache")
        assert missing.headers["Access-Control-Allow-Origin"] == "*"
        assert visitor.get(f"{base}/{tile_path(level, 0)}").status_code == 404


def test_a_log_is_found_on_its_own_hosts_and_on_no_other_tenants(shop: Shop, tmp_path: Any) -> None:
    other = open_shop(
        shop.db, shop.keys, shop.clock, tmp_path / "b", slug="borealis", hosts=("usage.borealis.localhost",)
    )
    for one in (shop, other):
        one.record("cust_a", "1")
        grow(one, 1)
    visitor = Visitor(serve(shop))
    live, foreign = path_of(shop, shop.scope), path_of(other, other.scope)
    own_hosts = ["localhost", *shop.hosts]
    for path in ("checkpoint", "policy", "keys.json", tile_path(0, 0, 1), tile_path("entries", 0, 1)):
        answers = [visitor.get(f"{host}/{live}/{path}") for host in own_hosts]
        assert [answer.status_code for answer in answers] == [200] * len(own_hosts)
        assert len({answer.data for answer in answers}) == 1
        assert visitor.get(f"{other.hosts[0]}/{live}/{path}").status_code == 404
        assert visitor.get(f"{shop.hosts[0]}/{foreign}/{path}").status_code == 404
        assert visitor.get(f"localhost/log/t_0000000000000000/{path}").status_code == 404
    assert "localhost/log/acme-test" in visitor.get(f"{shop.hosts[0]}/{path_of(shop, shop.test_scope)}/policy").text


def test_keys_and_policy(shop: Shop, log_path: str) -> None:
    visitor = Visitor(serve(shop))
    policy = visitor.get(f"localhost/{log_path}/policy")
    assert (policy.content_type, policy.headers["Cache-Control"]) == ("text/plain; charset=utf-8", "no-cache")
    parsed = parse_policy(policy.text)
    (vkey,) = parsed.logs["localhost/log/acme"]
    assert parsed.quorum is None
    assert re.search(rf"^log {re.escape(vkey)} http://localhost:8000/{log_path}$", policy.text, re.MULTILINE)
    assert visitor.get(f"localhost/{log_path}/keys.json").json == {
        "origin": "localhost/log/acme",
        "keys": [{"vkey": vkey, "fingerprint": VerifierKey.parse(vkey).fingerprint, "since": 0, "until": None}],
    }
    branded = visitor.get(f"{shop.hosts[0]}/.well-known/shared-record/keys.json")
    assert [(log["plane"], log["origin"]) for log in branded.json["logs"]] == [
        ("live", "localhost/log/acme"),
        ("test", "localhost/log/acme-test"),
    ]
    assert branded.json["logs"][0]["keys"][0]["vkey"] == vkey
    assert branded.headers["Access-Control-Allow-Origin"] == "*"
    assert visitor.get("localhost/.well-known/shared-record/keys.json").status_code == 404


def test_a_checkpoint_that_did_not_change_is_not_sent_again(shop: Shop, log_path: str) -> None:
    shop.record("cust_a", "1")
    grow(shop, 1)
    visitor = Visitor(serve(shop))
    tag = visitor.get(f"localhost/{log_path}/checkpoint").headers["ETag"]
    again = visitor.get(f"localhost/{log_path}/checkpoint", headers={"If-None-Match": tag})
    assert (again.status_code, again.data) == (304, b"")
    grow(shop, 1)
    assert visitor.get(f"localhost/{log_path}/checkpoint", headers={"If-None-Match": tag}).status_code == 200


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0/000", TileName(0, 0, 256)),
        ("63/x001/x234/067.p/255", TileName(63, 1234067, 255)),
        ("entries/x001/000", TileName(None, 1000, 256)),
        ("entries/999.p/1", TileName(None, 999, 1)),
        ("0/x018/x014/x398/x509/x481/983", TileName(0, 18014398509481983, 256)),
    ]
    + [
        (text, None)
        for text in (
            *("64/000", "00/000", "01/000", "-1/000", "0/0", "0/1000", "0/x000/001", "0/x001/x000", "0/001/000"),
            *("0/000.p/0", "0/000.p/256", "0/000.p/01", "0/000.p/", "0/000.p/1/", "0/000/", "/0/000", "0/000\n"),
            *("data/000", "entries", "0/٠٠٠", "0/" + "x999/" * 400 + "999", "0/" + "x999/" * 6 + "999", ""),
        )
    ],
)
def test_each_tile_has_one_name(text: str, expected: TileName | None) -> None:
    assert parse_tile_name(text) == expected


def _killed(*_args: object) -> None:
    raise KeyboardInterrupt
