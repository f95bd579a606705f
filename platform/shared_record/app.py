"""The composition root: everything is put together here and nowhere else. Building it asks the database nothing."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from typing import Any

from flask import Flask, Response, g, request
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from werkzeug.exceptions import HTTPException, NotFound

from shared_record import log
from shared_record.access import sessions
from shared_record.access.listed import listed
from shared_record.access.mailing import mail_sink
from shared_record.access.sessions import Visit
from shared_record.access.stepup import StepUp
from shared_record.access.throttle import Throttle
from shared_record.access.views import ViewCounts
from shared_record.clock import Clock, SystemClock
from shared_record.db.engine import Database
from shared_record.delivery.egress import Egress
from shared_record.delivery.fetch import Fetcher
from shared_record.delivery.mail import open_post
from shared_record.delivery.occurrences import Occurrences
from shared_record.errors import ConfigurationError, NotFoundError, SharedRecordError, UnavailableError
from shared_record.hooks.loader import Plugins, load_plugins
from shared_record.hosts.gate import Gate
from shared_record.hosts.news import HostNews
from shared_record.hosts.resolver import Resolver
from shared_record.keys import KeyRing
from shared_record.languages import gettext as _
from shared_record.settings import Settings, load_settings
from shared_record.theming.loader import DEFAULT, load_themes
from shared_record.web.api.access import access_api
from shared_record.web.api.balance import balance
from shared_record.web.api.checkpoints import checkpoints
from shared_record.web.api.customers import customers
from shared_record.web.api.dashboard import dashboard
from shared_record.web.api.documents import documents_api
from shared_record.web.api.envelope import failure
from shared_record.web.api.invoicing import invoicing
from shared_record.web.api.json_body import MAX_BODY
from shared_record.web.api.openapi import openapi
from shared_record.web.api.receipts import receipts_api
from shared_record.web.api.record import record_api
from shared_record.web.api.statement import middleware, statement
from shared_record.web.api.usage import usage
from shared_record.web.api.webhooks import deliveries, webhooks
from shared_record.web.conditional import settle
from shared_record.web.foreign import refuse_foreign
from shared_record.web.headers import protect
from shared_record.web.record.access_log import access_log
from shared_record.web.record.export_jobs import export_jobs
from shared_record.web.record.language import language, speak_to_browser
from shared_record.web.record.one_period import one_period
from shared_record.web.record.one_record import one_record
from shared_record.web.record.receipt_list import receipt_list
from shared_record.web.record.receipts import receipts
from shared_record.web.record.reconcile import reconcile
from shared_record.web.record.remembered import Remembered
from shared_record.web.record.timeline import timeline
from shared_record.web.record.unlock import unlock
from shared_record.web.record.views import record
from shared_record.web.record.visits import not_found, problem, wants_data
from shared_record.web.render import Renderer
from shared_record.web.runtime import EXTENSION, Runtime
from shared_record.web.system.assets import assets
from shared_record.web.system.health import health
from shared_record.web.tiers import check_tiers
from shared_record.web.tlog.views import tlog, well_known
from shared_record.web.told import count_view, is_look

_log = logging.getLogger("shared_record.web")
_DATABASE_GONE = (OperationalError, InterfaceError, PoolTimeoutError)

MAX_FORM_BYTES = 64 * 1024

SHARED = (
    assets,
    record,
    export_jobs,
    one_record,
    one_period,
    timeline,
    receipt_list,
    reconcile,
    access_log,
    unlock,
    language,
    receipts,
    record_api,
    documents_api,
    statement,
    tlog,
)
SERVING = (*SHARED, well_known)
_VENDOR = (
    balance,
    usage,
    checkpoints,
    receipts_api,
    customers,
    invoicing,
    middleware,
    dashboard,
    webhooks,
    deliveries,
    access_api,
)
PLATFORM = (*SHARED, openapi, *_VENDOR, health)
"""What is mounted on branded hosts, and on the platform host."""


def create_app(
    settings: Settings | None = None,
    *,
    keys: KeyRing | None = None,
    db: Database | None = None,
    clock: Clock | None = None,
    plugins: Plugins | None = None,
) -> Gate:
    """Return the WSGI application of one installation: the host gate in front of two Flask applications.

    Without ``settings`` they come from the environment, which is how a server's worker processes call it.
    The platform host has the vendor API and health; branded hosts have not even the routes. Records and static files
    exist on both.
    """
    if settings is None:
        settings = load_settings()
        log.configure(settings.log_level)
    plugins = plugins or load_plugins()
    themes = load_themes(plugins.theme_roots)
    for slug, reasons in themes.broken.items():
        _log.error("theme.broken %s: %s", slug, "; ".join(map(str, reasons)))
    if DEFAULT not in themes.sound:
        raise ConfigurationError("no theme named `default` can be used; install shared-record[standard].")
    db = db or Database(settings.sqlalchemy_url)
    clock = clock or SystemClock()
    resolver = Resolver(db, settings.platform_hosts, news=HostNews(settings.redis_url))
    keys = keys or KeyRing.load(settings.keys_path)
    throttle = Throttle(settings.redis_url)
    fetch = Fetcher(Egress(settings.egress_allow))
    parts = Runtime(
        settings=settings,
        db=db,
        keys=keys,
        clock=clock,
        plugins=plugins,
        themes=themes.sound,
        renderer=Renderer(themes.sound),
        throttle=throttle,
        step_up=StepUp(
            db,
            keys,
            clock,
            throttle,
            plugins.step_up_methods,
            settings.url_for_host,
            mail=mail_sink(keys, clock) if open_post(settings) else None,
            entitlements=listed(db, keys, clock),
            fetch=lambda _seen: fetch,
        ),
        occurrences=Occurrences(db, clock),
        views=ViewCounts(db, clock),
        resolver=resolver,
    )
    serving = _flask("serving", parts, SERVING)
    platform = _flask("platform", parts, PLATFORM)
    return Gate(resolver, settings, {"platform": platform, "serving": serving})


def _flask(name: str, parts: Runtime, blueprints: tuple[Any, ...]) -> Flask:
    app = Flask(f"shared_record.{name}", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.config["MAX_FORM_MEMORY_SIZE"] = MAX_FORM_BYTES
    app.config["MAX_FORM_PARTS"] = 50
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    app.extensions[EXTENSION] = parts
    for blueprint in blueprints:
        app.register_blueprint(blueprint)
    app.register_error_handler(Exception, _failed)
    app.before_request(speak_to_browser)
    app.before_request(refuse_foreign)
    app.after_request(_finish(parts))
    check_tiers(app)
    app.wsgi_app = Remembered(app.wsgi_app, parts)  # type: ignore[method-assign]
    return app


def _finish(parts: Runtime) -> Callable[[Response], Response]:
    def finish(response: Response) -> Response:
        settle(request, response)
        protect(response, secure=parts.secure)
        count_view(response)
        seen: Visit | None = g.pop("visit", None)
        # What a page fetches by itself must not keep a session open at a screen that nobody looks at.
        is_used = is_look(request) or request.method == "POST"
        if is_used and seen is not None and seen.session and sessions.needs_touch(parts.clock, seen.session):
            scope, sid_hash = seen.scope, seen.session.sid_hash
            response.call_on_close(lambda: _touch(parts, scope, sid_hash))
        return response

    return finish


def _touch(parts: Runtime, scope: Any, sid_hash: bytes) -> None:
    """Note that a session was used, after the answer is out: reading a page writes nothing on its way."""
    try:
        sessions.touch(parts.db, parts.clock, scope, sid_hash)
    except SQLAlchemyError:
        _log.warning("session.touch failed")


def _failed(error: Exception) -> Response:
    """Answer any failure: in the API's envelope for programs, as a page for people; log nothing of the request."""
    if wants_data(request):
        return failure(error)
    if isinstance(error, NotFound | NotFoundError):
        return not_found()
    if isinstance(error, HTTPException):
        if error.response is not None:
            return error.response  # type: ignore[return-value]
        page = problem(
            _("This request cannot be answered"), _("Open the link on your invoice again."), error.code or 400
        )
        page.headers.extend((name, value) for name, value in error.get_headers() if name == "Allow")
        return page
    if isinstance(error, (*_DATABASE_GONE, UnavailableError)):
        _log.error("unavailable: %s", type(error).__name__)
        return problem(
            _("The record cannot be shown now"),
            _("Nothing is lost. Try again in a moment. Downloaded receipts can still be checked offline."),
            503,
            5,
        )
    if isinstance(error, SharedRecordError):
        return problem(_("This request cannot be answered"), error.message, 400)
    reference = secrets.token_hex(4).upper()
    _log.error("page.failed reference=%s", reference, exc_info=error)
    return problem(
        _("This page could not be shown"),
        _("Viewing a page does not change the record. Reference %(code)s.")
        % {"code": f"{reference[:4]}-{reference[4:]}"},
        500,
    )
