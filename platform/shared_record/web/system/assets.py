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


@assets.get("/theme/<slug>/<digest>/<name>")
@tier(Gatekeeper.NOBODY)
def theme_picture(slug: str, digest: str, name: str) -> Response:
    """Return a picture of a theme, as it was read and written anew at the start: no path is looked up.

    Who asks needs the digest, and so has seen the picture: the same file answers on every host.
    """
    found = runtime().themes.get(slug)
    picture = found.pictures.get(name) if found is not None else None
    if picture is None or picture.digest != digest:
        abort(404)
    response = immutable(picture.data, PurePath(name).suffix)
    response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    return response
