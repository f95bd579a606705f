"""A log's signing keys while they are rotated: who signs what, and who can still follow."""

from __future__ import annotations

import base64
import threading

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import select

from proofs_of import prove
from shared_record.db.schema import checkpoint, epoch, signing_key
from shared_record.errors import ConflictError, NotFoundError
from shared_record.ledger import logs
from shared_record.ledger.audit import audit
from shared_record.ledger.audit_reading import Tally
from shared_record.ledger.entry import parse_epoch
from shared_record.ledger.note import VerifierKey, open_note
from shared_record.ledger.proofs import newest_checkpoint
from shared_record.ledger.tiles import parse_tile_name, policy_text, read_keys, read_tile
from shared_record.verifier.checks import Result
from shared_record.verifier.watch import Seen, look
from world import Shop


def rotate(shop: Shop) -> logs.KeyChange:
    with shop.db.write(shop.scope) as connection:
        return logs.add_signing_key(connection, shop.keys, shop.scope)


def retire(shop: Shop, key: VerifierKey) -> logs.KeyChange:
    with shop.db.write(shop.scope) as connection:
        return logs.retire_signing_key(connection, shop.scope, key.id.hex())


def vkeys(shop: Shop) -> list[VerifierKey]:
    with shop.db.read(shop.scope) as connection:
        return [VerifierKey.parse(text) for text in logs.read_vkeys(connection, shop.scope)]


def note(shop: Shop, size: int) -> str:
    query = select(checkpoint.c.note).where(checkpoint.c.tenant_id == shop.scope.plane, checkpoint.c.size == size)
    with shop.db.read(shop.scope) as connection:
        found = connection.execute(query).scalar_one()
    assert found is not None
    return found


def announced(shop: Shop) -> list[tuple[str, ...]]:
    query = select(epoch.c.entry).where(epoch.c.tenant_id == shop.scope.plane).order_by(epoch.c.n)
    with shop.db.read(shop.scope) as connection:
        return [parse_epoch(text).keys for text in connection.execute(query).scalars()]


def ids_of(text: str) -> list[str]:
    lines = text.rpartition("\n\n")[2].splitlines()
    return [base64.b64decode(line.split(" ")[2])[:4].hex() for line in lines]


def fetch(shop: Shop):
    """The log as anyone may read it, without a server."""

    def get(path: str, most: int) -> bytes:
        with shop.db.read(shop.scope) as connection:
            if path == "successor":
                raise OSError("successor: there is none")
            if path == "checkpoint":
                newest = newest_checkpoint(connection, shop.scope)
                assert newest is not None
                return newest.note.encode()
            if path == "policy":
                keys = read_keys(connection, shop.scope)
                assert keys is not None
                return policy_text(keys, "https://records.example").encode()
            name = parse_tile_name(path.removeprefix("tile/"))
            assert name is not None
            data = read_tile(connection, shop.scope, name)
        if data is None:
            raise OSError(f"404 {path}")
        assert len(data) <= most
        return data

    return get


def problems(shop: Shop) -> list[str]:
    return [found.problem for found in audit(shop.db, shop.keys, shop.locks, shop.scope, tally=Tally())]


def test_both_keys_sign_from_the_next_checkpoint_on_and_the_log_names_the_new_one(shop: Shop) -> None:
    shop.record("cust_a", "1")
    shop.checkpoint()
    [old] = vkeys(shop)
    new, since = rotate(shop)
    assert since == 2
    shop.record("cust_a", "2")
    assert [shop.checkpoint(), shop.checkpoint()] == [2, 3]
    assert vkeys(shop) == [old, new]
    assert announced(shop) == [(), (str(new),), ()]
    assert [ids_of(note(shop, size)) for size in (1, 2, 3)] == [[old.id.hex()], *[[old.id.hex(), new.id.hex()]] * 2]
    for key in (old, new):
        assert open_note(note(shop, 2), [key]).splitlines()[1] == "2"
    with pytest.raises(ValueError, match="no signature by a known key"):
        open_note(note(shop, 1), [new])
    assert problems(shop) == []
    prove(shop, "cust_a")


def test_a_retired_key_signs_no_more_and_what_it_signed_stays_valid(shop: Shop) -> None:
    shop.checkpoint()
    [old] = vkeys(shop)
    new = rotate(shop).vkey
    shop.record("cust_a", "1")
    shop.checkpoint()
    assert retire(shop, old) == (old, 3)
    shop.record("cust_a", "2")
    shop.checkpoint()
    assert ids_of(note(shop, 3)) == [new.id.hex()]
    for size in (1, 2):
        assert open_note(note(shop, size), [old])
    assert problems(shop) == []
    prove(shop, "cust_a")
    with pytest.raises(ConflictError, match="signs only below size 3"):
        retire(shop, old)
    with pytest.raises(ConflictError, match="the only key"):
        retire(shop, new)


def test_a_watcher_who_pinned_only_the_old_key_follows_the_rotation(shop: Shop) -> None:
    shop.checkpoint()
    [old] = vkeys(shop)
    first = look(fetch(shop), None)
    assert first.seen == Seen(old.name, (str(old),), note(shop, 1))
    new = rotate(shop).vkey
    shop.checkpoint()
    report = look(fetch(shop), first.seen)
    assert (report.result, report.new_keys) == (Result.MATCHES, (str(new),))
    assert report.seen is not None
    assert report.seen.vkeys == (str(old), str(new))
    retire(shop, old)
    shop.checkpoint()
    after = look(fetch(shop), report.seen)
    assert (after.result, after.size, after.new_keys) == (Result.MATCHES, 3, ())
    missed = look(fetch(shop), first.seen)  # who slept through the time of both keys
    assert missed.result is Result.DIFFERS


def test_a_key_is_retired_only_after_another_signed_beside_it(shop: Shop) -> None:
    [old] = vkeys(shop)
    with pytest.raises(ConflictError, match="the only key"):
        retire(shop, old)
    rotate(shop)
    with pytest.raises(ConflictError, match="Wait for it"):
        retire(shop, old)
    shop.checkpoint()
    retire(shop, old)
    with shop.db.write(shop.scope) as connection, pytest.raises(NotFoundError, match=old.id.hex()):
        logs.retire_signing_key(connection, shop.scope, "00000000")


def test_a_new_key_that_is_withdrawn_at_once_never_signs_and_is_never_named(shop: Shop) -> None:
    shop.checkpoint()
    [old] = vkeys(shop)
    new = rotate(shop).vkey
    retire(shop, new)
    shop.checkpoint()
    assert announced(shop) == [(), ()]
    assert ids_of(note(shop, 2)) == [old.id.hex()]
    assert problems(shop) == []


def test_a_checkpoint_that_is_half_done_keeps_the_keys_it_was_made_for(shop: Shop, monkeypatch) -> None:
    shop.record("cust_a", "1")
    [old] = vkeys(shop)
    with monkeypatch.context() as patched:
        patched.setattr("shared_record.ledger.checkpoints._lock", _killed)
        with pytest.raises(KeyboardInterrupt):
            shop.checkpoint()
    new, since = rotate(shop)
    assert since == 2
    shop.record("cust_a", "2")
    assert shop.checkpoint() == 2
    assert [ids_of(note(shop, size)) for size in (1, 2)] == [[old.id.hex()], [old.id.hex(), new.id.hex()]]
    assert announced(shop) == [(), (str(new),)]


def test_a_key_that_is_added_while_an_epoch_is_made_is_always_named(shop: Shop, monkeypatch) -> None:
    shop.record("cust_a", "1")
    real = logs.announce_keys
    found: list[logs.KeyChange] = []

    def add_between(*arguments):
        thread = threading.Thread(target=lambda: found.append(rotate(shop)))
        if not threads:
            threads.append(thread)
            named = real(*arguments)  # holds the log from here on
            thread.start()
            thread.join(0.3)
            assert not found
            return named
        return real(*arguments)

    threads: list[threading.Thread] = []
    with monkeypatch.context() as patched:
        patched.setattr("shared_record.ledger.logs.announce_keys", add_between)
        shop.checkpoint()
    threads[0].join(20)
    [(new, since)] = found
    assert since == 2
    shop.checkpoint()
    assert announced(shop) == [(), (str(new),)]
    assert [len(ids_of(note(shop, size))) for size in (1, 2)] == [1, 2]


def test_the_test_plane_has_keys_of_its_own_and_seeds_are_sealed(shop: Shop) -> None:
    rotate(shop)
    with shop.db.read(shop.test_scope) as connection:
        assert len(logs.read_vkeys(connection, shop.test_scope)) == 1
    query = select(signing_key).where(signing_key.c.tenant_id == shop.scope.plane)
    with shop.db.read(shop.scope) as connection:
        rows = connection.execute(query).all()
    for row in rows:
        assert row.sealed_seed.startswith(b"k1\0")
        place = f"signing_key.sealed_seed/{row.key_id}"
        seed = shop.keys.open(row.sealed_seed, tenant=shop.scope.plane, place=place)
        private = Ed25519PrivateKey.from_private_bytes(seed)
        assert str(VerifierKey.of("localhost/log/acme", private)) == row.vkey


def _killed(*_arguments: object) -> None:
    raise KeyboardInterrupt
