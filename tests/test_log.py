"""What is logged: one line an event, nothing that could be taken for another line, and no secret."""

from __future__ import annotations

import io
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from shared_record import log
from shared_record.access.apikeys import create_key
from shared_record.keys import KeyRing
from shared_record.log import CUT, Lines, escape, redact
from world import Shop

HANDLE = "9f2k7m4qxw3t8bz6ch1rnd5jpv"
TOKEN = "QwErTyUiOpAsDfGhJkLzXcVbNm0123456789-_abcde"
KEPT = (
    "evt_9f2k7m4qxw3t8bz6ch1rnd5jpv",
    "rec_9f2k7m4qxw3t8bz6ch1rnd5jpv",
    "tenant acme: audit.sealed 318:" + "5f" * 32,
    "host.unknown host=0123456789ab reason=unknown",
    "page.failed reference=7C4F19AA",
    "pk_live_0123456789abcdef",
)


def written(write, level: int = logging.INFO) -> str:  # type: ignore[no-untyped-def]
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(Lines())
    logger = logging.Logger("shared_record.test", level)
    logger.addHandler(handler)
    write(logger)
    return out.getvalue()


@pytest.mark.parametrize(
    ("line", "secret"),
    [
        (f"GET /c/{HANDLE}/activity 200", HANDLE),
        (f"GET /c/{HANDLE.upper()} 200", HANDLE.upper()),
        (f"handle {HANDLE}.", HANDLE),
        ("GET /c/imported_handle-of-another-system", "imported_handle"),
        (f"Cookie: a=1; __Host-sr-0a1b2c3d={TOKEN}; b=2", TOKEN),
        (f"sr-pre={TOKEN}", TOKEN),
        (f"sr-dv-0a1b2c3d={TOKEN[:20]}", TOKEN[:20]),
        (f"X-Api-Key: pk_live_0123456789abcdef.{TOKEN}", TOKEN),
        (f"Authorization: Bearer srp_0123456789abcdef.{TOKEN}", TOKEN),
        ("csrf_token=k1.abcdef&field-code=K7M4QX", "K7M4QX"),
        ("?code=K7M-4QX", "K7M-4QX"),
        ("whsec_C2FVsBQIhrscChlQIMV", "C2FVs"),
        ("postgresql://app:hunter2@db/records", "hunter2"),
        (f"sid {TOKEN}", TOKEN),
    ],
)
def test_l06_what_has_the_shape_of_a_secret_is_cut_out(line: str, secret: str) -> None:
    assert secret not in redact(line)
    assert CUT in redact(line)
    assert secret not in written(lambda logger: logger.warning("%s", line))


@pytest.mark.parametrize("line", KEPT)
def test_ids_that_open_nothing_stay(line: str) -> None:
    assert redact(line) == line


def test_l06_real_handles_and_keys_are_cut_out(shop: Shop, keys: KeyRing) -> None:
    with shop.db.write(shop.scope) as connection:
        key = create_key(connection, shop.clock, shop.scope, name="x", actor="test")
    assert key.partition(".")[2] not in redact(f"key {key}")
    for number in range(200):
        handle = keys.handle("k1", shop.scope.plane, shop.scope.config, number)
        assert redact(f"x {handle} y") == f"x {CUT} y"


@given(st.text(max_size=200))
def test_z01_a_message_is_one_line_whatever_is_in_it(message: str) -> None:
    line = written(lambda logger: logger.warning("got %s", message))
    assert line.count("\n") == 1
    assert line.endswith("\n")
    assert len(line.splitlines()) == 1
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in line[:-1])


def test_z01_a_traceback_cannot_pose_as_a_line() -> None:
    def fail(logger: logging.Logger) -> None:
        try:
            raise ValueError(f"bad\n2026-11-22 12:00:00 INFO forged /c/{HANDLE}\x1b[2J")
        except ValueError:
            logger.exception("failed")

    first, *rest = written(fail).splitlines()
    assert first.endswith("failed")
    assert all(line.startswith("  | ") for line in rest)
    assert HANDLE not in "".join(rest)
    assert "\x1b" not in "".join(rest)


def test_z01_the_values_of_a_statement_that_failed_are_not_in_the_error(shop: Shop) -> None:
    statement = text("SELECT :canary FROM nothing_of_this_name")
    with (
        pytest.raises(SQLAlchemyError) as raised,
        shop.db.engine.connect().execution_options(sr_reviewed=True) as connection,
    ):
        connection.execute(statement, {"canary": "canary-4711"})
    assert "canary-4711" not in str(raised.value)


def test_escapes_are_readable() -> None:
    assert escape("a\r\nb\x00\u2028c") == "a\\x0d\\x0ab\\x00\\nc"


def test_configuring_replaces_what_was_there(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers = []
    try:
        log.configure("warning")
        log.configure("info")
        logging.getLogger("shared_record.x").info("once /c/%s", HANDLE)
        assert capsys.readouterr().err.count("once /c/[cut]") == 1
    finally:
        root.handlers, root.level = before, level
