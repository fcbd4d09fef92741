"""Image files -> JPEG or PNG bytes that every decoder reads alike: 8 bits, RGB or grey, upright, one frame.

Files that already are so keep their bytes. An EXIF orientation tag turns the picture in viewers, and in some annotation
tools. `exif` says what the annotations were drawn on: `apply`, the turned picture; `ignore`, the stored pixels, so that
the tag is removed without touching pixels; `auto`, whichever has the annotation's width and height, else the stored.
"""

from __future__ import annotations

import base64
import io
import json
import os
import stat
import unicodedata
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from contracts.errors import DataError
from contracts.raw import ImagePart
from pipeline.ingest.door import jpeg, png
from pipeline.ingest.door.rules import RULES, Refused
from pipeline.ingest.door.shrink import Shrink
from pipeline.system.reading import check_folder, patiently

MAX_PIXELS = 50_000_000  # where nobody says otherwise; decoding takes up to 9 bytes a pixel
MAX_FILE_BYTES = 512 << 20
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")  # the JPEG reader opens MPO too
Exif = Literal["auto", "apply", "ignore"]
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


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanImage:
    """Encoded bytes and their format, the upright image's size in pixels (before it was shrunk), and the fixes.

    `stored` is (width, height) of the file's pixels, before they were turned.
    """

    data: bytes
    format: Literal["jpg", "png"]
    width: int
    height: int
    stored: tuple[int, int]
    fixes: tuple[str, ...] = ()


def read_bytes(
    path: Path, missing: str, root: Path | None = None, *, follow_links: bool = False, part: ImagePart | None = None
) -> bytes:
    """The bytes of a plain file, or of a part of it, of at most `MAX_FILE_BYTES`.

    Args:
        missing: the reason if there is none.
        root: the data set's folder, if it is known; no link leads out of it unless `follow_links`.

    Raises:
        Refused: the file is absent, too large or elsewhere.
        DataError: this host cannot read it, or does not have the data set's folder.
    """
    try:
        if root is not None and not follow_links and not _is_below(path, root):
            raise Refused("outside_folder", f"{path} is {os.path.realpath(path)}")
        return patiently(lambda: _read_plain(path, missing, part), path)
    except FileNotFoundError as error:
        if (other := other_form(path)) is not None:
            return read_bytes(other, missing, root, follow_links=follow_links, part=part)
        raise _absent(path, missing, root) from error
    except ValueError as error:  # a NUL byte in the name, or a character that no file name has
        raise Refused(missing, repr(str(path))) from error
    except OSError as error:  # one of `ABSENT`
        raise _absent(path, missing, root) from error


def _absent(path: Path, missing: str, root: Path | None) -> Refused:
    if root is not None:
        check_folder(root)
    return Refused(missing, str(path))


def other_form(path: Path) -> Path | None:
    """The file of the same name in Unicode's other form: macOS takes letters and their accents apart, others do not."""
    return next((form for form in other_forms(path) if os.path.exists(form)), None)


def other_forms(path: Path) -> list[Path]:
    """The same name as Unicode writes it otherwise."""
    name = str(path)
    forms = () if name.isascii() else (unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name))
    return [Path(form) for form in forms if form != name]


def _read_plain(path: Path, missing: str, part: ImagePart | None) -> bytes:
    with open(path, "rb", buffering=0, opener=_open_at_once) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise Refused(missing, str(path))
        size = status.st_size if part is None else part.size
        if size > MAX_FILE_BYTES:
            raise Refused("file_too_large", f"{size} bytes")
        if part is None:
            return file.read()
        data = os.pread(file.fileno(), size, part.offset)  # shorter where the file was cut: the decoder says so
    return from_base64(data) if part.is_base64 else data


def from_base64(data: bytes) -> bytes:
    """What stands between the quotes of a JSON text."""
    try:
        return base64.b64decode(json.loads(b'"' + data + b'"'))  # tools write line ends and slashes as escapes
    except ValueError as error:
        raise Refused("not_an_image", f"no base64: {error}") from error


def _is_below(path: Path, root: Path) -> bool:
    return os.path.realpath(path).startswith(os.path.join(os.path.realpath(root), ""))


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # or opening a pipe would wait for somebody to write


def upright_image(data: bytes, max_pixels: int = MAX_PIXELS) -> CleanImage:
    """Clean an image that has no annotation, such as one to predict on: rotated as a viewer shows it.

    Raises:
        DataError: the bytes are no image that can be used.
    """
    try:
        return clean_image(data, claimed=None, has_pixel_annotations=False, max_pixels=max_pixels)
    except Refused as refused:
        raise DataError(
            f"this image cannot be used: {RULES[refused.reason]}",
            value=refused.detail,
            fix="save it again as an 8-bit RGB JPEG or PNG",
        ) from None


def clean_image(
    data: bytes,
    *,
    claimed: tuple[int, int] | None,
    has_pixel_annotations: bool,
    shrink: Shrink | None = None,
    max_pixels: int = MAX_PIXELS,
    exif: Exif = "auto",
) -> CleanImage:
    """Prove that the file decodes, whole, and return bytes that need no special case downstream.

    Args:
        data: the file.
        claimed: (width, height) of the annotation, None if it claims none. Only used to understand an orientation
            tag; comparing sizes is the caller's.
        has_pixel_annotations: boxes or masks exist, so that pixels must not move unless `claimed` says so.
        shrink: how a large image is made smaller; None keeps it.
        max_pixels: what the header announces is compared with it before anything is decoded.
        exif: what an orientation tag means for the annotations.

    Raises:
        Refused: the image cannot be used.
    """
    image = _open(data, max_pixels)
    if shrink is not None and not shrink.applies(image.size):
        shrink = None
    plain = _plain_jpeg(image, data, shrink)
    if plain is not None:
        return plain
    kind = str(image.format)
    if kind in ("JPEG", "MPO"):
        jpeg.check_data(data)
    num_frames, orientation = _load(image, data)
    fixes: list[str] = []
    if num_frames > 1 and kind != "MPO":  # the further pictures of an MPO are previews; decoders ignore them
        fixes.append("first_frame")
    if kind not in ("JPEG", "MPO", "PNG") and shrink is None:
        fixes.append("reencoded_as_png")
    pixels = _eight_bits(image, data, fixes)
    encode = bool(fixes)
    if orientation in _UPRIGHT:
        upright, is_known = _drawn_upright(image.size, orientation, claimed, has_pixel_annotations, exif)
        if not is_known:
            fixes.append("exif_undecided")
        if upright:
            pixels, encode = pixels.transpose(_UPRIGHT[orientation]), True
        fixes.append("exif_rotated" if upright else "exif_orientation_dropped")
        if not encode:
            data = png.without_metadata(data) if kind == "PNG" else jpeg.without_app1(data)
    as_jpeg = kind in ("JPEG", "MPO")
    if shrink is not None:
        fixes.append("image_shrunk")
        data, as_jpeg = shrink.pixels(np.asarray(pixels)), True
    elif encode:
        data = _encode(pixels, kind)
    width, height = pixels.size
    return CleanImage(
        data=data, format="jpg" if as_jpeg else "png", width=width, height=height, stored=image.size, fixes=tuple(fixes)
    )


def _drawn_upright(
    size: tuple[int, int], orientation: int, claimed: tuple[int, int] | None, has_pixel_annotations: bool, exif: Exif
) -> tuple[bool, bool]:
    """Whether the annotations mean the upright picture, and whether that is known: a size tells where the two differ.

    Args:
        size: (width, height) of the stored pixels.
    """
    if exif != "auto":
        return exif == "apply", True
    rotated = size[::-1] if orientation >= 5 else size
    if claimed is None:
        return not has_pixel_annotations, not has_pixel_annotations
    return claimed == rotated != size, rotated != size or not has_pixel_annotations


def _plain_jpeg(image: Image.Image, data: bytes, shrink: Shrink | None) -> CleanImage | None:
    """The common case without Pillow's decoder: an upright RGB or grey JPEG without a flaw; None for all others.

    What fails here is judged by `jpeg.check_data` and Pillow. The other way round, Pillow took all that passes here of
    some 100,000 cut and damaged files.
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
            rows = simplejpeg.decode_jpeg(data, colours, min_height=1, min_width=1, strict=True)
            if rows.shape[:2] != (-(-height // 8), -(-width // 8)):  # two readings of one header
                return None
    except ValueError:
        return None
    jpeg.check_scans(data)
    return CleanImage(data=data, format="jpg", width=width, height=height, stored=image.size, fixes=fixes)


def _open(data: bytes, max_pixels: int) -> Image.Image:
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
        if image.width * image.height > max_pixels:
            raise Refused(
                "too_many_pixels", f"{image.width} x {image.height}, the limit is {max_pixels / 1e6:g} million"
            )
    return image


def _load(image: Image.Image, data: bytes) -> tuple[int, int]:
    """Decode the pixels; number of frames, and EXIF orientation (1 if none)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        try:
            num_frames = int(getattr(image, "n_frames", 1))
            if isinstance(image, TiffImageFile) and _last_row(image) < image.height:
                raise Refused("truncated_image", "its strips end before its last row")
            image.load()
        except Refused:
            raise
        except Exception as error:  # as above
            reason = "truncated_image" if "truncated" in str(error).lower() else "undecodable_image"
            raise Refused(reason, repr(error)) from error
        if image.format == "PNG":
            png.check_chunks(data)
            png.check_rows(image, data)
    return num_frames, _orientation(image)


def _last_row(image: TiffImageFile) -> int:
    """Where the lowest strip or tile ends; a tile without extents is all of the image."""
    return max(tile.extents[3] if tile.extents else image.height for tile in image.tile)


def _orientation(image: Image.Image) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return int(image.getexif().get(_ORIENTATION_TAG, 1))
        except Exception:  # EXIF that cannot be read rotates nothing
            return 1


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


def jpeg_of(data: bytes, fixes: list[str]) -> bytes:
    """A clean PNG as a JPEG, as the frames of a clip are stored."""
    fixes.append("frame_to_jpeg")
    return _encode(Image.open(io.BytesIO(data)), "JPEG")


def _encode(image: Image.Image, kind: str) -> bytes:
    bare = Image.fromarray(np.asarray(image))  # leaves profiles, transparency and other metadata behind
    out = io.BytesIO()
    if kind in ("JPEG", "MPO"):
        bare.save(out, "JPEG", quality=95, subsampling=0)
    else:
        bare.save(out, "PNG", compress_level=6)
    return out.getvalue()
