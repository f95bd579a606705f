"""Static files under URLs that name their content, so they may be cached for ever."""

from __future__ import annotations

from pathlib import PurePath

from flask import Blueprint, Response, abort

from shared_record.web.render import immutable, static_files
from shared_record.web.runtime import runtime
from shared_record.web.tiers import Gatekeeper, tier

assets = Blueprint("assets", __name__, url_prefix="/static")


@assets.get("/<digest>/<name>")
@tier(Gatekeeper.NOBODY)
def core(digest: str, name: str) -> Response:
    """Return a file of the core; any digest but its own is 404."""
    file = static_files().get(name)
    if file is None or file.digest != digest:
        abort(404)
    return immutable(file.data, PurePath(name).suffix)


@assets.get("/theme/<slug>/<digest>.css")
@tier(Gatekeeper.NOBODY)
def theme(slug: str, digest: str) -> Response:
    """Return a theme's custom properties."""
    found = runtime().themes.get(slug)
    if found is None or found.css_hash != digest:
        abort(404)
    return immutable(found.css, ".css")
