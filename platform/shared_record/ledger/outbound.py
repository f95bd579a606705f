"""Asking services of others: one POST, and several calls at once within one deadline."""

from __future__ import annotations

import http.client
import queue
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar
from urllib.parse import urlsplit

MAX_ANSWER = 1_000_000

T = TypeVar("T")


def post(url: str, body: bytes, *, content_type: str, timeout: float) -> tuple[int, bytes]:
    """Send ``body`` to ``url`` (http or https) and return status and body of the answer.

    Redirects are answers like any other, proxies of the environment are not used. An answer of more than
    ``MAX_ANSWER`` bytes, or one that is not complete after ``timeout`` seconds, is an ``OSError``.
    """
    deadline = time.monotonic() + timeout
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise OSError(f"{url} is no http or https address")
    connection = _connection(parts.scheme, parts.hostname, parts.port, timeout)
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", target, body, {"Content-Type": content_type, "User-Agent": "shared-record"})
        answer = connection.getresponse()
        return answer.status, _read(answer, deadline)
    except http.client.HTTPException as error:
        raise OSError(f"the answer is not HTTP: {type(error).__name__}") from error
    finally:
        connection.close()


def at_once(calls: Sequence[Callable[[], T]], seconds: float) -> list[T | Exception]:
    """Make all ``calls`` at once; return for each its result, or what it raised.

    Those that have not returned after ``seconds`` are left behind and count as ``TimeoutError``.
    """
    done: queue.SimpleQueue[tuple[int, T | Exception]] = queue.SimpleQueue()

    def run(index: int, call: Callable[[], T]) -> None:
        try:
            done.put((index, call()))
        except Exception as error:
            done.put((index, error))

    for index, call in enumerate(calls):
        threading.Thread(target=run, args=(index, call), daemon=True).start()
    results: list[T | Exception] = [TimeoutError(f"no answer within {seconds:g} seconds") for _ in calls]
    deadline = time.monotonic() + seconds
    for _ in calls:
        try:
            index, result = done.get(timeout=max(deadline - time.monotonic(), 0))
        except queue.Empty:
            break
        results[index] = result
    return results


def _connection(scheme: str, host: str, port: int | None, timeout: float) -> http.client.HTTPConnection:
    if scheme == "https":
        return http.client.HTTPSConnection(host, port, timeout=timeout, context=ssl.create_default_context())
    return http.client.HTTPConnection(host, port, timeout=timeout)


def _read(answer: http.client.HTTPResponse, deadline: float) -> bytes:
    data = b""
    while block := answer.read1(65_536):
        data += block
        if len(data) > MAX_ANSWER:
            raise OSError(f"the answer is longer than {MAX_ANSWER} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError("the answer did not come in time")
    if answer.length:
        raise OSError("the answer ends early")
    return data
