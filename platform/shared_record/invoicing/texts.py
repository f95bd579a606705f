"""The block of text for an invoice, in the languages of the customer pages, with figures as each writes them."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal, localcontext

from babel.dates import format_date
from babel.numbers import format_decimal

from shared_record.ledger.amounts import CONTEXT

_BLOCKS = {
    "en": (
        "Usage in {month}: {total} {unit} in {records} records. Fingerprint {fingerprint}.",
        "See this record at {url}",
        "Access code {code}",
    ),
    "de": (
        "Nutzung im {month}: {total} {unit} in {records} Einträgen. Fingerabdruck {fingerprint}.",
        "Diese Aufzeichnung ansehen: {url}",
        "Zugangscode {code}",
    ),
    "es": (
        "Uso en {month}: {total} {unit} en {records} registros. Huella {fingerprint}.",
        "Consulte este registro en {url}",
        "Código de acceso {code}",
    ),
    "ar": (
        "الاستخدام في {month}: {total} {unit} في {records} من السجلات. البصمة {fingerprint}.",
        "اطّلع على هذا السجل في {url}",
        "رمز الدخول {code}",
    ),
}
LOCALES = tuple(_BLOCKS)


def text_block(
    locale: str, *, start: datetime, total: str, unit: str, records: int, fingerprint: str, url: str, code: str | None
) -> str:
    """Return the lines that a vendor prints, without those whose value is missing.

    ``total`` is a canonical decimal; it is grouped as the locale does, and never rounded.
    """
    figures, link, access = _BLOCKS[locale]
    if not fingerprint:
        figures = figures.rpartition(" {fingerprint}")[0].rpartition(". ")[0] + "."
    lines = [
        figures.format(
            month=format_date(start, "LLLL y", locale=locale),
            total=grouped(total, locale),
            unit=unit,
            records=format_decimal(records, locale=locale),
            fingerprint=fingerprint,
        ),
        link.format(url=url),
    ]
    return "\n".join(lines + ([access.format(code=code)] if code else []))


def grouped(amount: str, locale: str) -> str:
    """Return a canonical decimal in the digits and separators of ``locale``, with every digit it has."""
    number: Decimal = CONTEXT.create_decimal(amount)
    places = "#" * len(amount.partition(".")[2])
    pattern = f"#,##0.{places}" if places else "#,##0"
    with localcontext(CONTEXT):  # what formats rounds to the context's 28 digits otherwise
        return format_decimal(number, format=pattern, locale=locale, decimal_quantization=False)
