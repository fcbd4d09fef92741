"""Image files -> JPEG or PNG bytes that every decoder reads alike: 8 bits, RGB or grey, upright, one frame.

Files that already are so keep their bytes. Annotations are taken to be in the coordinates of the stored pixels where
their width and height say so; an EXIF orientation tag is then wrong for them and is removed without touching pixels.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from contracts.errors import DataError
from pipeline.door.rules import RULES, Refused
from pipeline.door.shrink import Shrink

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
    """Encoded bytes and their format, the upright image's size in pixels (before it was shrunk), and the fixes."""

    data: bytes
    format: Literal["jpg", "png"]
    width: int
    height: int
    fixes: tuple[str, ...] = ()


def read_bytes(path: Path, missing: str) -> bytes:
    """The bytes of a plain file of at most `MAX_FILE_BYTES`; `missing` is the reason if there is none."""
    try:
        with open(path, "rb", buffering=0, opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise Refused(missing, str(path))
            if status.st_size > MAX_FILE_BYTES:
                raise Refused("file_too_large", f"{status.st_size} bytes")
            return file.read()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise Refused(missing, str(path)) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        raise Refused("unreadable_file", str(error)) from error


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # or opening a pipe would wait for somebody to write


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


def clean_image(
    data: bytes, *, claimed: tuple[int, int] | None, has_pixel_annotations: bool, shrink: Shrink | None = None
) -> CleanImage:
    """Prove that the file decodes and return bytes that need no special case downstream.

    Args:
        data: the file.
        claimed: (width, height) of the annotation, None if it claims none. Only used to understand an orientation
            tag; comparing sizes is the caller's.
        has_pixel_annotations: boxes or masks exist, so that pixels must not move unless `claimed` says so.
        shrink: how a large image is made smaller; None keeps it.

    Raises:
        Refused: the image cannot be used.
    """
    image = _open(data)
    if shrink is not None and not shrink.applies(image.size):
        shrink = None
    plain = _plain_jpeg(image, data, shrink)
    if plain is not None:
        return plain
    num_frames, orientation = _load(image, data)
    kind = str(image.format)
    fixes: list[str] = []
    if num_frames > 1 and kind != "MPO":  # the further pictures of an MPO are previews; decoders ignore them
        fixes.append("first_frame")
    if kind not in ("JPEG", "MPO", "PNG") and shrink is None:
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
    jpeg = kind in ("JPEG", "MPO")
    if shrink is not None:
        fixes.append("image_shrunk")
        data, jpeg = shrink.pixels(np.asarray(pixels)), True
    elif encode:
        data = _encode(pixels, kind)
    return CleanImage(
        data=data, format="jpg" if jpeg else "png", width=pixels.width, height=pixels.height, fixes=tuple(fixes)
    )


def _plain_jpeg(image: Image.Image, data: bytes, shrink: Shrink | None) -> CleanImage | None:
    """The common case without Pillow's decoder: an upright RGB or grey JPEG without a flaw; None for all others.

    Pillow forgives some of what the strict decoder does not, so what fails here is Pillow's to judge. The other way
    round, Pillow took all that passes here of some 100,000 cut and damaged files.
    """
    if image.format != "JPEG" or image.mode not in ("RGB", "L") or _orientation(image) in _UPRIGHT:
        return None
    width, height = image.size
    fixes: tuple[str, ...] = ()
    try:
        if shrink is not None:
            data, fixes = shrink.jpeg(data, image.size, is_grey=image.mode == "L"), ("image_shrunk",)
        else:  # at an eighth of the size all bits are still read, but few pixels made
            colours = "gray" if image.mode == "L" else "rgb"
            simplejpeg.decode_jpeg(data, colours, min_height=1, min_width=1, strict=True)
    except ValueError:
        return None
    return CleanImage(data=data, format="jpg", width=width, height=height, fixes=fixes)


def _open(data: bytes) -> Image.Image:
    """The image with its header read, and no pixel."""
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
    return image


def _load(image: Image.Image, data: bytes) -> tuple[int, int]:
    """Decode the pixels; number of frames, and EXIF orientation (1 if none)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        try:
            num_frames = int(getattr(image, "n_frames", 1))
            image.load()
        except Exception as error:  # as above
            reason = "truncated_image" if "truncated" in str(error).lower() else "undecodable_image"
            raise Refused(reason, repr(error)) from error
        if image.format == "PNG":
            _check_png_chunks(data)
    return num_frames, _orientation(image)


def _orientation(image: Image.Image) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return int(image.getexif().get(_ORIENTATION_TAG, 1))
        except Exception:  # EXIF that cannot be read rotates nothing
            return 1


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
