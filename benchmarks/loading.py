"""One epoch of photographs with captions, shuffled, cropped at random, mirrored and resized, by two loader processes.

All contenders read the same 2,000 JPEGs of COCO's size from memory in batches of 32, one thread a process, and keep
on average about 56 % of an image's area. The anchor, "decoding alone", decodes each file whole with the decoder and
the flags that ours uses: simplejpeg, accurate DCT, smooth chroma upsampling. Ours decodes at half the size where that
is no smaller than the output; it and `webdataset + OpenCV` resize bilinearly without antialiasing, torchvision's
pipeline with it. uint8 batches are normalised on the device, float ones by our model's first layer, on the processor.

What is compared is processor time of all processes, which a shared machine's other work changes less than wall-clock
time; forked workers, so that imports are not in it.
"""

from __future__ import annotations

import json
import os
import statistics
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
import torch
import webdataset as wds
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision.datasets import CocoCaptions
from torchvision.transforms import v2

from benchmarks import Figure
from benchmarks._corpus import CLASSES, Corpus, corpus, scratch_folder, shard_corpus
from contracts.records import DataSpec
from lightning_modules.augment.augment import AugmentConfig
from lightning_modules.blocks.pixels import IMAGENET_MEAN, IMAGENET_STD, PixelNorm
from lightning_modules.tasks.captioning import CaptioningConfig, Task
from pipeline.ingest.door import Shrink
from pipeline.loading.batch_memory import keep_freed_memory
from pipeline.loading.datamodule import TarDataModule
from pipeline.settings.sections import LoaderConfig

BATCH, WORKERS, REPEATS = 32, 2, 5
LARGEST_CUT = 0.25  # of a side, at each end: 56 % of the area is left on average
CROP_AREA, CROP_RATIO = (0.25, 0.87), (0.75, 1.33)  # as much, for torchvision


def measure() -> list[Figure]:
    data = corpus()
    folder = shard_corpus(scratch_folder() / f"{data.folder.name}-shards")
    smaller = shard_corpus(scratch_folder() / f"{data.folder.name}-shards-320", Shrink(short_side=320, quality=90))
    annotations = _coco_json(data, folder / "captions.json")
    figures = []
    for size, goals in GOALS.items():
        contenders: dict[str, Callable[[], Iterator[int]]] = {
            "uint8": partial(_ours, folder, data, size, normalised=False),
            "float": partial(_ours, folder, data, size, normalised=True),
            SMALLER: partial(_ours, smaller, data, size, normalised=False),
            DECODING: partial(_decode_alone, data.paths),
            CANONICAL: partial(_canonical, data.folder, annotations, size),
            WEBDATASET: partial(_webdataset, folder, size),
        }
        timings: dict[str, list[Timing]] = {name: [] for goal in goals for name in goal[:2]}
        for _ in range(REPEATS):
            for name, repeats in timings.items():
                repeats.append(_time(contenders[name]))
        for ours, other, goal in goals:
            mine, theirs = (statistics.median(t.cpu_ms for t in timings[name]) for name in (ours, other))
            what = f"loading at {size}, {ours} batches: processor time of a sample"
            figures.append(Figure(what=what, value=mine, unit="ms", beside=other, other=theirs, goal=goal))
        mine, theirs = (statistics.median(t.first_s for t in timings[name]) for name in ("float", CANONICAL))
        what = f"loading at {size}: wall-clock time to the first batch"
        figures.append(Figure(what=what, value=mine, beside=CANONICAL, other=theirs, goal="ratio >= 1.67"))
    return figures


DECODING, CANONICAL, WEBDATASET = "decoding alone", "CocoCaptions + v2, float", "webdataset + OpenCV, float"
SMALLER = "uint8, from shards of short side 320 and quality 90,"
GOALS = {
    224: [
        ("uint8", DECODING, "ratio >= 0.85"),
        ("float", DECODING, "ratio >= 0.75"),
        (SMALLER, DECODING, ""),
        (SMALLER, CANONICAL, "ratio >= 6.0"),
        ("float", CANONICAL, "ratio >= 2.0"),
        ("float", WEBDATASET, "ratio >= 1.4"),
    ],
    640: [
        ("uint8", DECODING, "ratio >= 0.58"),
        ("uint8", CANONICAL, "ratio >= 5.5"),
        ("float", CANONICAL, "ratio >= 2.8"),
        ("float", WEBDATASET, ""),
    ],
}


@dataclass(frozen=True)
class Timing:
    cpu_ms: float  # of all processes, a sample
    first_s: float


def _time(run: Callable[[], Iterator[int]]) -> Timing:
    """Run in a forked process, whose time and whose children's the system then knows apart. `run` yields the sizes of
    its batches and has ended its workers when it ends."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            torch.set_num_threads(1)
            cv2.setNumThreads(0)
            start, first, seen = time.perf_counter(), 0.0, 0
            for count in run():
                first = first or time.perf_counter() - start
                seen += count
            os.write(write, f"{seen} {first}".encode())
            status = 0
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(write)
    _, status, usage = os.wait4(pid, 0)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    if status:
        raise RuntimeError("a contender failed")
    seen, first = text.split()
    return Timing((usage.ru_utime + usage.ru_stime) / int(seen) * 1000, float(first))


def _init_worker(_: int) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(0)


# the contenders


def _ours(folder: Path, data: Corpus, size: int, *, normalised: bool) -> Iterator[int]:
    """The captioning task's own examples, through the data module."""
    words = sorted({word for texts in data.captions for text in texts for word in text.split()})
    augment = AugmentConfig(crop=LARGEST_CUT, brightness_contrast=0)
    config = CaptioningConfig(image_size=size, captions_per_image=1, mirror=0.5, augment=augment)
    spec = DataSpec(dataset="corpus", classes=CLASSES, vocabulary={"captions": [[word, 100] for word in words]})
    module = TarDataModule(
        folder,
        Task(config, spec),
        LoaderConfig(num_workers=WORKERS, start_method="fork"),
        batch_size=BATCH,
        micro_batch_size=None,
        eval_batch_size=BATCH,
        seed=0,
    )
    norm = PixelNorm()
    loader = module.train_dataloader()
    for batch in loader:
        images = norm(batch["images"]) if normalised else batch["images"]
        yield len(images)
        del images, batch
    del loader, module


class _Decoded(Dataset):
    """Batches of files, decoded and thrown away."""

    def __init__(self, paths: Sequence[Path]):
        self.paths = paths

    def __len__(self) -> int:
        return -(-len(self.paths) // BATCH)

    def __getitem__(self, index: int) -> list[int]:
        for path in (part := self.paths[index * BATCH : (index + 1) * BATCH]):
            simplejpeg.decode_jpeg(path.read_bytes())
        return [len(part)] * len(part)


def _keep_memory(_: int) -> None:
    _init_worker(_)
    keep_freed_memory()  # makes decoding alone faster, too


def _decode_alone(paths: Sequence[Path]) -> Iterator[int]:
    loader = DataLoader(_Decoded(paths), batch_size=None, num_workers=WORKERS, worker_init_fn=_keep_memory)
    for batch in loader:
        yield len(batch)
    del loader


def _canonical(images: Path, annotations: Path, size: int) -> Iterator[int]:
    transform = v2.Compose(
        [
            v2.ToImage(),
            v2.RandomResizedCrop(size, scale=CROP_AREA, ratio=CROP_RATIO, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    dataset = CocoCaptions(str(images), str(annotations), transform=transform)
    return _counted(dataset, batch_size=BATCH, shuffle=True, collate_fn=_collate_captions)


def _counted(dataset: Any, **options: Any) -> Iterator[int]:
    """The sizes of a peer's batches of images and captions. Workers end with the loader, which nothing else holds."""
    for images, _ in DataLoader(dataset, num_workers=WORKERS, worker_init_fn=_init_worker, **options):
        yield len(images)


def _collate_captions(items: list[tuple[torch.Tensor, list[str]]]) -> tuple[torch.Tensor, list[list[str]]]:
    # As torch's own collation does: stacked in shared memory.
    return default_collate([image for image, _ in items]), [captions for _, captions in items]


def _webdataset(folder: Path, size: int) -> Iterator[int]:
    rng = np.random.default_rng()
    mean, std = (255 * np.array(v, np.float32) for v in (IMAGENET_MEAN, IMAGENET_STD))

    def example(sample: dict[str, bytes]) -> tuple[torch.Tensor, list[str]]:
        image = cv2.imdecode(np.frombuffer(sample["jpg"], np.uint8), cv2.IMREAD_COLOR_RGB)
        height, width = image.shape[:2]
        top, bottom, left, right = rng.random(4) * LARGEST_CUT
        image = image[int(top * height) : int((1 - bottom) * height), int(left * width) : int((1 - right) * width)]
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
        if rng.random() < 0.5:
            image = cv2.flip(image, 1)
        pixels = (image.astype(np.float32) - mean) / std
        captions = [text for _, text in json.loads(sample["json"])["captions"]]
        return torch.from_numpy(pixels.transpose(2, 0, 1)), captions

    urls = sorted(str(path) for path in folder.glob("corpus-train-*.tar"))
    dataset = (
        wds.WebDataset(urls, shardshuffle=len(urls), nodesplitter=None, empty_check=False).shuffle(1000).map(example)
    )
    return _counted(dataset.batched(BATCH, collation_fn=_collate_captions), batch_size=None)


def _coco_json(data: Corpus, path: Path) -> Path:
    """The captions as COCO publishes them."""
    captions = [
        {"id": 5 * i + j, "image_id": i, "caption": text}
        for i, texts in enumerate(data.captions)
        for j, text in enumerate(texts)
    ]
    images = [{"id": i, "file_name": file.name} for i, file in enumerate(data.paths)]
    path.write_text(json.dumps({"images": images, "annotations": captions}))
    return path
