"""JPEG streams: whether their data is all that their header announces, and their metadata taken out.

Where data is missing or broken, libjpeg makes up the pixels (grey, or what was there last), warns, and goes on; Pillow
and OpenCV pass the picture on without a word. simplejpeg's strict mode stops at the first warning.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

import simplejpeg

from pipeline.ingest.door.rules import Refused

MAX_SCANS = 200  # each passes over the whole picture, however few bytes it has; encoders write up to some 20
MAX_LEFT_OVER = 0.05  # of the file; some cameras pad the end of the data
_EOI, _SOS, _COMMENT = 0xD9, 0xDA, 0xFE
_BARE = {0x01, 0xD8, 0xD9, *range(0xD0, 0xD8)}  # markers without a length
_FRAMES = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}
_PROGRESSIVE = {0xC2, 0xCA}
# Not 0 (an 0xFF of the data), not a restart marker, not a fill byte.
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_LEFT_OVER = re.compile(r"(\d+) extraneous bytes before marker 0x([0-9a-f]{2})")
_WARNINGS = re.compile(r"Corrupt JPEG data|Inconsistent progression", re.IGNORECASE)


def check_data(data: bytes) -> None:
    """Refuse a JPEG whose pixels a decoder would have to make up, in part or all.

    Metadata and a missing end marker are looked over. What the strict decoder does not know is not judged.

    Raises:
        Refused: "truncated_image" where data is missing, "damaged_image" where it is broken or far too much.
    """
    check_scans(data)
    bare = _without_metadata(data)
    try:
        simplejpeg.decode_jpeg(bare, "gray", min_height=1, min_width=1, strict=True)
    except ValueError as error:
        warning = str(error)
    else:
        return
    left_over = _LEFT_OVER.search(warning)
    # The decoder stops at its first warning, so one about the very end says that all before it was in order.
    if left_over and int(left_over[2], 16) == _EOI and int(left_over[1]) <= MAX_LEFT_OVER * len(data):
        return
    if "premature end" in warning.lower():
        raise Refused("truncated_image", f"{len(data)} bytes; {warning}")
    if left_over or _WARNINGS.search(warning):
        raise Refused("damaged_image", warning)


def check_scans(data: bytes) -> None:
    """Refuse a JPEG that ends between two scans, which no decoder warns of: a part of every pixel is missing.

    A scan carries some of a picture's components, coefficients and bits; together they must carry all.

    Raises:
        Refused: "truncated_image".
    """
    low_bits: dict[int, list[int]] = {}  # component -> the lowest bit sent of each coefficient; 1 if not all
    is_progressive, num_scans = False, 0
    for marker, start, end in _segments(data):
        body = data[start + 4 : end]
        if marker in _FRAMES and len(body) >= 6:
            is_progressive = marker in _PROGRESSIVE
            low_bits = {component: [1] * 64 for component in body[6::3][: body[5]]}
        elif marker == _SOS and body and len(body) >= 4 + 2 * body[0]:
            num_scans += 1
            first, last, bits = body[1 + 2 * body[0] : 4 + 2 * body[0]] if is_progressive else (0, 63, 0)
            for component in body[1 : 1 + 2 * body[0] : 2]:
                if component in low_bits and last < 64:
                    low_bits[component][first : last + 1] = [bits & 15] * (last + 1 - first)
            if num_scans == 1 and not is_progressive and not any(map(any, low_bits.values())):
                return  # the common case: one scan with everything
            if num_scans > MAX_SCANS:
                raise Refused("damaged_image", f"more than {MAX_SCANS} scans")
    if any(map(any, low_bits.values())):
        raise Refused("truncated_image", f"the last of its scans are missing; {num_scans} are there")


def without_app1(data: bytes) -> bytes:
    """The same JPEG without EXIF and XMP; the pixels' bytes are untouched."""
    out, position = bytearray(data[:2]), 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker == _SOS:  # the rest is pixels
            break
        end = position + 2
        if marker not in _BARE:
            end += struct.unpack(">H", data[position + 2 : position + 4])[0]
        if marker != 0xE1:
            out += data[position:end]
        position = end
    return bytes(out) + data[position:]


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment after the first marker, up to the end marker. Pixels lie between."""
    position = 2
    while (found := _MARKER.search(data, position)) is not None:
        start, end = found.start(), found.end()
        marker = data[start + 1]
        if marker not in _BARE:
            if end + 2 > len(data):
                return
            end += struct.unpack(">H", data[end : end + 2])[0]
        yield marker, start, min(end, len(data))
        if marker == _EOI:
            return
        position = end


def _without_metadata(data: bytes) -> bytes:
    """Tables, frame and scans alone, ended by an end marker: no warning about metadata can hide a later one."""
    pieces, position, marker = [data[:2]], 2, 0
    for following, start, end in _segments(data):
        if marker == _SOS:
            pieces.append(data[position:start])
        marker, position = following, end
        if not (0xE0 <= marker <= 0xEF or marker in (0x01, _COMMENT, _EOI)):
            pieces.append(data[start:end])
    if marker == _SOS:
        pieces.append(data[position:])
    return b"".join((*pieces, b"\xff\xd9"))
