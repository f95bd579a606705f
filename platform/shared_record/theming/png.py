"""Read a PNG file and write it anew (W3C PNG, third edition): nothing but pixels gets through.

Text, profiles, times, animation and whatever follows the end are left behind, so a file that is a picture and
something else besides comes out as the picture.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

MAX_BYTES = 512 * 1024
MAX_SIDE = 2000
MAX_RAW = 8 * 1024 * 1024

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
"""Colour type -> allowed bit depths."""
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


@dataclass(frozen=True, slots=True)
class Png:
    """A picture that was written anew."""

    data: bytes
    width: int
    height: int


def reencode(data: bytes) -> Png:
    """Return the same picture as a new file; ``ValueError`` says why one is not taken."""
    if len(data) > MAX_BYTES:
        raise ValueError(f"a file of {len(data) // 1024} KiB")
    chunks: dict[bytes, bytes] = {}
    for kind, content in _chunks(data):
        if kind in (b"IHDR", b"PLTE", b"tRNS") and kind in chunks:
            raise ValueError(f"two {kind.decode()} chunks")
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT"):
            chunks[kind] = chunks.get(kind, b"") + content
        elif not kind[0] & 0x20:
            raise ValueError("an unknown kind of picture data")
    head = chunks.get(b"IHDR", b"")
    if len(head) != 13:
        raise ValueError("no picture header")
    width, height, depth, colour, method, filtering, interlaced = struct.unpack(">IIBBBBB", head)
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise ValueError(f"a picture of {width} × {height} pixels")
    if interlaced:
        raise ValueError("an interlaced picture")
    if depth not in _DEPTHS.get(colour, ()) or method or filtering:
        raise ValueError("a header that PNG does not know")
    rows = _rows(chunks.get(b"IDAT", b""), (width * depth * _SAMPLES[colour] + 7) // 8 + 1, height)
    parts = [(b"IHDR", head), *_extras(chunks, colour, depth), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]
    return Png(_SIGNATURE + b"".join(_chunk(*part) for part in parts), width, height)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the chunks up to the end of the picture."""
    if not data.startswith(_SIGNATURE):
        raise ValueError("no PNG file")
    at = len(_SIGNATURE)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        body, end = data[at + 4 : at + 8 + length], at + 12 + length
        if end > len(data) or data[end - 4 : end] != struct.pack(">I", zlib.crc32(body)):
            raise ValueError("a damaged PNG file")
        if body[:4] == b"IEND":
            return
        yield body[:4], body[4:]
        at = end
    raise ValueError("a PNG file that ends too early")


def _rows(packed: bytes, stride: int, height: int) -> bytes:
    """Return the filtered rows: exactly as many bytes as the header promises."""
    wanted = stride * height
    if wanted > MAX_RAW:
        raise ValueError("a picture with too many pixels")
    reader = zlib.decompressobj()
    try:
        rows = reader.decompress(packed, wanted + 1)
    except zlib.error as error:
        raise ValueError("a damaged PNG file") from error
    if len(rows) != wanted or any(rows[at] > 4 for at in range(0, wanted, stride)):
        raise ValueError("pixels that do not fit the header")
    return rows


def _extras(chunks: dict[bytes, bytes], colour: int, depth: int) -> list[tuple[bytes, bytes]]:
    """Return the palette and the transparency, where this kind of picture has them."""
    palette, clear = chunks.get(b"PLTE", b""), chunks.get(b"tRNS", b"")
    found = []
    if colour == 3:
        if not palette or len(palette) % 3 or len(palette) // 3 > 1 << depth:
            raise ValueError("no usable palette")
        found.append((b"PLTE", palette))
    allowed = {0: (2,), 2: (6,), 3: range(1, len(palette) // 3 + 1)}.get(colour, ())
    if len(clear) in allowed:
        found.append((b"tRNS", clear))
    return found


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
