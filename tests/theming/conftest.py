"""A theme to change, and pictures to put into it."""

from __future__ import annotations

import shutil
import struct
import zlib
from pathlib import Path

import pytest

THEMES = Path(__file__).parents[2] / "themes"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with one theme, ``plain``: a copy of the default one."""
    folder = tmp_path / "themes"
    folder.mkdir()
    shutil.copytree(THEMES / "default", folder / "plain")
    return folder


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(
    width: int = 2, height: int = 2, *, between: bytes = b"", rows: bytes | None = None, interlaced: int = 0
) -> bytes:
    """A grey picture of 8 bits; ``between`` stands before the pixels."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, interlaced)
    raw = (b"\0" + b"\x80" * width) * height if rows is None else rows
    parts = chunk(b"IHDR", head) + between + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts
