"""The first batch in the middle of an epoch of 100,000 samples, beside the first one at its start."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
import zlib
from collections import Counter
from pathlib import Path

import cv2
import numpy as np

from benchmarks import Figure
from contracts.records import Caption, DataSpec, Record
from lightning_modules.tasks.captioning import CaptioningConfig, Task
from pipeline.loading.datamodule import TarDataModule
from pipeline.settings.sections import LoaderConfig
from pipeline.shards.manifest import index_name, shard_name, write_manifest
from pipeline.shards.samples import sample_pieces
from pipeline.shards.writing import ShardResult, index_of, split_manifest

NUM_SAMPLES, SHARD_SAMPLES, BATCH = 100_000, 1000, 32
REPEATS = 3


def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="sightline-bench-") as temporary:
        folder = Path(temporary)
        _write_shards(folder)
        _first_batch(folder, 0)  # imports and caches
        start, middle = (
            [_first_batch(folder, batches) for _ in range(REPEATS)] for batches in (0, NUM_SAMPLES // BATCH // 2)
        )
    what = f"first batch in the middle of {NUM_SAMPLES:,} samples"
    beside = "at the start of the epoch"
    return [
        Figure(
            what=f"{what}, from opening the shards on",
            value=min(seconds for seconds, _ in middle),
            beside=beside,
            other=min(seconds for seconds, _ in start),
            goal="ratio about 1",
        ),
        Figure(
            what=f"{what}: bytes read beyond the index",
            value=float(np.median([num_bytes for _, num_bytes in middle])),
            unit="bytes",
            beside=beside,
            other=float(np.median([num_bytes for _, num_bytes in start])),
            goal="ratio about 1",
        ),
    ]


def _first_batch(folder: Path, batches: int) -> tuple[float, int]:
    """Seconds from nothing to the batch, and the bytes this process read after the plan was made."""
    config = CaptioningConfig(image_size=32, captions_per_image=1)
    task = Task(config, DataSpec(dataset="tiny", classes=(), vocabulary={"captions": [["word", 10]]}))
    begin = time.perf_counter()
    data = TarDataModule(
        folder,
        task,
        LoaderConfig(num_workers=0),
        batch_size=BATCH,
        micro_batch_size=None,
        eval_batch_size=BATCH,
        seed=0,
    )
    loader = data.train_dataloader()
    loader.load_state_dict({"epoch": 0, "batches": batches})
    before = _num_read()
    batch = next(iter(loader))
    seconds, num_bytes = time.perf_counter() - begin, _num_read() - before
    expected = data.train_plan(0)[batches].positions
    assert batch["keys"] == data.reader("train").keys(np.array(expected))
    return seconds, num_bytes


def _num_read() -> int:
    """Bytes that this process has asked the system for, from the page cache or not."""
    return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])


def _write_shards(folder: Path) -> None:
    png = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    results = []
    for i in range(NUM_SAMPLES // SHARD_SAMPLES):
        rows, parts, offset, totals = [], [], 0, Counter[str]()
        for j in range(i * SHARD_SAMPLES, (i + 1) * SHARD_SAMPLES):
            record = Record(
                key=f"{j:08d}", image_id=j, width=8, height=8, image=png, image_format="png",
                captions=(Caption(caption_id=j, text="a word"),),
            )  # fmt: skip
            data = b"".join(sample_pieces(record))
            counts = record.counts()
            totals.update(counts)
            rows.append({"key": record.key, "offset": offset, "size": len(data), "crc": zlib.crc32(data), **counts})
            parts.append(data)
            offset += len(data)
        name = shard_name("tiny", "train", i)
        tar = b"".join([*parts, b"\0" * 1024])
        index = json.dumps(index_of(rows))
        (folder / name).write_bytes(tar)
        (folder / index_name(name)).write_text(index)
        entry = {
            "name": name,
            "samples": SHARD_SAMPLES,
            "bytes": len(tar),
            "sha256": hashlib.sha256(tar).hexdigest(),
            "index_sha256": hashlib.sha256(index.encode()).hexdigest(),
        }
        results.append(ShardResult(shard=entry, num_source=SHARD_SAMPLES, totals=totals))
    write_manifest(folder, "tiny", (), {"train": split_manifest(results, [])})
