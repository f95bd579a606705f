"""The same page as data: its addresses, the headers that name them, and small tables as CSV."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlencode

from flask import Response, request

from shared_record.web.record.detail_pages import Twins


def twins_of(path: str, *kept: str) -> Twins:
    """Return the addresses of a page's data. ``kept``: parameters of the page's own query that they take over."""
    asked = {name: value for name in kept if (value := request.args.get(name))}
    query = f"?{urlencode(asked)}" if asked else ""
    return Twins(f"{path}.json{query}", f"{path}.csv{query}")


def announce(response: Response, twins: Twins) -> Response:
    """Name a page's data in its headers (RFC 8288)."""
    response.headers.add("Link", f'<{twins.json_url}>; rel="alternate"; type="application/json"')
    response.headers.add("Link", f'<{twins.csv_url}>; rel="alternate"; type="text/csv"')
    return response


def csv_table(columns: Iterable[str], rows: Iterable[Iterable[str | None]], older: str = "") -> Response:
    """Return a table as CSV (RFC 4180). Cells are written as they come: texts must have been through ``csv_text``."""
    lines = [",".join(columns), *(",".join(cell or "" for cell in row) for row in rows)]
    text = "".join(f"{line}\r\n" for line in lines)
    response = Response(text, content_type="text/csv; charset=utf-8; header=present")
    response.add_etag()
    if older:
        response.headers["Link"] = f'<{older}>; rel="next"'
    return response
