from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from click.testing import Result as CliResult
from sqlalchemy import select

from client import Visitor, serve
from shared_record.cli import verify as cli
from shared_record.db.schema import period_tree, tenant
from shared_record.exports.service import build_export
from shared_record.ledger import entry, merkle, note
from shared_record.ledger.note import b64encode
from shared_record.ledger.receipt import build_receipt
from shared_record.verifier.continuity import check_since
from shared_record.verifier.evidence import check_evidence
from shared_record.verifier.subtrees import fold_split, from_leaves, from_path, split_ranges
from shared_record.verifier.trust import Outcome, Result
from verifier.history import History, rows_of
from verifier.test_bundle import PLUGIN, write
from verifier.test_checks import ORIGIN, OTHER_KEY, TRUSTED, Log
from verifier.test_receipts import receipt_of
from world import Shop

AMOUNTS = ("5", "-1.25", "1000", "7", "2.5", "3", "11")


def receipt(log: Log, start: int | None = 0) -> bytes:
    return build_receipt(receipt_of(log, start, len(log.rows))).encode()


def bundle(log: Log) -> bytes:
    return write(log)[0]


def carried(log: Log) -> bytes:
    data = {"format": "shared-record/proof@v1", "tlogProof": receipt(log).decode()}
    return json.dumps({"success": True, "data": data}, indent=1).encode()


def checkpoint(log: Log) -> bytes:
    assert log.facts.proof
    return log.facts.proof.checkpoint.encode()


FORMS: dict[str, Callable[[Log], bytes]] = {
    "bundle": bundle,
    "export": Log.export,
    "receipt": receipt,
    "receipt of a delta": lambda log: receipt(log, None),
    "answer of the API": carried,
    "checkpoint": checkpoint,
}


def server(history: History) -> Callable[[str, int], bytes]:
    """The log's consistency endpoint."""

    def fetch(path: str, most: int) -> bytes:
        name, _, query = path.partition("?")
        if name != "consistency":
            raise OSError(f"{path}: the server answers 404")
        old, new = (int(word.partition("=")[2]) for word in query.split("&"))
        leaves = history.leaves[:new]
        proof = [b64encode(one) for one in merkle.consistency_path(leaves, old)]
        return json.dumps(
            {"from": {"size": old, "root": b64encode(merkle.root(leaves[:old]))}, "proof": proof}
        ).encode()

    return fetch


def tiles(history: History) -> Callable[[str, int], bytes]:
    """A log that has its tiles alone; small enough for one."""

    def fetch(path: str, most: int) -> bytes:
        if path.startswith("tile/0/000.p/"):
            return b"".join(history.leaves[: int(path.rpartition("/")[2])])
        raise OSError(f"{path}: the server answers 404")

    return fetch


def since(tmp_path: Path, newer: bytes, older: bytes, **options: object) -> Outcome:
    (tmp_path / "older").write_bytes(older)
    return check_since(io.BytesIO(newer), tmp_path / "older", TRUSTED, **options)  # type: ignore[arg-type]


def grown() -> tuple[History, Log, Log]:
    history = History().idle(4)
    older = history.state(rows_of(AMOUNTS[:4]))
    history.idle(6)
    return history, older, history.state(rows_of(AMOUNTS))


# --- Subtrees --------------------------------------------------------------------------------------------------------


def test_every_split_leads_to_both_roots() -> None:
    leaves = [merkle.leaf_hash(b"%d" % i) for i in range(40)]
    for new in range(1, 41):
        for old in range(1, new + 1):
            hashes = from_leaves(lambda new=new: leaves[:new])(split_ranges(old, new))
            assert hashes
            assert fold_split(old, new, hashes) == (merkle.root(leaves[:old]), merkle.root(leaves[:new]))
            for index in (old - 1, old):
                if index < new:  # the leaf before or after the cut, with its path, is enough
                    path = merkle.inclusion_path(leaves[:new], index)
                    assert from_path(leaves[index], index, new, path)(split_ranges(old, new)) == hashes


def test_a_path_far_from_the_cut_does_not_tell() -> None:
    leaves = [merkle.leaf_hash(b"%d" % i) for i in range(16)]
    assert from_path(leaves[0], 0, 16, merkle.inclusion_path(leaves, 0))(split_ranges(5, 16)) is None


# --- Files that continue ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("newer_form", ["bundle", "export"])
def test_a_newer_file_continues_an_older_one(tmp_path: Path, form: str, newer_form: str) -> None:
    history, older, newer = grown()
    for fetch in (server(history), tiles(history)):
        outcome = since(tmp_path, FORMS[newer_form](newer), FORMS[form](older), fetch=fetch)
        assert (outcome.reason, outcome.result) == (None, Result.MATCHES)
        steps = " ".join(outcome.checked)
        assert "The log at size 12 extends the older file's checkpoint of size 5." in steps
        assert ("The first 4 rows of 2026-11 are those of the older file." in steps) == (form != "checkpoint")


@pytest.mark.parametrize("form", FORMS)
def test_offline_the_files_are_enough_if_one_epoch_follows_the_other(tmp_path: Path, form: str) -> None:
    history = History().idle(2)
    older = history.state(rows_of(AMOUNTS[:4]))
    newer = history.state(rows_of(AMOUNTS))
    outcome = since(tmp_path, bundle(newer), FORMS[form](older))
    assert (outcome.reason, outcome.result) == (None, Result.MATCHES)


def test_offline_they_may_not_be_enough(tmp_path: Path) -> None:
    _, older, newer = grown()
    outcome = since(tmp_path, bundle(newer), bundle(older))
    assert outcome.result is Result.UNKNOWN
    assert outcome.reason == "the files do not hold what leads from size 5 of the log to 12"


def test_the_same_file_continues_itself(tmp_path: Path) -> None:
    _, older, _ = grown()
    for form in FORMS.values():
        assert since(tmp_path, bundle(older), form(older)).result is Result.MATCHES


def test_two_receipts_may_not_tell_what_the_rows_before_were(tmp_path: Path) -> None:
    history = History().idle(4)
    older = history.state(rows_of(AMOUNTS[:3]))
    newer = history.idle(6).state(rows_of(AMOUNTS))
    outcome = since(tmp_path, receipt(newer), receipt(older), fetch=server(history))
    assert outcome.reason == "the files do not hold what leads from the 3 rows of the older one to 7"
    outcome = since(tmp_path, build_receipt(receipt_of(newer, 0, 3)).encode(), receipt(older), fetch=server(history))
    assert (outcome.reason, outcome.result) == (None, Result.MATCHES)


def test_a_record_of_a_later_period_names_the_one_before(tmp_path: Path) -> None:
    history = History()
    older = history.state(rows_of(AMOUNTS[:4]))
    assert older.facts.proof
    for root, size, expected in (
        (older.facts.proof.root, 4, Result.MATCHES),
        (b"\1" * 32, 5, Result.MATCHES),
        (b"\1" * 32, 4, Result.DIFFERS),
        (older.facts.proof.root, 3, Result.DIFFERS),
    ):
        later = history.fork()
        prev = entry.PreviousPeriod(0, b"\2" * 32, "2026-11", root, size)
        text = entry.head_text("s2-0123456789abcdef", 1, entry.head_fragment((), prev), "e" * 32)
        newer = entry.parse_head(text)
        assert newer.prev
        outcome = since(tmp_path, bundle(_in_december(later, prev)), bundle(older), fetch=server(later))
        assert outcome.result is expected, outcome.reason
        assert ("which the newer file does not hold" in " ".join(outcome.not_checked)) == (size == 5)


def _in_december(history: History, prev: entry.PreviousPeriod) -> Log:
    """A record of the month after, whose head names the one before."""
    from dataclasses import replace
    from datetime import UTC, datetime

    import verifier.history as module

    december = rows_of(("4",))
    row = december[0]
    text = row.entry.replace("2026-11-03", "2026-12-03").replace('"2026-11"', '"2026-12"').replace("r_0123", "r_9123")
    row = row._replace(entry=text, receipt_id=entry.receipt_id(merkle.leaf_hash(text.encode())))
    before = module.PERIOD, module.TREE
    module.PERIOD, module.TREE = "2026-12", "r_9123456789abcdef"
    try:
        log = history.state((row,), prev=prev)
    finally:
        module.PERIOD, module.TREE = before
    start, end = datetime(2026, 12, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
    return replace(log, facts=replace(log.facts, period="2026-12", tree_id="r_9123456789abcdef", start=start, end=end))


# --- Files that do not -----------------------------------------------------------------------------------------------


def proves(outcome: Outcome, kind: str) -> None:
    assert outcome.evidence
    assert json.loads(outcome.evidence)["kind"] == kind
    assert len(outcome.evidence) < 20_000
    judged = check_evidence(outcome.evidence.encode(), TRUSTED)
    assert (judged.reason, judged.result) == (None, Result.MATCHES)
    assert "This file proves that " in judged.checked[-1]


def test_a_fork_of_the_log(tmp_path: Path) -> None:
    history, older, _ = grown()
    forked = History().idle(3)
    forked.state(rows_of(AMOUNTS[:1]))
    newer = forked.idle(7).state(rows_of(AMOUNTS))
    outcome = since(tmp_path, bundle(newer), bundle(older), fetch=server(forked))
    assert (outcome.result, outcome.reason) == (
        Result.DIFFERS,
        "fork: the log at size 12 does not extend size 5 as the older file has it",
    )
    proves(outcome, "fork")
    honest = since(tmp_path, bundle(newer), bundle(older), fetch=server(history))
    assert honest.result is Result.UNKNOWN, "another log's hashes prove nothing"


def test_two_trees_of_one_size(tmp_path: Path) -> None:
    history = History().idle(4)
    older, newer = history.fork().state(rows_of(AMOUNTS[:3])), history.state(rows_of(AMOUNTS))
    for form in FORMS.values():
        outcome = since(tmp_path, bundle(newer), form(older))
        assert outcome.result is Result.DIFFERS
        proves(outcome, "fork")


def test_a_smaller_log(tmp_path: Path) -> None:
    history, older, newer = grown()
    outcome = since(tmp_path, bundle(older), bundle(newer), fetch=server(history))
    assert outcome.reason == "the log has size 5, and had 12 in the older file"


@pytest.mark.parametrize("form", ["bundle", "export", "receipt of a delta"])
def test_a_rewritten_delta(tmp_path: Path, form: str) -> None:
    history = History()
    older = history.state(rows_of(("5", "1", "2", "3")))
    newer = history.state(rows_of(("5", "1", "2", "4", "8")))
    outcome = since(tmp_path, bundle(newer), FORMS[form](older))
    assert (outcome.result, outcome.reason) == (Result.DIFFERS, "row 4 is not as the older file has it")
    proves(outcome, "rewritten-delta")


def test_a_rewritten_row_that_the_older_receipt_does_not_show(tmp_path: Path) -> None:
    history = History()
    older = history.state(rows_of(("5", "1", "2", "3")))
    newer = history.state(rows_of(("4", "2", "2", "3", "8")))
    outcome = since(tmp_path, bundle(newer), receipt(older))
    assert (outcome.result, outcome.reason) == (Result.DIFFERS, "the first 4 rows are not as the older file has them")
    proves(outcome, "rewritten-record")


def test_a_record_that_shrank(tmp_path: Path) -> None:
    history = History()
    older, newer = history.state(rows_of(AMOUNTS)), history.state(rows_of(AMOUNTS[:5]))
    outcome = since(tmp_path, bundle(newer), receipt(older))
    assert outcome.reason == "the record of 2026-11 has 5 rows, and had 7 in the older file"
    proves(outcome, "rewritten-record")


def test_evidence_stays_small_however_long_the_record_is(tmp_path: Path) -> None:
    history, parts = History().idle(900), ["1"] * 3000
    older = history.state(rows_of(parts[:2999]))
    newer = history.state(rows_of(["2", *parts]))
    outcome = since(tmp_path, bundle(newer), bundle(older))
    proves(outcome, "rewritten-delta")


def test_another_customer(tmp_path: Path) -> None:
    history = History()
    older, newer = history.state(rows_of(AMOUNTS[:4]), ref="s2-ffffffffffffffff"), history.state(rows_of(AMOUNTS))
    outcome = since(tmp_path, bundle(newer), receipt(older))
    assert (
        outcome.reason == "the newer file is of the customer s2-0123456789abcdef, the older one of s2-ffffffffffffffff"
    )


def test_another_log_and_a_declared_one(tmp_path: Path) -> None:
    older = History().state(rows_of(AMOUNTS[:4]))
    later = History(f"{ORIGIN}/2").state(rows_of(AMOUNTS))
    sources = [("the policy file", {**TRUSTED[0][1], later.facts.log_origin: list(later.facts.proof.vkeys)})]  # type: ignore[union-attr]
    (tmp_path / "older").write_bytes(bundle(older))
    outcome = check_since(io.BytesIO(bundle(later)), tmp_path / "older", sources)
    assert outcome.result is Result.UNKNOWN
    assert outcome.reason is not None
    assert f"the log {ORIGIN} declared a new origin: {ORIGIN}/2" in outcome.reason
    (tmp_path / "older").write_bytes(bundle(later))
    outcome = check_since(io.BytesIO(bundle(older)), tmp_path / "older", sources)
    assert outcome.result is Result.DIFFERS


def test_an_older_file_that_is_of_no_use(tmp_path: Path) -> None:
    _, older, newer = grown()
    foreign = note.sign_note(checkpoint(older).decode().partition("\n\n")[0] + "\n", ORIGIN, OTHER_KEY).encode()
    for data in (b"", b"hello", b"{}", foreign, bundle(older)[:500], bundle(older).replace(b"PK", b"KP")):
        outcome = since(tmp_path, bundle(newer), data)
        assert outcome.result is Result.UNKNOWN
        assert outcome.reason
    assert check_since(io.BytesIO(bundle(newer)), tmp_path / "none", TRUSTED).result is Result.UNKNOWN


def test_a_log_that_answers_rubbish(tmp_path: Path) -> None:
    _, older, newer = grown()
    for answer in (b"", b"{}", b"[]", b'{"proof":[1]}', b'{"proof":["AAAA"],"from":{"root":"AAAA"}}'):
        outcome = since(tmp_path, bundle(newer), bundle(older), fetch=lambda path, most, answer=answer: answer)
        assert outcome.result is Result.UNKNOWN


# --- A real log ------------------------------------------------------------------------------------------------------


def export_of(shop: Shop) -> bytes:
    query = select(period_tree.c.customer_id, period_tree.c.period).where(period_tree.c.tenant_id == shop.scope.plane)
    with shop.db.read(shop.scope) as connection:
        tree = connection.execute(query).one()
    out = io.BytesIO()
    build_export(shop.db, shop.keys, shop.clock, shop.scope, tree.customer_id, tree.period, PLUGIN.Bundle, out)
    return out.getvalue()


def test_bundles_of_a_real_log_continue_each_other_through_the_application(shop: Shop, tmp_path: Path) -> None:
    visitor = Visitor(serve(shop))
    with shop.db.read(shop.scope) as connection:
        public_id = connection.execute(select(tenant.c.public_id).where(tenant.c.tenant_id == shop.scope.plane))
        base = f"{shop.hosts[0]}/log/{public_id.scalar_one()}"
    asked: list[str] = []

    def fetch(path: str, most: int) -> bytes:
        asked.append(path)
        response = visitor.get(f"{base}/{path}")
        if response.status_code != 200:
            raise OSError(f"{path}: {response.status}")
        return response.data

    kept = []
    for amount in ("1", "2.5", "-1", "4"):
        shop.record("cust_a", amount)
        for _ in range(3):
            shop.checkpoint()
        kept.append(export_of(shop))
    for older in kept[:-1]:
        (tmp_path / "older.zip").write_bytes(older)
        outcome = check_since(io.BytesIO(kept[-1]), tmp_path / "older.zip", (), None, fetch)
        assert (outcome.reason, outcome.result) == (None, Result.MATCHES)
    assert asked
    assert all(path.startswith("consistency?") for path in asked)


# --- The command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., CliResult]:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(cli, "local_log_keys", dict)
    monkeypatch.chdir(tmp_path)
    return lambda *words, stdin=None: CliRunner().invoke(cli.verify, words, input=stdin)


def test_from_offline_and_evidence(run: Callable[..., CliResult], tmp_path: Path) -> None:
    _, older, newer = grown()
    (tmp_path / "older.zip").write_bytes(bundle(older))
    (tmp_path / "newer.zip").write_bytes(bundle(newer))
    outcome = run("--offline", "--from", "older.zip", "newer.zip")
    assert outcome.exit_code == 5
    assert "Could not be checked (because the files do not hold what leads from size 5" in outcome.output
    other = History().idle(4).fork()
    (tmp_path / "fork.zip").write_bytes(bundle(other.state(rows_of(AMOUNTS))))
    outcome = run(
        "--offline", "--from", "older.zip", "--evidence", "fork.json", "-", stdin=(tmp_path / "fork.zip").read_bytes()
    )
    assert outcome.exit_code == 4, outcome.output
    assert "shared-record verify fork.json" in outcome.output
    outcome = run("fork.json")
    assert outcome.exit_code == 0, outcome.output
    assert "This file proves that the log signed two different trees of size 5." in outcome.output
    assert "Not checked: how it came to this" in outcome.output
    text = (tmp_path / "fork.json").read_text()
    (tmp_path / "fork.json").write_text(text.replace("fork", "wrong-total"))
    assert run("fork.json").exit_code == 5
    outcome = run("--evidence", "none.json", "newer.zip")
    assert outcome.exit_code == 0
    assert "No evidence was written" in outcome.output
    assert not (tmp_path / "none.json").exists()
    assert run("--offline", "newer.zip").exit_code == 2
    assert run("--from", "older.zip", "--log", "ftp://x", "newer.zip").exit_code == 2
