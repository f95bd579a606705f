"""Run as a process of its own by ``exports.typeset``: one typst job from standard input, the PDF to standard output.

It lowers its own limits before typst is loaded, so a document that is too large ends this process and nothing else.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typst import PDFStandard

MEMORY_BYTES = 512 << 20
CPU_SECONDS = 20
STANDARDS: list[PDFStandard] = ["a-3a", "ua-1"]


def limit() -> None:
    """Cap memory and processor time; no file can be written, and no memory image is left behind."""
    for kind, value in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        # A process may lower what it was given and never raise it.
        capped = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (capped, capped))


def main() -> None:
    """Typeset one job: ``template`` is typst source, ``inputs`` its data, ``issued`` its date in seconds.

    PDF/A and PDF/UA allow no character that no font here can show. A name with one is not worth refusing the
    document: it is then made without the claim, tagged all the same.
    """
    job = json.load(sys.stdin.buffer)
    # One thread is enough for a page, and each more would reserve memory under the limit.
    os.environ["RAYON_NUM_THREADS"] = "1"
    limit()
    import typst

    def compiled(standards: list[PDFStandard]) -> bytes:
        made: bytes = typst.compile(
            job["template"].encode(), sys_inputs=job["inputs"], pdf_standards=standards, timestamp=job["issued"]
        )
        return made

    try:
        pdf = compiled(STANDARDS)
    except typst.TypstError:
        pdf = compiled([])
    sys.stdout.buffer.write(pdf)


if __name__ == "__main__":
    main()
