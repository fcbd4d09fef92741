"""2,000 JPEGs of COCO's sizes, codings and weight with annotations, made once from the photographs of ../shared.

Real COCO does not come with the project. Each image is one of its photographs, cropped, resized, flipped and tinted,
with a second one in a corner of it; objects and captions are as many as COCO's. Everything depends on the image's
number alone, so figures of two days can be compared.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from contracts.errors import DataError
from contracts.raw import RawObject, RawRecord
from contracts.records import Caption
from pipeline.ingest.door import DoorConfig, Shrink
from pipeline.shards.manifest import load_manifest, shard_name, write_manifest
from pipeline.shards.writing import split_manifest, write_shard

ROOT = Path(__file__).resolve().parents[1]
NUM_IMAGES, SHARD_SAMPLES, NUM_CLASSES, SEED = 2000, 128, 80, 7
MADE_AS = "sightline-corpus-2"  # another number after a change: the folder is a cache
SIZES = ((640, 480), (640, 427), (480, 640), (427, 640))  # width, height
SIZE_SHARES = (0.45, 0.3, 0.15, 0.1)
# JPEG settings and their shares: 4:4:4 quality 95, 4:2:0 quality 90, and few progressive ones; 1 % of all are grey.
Q95 = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
Q90 = [cv2.IMWRITE_JPEG_QUALITY, 90, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
CODINGS = ((0.67, Q95), (0.30, Q90), (0.03, [*Q95, cv2.IMWRITE_JPEG_PROGRESSIVE, 1]))
CLASSES = tuple(f"class {i:02d}" for i in range(1, NUM_CLASSES + 1))
GRAIN = 3.0  # grey levels; resizing smooths, and without it the files are a sixth lighter than COCO's
WORDS = (
    "a the of on in with and two man woman dog cat street table red blue green large small sitting standing riding "
    "holding plate food train bus water grass field room window kitchen"
)


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """The images and what is known of them, item i of each list being of one image, in ascending order of key."""

    folder: Path
    keys: list[str]
    paths: list[Path]
    captions: list[list[str]]
    raws: list[RawRecord]


@cache
def corpus() -> Corpus:
    """The corpus, its images made on the first call on this machine (about half a minute).

    Raises:
        FileNotFoundError: the photographs are not there.
    """
    folder = scratch_folder() / MADE_AS
    if not folder.is_dir():
        _make_images(folder)
    raws = [_raw(i, folder) for i in range(NUM_IMAGES)]
    return Corpus(
        folder=folder,
        keys=[raw.key for raw in raws],
        paths=[raw.image for raw in raws],
        captions=[[caption.text for caption in raw.captions] for raw in raws],
        raws=raws,
    )


def shard_corpus(folder: Path, shrink: Shrink | None = None) -> Path:
    """Data set "corpus" as shards in `folder`, with manifest: all images are split "train".

    Args:
        shrink: how large images are made smaller; None keeps them.

    Returns:
        `folder`; what is whole there already stays.
    """
    with suppress(DataError):  # none there yet, or of an older schema
        load_manifest(folder)
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    raws = corpus().raws
    chunks = [raws[i : i + SHARD_SAMPLES] for i in range(0, len(raws), SHARD_SAMPLES)]
    results = [
        write_shard(chunk, CLASSES, folder, shard_name("corpus", "train", i), DoorConfig(shrink=shrink))
        for i, chunk in enumerate(chunks)
    ]
    entries = {"train": split_manifest(results, [])}
    write_manifest(folder, "corpus", CLASSES, entries, shrink=asdict(shrink) if shrink else None)
    return folder


def scratch_folder() -> Path:
    """Memory where the system has a file system of it: a disk would hide all differences."""
    memory = Path("/dev/shm")
    return memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())


def _make_images(folder: Path) -> None:
    shared = Path(os.environ.get("SIGHTLINE_SHARED", ROOT.parent / "shared"))
    photographs = sorted((shared / "data/coco_real/images").glob("*/*.jpg"))
    if not photographs:
        raise FileNotFoundError(f"no photographs below {shared}/data/coco_real (SIGHTLINE_SHARED names another folder)")
    part = Path(tempfile.mkdtemp(prefix=f"{MADE_AS}.", dir=folder.parent))
    try:
        with ProcessPoolExecutor(2) as pool:
            numbers = range(NUM_IMAGES)
            for _ in pool.map(_make_image, numbers, [photographs] * len(numbers), [part] * len(numbers), chunksize=50):
                pass
        os.replace(part, folder)
    except BaseException:
        shutil.rmtree(part)
        raise


def _make_image(number: int, photographs: list[Path], folder: Path) -> None:
    rng = np.random.default_rng((SEED, number))
    width, height = _size(number)
    pixels = _crop(photographs, width, height, rng)
    inner_width, inner_height = int(width * rng.uniform(0.3, 0.5)), int(height * rng.uniform(0.3, 0.5))
    top, left = rng.choice([0, height - inner_height]), rng.choice([0, width - inner_width])
    inner = _crop(photographs, inner_width, inner_height, rng)
    pixels[top : top + inner_height, left : left + inner_width] = inner
    tint = rng.uniform(0.85, 1.1, 3)
    grain = rng.standard_normal((height, width, 1), np.float32) * GRAIN
    pixels = np.clip(pixels * tint + grain, 0, 255).astype(np.uint8)
    if rng.random() < 0.01:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
    coding = CODINGS[rng.choice(len(CODINGS), p=[share for share, _ in CODINGS])][1]
    done, data = cv2.imencode(".jpg", pixels, coding)
    assert done
    (folder / f"{number:012d}.jpg").write_bytes(data.tobytes())


def _crop(photographs: list[Path], width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """(height, width, 3) uint8: nearly all of a photograph, or its mirror image, antialiased where it shrinks."""
    photograph = cv2.imread(str(photographs[rng.integers(len(photographs))]), cv2.IMREAD_COLOR)
    assert photograph is not None
    full_height, full_width = photograph.shape[:2]
    share = rng.uniform(0.8, 1.0)
    scale = min(full_width / width, full_height / height) * share
    crop_width, crop_height = int(width * scale), int(height * scale)
    x, y = rng.integers(full_width - crop_width + 1), rng.integers(full_height - crop_height + 1)
    crop = photograph[y : y + crop_height, x : x + crop_width]
    resized = cv2.resize(crop, (width, height), interpolation=cv2.INTER_AREA if scale > 1 else cv2.INTER_CUBIC)
    return resized[:, ::-1].copy() if rng.random() < 0.5 else resized


def _size(number: int) -> tuple[int, int]:
    """Width and height of an image."""
    return SIZES[np.random.default_rng((SEED, number, 1)).choice(len(SIZES), p=SIZE_SHARES)]


def _raw(number: int, folder: Path) -> RawRecord:
    """Seven objects and five captions on average: polygons with 8 to 40 corners, 1 % crowds as run lengths."""
    rng = np.random.default_rng((SEED, number, 2))
    width, height = _size(number)
    key = f"{number:012d}"
    objects = tuple(_object(1 + 100 * number + i, width, height, rng) for i in range(rng.poisson(7.3)))
    captions = tuple(
        Caption(caption_id=1 + 5 * number + i, text=" ".join(rng.choice(WORDS.split(), rng.integers(8, 14))))
        for i in range(5)
    )
    return RawRecord(
        key=key,
        image_id=number + 1,
        image=folder / f"{key}.jpg",
        annotation_file="corpus",
        width=width,
        height=height,
        objects=objects,
        captions=captions,
    )


def _object(number: int, width: int, height: int, rng: np.random.Generator) -> RawObject:
    corners = int(rng.integers(8, 41))
    radius = min(width, height) * rng.uniform(0.03, 0.3) * rng.uniform(0.6, 1.0, corners)
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    x = np.clip(rng.uniform(0.1, 0.9) * width + radius * np.cos(angle), 0, width).round(2)
    y = np.clip(rng.uniform(0.1, 0.9) * height + radius * np.sin(angle), 0, height).round(2)
    polygon = [np.stack([x, y], 1).ravel().tolist()]
    is_crowd = bool(rng.random() < 0.01)
    segmentation: Any = polygon
    if is_crowd:
        rle = coco_mask.frPyObjects(polygon, height, width)[0]
        segmentation = {"size": [height, width], "counts": rle["counts"].decode()}
    return RawObject(
        object_id=str(number),
        category=CLASSES[rng.integers(NUM_CLASSES)],
        box=(float(x.min()), float(y.min()), float(x.max()), float(y.max())),
        segmentation=segmentation,
        is_crowd=is_crowd,
    )
