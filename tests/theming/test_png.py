from __future__ import annotations

import struct
import zlib

import pytest

from shared_record.theming.png import MAX_BYTES, reencode
from theming.conftest import chunk, png


def test_t02_pixels_and_nothing_else_get_through() -> None:
    secret = chunk(b"tEXt", b"Comment\0<script>alert(1)</script>") + chunk(b"eXIf", b"II*\0GPS")
    made = reencode(png(3, 2, between=secret) + b"PK\x03\x04 an archive behind the picture")
    assert (made.width, made.height) == (3, 2)
    assert made.data == reencode(png(3, 2)).data
    for left_behind in (b"script", b"GPS", b"tEXt", b"eXIf", b"PK"):
        assert left_behind not in made.data
    assert reencode(made.data).data == made.data


def test_a_palette_and_its_transparency_stay() -> None:
    head = struct.pack(">IIBBBBB", 2, 1, 8, 3, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"PLTE", b"\xff\0\0\0\xff\0") + chunk(b"tRNS", b"\x80")
    body += chunk(b"IDAT", zlib.compress(b"\0\0\1")) + chunk(b"IEND", b"")
    made = reencode(b"\x89PNG\r\n\x1a\n" + body)
    assert chunk(b"PLTE", b"\xff\0\0\0\xff\0") in made.data
    assert chunk(b"tRNS", b"\x80") in made.data
    with pytest.raises(ValueError, match="palette"):
        reencode(b"\x89PNG\r\n\x1a\n" + body.replace(chunk(b"PLTE", b"\xff\0\0\0\xff\0"), b""))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"<svg onload='alert(1)'>", "no PNG"),
        (png()[:-12], "ends too early"),
        (png()[:-20] + b"\0" * 20, "damaged"),
        (png(2001, 1), "2001 × 1 pixels"),
        (png(0, 1), "0 × 1 pixels"),
        (png(interlaced=1), "interlaced"),
        (png(between=chunk(b"IHDR", b"\0" * 13)), "two IHDR"),
        (png(between=chunk(b"EVIL", b"x")), "unknown kind"),
        (png(rows=b"\0\x80\x80"), "do not fit"),
        (png(rows=b"\0\x80\x80" * 3), "do not fit"),
        (png(rows=b"\x09\x80\x80" * 2), "do not fit"),
        (png(2000, 2000, rows=b"\0" * (64 << 20)), "do not fit"),
        (png(between=b"\0" * MAX_BYTES), "KiB"),
    ],
)
def test_t02_what_is_no_usable_picture_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        reencode(data)
