"""Health of this process, on the platform host. It tells states, never secrets."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify
from sqlalchemy.exc import SQLAlchemyError

from shared_record.db import migrate
from shared_record.web.runtime import runtime
from shared_record.web.tiers import Gatekeeper, tier

health = Blueprint("health", __name__)


@health.get("/healthz/live")
@tier(Gatekeeper.NOBODY)
def live() -> Response:
    """Answer 200: the process serves requests."""
    return jsonify({"state": "live"})


@health.get("/healthz/ready")
@tier(Gatekeeper.NOBODY)
def ready() -> Response:
    """Answer 200 when the database is reachable and migrated, else 503."""
    try:
        current = migrate.current_revision(runtime().db.engine)
    except SQLAlchemyError:
        current = None
    fit = current == migrate.head_revision()
    response = jsonify({"state": "ready" if fit else "not ready", "quarantined": sorted(runtime().plugins.quarantined)})
    response.status_code = 200 if fit else 503
    return response


@health.get("/")
@tier(Gatekeeper.NOBODY)
def root() -> Response:
    """Say what this host is."""
    text = (
        "Shared Record\n\nThis is the platform host. The API is at /api/v1. Customers open the link on their invoice.\n"
    )
    return Response(text, mimetype="text/plain")
