"""PDF by typst, in a process of its own with capped memory and time.

Templates are ours and fixed. Everything that a vendor or customer wrote reaches them as data: typst never reads it as
markup. The working directory, which is all that a template could read, is empty.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from shared_record.errors import UnavailableError

SECONDS = 20.0
"""How long one document may take, from start to end."""

_CHILD = Path(__file__).with_name("typesetter.py")
_log = logging.getLogger(__name__)


def typeset(template: str, inputs: Mapping[str, str], issued: datetime, *, seconds: float = SECONDS) -> bytes:
    """Return the PDF of ``template`` (typst source) with ``inputs`` as ``sys.inputs``, dated ``issued``.

    It is PDF/A-3a and PDF/UA-1, unless a character in it cannot be shown by any font at hand; then it is an ordinary
    tagged PDF. The same input gives the same bytes on one machine. ``UnavailableError`` (``PDF_UNAVAILABLE``) where
    typst is missing, or the document needs more memory or time than it may have.
    """
    job = {"template": template, "inputs": dict(inputs), "issued": int(issued.timestamp())}
    try:
        with tempfile.TemporaryDirectory(prefix="shared-record-pdf-") as empty:
            done = subprocess.run(  # noqa: S603  our own script
                [sys.executable, "-I", "-B", str(_CHILD)],
                input=json.dumps(job).encode(),
                capture_output=True,
                cwd=empty,
                env={},
                timeout=seconds,
                check=True,
            )
    except (subprocess.SubprocessError, OSError) as error:
        # What the child printed may quote the document, so only how it ended is kept.
        _log.error("pdf.failed %s %s", type(error).__name__, getattr(error, "returncode", ""))
        raise UnavailableError("The PDF cannot be made now. Try again later.", code="PDF_UNAVAILABLE") from None
    return done.stdout
