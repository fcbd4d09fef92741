"""Masks: polygons, run lengths and id images, checked in Python before any native code sees them.

Run lengths are COCO's: column by column, starting with background. The compressed code writes each run as groups of
five bits, low first, in characters from "0" on; bit 6 says that another group follows, and from the fourth run on the
difference to the run before the last is written (pycocotools `rleToString`).
"""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from contracts.raw import Color
from contracts.records import IGNORE_INDEX
from pipeline.ingest.door.images import FORMATS, MAX_PIXELS
from pipeline.ingest.door.png import check_rows
from pipeline.ingest.door.polygons import usable_polygons
from pipeline.ingest.door.rules import Refused

_GROUPS_MAX = 7  # 35 bits: more than any run of an image of MAX_PIXELS needs


def segmentation_to_counts(segmentation: Any, height: int, width: int, fixes: Counter[str] | None = None) -> str:
    """A COCO segmentation as compressed run lengths; "" for none.

    Args:
        fixes: what is changed is counted.

    Raises:
        Refused: polygons or run lengths that cannot be this image's.
    """
    if segmentation is None or segmentation == []:
        return ""
    if isinstance(segmentation, Mapping):
        return _rle_to_counts(segmentation, height, width)
    if isinstance(segmentation, list):
        polygons = usable_polygons(segmentation, height, width, Counter() if fixes is None else fixes)
        if not polygons:
            return ""
        # Of a list, pycocotools reads entries of four numbers as boxes; those are none of these.
        return coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))["counts"].decode()
    raise Refused("bad_segmentation", type(segmentation).__name__)


def counts_area_and_box(counts: str, height: int, width: int) -> tuple[float, tuple[float, float, float, float]]:
    """Pixels of a mask, and its extent (x1, y1, x2, y2). Counts must have passed `segmentation_to_counts`."""
    rle = {"size": [height, width], "counts": counts.encode()}
    x, y, w, h = (float(v) for v in coco_mask.toBbox(rle))
    return float(coco_mask.area(rle)), (x, y, x + w, y + h)


def binary_to_counts(pixels: np.ndarray) -> str:
    """(H, W) bool -> compressed run lengths; "" without a pixel."""
    if not pixels.any():
        return ""
    return coco_mask.encode(np.asfortranarray(pixels, np.uint8))["counts"].decode()


def _rle_to_counts(rle: Mapping[str, Any], height: int, width: int) -> str:
    if rle.get("size") not in ([height, width], None):  # null says nothing; the sum of the runs is compared below
        raise Refused("rle_size_mismatch", f"{rle.get('size')!r}, the image is {[height, width]}")
    counts = rle.get("counts")
    if isinstance(counts, str):
        runs = _decompressed(counts, height * width)
    elif isinstance(counts, list) and all(isinstance(run, int) and not isinstance(run, bool) for run in counts):
        runs = counts
    else:
        raise Refused("rle_bad_counts", type(counts).__name__)
    if min(runs, default=0) < 0:
        raise Refused("rle_negative_run", str(min(runs)))
    if sum(runs) != height * width:
        raise Refused("rle_bad_sum", f"{sum(runs)}, height x width is {height * width}")
    if isinstance(counts, str):
        return counts
    return coco_mask.frPyObjects({"size": [height, width], "counts": runs}, height, width)["counts"].decode()


def _decompressed(text: str, num_pixels: int) -> list[int]:
    """Run lengths of COCO's compressed code."""
    runs: list[int] = []
    value = group = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or group == _GROUPS_MAX:
            raise Refused("rle_bad_counts", f"character {character!r} in run {len(runs)}")
        value |= (bits & 0x1F) << (5 * group)
        group += 1
        if bits & 0x20:
            continue
        if bits & 0x10:  # the sign bit of the last group
            value -= 1 << (5 * group)
        run = value + (runs[-2] if len(runs) > 2 else 0)
        if run > num_pixels:
            raise Refused("rle_bad_sum", f"run {len(runs)} is {run}, height x width is {num_pixels}")
        runs.append(run)
        value = group = 0
    if group:
        raise Refused("rle_bad_counts", "the text ends inside a run")
    return runs


def open_ids(data: bytes, max_pixels: int = MAX_PIXELS, *, colors: bool = False) -> Image.Image:
    """A palette, grey or bilevel PNG with its header read, and no pixel; with `colors` also one in RGB.

    Raises:
        Refused: no such image, or one with more pixels than `max_pixels`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own size limit; ours is checked here
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        except Image.DecompressionBombError as error:
            raise Refused("too_many_pixels", str(error)) from error
        except Exception as error:  # a damaged file makes Pillow raise errors of a dozen types
            raise Refused("broken_mask", repr(error)) from error
    if image.format != "PNG":
        raise Refused("mask_not_png", f"a {image.format} file")
    if image.width * image.height > max_pixels:
        raise Refused("too_many_pixels", f"{image.width} x {image.height}, the limit is {max_pixels / 1e6:g} million")
    if image.mode not in ("P", "L", "1", "I;16", "I") and not (colors and image.mode in ("RGB", "RGBA")):
        raise Refused("mask_not_indexed", f"mode {image.mode}")
    return image


def load_ids(image: Image.Image, data: bytes) -> np.ndarray:
    """(H, W) uint16 ids of what `open_ids` opened of `data`.

    Raises:
        Refused: the pixels are damaged, or not all there.
    """
    _load(image, data)
    ids = np.asarray(image)
    if image.mode == "L":
        ids = ids // np.uint8({2: 85, 4: 17}.get(data[24], 1))  # Pillow stretches 2- and 4-bit grey to 0..255
    if image.mode == "I" and (ids.min() < 0 or ids.max() > 0xFFFF):
        raise Refused("mask_unknown_label", f"values from {ids.min()} to {ids.max()}")
    return ids.astype(np.uint16)


def load_colors(image: Image.Image, data: bytes, colors: Mapping[Color, int]) -> np.ndarray:
    """(H, W) uint8 labels of a PNG whose colours, stored or of its palette, stand for labels.

    Raises:
        Refused: the pixels are damaged, or have a colour that `colors` does not know.
    """
    _load(image, data)
    pixels = np.asarray(image.convert("RGB")).astype(np.uint32)
    codes, places = np.unique(pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2], return_inverse=True)
    found = [(code >> 16, code >> 8 & 255, code & 255) for code in codes.tolist()]
    if unknown := [color for color in found if color not in colors]:
        raise Refused("mask_unknown_color", f"{len(unknown)} colours, such as {unknown[:5]}")
    return np.array([colors[color] for color in found], np.uint8)[places].reshape(pixels.shape[:2])


def _load(image: Image.Image, data: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        try:
            image.load()
            check_rows(image, data)
        except Exception as error:  # as above
            raise Refused("broken_mask", repr(error)) from error


def decode_ids(data: bytes) -> np.ndarray:
    """(H, W) uint16 ids of a palette, grey or bilevel PNG.

    Raises:
        Refused: no such image.
    """
    return load_ids(open_ids(data), data)


def ids_to_labels(ids: np.ndarray, num_classes: int, label_map: Mapping[int, int] | None) -> np.ndarray:
    """(H, W) ids -> (H, W) uint8 labels: 0 background, 1..C, 255 ignore.

    Raises:
        Refused: an id that is neither.
    """
    identity = {**{i: i for i in range(min(num_classes, IGNORE_INDEX - 1) + 1)}, IGNORE_INDEX: IGNORE_INDEX}
    table = np.full(1 << 16, -1, np.int16)
    for file_value, label in (identity if label_map is None else label_map).items():
        table[file_value] = label if label in identity else -1
    labels = table[ids]
    unknown = labels < 0
    if unknown.any():
        values = np.unique(ids[unknown])[:8].tolist()
        raise Refused("mask_unknown_label", f"{int(unknown.sum())} pixels with values {values}, {num_classes} classes")
    return labels.astype(np.uint8)


def encode_labels(labels: np.ndarray) -> bytes:
    """(H, W) uint8 -> an 8-bit grey PNG; equal labels give equal bytes."""
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(labels)).save(out, "PNG", compress_level=6)
    return out.getvalue()
