"""What tests look for in PDF files: their objects, their text, and what hostile texts could have left in them."""

from __future__ import annotations

import io
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pypdf import PdfReader
from pypdf.generic import ArrayObject, DictionaryObject, IndirectObject, PdfObject

from export_rows import HOSTILE_TEXTS

ACTIVE = {"/JavaScript", "/JS", "/Launch", "/OpenAction", "/AA", "/SubmitForm", "/GoToR", "/RichMedia", "/AcroForm"}


def objects(reader: PdfReader) -> list[DictionaryObject]:
    """Return every dictionary that can be reached in a PDF."""
    seen: set[int] = set()
    found: list[DictionaryObject] = []
    waiting: list[PdfObject] = [reader.trailer]
    while waiting:
        one = waiting.pop()
        if isinstance(one, IndirectObject):
            if one.idnum in seen:
                continue
            seen.add(one.idnum)
            one = one.get_object()
        if isinstance(one, DictionaryObject):
            found.append(one)
            waiting += [one.raw_get(key) for key in one]
        elif isinstance(one, ArrayObject):
            waiting += list(one)
    return found


def words(pdf: bytes) -> str:
    """Return the text of a PDF, with one space between words."""
    return " ".join(" ".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages).split())


def declares_archival(reader: PdfReader) -> bool:
    """Tell whether the file says that it is PDF/A-3a and PDF/UA-1."""
    declared = reader.root_object["/Metadata"].get_object().get_data().decode()
    wanted = ("<pdfaid:part>3<", "<pdfaid:conformance>A<", "<pdfuaid:part>1<")
    return all(one in declared for one in wanted)


def assert_passive(reader: PdfReader, targets: set[str]) -> None:
    """Check that nothing in the file acts, and that it links to ``targets`` and nowhere else."""
    reached = objects(reader)
    assert not ACTIVE & {key for one in reached for key in one}
    assert {str(one["/URI"]) for one in reached if "/URI" in one} == targets
    assert {str(one.get("/S")) for one in reached if "/URI" in one} <= {"/URI"}


@contextmanager
def canary() -> Iterator[str]:
    """Give the address of a server that must not be asked for anything."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(BlockingIOError):
            listening.accept()


def markup(address: str) -> list[str]:
    """Return texts that would read files, ask ``address`` or fail, if a typesetter or a viewer ran them."""
    return [
        f'#image("{address}/x.svg")',
        '#read("/etc/passwd")',
        '#import "@preview/cetz:0.3.0": *',
        f'#link("javascript:app.alert(1)")[x] #link("{address}")',
        '#pdf.attach("/etc/hostname")',
        '#sys.inputs.record #panic("x")',
        '#read("record.json") #include "paper.typ"',
        f"<script src='{address}'></script><img src={address}>",
        "$ sum_(i=0)^oo $ *b* _i_ `raw` = heading",
        '"]) #while true { }',
        "(/JS (app.alert(1)) /S /JavaScript) endobj stream",
    ]


def hostile(count: int, address: str) -> list[str]:
    """Return ``count`` such texts, with random endings."""
    chance = random.Random(18)
    known = [*markup(address), *map(str, HOSTILE_TEXTS)]
    alphabet = "#[]{}()$*_`\\\"'<>@/=~-+\n\r\t\x00\x1b\u202e\u2028é漢\U0001f600 aZ0"
    return [chance.choice(known) + "".join(chance.choices(alphabet, k=chance.randrange(0, 30))) for _ in range(count)]
