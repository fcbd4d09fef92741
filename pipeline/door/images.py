"""Image files -> JPEG or PNG bytes that every decoder reads alike: 8 bits, RGB or grey, upright, one frame.

Files that already are so keep their bytes. Annotations are taken to be in the coordinates of the stored pixels where
their width and height say so; an EXIF orientation tag is then wrong for them and is removed without touching pixels.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from contracts.errors import DataError
from pipeline.door.rules import RULES, Refused

MAX_PIXELS = 100_000_000
MAX_FILE_BYTES = 512 << 20
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")  # the JPEG reader opens MPO too
Image.init()  # registers the rarer formats
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_METADATA = {b"eXIf", b"tEXt", b"zTXt", b"iTXt"}  # each of these can carry an orientation


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanImage:
    """Encoded bytes, their format, size in pixels, and the fixes that were needed."""

    data: bytes
    format: Literal["jpg", "png"]
    width: int
    height: int
    fixes: tuple[str, ...] = ()


def read_bytes(path: Path, missing: str) -> bytes:
    """The bytes of a plain file of at most `MAX_FILE_BYTES`; `missing` is the reason if there is none."""
    try:
        if not path.is_file():
            raise Refused(missing, str(path))
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise Refused("file_too_large", f"{size} bytes")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        raise Refused("unreadable_file", str(error)) from error


def upright_image(data: bytes) -> CleanImage:
    """Clean an image that has no annotation, such as one to predict on: rotated as a viewer shows it.

    Raises:
        DataError: the bytes are no image that can be used.
    """
    try:
        return clean_image(data, claimed=None, has_pixel_annotations=False)
    except Refused as refused:
        raise DataError(
            f"this image cannot be used ({refused.reason})",
            value=refused.detail,
            allowed=RULES[refused.reason],
            fix="save it again as an 8-bit RGB JPEG or PNG",
        ) from None


def clean_image(data: bytes, *, claimed: tuple[int, int] | None, has_pixel_annotations: bool) -> CleanImage:
    """Decode every pixel once and return bytes that need no special case downstream.

    Args:
        data: the file.
        claimed: (width, height) of the annotation, None if it claims none. Only used to understand an orientation
            tag; comparing sizes is the caller's.
        has_pixel_annotations: boxes or masks exist, so that pixels must not move unless `claimed` says so.

    Raises:
        Refused: the image cannot be used.
    """
    image, num_frames, orientation = _decode(data)
    kind = str(image.format)
    fixes: list[str] = []
    if num_frames > 1 and kind != "MPO":  # the further pictures of an MPO are previews; decoders ignore them
        fixes.append("first_frame")
    if kind not in ("JPEG", "MPO", "PNG"):
        fixes.append("reencoded_as_png")
    pixels = _eight_bits(image, data, fixes)
    encode = bool(fixes)
    if orientation in _UPRIGHT:
        width, height = image.size
        rotated = (height, width) if orientation >= 5 else (width, height)
        upright = not has_pixel_annotations if claimed is None else claimed != image.size and claimed == rotated
        if upright:
            pixels, encode = pixels.transpose(_UPRIGHT[orientation]), True
        fixes.append("exif_rotated" if upright else "exif_orientation_dropped")
        if not encode:
            data = _without_metadata(data)
    return CleanImage(
        data=_encode(pixels, kind) if encode else data,
        format="jpg" if kind in ("JPEG", "MPO") else "png",
        width=pixels.width,
        height=pixels.height,
        fixes=tuple(fixes),
    )


def _decode(data: bytes) -> tuple[Image.Image, int, int]:
    """Decoded image, number of frames, EXIF orientation (1 if none)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own size limit is below ours; damaged metadata is not our business
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        except UnidentifiedImageError:
            raise Refused("not_an_image", f"{len(data)} bytes starting with {data[:8]!r}") from None
        except Image.DecompressionBombError as error:
            raise Refused("too_many_pixels", str(error)) from error
        except Exception as error:  # a damaged header makes Pillow raise errors of a dozen types
            raise Refused("undecodable_image", repr(error)) from error
        if image.width * image.height > MAX_PIXELS:
            raise Refused("too_many_pixels", f"{image.width} x {image.height}")
        try:
            num_frames = int(getattr(image, "n_frames", 1))
            image.load()
        except Exception as error:  # as above
            reason = "truncated_image" if "truncated" in str(error).lower() else "undecodable_image"
            raise Refused(reason, repr(error)) from error
        if image.format == "PNG":
            _check_png_chunks(data)
        try:
            orientation = int(image.getexif().get(_ORIENTATION_TAG, 1))
        except Exception:  # EXIF that cannot be read rotates nothing
            orientation = 1
    return image, num_frames, orientation


def _check_png_chunks(data: bytes) -> None:
    """Refuse damage after the pixels' chunks, which Pillow forgives and OpenCV does not."""
    position, name = len(_PNG_SIGNATURE), b""
    while name != b"IEND":
        if position + 12 > len(data):
            raise Refused("truncated_image", "no IEND chunk")
        length, name = struct.unpack(">I4s", data[position : position + 8])
        body_end = position + 8 + length
        if body_end + 4 > len(data):
            raise Refused("truncated_image", f"chunk {name!r} ends early")
        if zlib.crc32(data[position + 4 : body_end]) != struct.unpack(">I", data[body_end : body_end + 4])[0]:
            raise Refused("undecodable_image", f"chunk {name!r} has a wrong checksum")
        position = body_end + 4


def _eight_bits(image: Image.Image, data: bytes, fixes: list[str]) -> Image.Image:
    """The image in mode RGB or L; names what had to be converted."""
    mode = image.mode
    if mode.startswith("I;16"):
        fixes.append("depth_16_to_8")
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.format == "PNG" and data[24] == 16:  # Pillow has already taken the high byte of 16-bit colour
        fixes.append("depth_16_to_8")
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or (mode == "P" and "transparency" in image.info):
        fixes.append("alpha_dropped")
    if mode in ("P", "PA"):
        fixes.append("palette_to_rgb")
    elif mode == "CMYK":
        fixes.append("cmyk_to_rgb")
    elif mode in ("1", "YCbCr", "LAB", "HSV"):
        fixes.append("colour_mode_converted")
    elif mode not in ("RGB", "L", "RGBA", "LA", "RGBa", "La"):
        raise Refused("unsupported_mode", mode)
    if mode in ("RGBa", "La"):  # premultiplied colours must be divided first
        image = image.convert("RGBA" if mode == "RGBa" else "LA")
    if mode == "P":
        image = image.convert("RGBA")  # straight to RGB would warn about transparency given as bytes
    return image.convert("L" if mode in ("L", "LA", "La", "1") else "RGB")


def _encode(image: Image.Image, kind: str) -> bytes:
    bare = Image.fromarray(np.asarray(image))  # leaves profiles, transparency and other metadata behind
    out = io.BytesIO()
    if kind in ("JPEG", "MPO"):
        bare.save(out, "JPEG", quality=95, subsampling=0)
    else:
        bare.save(out, "PNG", compress_level=6)
    return out.getvalue()


def _without_metadata(data: bytes) -> bytes:
    """The same JPEG or PNG without EXIF and XMP; the pixels' bytes are untouched."""
    return _png_without_metadata(data) if data.startswith(_PNG_SIGNATURE) else _jpeg_without_app1(data)


def _jpeg_without_app1(data: bytes) -> bytes:
    out, position = bytearray(data[:2]), 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker == 0xDA:  # start of scan: the rest is pixels
            break
        end = position + 2
        if not (marker == 0x01 or 0xD0 <= marker <= 0xD8):  # these have no length
            end += struct.unpack(">H", data[position + 2 : position + 4])[0]
        if marker != 0xE1:
            out += data[position:end]
        position = end
    return bytes(out) + data[position:]


def _png_without_metadata(data: bytes) -> bytes:
    out, position = bytearray(_PNG_SIGNATURE), len(_PNG_SIGNATURE)
    while position + 12 <= len(data):
        end = position + 12 + struct.unpack(">I", data[position : position + 4])[0]
        if data[position + 4 : position + 8] not in _PNG_METADATA:
            out += data[position:end]
        position = end
    return bytes(out)
