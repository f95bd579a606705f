"""Group BG-24 of EN 16931-1 in the syntaxes of CEN/TS 16931-3-2 (UBL 2.1) and 16931-3-3 (UN/CEFACT CII D16B).

Each file is a frame that names where its elements belong, with one element per attachment. They are written block by
block, since an attachment can be large; what is no base64 is escaped text.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO
from xml.sax.saxutils import escape, quoteattr

_BLOCK = 3 * (1 << 18)
"""Bytes encoded at once; divisible by three, so that no block but the last is padded."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """One supporting document: BT-122 and the file name, BT-123, media type, and where its bytes are."""

    filename: str
    description: str
    media_type: str
    content: IO[bytes]

    def blocks(self) -> Iterator[bytes]:
        """Yield the file from its begin."""
        self.content.seek(0)
        while block := self.content.read(_BLOCK):
            yield block


@dataclass(frozen=True, slots=True)
class Syntax:
    """How a syntax writes BG-24: the frame, what stands before the file in each element, and what after."""

    filename: str
    opening: str
    closing: str
    before: Callable[[Attachment], str]
    after: str


def write_xml(syntax: Syntax, found: Sequence[Attachment], write: Callable[[bytes], object]) -> None:
    """Write the fragment with every attachment embedded, through ``write``."""
    write(f'<?xml version="1.0" encoding="UTF-8"?>\n{syntax.opening}\n'.encode())
    for one in found:
        write(syntax.before(one).encode())
        for block in one.blocks():
            write(base64.b64encode(block))
        write(syntax.after.encode())
    write(f"{syntax.closing}\n".encode())


def _ubl(one: Attachment) -> str:
    return (
        "  <cac:AdditionalDocumentReference>\n"
        f"    <cbc:ID>{escape(one.filename)}</cbc:ID>\n"
        f"    <cbc:DocumentDescription>{escape(one.description)}</cbc:DocumentDescription>\n"
        "    <cac:Attachment>\n"
        f"      <cbc:EmbeddedDocumentBinaryObject{_type(one)}>"
    )


def _cii(one: Attachment) -> str:
    # 916 of UNTDID 1001, "reference document", is what tells BG-24 from the other uses of this element.
    return (
        "      <ram:AdditionalReferencedDocument>\n"
        f"        <ram:IssuerAssignedID>{escape(one.filename)}</ram:IssuerAssignedID>\n"
        "        <ram:TypeCode>916</ram:TypeCode>\n"
        f"        <ram:Name>{escape(one.description)}</ram:Name>\n"
        f"        <ram:AttachmentBinaryObject{_type(one)}>"
    )


def _type(one: Attachment) -> str:
    return f" mimeCode={quoteattr(one.media_type)} filename={quoteattr(one.filename)}"


SYNTAXES = (
    Syntax(
        "bg-24-cii.xml",
        '<rsm:CrossIndustryInvoice xmlns:rsm="urn:un:unece:uncefact:data:standard:CrossIndustryInvoice:100"\n'
        '    xmlns:ram="urn:un:unece:uncefact:data:standard:ReusableAggregateBusinessInformationEntity:100">\n'
        "  <rsm:SupplyChainTradeTransaction>\n"
        "    <ram:ApplicableHeaderTradeAgreement>",
        "    </ram:ApplicableHeaderTradeAgreement>\n  </rsm:SupplyChainTradeTransaction>\n</rsm:CrossIndustryInvoice>",
        _cii,
        "</ram:AttachmentBinaryObject>\n      </ram:AdditionalReferencedDocument>\n",
    ),
    Syntax(
        "bg-24-ubl.xml",
        '<Invoice xmlns="urn:oasis:names:specification:ubl:schema:xsd:Invoice-2"\n'
        '    xmlns:cac="urn:oasis:names:specification:ubl:schema:xsd:CommonAggregateComponents-2"\n'
        '    xmlns:cbc="urn:oasis:names:specification:ubl:schema:xsd:CommonBasicComponents-2">',
        "</Invoice>",
        _ubl,
        "</cbc:EmbeddedDocumentBinaryObject>\n    </cac:Attachment>\n  </cac:AdditionalDocumentReference>\n",
    ),
)
