"""Check a Shared Record file offline: a verification bundle (.zip, or its folder) or a receipt (.tlog-proof).

Exit status: 0 it matches, 4 it does not match, 5 it could not be checked. Needs Python 3.10 or newer, nothing else.
Hashes are RFC 6962 (SHA-256), signatures Ed25519 (RFC 8032) over a C2SP checkpoint; texts are hashed as they stand.
"""
import argparse, json, re, zipfile
from base64 import b64decode, b64encode
from decimal import Context, Decimal
from hashlib import sha256, sha512
from io import BufferedReader
from itertools import zip_longest
from pathlib import Path
from typing import Any

NOT_CHECKED = "prices, contract terms, how usage was measured; vendor name, time zone and time of export as shown"
NO_ROOT = "the proof root of a window that does not start with its record (it needs the rows themselves)"
NO_FILE = "this is no complete receipt or bundle (for a JSON export, take the bundle, or use shared-record verify)"
FILES = "details.jsonl entries.jsonl README.txt verify.html verify.py epoch.json head.json policy receipt.tlog-proof"
RECORD = "vendor logOrigin customerRef treeId period start end zone unit asOf size total covered"
HASH, NUMBER, PART = "[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=", "[1-9][0-9]{0,14}", r"(?:\.[0-9]{0,23}[1-9])?"
B64 = "(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=|[A-Za-z0-9+/][AQgw]==)?"
ID, MONTH, CLOCK = "[A-Za-z0-9_.:-]{1,64}", "[0-9]{4}-(?:0[1-9]|1[0-2])", "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
MOMENT = rf"{MONTH}-(?:0[1-9]|[12][0-9]|3[01])T{CLOCK}:(?:[0-5][0-9]|60)"
ENTRY = re.compile(  # An entry has one spelling (RFC 8785), so a line is read and judged in one step.
    rf'{{(?:"adj":"{ID}",)?(?:"at":"{MOMENT}(?:\.[0-9]{{1,9}})?(?:Z|[+-]{CLOCK})",)?"id":"{ID}",'
    rf'"meter":"([a-z][a-z0-9._-]{{0,63}})","mh":"([0-9a-f]{{64}})","mseq":({NUMBER}),"period":"({MONTH})",'
    rf'"qty":"(-?(?!0")(?:0|[1-9][0-9]{{0,19}}){PART})","rec":"({ID})","rx":"{MOMENT}\.[0-9]{{3}}Z",'
    rf'"salt":"[0-9a-f]{{32}}","seq":({NUMBER}),"total":"((?!-0")-?(?:0|[1-9][0-9]{{0,29}}){PART})",'
    rf'"typ":"sr\.delta/v1","unit":("(?:[^\x00-\x1f\x7f"\\]{{1,64}}|(?:[^\x00-\x1f\x7f"\\]|\\["\\]){{1,64}})")}}')
FIELDS = "meter", "details", "meter number", "period", "amount", "record", "number", "running total", "unit"
DETAILS = re.compile(r'\{"detailSalt":(?:null\}|"([0-9a-f]{32})",("metadata":.*\}))', re.S)
PLACE = re.compile(rf'\[(?:0|{NUMBER}),{NUMBER},\[(?:"{HASH}",?)*\]\]')
RECEIPT = re.compile(rf"c2sp\.org/tlog-proof@v1\nextra ({B64})\nindex (0|{NUMBER})\n((?:{HASH}\n){{0,63}})\n(.+)", re.S)
MANIFEST = re.compile(r'(\{"format":"shared-record/bundle@v1",\n.*)"sha256":"([0-9a-f]{64})"\}\n', re.S)
NOTE = re.compile(rf"(([^\x00-\x1f]+)\n(0|{NUMBER})\n({HASH})\n)\n((?:— [^\x00-\x20+]+ (?=.{{8}}){B64}\n){{1,100}})")
P, Q = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
D, MAX, EXACT = -121665 * pow(121666, -1, P) % P, 2**22, Context(prec=60)
X, Y = 0x216936D3CD6E53FEC0A4E231FDD6DC5C692CC7609525A7B2C9562D608F25D51A, 4 * pow(5, -1, P) % P
compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
canonical = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode
class Mismatch(Exception):
    """The file contradicts itself, its proof or a known key; with any other exception it could not be checked."""
def need(value: Any, reason: str, error: type[Exception] = Mismatch) -> Any:
    if not value:
        raise error(reason)
    return value
def equal(where: str, found: Any, expected: Any) -> None:
    for name, value in expected.items():  # compared as JSON, where true is not 1
        need(compact(found[name]) == compact(value), f"{where}: {name} is {found[name]!s:.99}, expected {value!s:.99}")
def read(what: str, text: str, names: str, write: Any = canonical) -> Any:
    """Return the JSON object in ``text``, which must have names like these and be in its one spelling."""
    value = json.loads(text, parse_float=int, parse_constant=int)
    good = write(value) == text and re.fullmatch(names, " ".join(value)) and value
    return need(good, f"{what} is malformed", ValueError)
def add(a: Any, b: Any) -> Any:  # points of Ed25519's curve: (x, y, z, t) is at (x / z, y / z), and x * y = z * t
    e, f, g, h = (a[1] - a[0]) * (b[1] - b[0]), (a[1] + a[0]) * (b[1] + b[0]), 2 * D * a[3] * b[3], 2 * a[2] * b[2]
    return (f - e) * (h - g) % P, (h + g) * (f + e) % P, (h - g) * (h + g) % P, (f - e) * (f + e) % P
def ed25519(public: bytes, message: bytes, signature: bytes) -> bool:  # RFC 8032, section 5.1.7
    sign, y = divmod(int.from_bytes(public, "little"), 2**255)
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    x = x if x * x % P == square else x * pow(2, (P - 1) // 4, P) % P
    s, digest = int.from_bytes(signature[32:], "little"), sha512(signature[:32] + public + message).digest()
    good = len(signature) == 64 and s < Q and y < P and x * x % P == square and (x or not sign)
    x, h, total = P - x if x % 2 == sign else x, int.from_bytes(digest, "little") % Q, (0, 1, 1, 0)
    for bit in range(255, -1, -1):  # The total becomes s times the base point minus h times the key.
        total = add(total, total)
        total = add(total, (X, Y, 1, X * Y)) if s >> bit & 1 else total
        total = add(total, (x, y, 1, x * y)) if h >> bit & 1 else total
    x, y = (part * pow(total[2], -1, P) % P for part in total[:2])
    return bool(good) and (y | x % 2 << 255).to_bytes(32, "little") == signature[:32]
def policy(text: str) -> list[Any]:
    """Return the keys of logs in a C2SP tlog-policy, ``name+hex(id)+base64(1 || key)``, as (name, id, key, text)."""
    keys = []
    for vkey in re.findall(r"(?m)^[ \t]*log[ \t]+(\S+)", text):
        name, _, data = vkey.split("+", 2)
        key, key_id = b64decode(data), sha256(f"{name}\n".encode() + b64decode(data)).digest()[:4]
        good = vkey == f"{name}+{key_id.hex()}+{b64encode(key).decode()}" and len(key) == 33 and key[0] == 1
        keys.append(need(good and (name, key_id, key[1:], vkey), "a key is malformed", ValueError))
    return keys
def opened(note: str, keys: list[Any], source: str) -> tuple[Any, list[Any]]:
    """Return content and signers of a checkpoint that one of ``keys`` signed (C2SP tlog-checkpoint)."""
    bad, signers = f"the checkpoint is not signed by the key from {source}", list[Any]()
    body, origin, size, root, signatures = need(NOTE.fullmatch(note), bad).groups()
    for name, text in re.findall("— (.+) (.+)\n", signatures):
        known = [key for key in keys if (name, b64decode(text)[:4]) == key[:2]]
        signers += need(all(ed25519(key[2], body.encode(), b64decode(text)[4:]) for key in known), bad) and known
    return {"log": origin, "size": int(size), "root": root}, need(signers, bad)
def root_from_path(text: str, place: list[Any]) -> tuple[str, str]:
    """Return the root that an audit path leads to (RFC 6962, 2.1.1), and the root when its leaf was the last one."""
    need(PLACE.fullmatch(compact(place)), "an audit path is malformed", ValueError)
    (index, size, path), now = place, sha256(b"\0" + text.encode()).digest()
    then, inner = now, (index ^ (size - 1)).bit_length()  # From that level on, siblings are on the left side only.
    need(index < size and len(path) == inner + (index >> inner).bit_count(), "an audit path is not one of its tree")
    for level, sibling in enumerate(map(b64decode, path)):
        joined = [sibling + now, sibling + then] if level >= inner or index >> level & 1 else [now + sibling]
        now, then = (*(sha256(b"\1" + pair).digest() for pair in joined), then)[:2]
    return b64encode(now).decode(), b64encode(then).decode()
def check_head(x: Any, index: int, path: list[str], note: str, keys: list[Any], found: Any) -> Any:
    """Prove a head in its slot of an epoch, the epoch in the log, and the log's signature; return the head."""
    head, (slot, slots, _) = read("the head", x["head"], "cust epoch open prev typ z"), x["slot"]
    epoch = read("epoch", x["epoch"], f"anchors epoch{'' if index else '( former)?'}( keys)? prev root slots ts typ")
    good = [head["typ"], epoch["typ"]] == ["sr.head/v1", "sr.epoch/v1"] and head["cust"].startswith(f"s{slot}-")
    need(good and head["epoch"] <= index, f"the head is not one for slot {slot} and epoch {index}")
    equal("the epoch", epoch, {"epoch": index, "root": root_from_path(x["head"], x["slot"])[0], "slots": slots})
    own, trusted = ([key for key in some if key[0] == found["log"]] for some in keys)
    need(not own or not trusted or {*own} & {*trusted}, "the file names another key than the policy file")
    need(own or trusted, f"no key of the log {found['log']} is known: use --policy", ValueError)
    found["key"], keys[:] = ("the policy file", trusted) if trusted else ("this file", own)
    log, signers = opened(note, keys, found["key"])
    equal("the log", log, {"log": found["log"], "root": root_from_path(x["epoch"], [index, log["size"], path])[0]})
    found["fingerprints"] = [sha256(key[3].encode()).hexdigest() for key in signers]
    found["checked"].append(f"The head, in slot {slot}, is in epoch {index} of log {log['log']} at size {log['size']}.")
    found["checked"].append(f"The key is from {found['key']}; compare {found['fingerprints'][0]} with the vendor's.")
    return head
def check_receipt(text: str, keys: list[Any], found: Any, part: Any = ()) -> tuple[Any, Any, str]:
    """Prove a receipt of one entry, or of a window of entries; return what it holds, its head and its checkpoint."""
    extra, index, path, note = need(RECEIPT.fullmatch(text), NO_FILE, ValueError).groups()
    x = read("the receipt", b64decode(extra).decode(), "entry epoch head rec slot( window)?")
    found["log"] = found["log"] or note.partition("\n")[0]
    head, window = check_head(x, int(index), path.split(), note, keys, found), x.get("window", {"before": {}})
    before, entry = {"number": "0", "running total": "0"}, dict[str, str]()
    for place in [window["before"], x] if window["before"] else [x]:
        fields = need(ENTRY.fullmatch(place["entry"]), "an entry is malformed", ValueError).groups()
        before, entry, (row, size, _) = entry or before, dict(zip(FIELDS, fields, strict=True)), place["rec"]
        root, then = root_from_path(place["entry"], place["rec"])
        same = {name: before.get(name, entry[name]) for name in ("period", "record", "unit")}
        equal("the entry", entry, {"number": str(row + 1), "meter number": str(row + 1), "meter": "usage"} | same)
        stated = {"period": entry["period"], "rec": entry["record"], "root": root, "size": size}.items()
        totals = [one["totals"] for one in head["open"] if stated <= (one | {"totals": ""}).items()]
        total = entry["running total"] if row + 1 == size else totals and totals[0][0][3]
        found["rows"], found["total"], found["unit"] = 1, entry["amount"], json.loads(entry["unit"])
        need(totals == [[["usage", found["unit"], size, total]]], f"the head states no such record with row {row + 1}")
    if "window" in x:
        start, opening, closing = int(before["number"]), before["running total"], entry["running total"]
        rows = need(not start < window["from"] < row + 1, f"the window starts after row {start}") and row + 1 - start
        found["rows"], found["total"] = rows, f"{EXACT.subtract(Decimal(closing), Decimal(opening)).normalize(EXACT):f}"
        shown = rows > 0 and re.fullmatch(f"({HASH})" + "?" * (start > 0), window.get("root", ""))
        root = need(shown, "the window is malformed", ValueError)[0] and (window["root"] if start else then)
        found["notChecked"] += [NO_ROOT] if start and root else []
        proved: Any = {"before": {key: window["before"][key] for key in ("entry", "rec") if start}, "closing": closing}
        proved |= {"from": start, "opening": opening, "size": rows, "to": row + 1} | ({"root": root} if root else {})
        need(canonical(window) == canonical(proved | {"part": part} if part else proved), f"the window is not {proved}")
    found["checked"].append(f"{found['rows']} rows up to row {row + 1} of {entry['period']}: {found['total']}.")
    return x, head, note
def check_parts(text: str, trusted: list[Any], found: Any) -> None:  # A receipt over several periods has one for each.
    parts = [need(RECEIPT.fullmatch(part), NO_FILE, ValueError)[0] for part in re.split(r"(?<=\n)(?=c2sp)", text)]
    rows, total, last = 0, Decimal(0), [""]
    for number, part in enumerate(parts, 1):
        found["log"], place = "", [number, len(parts)] if parts[1:] else []
        x, head, _ = check_receipt(part, [[], trusted], found, place)
        now, window = [json.loads(x["entry"])["period"], found["unit"], head["cust"]], x.get("window", {"from": 1})
        follows = number == 1 or (not window["from"] and now[0] > last[0] and now[1:] == last[1:])
        need(follows and (number == len(parts) or window.get("to") == x["rec"][1]), f"part {number} leaves out rows")
        rows, total, last = rows + found["rows"], EXACT.add(total, Decimal(found["total"])), now
    found["rows"], found["total"] = rows, f"{total.normalize(EXACT):f}"
def lines(path: Any, digest: Any) -> Any:  # in little memory; the digest is told of every byte
    with BufferedReader(path.open("rb"), 2**20) as stream:
        while line := stream.readline(MAX):
            digest.update(line)
            yield line[:-1].decode() if line.endswith(b"\n") else ""  # too long, or cut: no good line
def replay(rows: Any, record: Any, receipt: Any, found: Any) -> None:
    """Replay rows, (entry, details): numbers, totals, details, and that ``receipt`` is over the first of them."""
    total, number, subtrees, covered = Decimal(0), 0, list[bytes](), receipt["rec"][1]
    period, rec, unit = record["period"], record["treeId"], compact(record["unit"])
    for number, (text, shown) in enumerate(rows, 1):
        entry, details, count = ENTRY.fullmatch(text), DETAILS.fullmatch(shown), str(number)
        if not entry or not details:
            kind = Mismatch if "\n" in (text, shown) else ValueError  # one of the files is shorter
            raise kind(f"record {number} is malformed, or entries.jsonl and details.jsonl are not equally long")
        _, mh, _, _, qty, _, _, after, _ = fields = entry.groups()
        total = EXACT.add(total, Decimal(qty))
        if fields != ("usage", mh, count, period, qty, rec, count, after, unit) or Decimal(after) != total:
            right = "usage", mh, count, period, qty, rec, count, f"{total.normalize(EXACT):f}", unit
            equal(f"record {number}", dict(zip(FIELDS, fields, strict=True)), dict(zip(FIELDS, right, strict=True)))
        if details[1] and sha256(bytes.fromhex(details[1]) + b"{" + details[2].encode()).hexdigest() != mh:
            raise Mismatch(f"record {number}: reason, reference or metadata are not those that were recorded")
        if number == covered:  # The complete subtrees before the last leaf are its audit path.
            place = [number - 1, number, [b64encode(subtree).decode() for subtree in reversed(subtrees)]]
            equal("the receipt", receipt, {"entry": text, "rec": place})
        node, left = sha256(b"\0" + text.encode()).digest(), number - 1
        while left & 1:
            node, left = sha256(b"\1" + subtrees.pop() + node).digest(), left >> 1
        subtrees.append(node)
    found["rows"], found["total"], found["unit"] = number, f"{total.normalize(EXACT):f}", record["unit"]
    equal("the record block", record, {"size": number, "total": found["total"]})
    found["checked"].append(f"Rows 1 to {number} have no gap and add up to {found['total']} {found['unit']}.")
def content(path: Any) -> bytes:
    with path.open("rb") as stream:
        return bytes(stream.read(10**6))  # A longer file is cut, and then not what it has to be.
def check_bundle(root: Any, trusted: list[Any], found: Any) -> None:
    """Check a bundle: a folder, which may hold other files too, or a ZIP file."""
    infos, text = [] if isinstance(root, Path) else root.root.infolist(), content(root / "manifest.json").decode()
    names = {info.filename for info in infos if info.compress_type in (0, 8)}
    need(len(names) == len(infos) <= 1000, "the ZIP file is not packed as a bundle is", ValueError)
    signed, own = need(MANIFEST.fullmatch(text), "manifest.json is malformed", ValueError).groups()
    need(sha256(signed.encode()).hexdigest() == own, "manifest.json is not as it was written")
    manifest = read("manifest.json", text.replace("\n", ""), "format record files sha256", compact)
    record, digests = read("the record block", compact(manifest["record"]), RECORD, compact), manifest["files"]
    year, month = divmod(int(record["period"][:4]) * 12 + int(record["period"][5:]), 12)
    bounds = [f"{start}-01T00:00:00.000Z" for start in (record["period"], f"{year:04}-{month + 1:02}")]
    known = {name for name in digests if re.fullmatch(rf"known-checkpoints/(0|{NUMBER})\.note", name)}
    anchors = {name for name in digests if re.fullmatch(rf"anchors/(0|{NUMBER})\.[a-z][a-z0-9_]*", name)}
    good = digests.keys() - known - anchors == {*FILES.split()[: 9 if known else 5]}
    need(good and [record["start"], record["end"]] == bounds, "manifest.json is not that of a bundle", ValueError)
    need(not names - {*digests, "manifest.json"}, "there are files that manifest.json does not list")
    found["log"], x, proved = record["logOrigin"], {"rec": [0, 0]}, {"covered": {"size": 0, "total": "0"}}
    if known:
        text, keys = content(root / "receipt.tlog-proof").decode(), [policy(content(root / "policy").decode()), trusted]
        x, head, note = check_receipt(text, keys, found)
        need([x["window"]["from"], x["window"]["to"]] == [0, x["rec"][1]], "it is no receipt of all rows", ValueError)
        proved = {"customerRef": head["cust"], "covered": {"size": x["rec"][1], "total": x["window"]["closing"]}}
        copies = {"head.json": x["head"], "epoch.json": x["epoch"], f"known-checkpoints/{note.split()[1]}.note": note}
        equal("the bundle", {name: name in digests and content(root / name).decode() for name in copies}, copies)
        for name in known:
            log, _ = opened(content(root / name).decode(), keys, found["key"])
            equal(name, log, {"log": found["log"], "size": int(name[18:-5])})
    equal("the record block", record, proved | {"size": max(x["rec"][1], record["size"])})
    hashes = {name: sha256() for name in ("entries.jsonl", "details.jsonl")}
    streams = (lines(root / name, digest) for name, digest in hashes.items())
    replay(zip_longest(*streams, fillvalue="\n"), record, x, found)
    hashes |= {name: sha256(content(root / name)) for name in digests if name not in hashes}
    equal("manifest.json", {name: digest.hexdigest() for name, digest in hashes.items()}, digests)
    need(known, "no checkpoint covers this record yet", ValueError)
def check(path: Path, trusted: list[Any], policy_file: Path | None = None) -> dict[str, Any]:  # Nothing raises.
    found: dict[str, Any] = dict.fromkeys(("result", "reason", "total", "unit", "key", "log"), "") | {"rows": 0}
    found |= {"result": "matches", "checked": [], "notChecked": [NOT_CHECKED], "fingerprints": []}
    try:
        trusted = policy(content(policy_file).decode()) if policy_file else trusted
        if path.is_dir() or content(path)[:2] == b"PK":
            check_bundle(path if path.is_dir() else zipfile.Path(path), trusted, found)
        else:
            check_parts(content(path).decode(), trusted, found)
    except Exception as error:  # Whatever else a broken file sets off, it is no match.
        found["result"] = "does not match" if isinstance(error, Mismatch) else "could not be checked"
        found["reason"] = str(error) if isinstance(error, Mismatch | ValueError | OSError) else f"malformed: {error!r}"
    return found
def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--policy", type=Path, metavar="FILE", help="C2SP tlog-policy whose keys to trust")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    found = check((given := parser.parse_args()).file, [], given.policy)
    shown = [*found["checked"], f"{found['result'].capitalize()}: {found['reason']}".removesuffix(": ")]
    shown = [json.dumps(found)] if given.json else shown + [f"Not checked: {one}." for one in found["notChecked"]]
    print("\n".join("".join(c if c.isprintable() else "?" for c in line) for line in shown))
    return {"matches": 0, "does not match": 4}.get(found["result"], 5)
if __name__ == "__main__":
    raise SystemExit(main())
