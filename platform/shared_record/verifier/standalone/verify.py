#!/usr/bin/env python3
"""Check a Shared Record file offline: an export bundle (.zip or its folder), a .tlog-proof receipt or a JSON export.

Exit status: 0 it matches, 4 it does not match, 5 it could not be checked. Needs Python 3.10 or newer, nothing else.
Hashes are RFC 6962 (SHA-256), signatures Ed25519 (RFC 8032) over a C2SP checkpoint; texts are hashed as they stand.
"""

# fmt: off
from __future__ import annotations

import argparse
import base64
import functools
import hashlib
import itertools
import json
import re
import sys
import zipfile
from collections.abc import Iterator
from decimal import Context, Decimal
from pathlib import Path
from typing import Any

__all__ = ["check", "main"]
MAX, EXACT, sha256 = 4 * 2**20, Context(prec=60), hashlib.sha256
compact = functools.partial(json.dumps, ensure_ascii=False, separators=(",", ":"))
NOT_CHECKED = "prices, contract terms, how usage was measured; vendor name, time zone and time of export as shown"
NO_ROOT = "the proof root of a window that does not start with its record (it needs the rows themselves)"
FILES = "README.txt details.jsonl entries.jsonl verify.html verify.py epoch.json head.json policy receipt.tlog-proof"
DETAILS_DIFFER = "reason, reference or metadata are not those that were recorded"
HASH, MONTH, CLOCK = "[A-Za-z0-9+/]{43}=", "[0-9]{4}-(?:0[1-9]|1[0-2])", "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
ID, STR, N = "[A-Za-z0-9_.:-]{1,64}", r'"(?:[^"\\\x00-\x1f]|\\.)*"', "[1-9][0-9]{0,14}"
MOMENT, DIGITS = rf"{MONTH}-(?:0[1-9]|[12][0-9]|3[01])T{CLOCK}:(?:[0-5][0-9]|60)", r"(?:\.[0-9]{0,23}[1-9])?"
UNIT = r'"(?:[^\x00-\x1f\x7f"\\]|\\["\\]){1,64}"'
def entry_pattern(meter: str = "[a-z][a-z0-9._-]{0,63}", period: str = MONTH, rec: str = ID, unit: str = UNIT) -> str:
    """Return the pattern of an entry in its one spelling (RFC 8785): a line is read and judged in one step."""
    return (rf'{{(?:"adj":"{ID}",)?(?:"at":"{MOMENT}(?:\.[0-9]{{1,9}})?(?:Z|[+-]{CLOCK})",)?"id":"{ID}","meter":'
            rf'"(?P<meter>{meter})","mh":"(?P<mh>[0-9a-f]{{64}})","mseq":(?P<mseq>{N}),"period":"(?P<period>{period})",'
            rf'"qty":"(?P<qty>-?(?!0")(?:0|[1-9][0-9]{{0,19}}){DIGITS})","rec":"(?P<rec>{rec})","rx":"{MOMENT}'
            rf'\.[0-9]{{3}}Z","salt":"[0-9a-f]{{32}}","seq":(?P<seq>{N}),"total":"(?P<total>(?!-0")-?(?:0|'
            rf'[1-9][0-9]{{0,29}}){DIGITS})","typ":"sr\.delta/v1","unit":(?P<unit>{unit})}}')
ENTRY = re.compile(entry_pattern())
ROW = re.compile(
    rf'{{"entry":(?P<entry>{entry_pattern()}),"receiptId":(?P<id>{STR}),"state":(?P<state>{STR}),"reason":'
    rf'(?P<R>null|{STR}),"referenceId":(?P<F>null|{STR}),"metadata":(?P<M>.*),'
    rf'"detailSalt":(?:null|"(?P<salt>[0-9a-f]{{32}})")}}')
RECEIPT = re.compile(rf"c2sp\.org/tlog-proof@v1\nextra (.+)\nindex (0|{N})\n((?:{HASH}\n){{0,63}})\n([^\n].*)", re.S)


class Differs(Exception): ...
class Unusable(Exception): ...
def need(ok: object, reason: str, error: type[Exception] = Differs) -> None:
    if not ok:
        raise error(reason)
def equal(*pairs: tuple[str, object, object]) -> None:
    for what, found, expected in pairs:
        need(type(found) is type(expected) and found == expected, f"{what} is {found}, expected {expected}")

# Ed25519 (RFC 8032, section 5.1), in affine coordinates: short, slow, and for public values only.
P, Q = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
def point(data: bytes) -> tuple[int, int]:
    sign, y = divmod(int.from_bytes(data, "little"), 2**255)
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    x = x if (x * x - square) % P == 0 else x * pow(2, (P - 1) // 4, P) % P
    need(y < P and (x * x - square) % P == 0 and (x or not sign), "not a point of the curve", ValueError)
    return (x if x % 2 == sign else P - x), y
def add(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    t = D * a[0] * b[0] * a[1] * b[1]
    return (a[0] * b[1] + b[0] * a[1]) * pow(1 + t, -1, P) % P, (a[1] * b[1] + a[0] * b[0]) * pow(1 - t, -1, P) % P
def times(n: int, a: tuple[int, int]) -> tuple[int, int]:
    half = times(n // 2, add(a, a)) if n else (0, 1)
    return add(half, a) if n % 2 else half
def ed25519(public: bytes, message: bytes, signature: bytes) -> bool:
    s, h = int.from_bytes(signature[32:], "little"), hashlib.sha512(signature[:32] + public + message).digest()
    try:
        base, r, a = map(point, ((4 * pow(5, -1, P) % P).to_bytes(32, "little"), signature[:32], public))
    except ValueError:
        return False
    return len(signature) == 64 and s < Q and times(s, base) == add(r, times(int.from_bytes(h, "little") % Q, a))

def leaf(text: str) -> bytes:
    return sha256(b"\0" + text.encode()).digest()
def node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\1" + left + right).digest()
def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
def unb64(text: str) -> bytes:
    data = base64.b64decode(text, validate=True)
    need(b64(data) == text, "base64 is not in its one spelling", Unusable)
    return data
def climb(text: str, index: int, size: int, path: list[str]) -> tuple[str, str]:
    """Return the root that an audit path leads to, and the root when its leaf was the last one (RFC 9162, 2.1.3.2)."""
    last, now = size - 1, leaf(text)
    then, ok = now, 0 <= index <= last
    for sibling in map(unb64, path):
        ok = ok and last > 0
        if ok and (index % 2 or index == last):
            now, then = node(sibling, now), node(sibling, then)
            while index and not index % 2:
                index, last = index // 2, last // 2
        else:
            now = node(now, sibling)
        index, last = index // 2, last // 2
    return (b64(now), b64(then)) if ok and last == 0 else ("no root", "no root")
def match(what: str, pattern: str | re.Pattern[str], text: str) -> Any:
    found = re.fullmatch(pattern, text)
    need(found, f"{what} is malformed", Unusable)
    return found
def read(what: str, text: str, names: str = "", in_order: bool = True) -> Any:
    """Return the JSON object in ``text``, which must be in its one spelling (names sorted, or in a fixed order)."""
    try:
        value = json.loads(text, parse_float=Decimal)
        good = isinstance(value, dict) and compact(value, sort_keys=in_order).encode() == text.encode()
    except (ValueError, TypeError, RecursionError):
        good = False
    need(good and (not names or list(value) == names.split()), f"{what} is malformed", Unusable)
    return value
def lines(name: str, stream: Any, digest: Any) -> Iterator[str]:
    rest = b""
    while block := stream.read(2**20):
        digest.update(block)
        whole, newline, rest = (rest + block).rpartition(b"\n")
        yield from whole.decode().split("\n") if newline else ()
        need(len(rest) <= MAX, f"{name} has a line that is too long", Unusable)
    need(not rest, f"{name} ends early", Unusable)

def policy(text: str) -> list[Any]:
    """Return the keys in a C2SP tlog-policy, ``name+hex(id)+base64(1 || public key)``, as (name, id, key, text)."""
    keys = []
    for vkey in re.findall(r"(?m)^[ \t]*log[ \t]+(\S+)", text):
        name, identifier, data = match("a key", r"([^+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/]{44})", vkey).groups()
        key = base64.b64decode(data)
        need(sha256(f"{name}\n".encode() + key).hexdigest()[:8] == identifier and key[0] == 1,
             "a key is malformed", Unusable)
        keys.append((name, bytes.fromhex(identifier), key[1:], vkey))
    return keys
def opened(note: str, run: Run) -> list[str]:
    """Return origin, size and root of a checkpoint that a key of ``run`` signed (C2SP signed-note, tlog-checkpoint)."""
    bad, signers = f"the checkpoint is not signed by the key from {run.source}", []
    body, _, tail = note.rpartition("\n\n")
    need(re.fullmatch("[^\x00-\x09\x0b-\x1f]+\n", note) and 0 < tail.count("\n") <= 100, bad)
    for line in tail[:-1].split("\n"):
        found = re.fullmatch(r"— ([^+\s]+) ((?:[A-Za-z0-9+/]{4})+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?)", line)
        data = base64.b64decode(found[2]) if found else b""
        need(found and len(data) > 4 and b64(data) == found[2], f"{bad}: a signature line is malformed")
        for key in run.keys:
            if found and (found[1], data[:4]) == key[:2]:
                need(ed25519(key[2], f"{body}\n".encode(), data[4:]), f"{bad}: its signature is wrong")
                signers.append(key)
    need(signers, bad)
    run.signers = signers
    return list(match("the checkpoint", rf"([^\n]+)\n(0|{N})\n({HASH})", body).groups())
def check_chain(head: Any, head_text: str, slot: Any, epoch_text: str, place: Any, note: str, own: Any, run: Run
                ) -> None:
    """Prove a head in its slot of the epoch, the epoch in the log, and the log's signature."""
    epoch = read("the epoch record", epoch_text)
    equal(("slot of the head", slot[0], int(head["cust"][1:].split("-")[0])),
          ("number of slots", slot[1], epoch["slots"]), ("epoch of the head", head["epoch"], epoch["epoch"]),
          ("index of the epoch", place[0], epoch["epoch"]), ("type", epoch["typ"], "sr.epoch/v1"),
          ("root of the slots", climb(head_text, *slot)[0], epoch["root"]))
    own, run.keys = ([key for key in keys if key[0] == run.origin] for keys in (own, run.trusted))
    need(not own or not run.keys or set(own) & set(run.keys), "the file names another key than the policy file")
    run.source, run.keys = ("the policy file", run.keys) if run.keys else ("this file", own)
    need(run.keys, f"no key of the log {run.origin} is known, and the file names none: use --policy", Unusable)
    origin, size, root = opened(note, run)
    equal(("log", origin, run.origin), ("size of the log", int(size) if place[1] is None else place[1], int(size)),
          ("root of the log", climb(epoch_text, place[0], int(size), place[2])[0], root))
    run.checked.append(f"The head is in slot {slot[0]} of epoch {place[0]}, which is in log {origin} at size {size}.")
    run.checked.append(f"The checkpoint of that size is signed by the key from {run.source}.")
def stated(head: Any, rec: str, period: str) -> Any:
    rows = [row for row in head["open"] if (row["rec"], row["period"]) == (rec, period)]
    need(len(rows) == 1 and head["typ"] == "sr.head/v1", f"the head does not state the record {rec} of {period}")
    return rows[0]

def read_receipt(text: str) -> Any:
    extra, index, path, note = match("the receipt", RECEIPT, text).groups()
    text = unb64(extra).decode()
    x = read("extra", text, "entry epoch head rec slot" + (" window" if '"window":' in text else ""))
    return x, int(index), path.split(), note
def check_receipt(text: str, own: Any, run: Run) -> Any:
    """Prove a receipt; return its head."""
    x, index, path, note = read_receipt(text)
    head, w, delta = read("the head", x["head"]), x.get("window"), match("the entry", ENTRY, x["entry"])
    row, leaves = stated(head, delta["rec"], delta["period"]), [(delta, x)]
    if w and w["before"]:
        first = read("the entry before", compact(w["before"]), "entry rec")
        leaves.append((match("the entry before", ENTRY, first["entry"]), first))
    for entry, place in leaves:
        number, size, _ = place["rec"]
        equal(("row", number, int(entry["seq"]) - 1), ("row of the meter", entry["mseq"], entry["seq"]),
              ("meter", entry["meter"], "usage"), ("size of the record", size, row["size"]),
              ("record", entry.group("rec", "period", "unit"), delta.group("rec", "period", "unit")),
              ("root of the record", climb(place["entry"], *place["rec"])[0], row["root"]),
              ("totals in the head", row["totals"], [["usage", json.loads(entry["unit"]), size, row["totals"][0][3]]]))
        need(number + 1 < size or entry["total"] == row["totals"][0][3], "the head states another total")
    run.rows, run.total, run.unit = 1, delta["qty"], json.loads(delta["unit"])
    if w is not None:
        read("the window", compact(w), "before closing from opening root size to")
        opening, start = (leaves[1][0]["total"], leaves[1][0]["seq"]) if w["before"] else ("0", "0")
        run.rows, run.total = w["to"] - w["from"], canonical(EXACT.subtract(Decimal(delta["total"]), Decimal(opening)))
        equal(("last row of the window", w["to"], int(delta["seq"])), ("closing total", w["closing"], delta["total"]),
              ("first row of the window", w["from"], int(start)), ("opening total", w["opening"], opening),
              ("size", w["size"], run.rows))
        run.unchecked += [NO_ROOT] if w["from"] else []
        need(len(unb64(w["root"])) == 32, "the window is malformed", Unusable)
        equal(("root of the window", w["root"], w["root"] if w["from"] else climb(x["entry"], *x["rec"])[1]))
    run.checked.append(f"Of {delta['period']}: {run.rows} rows up to number {delta['seq']}, {run.total} {run.unit}.")
    check_chain(head, x["head"], x["slot"], x["epoch"], (index, None, path), note, own, run)
    return head

@functools.cache
def compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)
def pattern_of(record: Any) -> re.Pattern[str]:
    """Return the pattern of the entries that belong to a record."""
    rec, unit = map(re.escape, (record["treeId"], compact(record["unit"])))
    return compiled(entry_pattern("usage", record["period"], rec, unit))
def canonical(value: Decimal) -> str:
    return f"{value.normalize(EXACT):f}" if value else "0"
def replay(rows: Iterator[Any], record: Any, covered: int, run: Run) -> tuple[str, str]:
    """Replay rows (entry, its text, what else is wrong); return root and total of those that are covered."""
    total, frontier, root, at, n = Decimal(0), list[bytes](), "no root", "0", 0
    equal(("number of covered rows", record["covered"]["size"], covered))
    names = ("sequence number", "number in the meter", "running total", "period", "record tree", "unit", "meter")
    same, fits = (record["period"], record["treeId"], compact(record["unit"]), "usage"), pattern_of(record)
    for n, (delta, text, problem) in enumerate(rows, 1):
        seq, mseq, qty, shown = delta.group("seq", "mseq", "qty", "total")
        total = EXACT.add(total, Decimal(qty))
        if problem or not seq == mseq == str(n) or Decimal(shown) != total or delta.re is not fits:
            found = (seq, mseq, shown, *delta.group("period", "rec", "unit", "meter"))
            for name, a, b in zip(names, found, (str(n), str(n), canonical(total), *same), strict=True):
                equal((f"record {n}: {name}", a, b))
            need(not problem, f"record {n}: {problem}")
        h, k = sha256(b"\0" + text.encode()).digest(), n - 1
        while k & 1:
            h, k = sha256(b"\1" + frontier.pop() + h).digest(), k >> 1
        frontier.append(h)
        if n == covered:
            root, at = b64(functools.reduce(lambda right, left: node(left, right), frontier[::-1])), canonical(total)
    run.rows, run.total, run.unit = n, canonical(total), record["unit"]
    equal(("number of rows", record["size"], n), ("total", record["total"], run.total),
          ("covered total", record["covered"]["total"], at))
    need(n >= covered, f"the file holds {n} rows, the proof covers {covered}")
    run.checked.append(f"Rows 1 to {n} have no gap and add up to {run.total} {run.unit}; {covered} are covered.")
    return root, at

def read_record(text: str) -> Any:
    names = "vendor logOrigin customerRef treeId period start end zone unit asOf size total covered"
    record = read("the record block", text, names, in_order=False)
    year, month = map(int, match("the period", f"({MONTH})", record["period"])[1].split("-"))
    bounds = [f"{y:04}-{m:02}-01T00:00:00.000Z" for y, m in ((year, month), (year + month // 12, month % 12 + 1))]
    need([record["start"], record["end"]] == bounds, "start and end are not those of the period", Unusable)
    return record
def export_rows(source: Iterator[str], covered: int) -> Iterator[Any]:
    line = next(source, "")
    for n in itertools.count(1):
        if line == "]}":
            return need(next(source, None) is None, "something follows the end of the document", Unusable)
        following = next(source, "")
        need((following == "]}") != (line[-1:] == ","), "the list of rows is damaged or ends early", Unusable)
        row = match(f"record {n}", ROW, line.rstrip(",") if line.endswith("},") else line)
        salt, details = row["salt"], row.group("M", "R", "F")
        text = '{{"metadata":{},"reason":{},"referenceId":{}}}'.format(*details)
        good = set(details) == {"null"}
        if salt:
            good = sha256(bytes.fromhex(salt) + text.encode()).hexdigest() == row["mh"]
        shown = (row["id"], row["state"] == '"verified"', row["state"] in ('"verified"', '"recorded"', '"recording"'))
        fits = shown == (f'"0x{leaf(row["entry"]).hex()}"', n <= covered, True)
        need(good or json.loads(text, parse_constant=int), "the details are malformed", Unusable)
        yield row, row["entry"], DETAILS_DIFFER if not good else "" if fits else "another receipt id or state is shown"
        line = following
def check_export(stream: Any, run: Run) -> None:
    source = lines("the file", stream, sha256())
    first = next(source, "")
    need(first == '{"format":"shared-record/export@v1",', "this is no bundle, receipt or JSON export (v1)", Unusable)
    record = read_record(match("the record block", '"record":(.*),', next(source, ""))[1])
    text, run.origin = match("the proof block", '"proof":(.*),', next(source, ""))[1], record["logOrigin"]
    names = "size root head slot epoch log checkpoint vkeys"
    proof = None if text == "null" else read("the proof block", text, names, in_order=False)
    need(next(source, "") == '"rows":[', "the file was re-formatted or damaged", Unusable)
    covered = proof["size"] if proof else 0
    root, at = replay(export_rows(source, covered), record, covered, run)
    if proof is None:
        raise Unusable("no checkpoint covers this record yet")
    head, slot, log = read("the head", proof["head"]), [*proof["slot"].values()], [*proof["log"].values()]
    good = " ".join([*proof["slot"], *proof["log"]]) == "index count path index size path"
    need(good, "the proof is malformed", Unusable)
    row = stated(head, record["treeId"], record["period"])
    equal(("root of the covered rows", root, proof["root"]), ("root in the head", row["root"], root),
          ("size in the head", row["size"], covered), ("customer", head["cust"], record["customerRef"]),
          ("totals in the head", row["totals"], [["usage", record["unit"], covered, at]]))
    own = policy("".join(f"log {vkey}\n" for vkey in proof["vkeys"]))
    check_chain(head, proof["head"], slot, proof["epoch"], log, proof["checkpoint"], own, run)
def bundle_rows(entries: Iterator[str], details: Iterator[str], fits: re.Pattern[str]) -> Iterator[Any]:
    for n, (text, line) in enumerate(itertools.zip_longest(entries, details), 1):
        if text is None or line is None:
            raise Differs(f"record {n}: entries.jsonl and details.jsonl are not equally long")
        entry = fits.fullmatch(text) or match(f"record {n}", ENTRY, text)
        good = line == '{"detailSalt":null}'
        if not good:  # What follows the salt is the very text that was hashed with it.
            salt = bytes.fromhex(line[15:47])
            if line[:15] + line[47:60] != '{"detailSalt":"","metadata":' or salt.hex() != line[15:47]:
                raise Unusable(f"the details of record {n} are malformed")
            good = sha256(salt + b"{" + line[49:].encode()).hexdigest() == entry["mh"]
        yield entry, text, "" if good else DETAILS_DIFFER
def check_bundle(names: Any, open_: Any, run: Run) -> None:
    def get(name: str) -> str:
        need(names is None or name in names, f"{name} is missing", Unusable)
        with open_(name) as stream:
            data = stream.read(MAX + 1)
        need(len(data) <= MAX, f"{name} is too long", Unusable)
        found = sha256(data).hexdigest()
        need(found == digests.get(name, found), f"{name} is not the one that manifest.json lists")
        return str(data, "utf-8")
    digests: Any = {}
    text = get("manifest.json")
    need(text.startswith('{"format":"shared-record/bundle@v1",\n'), "this is no shared-record/bundle@v1", Unusable)
    signed, own = match("manifest.json", re.compile(r'(.*)"sha256":"([0-9a-f]{64})"\}\n', re.S), text).groups()
    need(sha256(signed.encode()).hexdigest() == own, "manifest.json is not as it was written")
    manifest = read("manifest.json", text.replace("\n", ""), "format record files sha256", in_order=False)
    record, digests = read_record(compact(manifest["record"])), manifest["files"]
    known = [name for name in digests if re.fullmatch(rf"known-checkpoints/(0|{N})\.note", name)]
    listed, proved = set(digests) - set(known), "receipt.tlog-proof" in digests
    expected = set(FILES.split()[: 9 if proved else 5])
    need(listed == expected and proved == bool(known), "manifest.json lists other files than a bundle has", Unusable)
    for name in sorted(set(names or ()) - set(digests) - {"manifest.json"}):
        raise Differs(f"{name} is not among the files that manifest.json lists")
    texts = {name: get(name) for name in sorted(digests) if name not in ("details.jsonl", "entries.jsonl")}
    x: Any = read_receipt(texts["receipt.tlog-proof"])[0] if proved else {"window": {"from": 0, "to": 0}}
    need(x.get("window", {}).get("from") == 0, "the receipt is not that of a record from its first row", Unusable)
    found, run.origin = {"entries.jsonl": sha256(), "details.jsonl": sha256()}, record["logOrigin"]
    with open_("entries.jsonl") as a, open_("details.jsonl") as b:
        entries, details = (lines(name, stream, found[name]) for name, stream in zip(found, (a, b), strict=True))
        root, _ = replay(bundle_rows(entries, details, pattern_of(record)), record, x["window"]["to"], run)
    equal(*((f"SHA-256 of {name}", found[name].hexdigest(), digests[name]) for name in found))
    need(proved, "no checkpoint covers this record yet", Unusable)
    rows, total = run.rows, run.total
    head, entry = check_receipt(texts["receipt.tlog-proof"], policy(texts["policy"]), run), match("", ENTRY, x["entry"])
    run.rows, run.total, note = rows, total, texts["receipt.tlog-proof"].partition("\n\n")[2]
    equal(("period", entry["period"], record["period"]), ("record", entry["rec"], record["treeId"]),
          ("unit", entry["unit"], compact(record["unit"])),
          ("customer", head["cust"], record["customerRef"]), ("root of the covered rows", root, x["window"]["root"]),
          ("head.json", texts["head.json"], x["head"]), ("epoch.json", texts["epoch.json"], x["epoch"]))
    size = note.split("\n")[1]
    need(texts.get(f"known-checkpoints/{size}.note") == note, "the receipt's checkpoint is not among the known ones")
    for name in known:
        equal((name, opened(texts[name], run)[:2], [run.origin, name[18:-5]]))

class Run:
    """What one check has found so far."""
    def __init__(self, trusted: list[Any]) -> None:
        self.keys: list[Any] = []
        self.trusted, self.checked, self.unchecked, self.signers = trusted, list[str](), [NOT_CHECKED], list[Any]()
        self.source, self.origin, self.rows, self.total, self.unit = "", "", 0, "", ""
    def outcome(self, result: str, reason: str = "") -> dict[str, Any]:
        return {"result": result, "reason": reason, "checked": self.checked, "notChecked": self.unchecked,
                "rows": self.rows, "total": self.total, "unit": self.unit, "key": self.source,
                "fingerprints": [sha256(key[3].encode()).hexdigest() for key in self.signers]}
def check(path: Path, trusted: list[Any]) -> dict[str, Any]:
    """Check one file or folder; ``trusted`` are keys known from elsewhere. Nothing raises."""
    run = Run(trusted)
    try:
        if path.is_dir():
            check_bundle(None, lambda name: (path / name).open("rb"), run)
            return run.outcome("matches")
        with path.open("rb") as stream:
            start, _ = stream.read(19), stream.seek(0)
            if start[:2] == b"PK":
                archive = zipfile.ZipFile(stream)
                names, kinds = archive.namelist(), {info.compress_type for info in archive.infolist()}
                good = len(set(names)) == len(names) <= 1000 and kinds <= {0, 8}
                need(good, "the ZIP file is not packed as a bundle is", Unusable)
                check_bundle(names, archive.open, run)
            elif start == b"c2sp.org/tlog-proof":
                text = stream.read(10**6 + 1).decode()
                run.origin = read_receipt(text)[3].partition("\n")[0]
                check_receipt(text, [], run)
            else:
                check_export(stream, run)
    except Differs as difference:
        return run.outcome("does not match", str(difference))
    except (Unusable, OSError) as error:
        return run.outcome("could not be checked", str(error))
    except Exception as error:  # Whatever else a broken file sets off, it is no match.
        return run.outcome("could not be checked", f"the file is malformed ({type(error).__name__}: {error})")
    return run.outcome("matches")
def main() -> int:
    """Check the file that the command line names, and print what was found."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--policy", type=Path, metavar="FILE", help="C2SP tlog-policy whose keys to trust")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    try:
        found = check(given.file, policy(given.policy.read_text(encoding="utf-8")) if given.policy else [])
    except (OSError, ValueError, Unusable) as error:
        found = Run([]).outcome("could not be checked", f"the policy cannot be read: {error}")
    fingerprints = ", ".join(found["fingerprints"])
    if found["result"] == "matches" and found["key"] == "this file":
        found["checked"].append(f"The key was taken from this file; compare {fingerprints} with the vendor's.")
    text = "\n".join([*found["checked"], ": ".join(filter(None, (found["result"].capitalize(), found["reason"]))),
                      *(f"Not checked: {x}." for x in found["notChecked"])])
    print(json.dumps(found) if given.json else "".join(c if c.isprintable() or c == "\n" else "?" for c in text))
    return {"matches": 0, "does not match": 4}.get(found["result"], 5)

if __name__ == "__main__":
    sys.exit(main())
