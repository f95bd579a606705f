"""The landing page as it was last made for a link, sent again while everything that it was made from still stands.

What a page costs is to make it; what it is made from is read quickly. So that is read each time, by one query: the row
that decides who may see what, how far the customer's periods have come, and the newest checkpoint. Only where all of it
is what the remembered page was made from, in the same minute, is that page sent, with a nonce of its own. Anything else
goes to Flask: a request that is not a plain one without cookies, any change, a database that cannot be asked. Requests
for one page that come at once share a look at the database, if it began after they came.

Deltas are only ever added, and each moves its period's size: those that a page shows need not be read again.
"""

from __future__ import annotations

import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from flask import Request
from sqlalchemy.exc import SQLAlchemyError

from shared_record.access import sessions
from shared_record.access.links import normalise_handle
from shared_record.access.policy import Surface
from shared_record.access.sessions import Visit
from shared_record.hosts.gate import host_match
from shared_record.web.foreign import is_foreign
from shared_record.web.record.data import Summary
from shared_record.web.runtime import Runtime
from shared_record.web.told import count_look

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

MOST: Final = 512
"""Pages that one process remembers, about 10 KiB each; the one that was asked for longest ago goes first."""

_OFFERED: Final = "shared_record.offered"
_LANDING = re.compile(r"/c/([0-9A-Za-z]+)")
_NOT_PLAIN = ("HTTP_COOKIE", "HTTP_AUTHORIZATION", "HTTP_IF_NONE_MATCH", "HTTP_RANGE")
_POLICY: Final = "Content-Security-Policy"
_NONCE = re.compile(r"'nonce-([^']+)'")

_Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class _Basis:
    """What a landing page was made from. ``found`` is ``None`` where it shows no figures."""

    seen: Visit
    minute: datetime
    found: Summary | None

    @property
    def since(self) -> str:
        """The earliest month whose period the page speaks of."""
        if self.found is None:
            return ""
        return self.found.period if self.found.previous is None else self.found.previous.period

    def rows(self) -> list[tuple[Any, ...]]:
        """Return what ``look_with_figures`` gives while nothing has changed."""
        if self.found is None:
            return [self.seen.row]
        reach: list[tuple[Any, ...]] = [
            (one.tree_id, one.status, one.size, one.vsize, one.psize)
            for one in self.found.periods
            if one.period >= self.since or one.psize < one.size
        ]
        return [(*self.seen.row, self.found.coverage.newest_epoch, *one) for one in reach or [(None,) * 5]]


class _Looks:
    """Looks at one thing, which several threads share: one that began after a thread came in is good for it."""

    def __init__(self) -> None:
        self._turn, self._begun, self._outcome = threading.Lock(), 0, False

    def share(self, look: Callable[[], bool]) -> bool:
        """Return what a look gives that began after this call did: another thread's, or one of our own."""
        begun = self._begun
        with self._turn:
            if self._begun == begun:
                self._begun += 1
                self._outcome = False  # what a look that fails leaves to those who wait
                self._outcome = look()
            return self._outcome


@dataclass(frozen=True, slots=True)
class _Answer:
    """A page in the parts between which its nonce stands, and its header fields likewise."""

    basis: _Basis
    rows: list[tuple[Any, ...]]
    fields: list[tuple[str, str]]
    policy: list[str]
    body: list[bytes]
    looks: _Looks = field(default_factory=_Looks)

    @classmethod
    def of(cls, basis: _Basis, fields: list[tuple[str, str]], body: bytes) -> _Answer:
        """Take apart what was sent."""
        policy = dict(fields)[_POLICY]
        rest = [field for field in fields if field[0] != _POLICY]
        nonce = _NONCE.search(policy)
        if nonce is None:
            return cls(basis, basis.rows(), rest, [policy], [body])
        return cls(basis, basis.rows(), rest, policy.split(nonce[1]), body.split(nonce[1].encode()))

    def renew(self) -> tuple[list[tuple[str, str]], bytes]:
        """Return header fields and body with a nonce that was never used."""
        nonce = secrets.token_urlsafe(16)
        return [*self.fields, (_POLICY, nonce.join(self.policy))], nonce.encode().join(self.body)


def offer(environ: WSGIEnvironment, seen: Visit, now: datetime, found: Summary | None = None) -> None:
    """Let the landing page that answers this request be remembered: it was made from ``seen`` and ``found`` alone."""
    offered: list[_Basis] | None = environ.get(_OFFERED)
    if offered is not None and seen.session is None:
        offered.append(_Basis(seen, _minute(now), found))


class Remembered:
    """WSGI middleware between the gate and Flask. Thread-safe."""

    def __init__(self, app: WSGIApplication, parts: Runtime) -> None:
        self._app, self._parts = app, parts
        self._answers: OrderedDict[_Key, _Answer] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request, from memory where Flask would give the very same answer."""
        handle = _plain_handle(environ)
        if handle is None:
            return self._app(environ, start_response)
        match = host_match(environ)
        key = (match.host, match.config, match.twin, environ["PATH_INFO"], environ.get("HTTP_ACCEPT_LANGUAGE"))
        known = self._recall(key)
        if known is None or not known.looks.share(partial(self._stands, known, handle)):
            return self._ask(key, environ, start_response)
        seen = known.basis.seen
        if seen.may_see(Surface.LANDING):
            count_look(self._parts, Request(environ), seen)
        fields, body = known.renew()
        start_response("200 OK", fields)
        return [body]

    def _stands(self, known: _Answer, handle: str) -> bool:
        basis, seen = known.basis, known.basis.seen
        if basis.minute != _minute(self._parts.clock.now()):
            return False
        try:
            rows = sessions.look_with_figures(self._parts.db, seen.scope, seen.host, handle, basis.since)
        except SQLAlchemyError:
            return False
        if basis.found is None:
            rows = [row[: len(seen.row)] for row in rows[:1]]
        return rows == known.rows

    def _ask(self, key: _Key, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Have Flask answer, and remember the answer if it is offered."""
        offered: list[_Basis] = []
        sent: list[tuple[str, str]] = []

        def start(status: str, fields: list[tuple[str, str]], *failure: Any) -> Callable[[bytes], object]:
            sent[:] = fields
            if status != "200 OK":
                offered.clear()
            return start_response(status, fields, *failure)

        environ[_OFFERED] = offered
        answer = self._app(environ, start)
        if not offered:
            return answer
        try:
            body = b"".join(answer)
        finally:
            getattr(answer, "close", lambda: None)()
        self._remember(key, _Answer.of(offered[0], sent, body))
        return [body]

    def _recall(self, key: _Key) -> _Answer | None:
        with self._lock:
            known = self._answers.get(key)
            if known is not None:
                self._answers.move_to_end(key)
            return known

    def _remember(self, key: _Key, answer: _Answer) -> None:
        with self._lock:
            self._answers[key] = answer
            self._answers.move_to_end(key)
            while len(self._answers) > MOST:
                self._answers.popitem(last=False)


def _plain_handle(environ: WSGIEnvironment) -> str | None:
    """Return the handle if this asks for a landing page and says nothing that could make it another one."""
    if environ["REQUEST_METHOD"] != "GET" or environ.get("QUERY_STRING"):
        return None
    found = _LANDING.fullmatch(environ["PATH_INFO"])
    if found is None or any(name in environ for name in _NOT_PLAIN):
        return None
    if "HTTP_SEC_FETCH_SITE" in environ and is_foreign(Request(environ)):
        return None
    return normalise_handle(found[1])


def _minute(now: datetime) -> datetime:
    return now.replace(second=0, microsecond=0)
