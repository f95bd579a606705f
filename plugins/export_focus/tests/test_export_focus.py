from __future__ import annotations

import csv
import io

from shared_record_export_focus import COLUMNS, Focus, register_export_formats

from export_rows import HOSTILE_STARTS, HOSTILE_TEXTS, export, row
from shared_record.plugin import ExportSummary

# Cost and Usage dataset of FOCUS 1.4, columns of the feature level "Mandatory".
MANDATORY = {
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ContractedCost",
    "EffectiveCost",
    "HostProviderName",
    "InvoiceIssuerName",
    "ListCost",
    "PricingQuantity",
    "PricingUnit",
    "ServiceCategory",
    "ServiceName",
    "ServiceProviderName",
}


def parse(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode(), newline=""), strict=True))


def test_every_mandatory_column_is_there_and_own_ones_come_last() -> None:
    assert set(COLUMNS) >= MANDATORY
    own = [name.startswith("x_") for name in COLUMNS]
    assert own == sorted(own)


def test_a_delta_is_a_charge_without_costs() -> None:
    data, summary = export(
        Focus,
        [
            row(7, "-0.000000000000000000000001", "5", used_at="2026-10-31T23:59:59.999999999Z", adjusts="2026-10"),
            row(8, "12", "17", reference="inv", metadata_json='{"region":"eu","n":1}', adjusts="rec_7"),
            row(9, "12", "17", metadata_json='{"deep":{"a":1}}', adjusts="2026-11"),
        ],
        vendor="Acme, Inc.",
    )
    first, second, third = parse(data)
    assert {name: value for name, value in first.items() if value} == {
        "BillingAccountId": "s0-0123456789abcdef",
        "BillingPeriodEnd": "2026-12-01T00:00:00Z",
        "BillingPeriodStart": "2026-11-01T00:00:00Z",
        "ChargeCategory": "Usage",
        "ChargeClass": "Correction",
        "ChargeDescription": "r",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodEnd": "2026-11-01T00:00:00Z",
        "ChargePeriodStart": "2026-10-31T23:00:00Z",
        "ConsumedQuantity": "-0.000000000000000000000001",
        "ConsumedUnit": "call",
        "InvoiceIssuerName": "Acme, Inc.",
        "ServiceCategory": "Other",
        "ServiceName": "Acme, Inc.",
        "ServiceProviderName": "Acme, Inc.",
        "ServiceSubcategory": "Other (Other)",
        "x_Adjusts": "2026-10",
        "x_ReceiptId": "0x" + "ab" * 32,
        "x_RecordId": "rec_7",
        "x_RunningTotal": "5",
        "x_State": "recorded",
    }
    assert (second["ChargeClass"], second["Tags"], second["x_Reference"]) == ("", '{"region":"eu","n":1}', "inv")
    assert (second["ChargePeriodStart"], second["ChargePeriodEnd"]) == ("2026-11-22T12:00:00Z", "2026-11-22T13:00:00Z")
    assert (third["ChargeClass"], third["Tags"]) == ("", "")
    assert summary == ExportSummary(3, "23.999999999999999999999999", "rec_7", "rec_9")


def test_x02_no_cell_starts_a_formula() -> None:
    rows = [row(n, "-1", "-1", reason=text, reference=text) for n, text in enumerate(HOSTILE_TEXTS, 1)]
    found = parse(export(Focus, rows, vendor="=1+1", unit="@x")[0])
    assert [cells["ConsumedQuantity"] for cells in found] == ["-1"] * len(rows)
    for cells, text in zip(found, HOSTILE_TEXTS, strict=True):
        guarded = f"'{text}" if text.startswith(tuple(HOSTILE_STARTS)) else text
        assert (cells["ChargeDescription"], cells["x_Reference"]) == (guarded, guarded)
        assert (cells["ServiceName"], cells["ConsumedUnit"]) == ("'=1+1", "'@x")


def test_the_hook_names_the_format() -> None:
    assert register_export_formats() == [Focus]
    assert (Focus.slug, Focus.extension) == ("focus", "focus.csv")
