"""What a page says of itself on paper: when it was made, and its address as text and as a code to scan."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

import segno
from markupsafe import Markup

from shared_record.access.sessions import Visit
from shared_record.web.record import format as fmt
from shared_record.web.record.pages import Sheet
from shared_record.web.runtime import runtime

KEPT_CODES = 2048
"""QR codes that are kept in memory, about 2 KiB each: most time of making one goes into its error correction."""


def sheet(seen: Visit, path: str, now: datetime) -> Sheet:
    """Return the foot of a printed page. ``path``: the link or the document, never with a code or a query."""
    origin = runtime().settings.url_for_host(seen.host, "")
    zone = seen.row.zone
    return Sheet(
        made=fmt.moment(now, zone),
        origin=origin,
        url=origin + path,
        qr=qr_code(origin + path),
        zone=zone,
        zone_name=fmt.zone_name(zone, now.astimezone(ZoneInfo(zone))),
    )


@lru_cache(KEPT_CODES)
def qr_code(text: str) -> Markup:
    """Return a QR code as SVG: level M (ISO/IEC 18004), with its quiet zone of four modules, sized by the stylesheet.

    One fixed mask pattern: trying all eight takes five times as long, and any of them can be read.
    """
    code = segno.make_qr(text, error="m", mask=3, boost_error=False)
    return Markup(code.svg_inline(border=4, omitsize=True))  # noqa: S704  made by segno
