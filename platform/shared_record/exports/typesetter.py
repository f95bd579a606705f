"""Run as a process of its own by ``exports.typeset``: typesets the working directory, the PDF to standard output.

It lowers its own limits before typst is loaded, so a document that is too large ends this process and nothing else.
Each PDF waits for its start, so it imports little.
"""

from __future__ import annotations

import os
import resource
import sys

MEMORY_BYTES = 512 << 20
CPU_SECONDS = 20
REFUSED = 3
ARCHIVAL = "archival"


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
    """Typeset ``main.typ``, dated by the first argument in seconds; the second says whether it is ``ARCHIVAL``.

    ``REFUSED`` is the exit code where typst refuses the document.
    """
    issued, kind = sys.argv[1:]
    # One thread is enough for a page, and each more would reserve memory under the limit.
    os.environ["RAYON_NUM_THREADS"] = "1"
    limit()
    import typst

    try:
        pdf: bytes = typst.compile(
            "main.typ",
            root=".",
            pdf_standards=["a-3a", "ua-1"] if kind == ARCHIVAL else [],
            timestamp=int(issued),
        )
    except typst.TypstError:
        raise SystemExit(REFUSED) from None
    sys.stdout.buffer.write(pdf)


if __name__ == "__main__":
    main()
