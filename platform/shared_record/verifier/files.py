"""Tells what kind of file was given and has it checked: a bundle, a receipt, a JSON export or evidence."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, cast

from shared_record.ledger.note import Policy
from shared_record.ledger.receipt import HEADER, MAX_RECEIPT
from shared_record.verifier.bundle import check_bundle
from shared_record.verifier.checks import check_export
from shared_record.verifier.documents import MAX_DOCUMENT, receipt_in
from shared_record.verifier.evidence import check_evidence, is_evidence
from shared_record.verifier.receipts import check_receipt
from shared_record.verifier.trust import KeySource, Outcome, Run, conclude

_IN_MEMORY = 1024 * 1024


def check_file(file: BinaryIO | Path, sources: Sequence[KeySource] = (), policy: Policy | None = None) -> Outcome:
    """Check whatever was given: a path (a folder is an unpacked bundle) or an open binary stream."""
    try:
        if not isinstance(file, Path):
            return _check_stream(file, sources, policy)
        if file.is_dir():
            return check_bundle(file, sources, policy)
        with file.open("rb") as stream:
            return _check_stream(stream, sources, policy)
    except OSError as error:
        failure = error

    def fail(_run: Run) -> None:
        raise failure

    return conclude(Run(sources), fail)


def _check_stream(stream: BinaryIO, sources: Sequence[KeySource], policy: Policy | None) -> Outcome:
    if not stream.seekable():
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as copy:
            shutil.copyfileobj(stream, copy)
            copy.seek(0)
            return _check_stream(cast(BinaryIO, copy), sources, policy)
    start = stream.read(len(HEADER))
    stream.seek(0)
    if start.startswith(b"PK"):
        return check_bundle(stream, sources, policy)
    if start.startswith(HEADER.partition("@")[0].encode()):
        return check_receipt(stream.read(4 * MAX_RECEIPT + 1), sources, policy)
    if start.startswith(b"{"):
        document = stream.read(MAX_DOCUMENT + 1)
        stream.seek(0)
        if is_evidence(document):
            return check_evidence(document, sources)
        if (receipt := receipt_in(document)) is not None:
            return check_receipt(receipt, sources, policy)
    return check_export(stream, sources, policy)
