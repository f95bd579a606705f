"""PDF by typst, in a process of its own with capped memory and time.

Templates are ours and fixed. Everything that a vendor or customer wrote reaches them as data: typst never reads it as
markup. The working directory, which is all that a template can read, holds its inputs and nothing else.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from shared_record.errors import UnavailableError
from shared_record.exports.typesetter import ARCHIVAL, REFUSED

SECONDS = 20.0
"""How long one document may take, from start to end."""

_CHILD = Path(__file__).with_name("typesetter.py")
_log = logging.getLogger(__name__)


def typeset(template: str, inputs: Mapping[str, bytes], issued: datetime, *, seconds: float = SECONDS) -> bytes:
    """Return the PDF of ``template`` (typst source), dated ``issued``; it reads ``inputs`` as files by their names.

    It is PDF/A-3a and PDF/UA-1, unless a character in it cannot be shown by any font at hand; then it is an ordinary
    tagged PDF. The same input gives the same bytes on one machine. ``UnavailableError`` (``PDF_UNAVAILABLE``) where
    typst is missing, or the document needs more memory or time than it may have.
    """
    until = time.monotonic() + seconds
    try:
        with tempfile.TemporaryDirectory(prefix="shared-record-pdf-") as name:
            folder = Path(name)
            for file, data in {**inputs, "main.typ": template.encode()}.items():
                (folder / file).write_bytes(data)
            done = _run(folder, issued, seconds, archival=True)
            if done.returncode == REFUSED:
                # PDF/A and PDF/UA allow no character that no font here can show. A name with one is not worth refusing
                # the document. A second process has the memory that the first one used up.
                done = _run(folder, issued, max(until - time.monotonic(), 0), archival=False)
    except (subprocess.SubprocessError, OSError) as error:
        raise _failed(type(error).__name__) from None
    if done.returncode:
        raise _failed(f"exit {done.returncode}")
    return done.stdout


def _run(folder: Path, issued: datetime, seconds: float, *, archival: bool) -> subprocess.CompletedProcess[bytes]:
    kind = ARCHIVAL if archival else "ordinary"
    return subprocess.run(  # noqa: S603  our own script
        [sys.executable, "-I", "-B", str(_CHILD), str(int(issued.timestamp())), kind],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=folder,
        env={},
        timeout=seconds,
        check=False,
    )


def _failed(how: str) -> UnavailableError:
    # What the child printed may quote the document, so only how it ended is kept.
    _log.error("pdf.failed %s", how)
    return UnavailableError("The PDF cannot be made now. Try again later.", code="PDF_UNAVAILABLE")
