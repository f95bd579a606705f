"""What a customer did with a record, told to the vendor by webhook and to the customer in the access log.

Nothing is written while the request lasts: it is noted in memory.
"""

from __future__ import annotations

from flask import Request, Response, g, request

from shared_record.access.policy import Surface
from shared_record.access.sessions import Visit
from shared_record.access.views import INNER, OUTER
from shared_record.delivery.events import EXPORT_DOWNLOADED, RECORD_VIEWED
from shared_record.web.record.visits import wants_data
from shared_record.web.runtime import Runtime, runtime
from shared_record.web.tiers import declared_tier

_AHEAD = ("Sec-Purpose", "Purpose", "X-Moz")


def tell(seen: Visit, event: str, **detail: str) -> None:
    """Note that a customer did something; it is written when the request is over."""
    if event == RECORD_VIEWED and not is_look(request):
        return
    data = {"customerId": seen.row.external_id, **detail}
    runtime().occurrences.add(seen.scope, event, seen.customer_id, data)
    if event == EXPORT_DOWNLOADED:
        opened = {} if seen.session is None else {"method": seen.session.method}
        runtime().views.download(seen.scope, seen.customer_id, detail | opened)


def is_look(asked: Request) -> bool:
    """Tell whether somebody looks: not a page fetched ahead, not what a page of ours fetches by itself."""
    if asked.method != "GET" or any("prefetch" in asked.headers.get(name, "").lower() for name in _AHEAD):
        return False
    mode = asked.headers.get("Sec-Fetch-Mode")
    if mode is not None:
        return mode == "navigate"
    return wants_data(asked) or "text/html" in asked.headers.get("Accept", "")


def count_view(response: Response) -> None:
    """Count a page of a record that was shown to somebody who came for it."""
    seen: Visit | None = g.get("visit")
    if seen is None or response.status_code != 200 or response.mimetype != "text/html" or not is_look(request):
        return
    shown = declared_tier(request.endpoint)
    if isinstance(shown, Surface) and seen.may_see(shown):
        runtime().views.count(seen.scope, seen.customer_id, OUTER if seen.session is None else INNER)


def count_look(parts: Runtime, asked: Request, seen: Visit) -> None:
    """Do what ``tell`` and ``count_view`` do for a landing page sent from memory to a reader without a session."""
    if is_look(asked):
        parts.occurrences.add(seen.scope, RECORD_VIEWED, seen.customer_id, {"customerId": seen.row.external_id})
        parts.views.count(seen.scope, seen.customer_id, OUTER)
