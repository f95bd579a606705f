"""The e-invoice pack: what is in it, and that its XML is what the schemas of UBL 2.1 and CII D16B allow there."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import zipfile
from dataclasses import replace
from functools import partial
from typing import Any
from xml.etree import ElementTree

import pytest
from pypdf import PdfReader
from shared_record_export_csv import Csv
from shared_record_export_einvoice import EInvoice, register_export_formats
from shared_record_export_einvoice.xml import SYNTAXES, Attachment, write_xml
from shared_record_export_pdf import Pdf

from export_rows import FACTS, row
from pdf_files import declares_archival
from shared_record.errors import UnavailableError
from shared_record.exports.statement import StatementFacts, write_statement
from shared_record.plugin import ExportOptions, ExportRow, ExportSummary

NAME = "usage-2026-11-01234567"
CAC = "{urn:oasis:names:specification:ubl:schema:xsd:CommonAggregateComponents-2}"
CBC = "{urn:oasis:names:specification:ubl:schema:xsd:CommonBasicComponents-2}"
RSM = "{urn:un:unece:uncefact:data:standard:CrossIndustryInvoice:100}"
RAM = "{urn:un:unece:uncefact:data:standard:ReusableAggregateBusinessInformationEntity:100}"
# The sequences of the two schemas, as far as BG-24 goes: UBL 2.1 DocumentReferenceType and AttachmentType, and
# ReferencedDocumentType of D16B.
UBL_REFERENCE = [
    "ID",
    "CopyIndicator",
    "UUID",
    "IssueDate",
    "IssueTime",
    "DocumentTypeCode",
    "DocumentType",
    "XPath",
    "LanguageID",
    "LocaleCode",
    "VersionID",
    "DocumentStatusCode",
    "DocumentDescription",
    "Attachment",
    "ValidityPeriod",
    "IssuerParty",
    "ResultOfVerification",
]
UBL_ATTACHMENT = ["EmbeddedDocumentBinaryObject", "ExternalReference"]
CII_REFERENCE = [
    "IssuerAssignedID",
    "URIID",
    "StatusCode",
    "CopyIndicator",
    "LineID",
    "TypeCode",
    "GlobalID",
    "RevisionID",
    "Name",
    "AttachmentBinaryObject",
    "Information",
    "ReferenceTypeCode",
    "SectionName",
    "PreviousRevisionID",
    "FormattedIssueDateTime",
    "EffectiveSpecifiedPeriod",
    "IssuerTradeParty",
    "AttachedSpecifiedBinaryFile",
]
MAY_BE_ATTACHED = {
    "application/pdf",
    "image/png",
    "image/jpeg",
    "text/csv",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "application/vnd.oasis.opendocument.spreadsheet",
}
"""BT-125-1: the code list of EN 16931-1."""


def pack(rows: list[ExportRow], **fields: Any) -> tuple[zipfile.ZipFile, ExportSummary]:
    total = rows[-1].running_total if rows else "0"
    facts = replace(FACTS, size=len(rows), total=total, **fields)
    statement = partial(write_statement, StatementFacts(facts, csv=f"{NAME}.csv"))
    out = io.BytesIO()
    summary = EInvoice().write(iter(rows), out, ExportOptions(facts, NAME, {"csv": Csv, "pdf": Pdf}, statement))
    return zipfile.ZipFile(out), summary


def in_order(element: ElementTree.Element, sequence: list[str]) -> bool:
    names = [child.tag.rpartition("}")[2] for child in element]
    return names == sorted(names, key=sequence.index)


@pytest.fixture(scope="module")
def packed() -> zipfile.ZipFile:
    return pack([row(1, "5", "5", reason="=1+1"), row(2, "7.25", "12.25")], vendor="A & <B>")[0]


def test_it_holds_both_files_and_names_their_digests(packed: zipfile.ZipFile) -> None:
    assert packed.testzip() is None
    assert packed.namelist() == [
        "README.txt",
        "bg-24-cii.xml",
        "bg-24-ubl.xml",
        f"{NAME}.pdf",
        f"{NAME}.csv",
        "manifest.json",
    ]
    manifest = json.loads(packed.read("manifest.json"))
    assert (manifest["format"], manifest["record"]["total"]) == ("shared-record/einvoice@v1", "12.25")
    assert manifest["files"] == {
        name: hashlib.sha256(packed.read(name)).hexdigest() for name in packed.namelist() if name != "manifest.json"
    }
    assert declares_archival(PdfReader(io.BytesIO(packed.read(f"{NAME}.pdf"))))
    *_, last = csv.reader(io.StringIO(packed.read(f"{NAME}.csv").decode(), newline=""))
    assert last[:2] == ["total", "2"]


def test_bg_24_in_ubl_is_in_the_order_of_the_schema(packed: zipfile.ZipFile) -> None:
    root = ElementTree.fromstring(packed.read("bg-24-ubl.xml"))
    assert root.tag == "{urn:oasis:names:specification:ubl:schema:xsd:Invoice-2}Invoice"
    assert [child.tag for child in root] == [f"{CAC}AdditionalDocumentReference"] * 2
    for one, suffix in zip(root, ("pdf", "csv"), strict=True):
        assert in_order(one, UBL_REFERENCE)
        assert one.findtext(f"{CBC}ID") == f"{NAME}.{suffix}"
        assert one.findtext(f"{CBC}DocumentDescription")
        # BG-24 has no type code: 130 would make it the invoiced object, BT-18.
        assert one.find(f"{CBC}DocumentTypeCode") is None
        attachment = one.find(f"{CAC}Attachment")
        assert attachment is not None
        assert in_order(attachment, UBL_ATTACHMENT)
        assert_holds(attachment.find(f"{CBC}EmbeddedDocumentBinaryObject"), packed.read(f"{NAME}.{suffix}"), suffix)


def test_bg_24_in_cii_is_in_the_order_of_the_schema(packed: zipfile.ZipFile) -> None:
    root = ElementTree.fromstring(packed.read("bg-24-cii.xml"))
    assert root.tag == f"{RSM}CrossIndustryInvoice"
    path = f"{RSM}SupplyChainTradeTransaction/{RAM}ApplicableHeaderTradeAgreement/{RAM}AdditionalReferencedDocument"
    found = root.findall(path)
    assert len(found) == 2
    for one, suffix in zip(found, ("pdf", "csv"), strict=True):
        assert in_order(one, CII_REFERENCE)
        assert (one.findtext(f"{RAM}IssuerAssignedID"), one.findtext(f"{RAM}TypeCode")) == (f"{NAME}.{suffix}", "916")
        assert one.findtext(f"{RAM}Name")
        assert_holds(one.find(f"{RAM}AttachmentBinaryObject"), packed.read(f"{NAME}.{suffix}"), suffix)


def assert_holds(element: ElementTree.Element | None, data: bytes, suffix: str) -> None:
    assert element is not None
    assert base64.b64decode(element.text or "", validate=True) == data
    assert set(element.attrib) == {"mimeCode", "filename"}
    assert element.attrib["filename"] == f"{NAME}.{suffix}"
    assert element.attrib["mimeCode"] in MAY_BE_ATTACHED


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda one: one.filename)
def test_large_files_and_names_of_any_kind_are_well_formed(syntax: Any) -> None:
    data = bytes(range(256)) * 8_000
    hostile = '"/><!ENTITY x SYSTEM "file:///etc/passwd">&x;]]>'
    out = io.BytesIO()
    write_xml(syntax, [Attachment(hostile, hostile, "text/csv", io.BytesIO(data))], out.write)
    assert b"<!" not in out.getvalue()
    root = ElementTree.fromstring(out.getvalue())
    (element,) = [one for one in root.iter() if "filename" in one.attrib]
    assert base64.b64decode(element.text or "", validate=True) == data
    assert element.attrib["filename"] == hostile
    assert hostile in [one.text for one in root.iter()]


def test_every_row_is_in_the_csv_and_the_figures_are_the_records_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared_record_export_einvoice._KEPT_ROWS", 10)
    monkeypatch.setattr("shared_record_export_pdf.MOST_ROWS", 5)
    archive, summary = pack([row(n, "1", str(n)) for n in range(1, 31)])
    assert summary == ExportSummary(30, "30", "rec_1", "rec_30")
    assert archive.read(f"{NAME}.csv").count(b"\r\n") == 32
    attached = PdfReader(io.BytesIO(archive.read(f"{NAME}.pdf"))).attachments["record.json"][0]
    assert (json.loads(attached)["total"], json.loads(attached)["rowsLeftOut"]) == ("30", 25)


def test_without_its_parts_there_is_no_pack() -> None:
    with pytest.raises(UnavailableError, match="csv, pdf"):
        EInvoice().write(iter([]), io.BytesIO(), ExportOptions(FACTS))


def test_the_hook_names_the_format() -> None:
    assert register_export_formats() == [EInvoice]
    assert (EInvoice.slug, EInvoice.extension) == ("einvoice", "zip")
