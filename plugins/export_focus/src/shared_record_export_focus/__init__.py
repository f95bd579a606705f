"""FOCUS-shaped CSV exports for Shared Record: the usage of a record in the columns of FOCUS 1.4, without costs.

Columns are those of the Cost and Usage dataset: all mandatory ones, those on consumption, then our own with ``x_``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import BinaryIO, ClassVar

from shared_record.plugin import (
    ExportFormat,
    ExportOptions,
    ExportRow,
    ExportSummary,
    RecordFacts,
    Tally,
    csv_text,
    hookimpl,
    mark,
)

COLUMNS = (
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ConsumedQuantity",
    "ConsumedUnit",
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
    "ServiceSubcategory",
    "Tags",
    "x_Adjusts",
    "x_ReceiptId",
    "x_RecordId",
    "x_Reference",
    "x_RunningTotal",
    "x_State",
)
_HOUR = timedelta(hours=1)
_PERIOD = re.compile(r"[0-9]{4}-[0-9]{2}")


class Focus(ExportFormat):
    """One charge of the category Usage per delta. What we do not know is empty, above all every cost."""

    slug: ClassVar[str] = "focus"
    title: ClassVar[str] = mark("FOCUS-shaped CSV (quantities, no costs)")
    media_type: ClassVar[str] = "text/csv; charset=utf-8; header=present"
    extension: ClassVar[str] = "focus.csv"

    def write(self, rows: Iterable[ExportRow], out: BinaryIO, options: ExportOptions) -> ExportSummary:
        """Write the header and one line per delta; text is quoted and guarded as in the CSV format."""
        out.write(f"{','.join(COLUMNS)}\r\n".encode())
        same, tally = _same_in_all(options.record), Tally()
        for row in rows:
            cells = same | _of_row(row, options.record.period)
            out.write(f"{','.join(cells.get(name, '') for name in COLUMNS)}\r\n".encode())
            tally.add(row)
        return tally.summary


@hookimpl
def register_export_formats() -> list[type[ExportFormat]]:
    """Offer FOCUS-shaped CSV."""
    return [Focus]


def _same_in_all(record: RecordFacts) -> dict[str, str]:
    vendor = csv_text(record.vendor)
    return {
        "BillingAccountId": csv_text(record.customer_ref),
        "BillingPeriodEnd": _second(record.end),
        "BillingPeriodStart": _second(record.start),
        "ChargeCategory": "Usage",
        "ChargeFrequency": "Usage-Based",
        "ConsumedUnit": csv_text(record.unit),
        "InvoiceIssuerName": vendor,
        "ServiceCategory": "Other",
        "ServiceName": vendor,
        "ServiceProviderName": vendor,
        "ServiceSubcategory": "Other (Other)",
    }


def _of_row(row: ExportRow, period: str) -> dict[str, str]:
    used = datetime.fromisoformat(row.used_at) if row.used_at else row.recorded_at
    hour = used.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    # A row names the period that was closing when it came, or a row of any period: only the former says which it was.
    closed = row.adjusts is not None and _PERIOD.fullmatch(row.adjusts) and row.adjusts != period
    return {
        "ChargeClass": "Correction" if closed else "",
        "ChargeDescription": csv_text(row.reason),
        "ChargePeriodEnd": _second(hour + _HOUR),
        "ChargePeriodStart": _second(hour),
        "ConsumedQuantity": row.amount,
        "Tags": csv_text(_tags(row.metadata_json)),
        "x_Adjusts": csv_text(row.adjusts),
        "x_ReceiptId": row.receipt_id,
        "x_RecordId": csv_text(row.record_id),
        "x_Reference": csv_text(row.reference),
        "x_RunningTotal": row.running_total,
        "x_State": row.state,
    }


def _tags(metadata: str | None) -> str | None:
    """Return metadata as tags if it is flat: a tag's value is text, a number, true, false or null."""
    if metadata is None:
        return None
    found = json.loads(metadata)
    flat = isinstance(found, dict) and not any(isinstance(value, dict | list) for value in found.values())
    return metadata if flat else None


def _second(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
