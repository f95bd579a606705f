"""Proving a period all the way up, with nothing but what a verifier gets."""

from __future__ import annotations

from shared_record.ledger import merkle
from shared_record.ledger.entry import parse_epoch, parse_head
from shared_record.ledger.note import VerifierKey, open_note, parse_checkpoint
from shared_record.ledger.proofs import prove_record
from shared_record.ledger.records import find_period, stream_records
from shared_record.plugin import RecordProof
from world import Shop


def prove(shop: Shop, customer: str, period: str = "2026-11") -> RecordProof:
    """Check one period all the way up to the signature; return its proof."""
    with shop.db.read(shop.scope, snapshot=True) as connection:
        who = shop.link(customer).customer_id
        found = find_period(connection, shop.scope, who, period)
        assert found is not None
        proof = prove_record(connection, shop.keys, shop.scope, found.tree_id)
        rows = list(stream_records(connection, shop.scope, found))
    assert proof is not None
    body = open_note(proof.checkpoint, [VerifierKey.parse(key) for key in proof.vkeys])
    signed = parse_checkpoint(body)
    entry = merkle.leaf_hash(proof.epoch.encode())
    assert merkle.verify_inclusion(entry, proof.log_index, proof.log_size, proof.log_path, signed.root)
    assert signed.size == proof.log_size
    epoch = parse_epoch(proof.epoch)
    head = merkle.leaf_hash(proof.head.encode())
    assert merkle.verify_inclusion(head, proof.slot_index, proof.slot_count, proof.slot_path, epoch.root)
    row = next(row for row in parse_head(proof.head).open if row.rec == found.tree_id)
    hashes = [merkle.leaf_hash(record.entry.encode()) for record in rows]
    assert merkle.root(hashes[: proof.size]) == row.root == proof.root
    assert row.totals[0][2:] == (proof.size, rows[proof.size - 1].running_total)
    return proof
