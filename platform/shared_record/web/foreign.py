"""Requests that another site's page makes in a reader's browser: none but a link that is followed is answered.

What a page elsewhere embeds, frames, fetches or posts would tell it, by time or by size, whether the reader has a
record open. Browsers say where a request comes from in ``Sec-Fetch-*`` (Fetch Metadata); programs and old browsers say
nothing.
"""

from __future__ import annotations

from flask import Request, Response, request

from shared_record.access.policy import Surface
from shared_record.errors import AccessDeniedError
from shared_record.web.record.visits import wants_data
from shared_record.web.tiers import Gatekeeper, declared_tier

REFUSED = b"Forbidden\n"
TO_EMBED = "receipts.receipt"
"""What a page elsewhere may ask for to show it in a frame: that page is made without cookies, and the browser shows it
on the sites alone that the tenant named."""
FOR_EVERYBODY = "/api/v1/verify/"
"""What pages anywhere may ask, and get an answer without a cookie: whether a proof root stands for something."""


def refuse_foreign() -> Response | None:
    """Answer 403 with constant bytes where a page elsewhere is behind a request for a record's page."""
    shown = declared_tier(request.endpoint)
    is_record = isinstance(shown, Surface) or shown is Gatekeeper.STEP_UP or "handle" in (request.view_args or {})
    is_public = request.path.startswith(FOR_EVERYBODY) or (request.endpoint == TO_EMBED and is_framed(request))
    if is_record and not is_public and is_foreign(request):
        if wants_data(request):
            raise AccessDeniedError("This call came from a page of another site.", code="FOREIGN_ORIGIN")
        return Response(REFUSED, 403, content_type="text/plain; charset=utf-8")
    return None


def is_framed(asked: Request) -> bool:
    """Tell whether a browser asks for a document to show it within another page."""
    return asked.method == "GET" and asked.headers.get("Sec-Fetch-Dest") == "iframe"


def is_foreign(asked: Request) -> bool:
    """Tell whether a page elsewhere made this request otherwise than by leading here."""
    if asked.headers.get("Sec-Fetch-Site") not in ("cross-site", "same-site"):
        return False
    is_link = asked.headers.get("Sec-Fetch-Mode") == "navigate" and asked.headers.get("Sec-Fetch-Dest") == "document"
    return not (is_link and asked.method in ("GET", "HEAD"))
