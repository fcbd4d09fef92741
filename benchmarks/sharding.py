"""Writing shards, and making images smaller on the way, beside GNU tar, WebDataset, Pillow and OpenCV.

2,000 JPEGs with annotations, from the page cache to memory: any disk would be the slowest part. One process is measured
in processor seconds, its own and its children's, which neighbours hardly move: the median of its turns. Two processes
against one take wall-clock seconds and need both cores free: the best of their turns. All contenders take turns.
"""

from __future__ import annotations

import hashlib
import io
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

import cv2
import numpy as np
import orjson
from PIL import Image

from benchmarks import Figure
from benchmarks._corpus import CLASSES, SHARD_SAMPLES, corpus, scratch_folder
from pipeline.ingest.door import Shrink, admit
from pipeline.ingest.door.images import clean_image, read_bytes
from pipeline.shards.manifest import END_BYTES
from pipeline.shards.samples import tar_member, write_pieces
from pipeline.shards.writing import write_shard

ROUNDS, DOOR_ROUNDS = 7, 3
NUM_SMALLER = 400
SHRINK = Shrink(short_side=256, quality=95)
Times = dict[str, tuple[float, float]]  # of each contender: processor seconds (median), wall-clock seconds (best)


def measure() -> list[Figure]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ShardWriter leaves files open
        return [*_writing(), *_making_smaller()]


@cache
def _annotations() -> list[bytes]:
    records = [admit(raw, CLASSES).record for raw in corpus().raws]
    return [record.annotation_json() for record in records if record is not None]


def _writing() -> list[Figure]:
    annotations = _annotations()
    jpegs = sum(path.stat().st_size for path in corpus().paths)
    size = (jpegs + sum(map(len, annotations))) / 1e9
    starts = range(0, len(annotations), SHARD_SAMPLES)
    with _scratch() as folder, ProcessPoolExecutor(2) as pool:
        list(pool.map(time.sleep, [0.1, 0.1]))  # both have started
        times = _in_turns(
            {
                "tar": lambda: _gnu_tar(folder),
                "webdataset": lambda: _webdataset(folder),
                "plain": lambda: [_ours(folder, start) for start in starts],
                "digest": lambda: [_ours(folder, start, digest=True) for start in starts],
                "checked": lambda: [_ours(folder, start, digest=True, check=True) for start in starts],
                "two": lambda: list(pool.map(partial(_ours, folder), starts)),
            },
            ROUNDS,
            folder,
        )
        door = _in_turns({"door": lambda: [_through_the_door(folder, start) for start in starts]}, DOOR_ROUNDS, folder)
        _assert_equal_bytes(folder)
    one, wall = {name: cpu / size for name, (cpu, _) in (times | door).items()}, times["plain"][1] / size
    tar = times["tar"][0] / (jpegs / 1e9)  # it has no annotations to write
    two = times["two"][1] / size

    def figure(what: str, value: float, beside: str, other: float, goal: str = "") -> Figure:
        rates = f"{1e3 / value:.0f} beside {1e3 / other:.0f} MB/s"
        return Figure(what=f"{what}: {rates}", value=value, unit="s/GB", beside=beside, other=other, goal=goal)

    writer = one["webdataset"]
    return [
        figure("our writer, no digest", one["plain"], "GNU tar, images alone", tar, "ratio >= 1.0"),
        figure("our writer, no digest", one["plain"], "webdataset.ShardWriter", writer, "ratio >= 2.5"),
        figure("our writer, sha256 of each shard", one["digest"], "webdataset.ShardWriter", writer),
        figure("the same, and each JSON parsed", one["checked"], "webdataset.ShardWriter", writer, "ratio >= 1.3"),
        figure("our writer, no digest, two processes (wall)", two, "one process (wall)", wall, "ratio >= 1.2"),
        figure("write_shard: door, digest, index", one["door"], "webdataset.ShardWriter", writer),
    ]


def _ours(folder: Path, start: int, *, digest: bool = False, check: bool = False) -> int:
    """The shard's size in bytes."""
    sha256 = hashlib.sha256()
    made, annotations = corpus(), _annotations()
    size = 0
    with open(folder / f"ours-{start:06d}.tar", "wb", buffering=0) as file:
        for i in range(start, min(start + SHARD_SAMPLES, len(annotations))):
            if check:
                orjson.loads(annotations[i])
            key = made.keys[i]
            image = read_bytes(made.paths[i], "missing_image")
            pieces = [*tar_member(f"{key}.jpg", image), *tar_member(f"{key}.json", annotations[i])]
            size += write_pieces(file.fileno(), pieces)
            if digest:
                for piece in pieces:
                    sha256.update(piece)
        return size + write_pieces(file.fileno(), [bytes(END_BYTES)])


def _through_the_door(folder: Path, start: int) -> str:
    """The shard's sha256."""
    shard = write_shard(corpus().raws[start : start + SHARD_SAMPLES], CLASSES, folder, f"door-{start:06d}.tar").shard
    assert shard is not None
    return shard["sha256"]


def _assert_equal_bytes(folder: Path) -> None:
    digest = _through_the_door(folder, 0)
    _ours(folder, 0)
    written = [(folder / f"{name}-{0:06d}.tar").read_bytes() for name in ("ours", "door")]
    if written[0] != written[1] or digest != _through_the_door(folder, 0):
        raise AssertionError("equal samples gave tars of other bytes")


def _gnu_tar(folder: Path) -> None:
    made = corpus().folder
    subprocess.run(["tar", "--format=ustar", "-cf", str(folder / "gnu.tar"), "-C", str(made), "."], check=True)


def _webdataset(folder: Path) -> None:
    import webdataset

    made = corpus()
    with webdataset.ShardWriter(str(folder / "wds-%06d.tar"), maxcount=SHARD_SAMPLES, verbose=0) as writer:
        for key, path, annotation in zip(made.keys, made.paths, _annotations(), strict=True):
            writer.write({"__key__": key, "jpg": path.read_bytes(), "json": annotation})


def _making_smaller() -> list[Figure]:
    paths = corpus().paths[:NUM_SMALLER]
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with _scratch() as folder, ProcessPoolExecutor(2) as pool:
            list(pool.map(time.sleep, [0.1, 0.1]))
            times = _in_turns(
                {
                    "ours": lambda: [_smaller(path) for path in paths],
                    "pillow": lambda: [_smaller_by_pillow(path) for path in paths],
                    "opencv": lambda: [_smaller_by_opencv(path) for path in paths],
                    "two": lambda: list(pool.map(_smaller, paths, chunksize=10)),
                },
                ROUNDS,
                folder,
            )
    finally:
        cv2.setNumThreads(threads)
    milliseconds = {name: tuple(1e3 * t / len(paths) for t in pair) for name, pair in times.items()}

    def figure(what: str, value: float, beside: str, other: float, goal: str) -> Figure:
        rates = f"{1e3 / value:.0f} beside {1e3 / other:.0f} img/s"
        return Figure(what=f"{what}: {rates}", value=value, unit="ms", beside=beside, other=other, goal=goal)

    what = f"short side {SHRINK.short_side}, quality {SHRINK.quality}, 4:2:0, an image"
    cpu, wall = milliseconds["ours"]
    return [
        figure(what, cpu, "Pillow: open, LANCZOS, save", milliseconds["pillow"][0], "ratio >= 1.5"),
        figure(what, cpu, "OpenCV: imdecode, area, imencode", milliseconds["opencv"][0], "ratio >= 1.0"),
        figure(f"{what}, two processes (wall)", milliseconds["two"][1], "one process (wall)", wall, "ratio >= 1.85"),
    ]


def _smaller(path: Path) -> int:
    """Bytes of the smaller image, as each of the three returns."""
    data = read_bytes(path, "missing_image")
    return len(clean_image(data, claimed=None, has_pixel_annotations=True, shrink=SHRINK).data)


def _smaller_by_pillow(path: Path) -> int:
    image, out = Image.open(path), io.BytesIO()
    image.resize(SHRINK.size(image.size), Image.Resampling.LANCZOS).save(out, "JPEG", quality=SHRINK.quality)
    return len(out.getvalue())


def _smaller_by_opencv(path: Path) -> int:
    image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    small = cv2.resize(image, SHRINK.size((image.shape[1], image.shape[0])), interpolation=cv2.INTER_AREA)
    return len(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, SHRINK.quality])[1].tobytes())


def _in_turns(contenders: dict[str, Callable[[], object]], rounds: int, folder: Path) -> Times:
    """Each contender runs once a round, into an empty `folder`."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            cpu, wall = _processor_seconds(), time.perf_counter()
            run()
            taken[name].append((_processor_seconds() - cpu, time.perf_counter() - wall))
            for path in folder.iterdir():
                path.unlink()
    return {
        name: (statistics.median(cpu for cpu, _ in turns), min(wall for _, wall in turns))
        for name, turns in taken.items()
    }


def _processor_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


@contextmanager
def _scratch() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="sightline-bench-", dir=scratch_folder()))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
