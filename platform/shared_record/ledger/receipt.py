"""Receipts: C2SP tlog-proof texts for one delta, or for one window of a customer's period. Pure.

The standard part (header, index, path, checkpoint) proves the epoch record in the tenant's log. ``extra`` holds what
leads from the delta to that epoch record, as RFC 8785 JSON: every byte of a receipt counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared_record.ledger.entry import MAX_INTEGER, jcs, parse_profile
from shared_record.ledger.merkle import HASH_SIZE, inclusion_ranges, leaf_hash, node_hash
from shared_record.ledger.note import b64decode, b64encode

HEADER = "c2sp.org/tlog-proof@v1"
MAX_RECEIPT = 1_000_000
MAX_PATH = 63

_INDEX = re.compile(r"index (0|[1-9][0-9]{0,15})", re.ASCII)
_FIELDS = {"entry", "epoch", "head", "rec", "slot"}
_WINDOW_FIELDS = {"before", "closing", "from", "opening", "size", "to"}
_NEXT = re.compile(r"(?<=\n)(?=c2sp)")


@dataclass(frozen=True, slots=True)
class Included:
    """The text of a leaf, and its audit path in a tree of ``size`` leaves (leaf to root)."""

    text: str
    index: int
    size: int
    path: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Window:
    """Leaves ``[start, end)`` of one period's record, counted from 0.

    ``root`` is the RFC 6962 root over their leaf hashes alone, ``opening`` and ``closing`` the running totals before
    the first and after the last one; ``before`` is the leaf before the first. Where the window starts with its record
    the audit path of its last leaf proves ``root`` too (see ``earlier_root``); elsewhere only the rows can, so a window
    that starts later may do without: ``None``. ``part`` is (number, count) in a receipt over several periods.
    """

    start: int
    end: int
    root: bytes | None
    opening: str
    closing: str
    before: Included | None
    part: tuple[int, int] | None = None

    @property
    def size(self) -> int:
        """The number of deltas."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Receipt:
    """Everything between one delta (of a window: its last) and a signed checkpoint.

    ``entry`` is in the record tree that ``head`` states, ``head`` in the slot tree that ``epoch`` states, ``epoch`` at
    ``index`` of the log that ``checkpoint`` (a signed note) states.
    """

    entry: Included
    head: Included
    epoch: str
    index: int
    path: tuple[bytes, ...]
    checkpoint: str
    window: Window | None = None


def earlier_root(leaf: Included) -> bytes:
    """Return the root that the tree had when ``leaf`` was its last one, if the audit path of ``leaf`` is right.

    The left siblings on the path are the subtrees of the leaves before, and all that the earlier tree consisted of.
    """
    h = leaf_hash(leaf.text.encode())
    for (start, _), sibling in zip(inclusion_ranges(leaf.index, leaf.size), leaf.path, strict=True):
        if start < leaf.index:
            h = node_hash(sibling, h)
    return h


def build_receipt(receipt: Receipt) -> str:
    """Return the tlog-proof text of ``receipt``; ``parse_receipt`` reads it back."""
    extra: dict[str, object] = {
        "entry": receipt.entry.text,
        "epoch": receipt.epoch,
        "head": receipt.head.text,
        "rec": _place(receipt.entry),
        "slot": _place(receipt.head),
    }
    if receipt.window is not None:
        extra["window"] = _window_fields(receipt.window)
    path = "".join(f"{b64encode(node)}\n" for node in receipt.path)
    return f"{HEADER}\nextra {b64encode(jcs(extra).encode())}\nindex {receipt.index}\n{path}\n{receipt.checkpoint}"


def split_receipt(text: str) -> list[str]:
    """Return the parts of a receipt: one of several periods has one for each, written one after the other."""
    return _NEXT.split(text)


def parse_receipt(text: str) -> Receipt:
    """Read a receipt; whatever ``build_receipt`` would not have written is a ``ValueError`` with a plain message.

    Only the form is judged here: what the parts prove is the verifier's part.
    """
    if len(text) > MAX_RECEIPT:
        raise ValueError("a receipt is not that long")
    proof, separator, checkpoint = text.partition("\n\n")
    header, *lines = proof.split("\n")
    if header != HEADER:
        raise ValueError(f"the first line is not {HEADER}")
    if not separator or not 2 <= len(lines) <= 2 + MAX_PATH:
        raise ValueError("an extra line, an index line, a path and a checkpoint were expected")
    index = _INDEX.fullmatch(lines[1])
    if not lines[0].startswith("extra ") or index is None or int(index[1]) > MAX_INTEGER:
        raise ValueError("the extra line or the index line is malformed")
    extra = _canonical_object(b64decode(lines[0][6:]))
    if extra.keys() - {"window"} != _FIELDS:
        raise ValueError("extra has other fields than a receipt")
    return Receipt(
        entry=_included(extra["entry"], extra["rec"]),
        head=_included(extra["head"], extra["slot"]),
        epoch=_text(extra["epoch"]),
        index=int(index[1]),
        path=_hashes(lines[2:]),
        checkpoint=checkpoint,
        window=_window(extra["window"]) if "window" in extra else None,
    )


def check_canonical(text: str) -> dict[str, Any]:
    """Read ``text`` as an object of the profile, and refuse every other spelling of it with ``ValueError``."""
    fields = parse_profile(text)
    try:
        same = jcs(fields) == text
    except TypeError as error:
        raise ValueError("the text has no canonical form") from error
    if not same:
        raise ValueError("the text is not in its canonical form (RFC 8785)")
    return fields


def _window_fields(window: Window) -> dict[str, object]:
    before = window.before
    fields: dict[str, object] = {
        "before": {"entry": before.text, "rec": _place(before)} if before else {},
        "closing": window.closing,
        "from": window.start,
        "opening": window.opening,
        "size": window.size,
        "to": window.end,
    }
    if window.root is not None:
        fields["root"] = b64encode(window.root)
    if window.part is not None:
        fields["part"] = list(window.part)
    return fields


def _window(value: object) -> Window:
    bare = isinstance(value, dict) and "root" not in value and value.get("from") != 0
    several = isinstance(value, dict) and "part" in value
    fields = _object(value, _WINDOW_FIELDS | ({"part"} if several else set()) | (set() if bare else {"root"}))
    start, end = _number(fields["from"]), _number(fields["to"])
    if not start < end or _number(fields["size"]) != end - start:
        raise ValueError("from, to and size of the window do not belong together")
    before = None
    if fields["before"] != {}:
        leaf = _object(fields["before"], {"entry", "rec"})
        before = _included(leaf["entry"], leaf["rec"])
    root = None if bare else _hashes([fields["root"]])[0]
    part = _part(fields["part"]) if several else None
    return Window(start, end, root, _text(fields["opening"]), _text(fields["closing"]), before, part)


def _part(value: object) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError("part is not [number, count]")
    number, count = map(_number, value)
    if not 1 <= number <= count or count < 2:
        raise ValueError("part is not a number of several")
    return number, count


def _place(leaf: Included) -> list[object]:
    return [leaf.index, leaf.size, [b64encode(node) for node in leaf.path]]


def _included(text: object, place: object) -> Included:
    if not isinstance(place, list) or len(place) != 3:
        raise ValueError("a place is not [index, size, path]")
    return Included(_text(text), _number(place[0]), _number(place[1]), _hashes(place[2]))


def _canonical_object(data: bytes) -> dict[str, Any]:
    try:
        return check_canonical(data.decode())
    except UnicodeDecodeError as error:
        raise ValueError("extra is not UTF-8") from error


def _object(value: object, keys: set[str]) -> Mapping[str, Any]:
    if not isinstance(value, dict) or value.keys() != keys:
        raise ValueError("extra has other fields than a receipt")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("a text was expected in extra")
    return value


def _number(value: object) -> int:
    if type(value) is not int:
        raise ValueError("a number was expected in extra")
    return value


def _hashes(values: object) -> tuple[bytes, ...]:
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) > MAX_PATH:
        raise ValueError("a path is not a list of hashes")
    hashes = tuple(b64decode(_text(value)) for value in values)
    if any(len(node) != HASH_SIZE for node in hashes):
        raise ValueError("a hash has 32 bytes")
    return hashes
