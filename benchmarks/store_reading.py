"""A training that reads its shards from an object store 50 ms away, through a line of limited bandwidth.

Two machines, each with a shard cache of its own that holds two windows and no more, one after the other on this one;
steps are a pause. What is measured is the share of time that steps wait for their batches after the first window, and
what a machine fetched, beside its share of the shards. A real S3 server stands behind a proxy that waits.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks import Figure
from contracts.raw import RawRecord
from contracts.records import Caption, DataSpec
from lightning_modules.augment.augment import AugmentConfig
from lightning_modules.tasks.captioning import CaptioningConfig, Task
from pipeline.loading import datamodule
from pipeline.loading.datamodule import TarDataModule
from pipeline.settings.sections import LoaderConfig
from pipeline.shards.manifest import load_manifest, shard_name, write_manifest
from pipeline.shards.writing import split_manifest, upload_shard
from tests.s3_server import Line, Proxy, running

MACHINES, NUM_SHARDS, SHARD_SAMPLES, WINDOW, BATCH, EPOCHS = 2, 96, 64, 16, 64, 2
DELAY_S, BYTES_PER_S, STEP_S = 0.05, 12e6, 0.15
URL = "s3://shop/shards"


def measure() -> list[Figure]:
    figures = []
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        base = Path(name)
        with running(base, patch) as server:
            folder = _shards(base)
            server.delay_s = DELAY_S
            size = sum(entry["bytes"] for entry in load_manifest(folder)["splits"]["train"]["shards"])
            for nodes in (MACHINES, 1):
                ranks = [
                    _train(folder, base / f"cache-{nodes}-{rank}", rank, nodes, server) for rank in range(MACHINES)
                ]
                with patch.context() as alone:
                    alone.setattr(datamodule, "fetched_ahead", _nothing_ahead)
                    beside, _ = _train(folder, base / f"cache-{nodes}-alone", 0, nodes, server)
                what = f"{nodes} canonical nodes on {MACHINES} machines"
                figures += [
                    Figure(
                        what=f"{what}: share of time that steps wait after the first window",
                        value=100 * max(waited for waited, _ in ranks), unit="%", beside="nothing fetched ahead",
                        other=100 * beside, goal="< 5 %" if nodes == MACHINES else "",
                    ),
                    Figure(
                        what=f"{what}: bytes that a machine fetches in an epoch, of its share of all",
                        value=max(fetched for _, fetched in ranks) / EPOCHS / (size / MACHINES), unit="x",
                        goal="<= 1.1" if nodes == MACHINES else "",
                    ),
                ]  # fmt: skip
    return figures


def _shards(base: Path) -> Path:
    """A data set whose tars lie in the store alone, and of which a folder has the manifest."""
    folder, results = base / "manifest", []
    for number in range(NUM_SHARDS):
        raws = [_raw(base, number * SHARD_SAMPLES + i) for i in range(SHARD_SAMPLES)]
        results.append(upload_shard(raws, (), URL, shard_name("far", "train", number)))
    folder.mkdir()
    write_manifest(folder, "far", (), {"train": split_manifest(results, [])}, store=URL)
    return folder


def _raw(base: Path, number: int) -> RawRecord:
    key, path = f"{number:06d}", base / "picture.jpg"
    pixels = np.random.default_rng(number).integers(0, 256, (112, 112, 3), np.uint8)
    path.write_bytes(cv2.imencode(".jpg", pixels)[1].tobytes())
    return RawRecord(
        key=key, image_id=number, image=path, annotation_file="none", width=112, height=112,
        captions=(Caption(caption_id=number + 1, text="noise"),),
    )  # fmt: skip


def _train(folder: Path, cache: Path, rank: int, nodes: int, server: Proxy) -> tuple[float, int]:
    """The share of time that steps of a rank wait after the first window, and the bytes of tars that it fetched."""
    server.line = Line(BYTES_PER_S)
    mean = np.mean([entry["bytes"] for entry in load_manifest(folder)["splits"]["train"]["shards"]])
    room = 2.1 * WINDOW * mean / 2**30
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIGHTLINE_CACHE", str(cache))
        spec = DataSpec(dataset="far", classes=(), vocabulary={"captions": [["noise", 100]]})
        task = Task(CaptioningConfig(image_size=32, augment=AugmentConfig()), spec)
        data = TarDataModule(
            folder, task, LoaderConfig(num_workers=1, start_method="spawn", window=WINDOW, cache_gib=room,
                                       canonical_nodes=nodes),
            batch_size=BATCH, micro_batch_size=None, eval_batch_size=1, seed=0, world=MACHINES, rank=rank,
        )  # fmt: skip
        loader = data.train_dataloader()
        waits: list[float] = []
        server.line.carried = 0  # indices are fetched
        try:
            for epoch in range(EPOCHS):
                loader.set_epoch(epoch)
                waits += _waits(loader)
        finally:
            data.close()
    first = len(waits) // EPOCHS * WINDOW // NUM_SHARDS
    later = waits[first:]
    return sum(later) / (sum(later) + STEP_S * len(later)), server.line.carried


def _waits(loader: Any) -> Iterator[float]:
    batches, began = iter(loader), time.perf_counter()
    for _ in batches:
        yield time.perf_counter() - began
        time.sleep(STEP_S)
        began = time.perf_counter()


@contextmanager
def _nothing_ahead(*_: Any) -> Iterator[Callable[[int], None]]:
    yield lambda done: None
