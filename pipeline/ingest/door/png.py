"""PNG files: damage that Pillow forgives, and their metadata taken out."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from PIL import Image

from pipeline.ingest.door.rules import Refused

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_METADATA = {b"eXIf", b"tEXt", b"zTXt", b"iTXt"}  # each of these can carry an orientation
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # colour type -> samples of a pixel
# Adam7's passes: first row, row step, first column, column step.
_PASSES = ((0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4), (2, 4, 0, 2), (0, 2, 1, 2), (1, 2, 0, 1))
_BLOCK = 1 << 16


def check_chunks(data: bytes) -> None:
    """Refuse damage beside the pixels, which Pillow forgives and OpenCV does not.

    Raises:
        Refused: a chunk ends early, has a wrong checksum, or is a second header.
    """
    position, name = len(SIGNATURE), b""
    while name != b"IEND":
        if position + 12 > len(data):
            raise Refused("truncated_image", "no IEND chunk")
        length, name = struct.unpack(">I4s", data[position : position + 8])
        body_end = position + 8 + length
        if body_end + 4 > len(data):
            raise Refused("truncated_image", f"chunk {name!r} ends early")
        if zlib.crc32(data[position + 4 : body_end]) != struct.unpack(">I", data[body_end : body_end + 4])[0]:
            raise Refused("undecodable_image", f"chunk {name!r} has a wrong checksum")
        if name == b"IHDR" and position != len(SIGNATURE):
            raise Refused("undecodable_image", "a second header")
        position = body_end + 4


def check_rows(image: Image.Image, data: bytes) -> None:
    """Refuse a PNG with fewer rows than its header announces. `image` is `data` decoded.

    Pillow leaves rows black that are not there, so the pixels are counted only where one of the last two (interlaced,
    the odd one comes last) is black.

    Raises:
        Refused: "truncated_image".
    """
    width, height = image.size
    last = (image.crop((0, row, width, row + 1)) for row in range(max(0, height - 2), height))
    if all(row.getbbox(alpha_only=False) is not None for row in last):
        return
    expected, found = _expected_bytes(data), _num_bytes(data)
    if found < expected:
        raise Refused("truncated_image", f"{width} x {height} pixels need {expected} bytes, {found} are there")


def without_metadata(data: bytes) -> bytes:
    """The same PNG without texts and EXIF; the pixels' bytes are untouched."""
    out = bytearray(SIGNATURE)
    for name, start, end in _chunks(data):
        if name not in _METADATA:
            out += data[start:end]
    return bytes(out)


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of each chunk."""
    position = len(SIGNATURE)
    while position + 12 <= len(data):
        end = position + 12 + struct.unpack(">I", data[position : position + 4])[0]
        yield data[position + 4 : position + 8], position, end
        position = end


def _expected_bytes(data: bytes) -> int:
    """Bytes of all rows, each with its filter's byte, as the header announces them."""
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    bits = depth * _SAMPLES[colour]
    total = 0
    for row, row_step, column, column_step in _PASSES if interlaced else ((0, 1, 0, 1),):
        num_rows = max(0, -(-(height - row) // row_step))
        num_columns = max(0, -(-(width - column) // column_step))
        if num_columns:
            total += num_rows * (1 + (num_columns * bits + 7) // 8)
    return total


def _num_bytes(data: bytes) -> int:
    """Bytes that the pixels' chunks inflate to; holds `_BLOCK` of them at a time."""
    inflate, total = zlib.decompressobj(), 0
    for name, start, end in _chunks(data):
        rest = data[start + 8 : end - 4] if name == b"IDAT" else b""
        while rest and not inflate.eof:
            total += len(inflate.decompress(rest, _BLOCK))
            rest = inflate.unconsumed_tail
    while not inflate.eof and (more := inflate.decompress(b"", _BLOCK)):
        total += len(more)
    return total
