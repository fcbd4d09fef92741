"""Sharding raw data that lies in an object store whose every answer takes 50 ms, beside a folder of this machine.

A real S3 server behind a proxy that waits, all on this machine: the proxy is Python and takes its own processor time,
so that what is measured here is at most what a store further away would cost. Wall-clock seconds, the best of a few.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import Figure, timed
from benchmarks._corpus import CLASSES, SHARD_SAMPLES, corpus
from pipeline.ingest.door import DoorConfig
from pipeline.shards import raw_listing, stores
from pipeline.shards.writing import write_shard
from tests.s3_server import running

DELAY_S, ROUNDS = 0.05, 3


def measure() -> list[Figure]:
    raws = corpus().raws[:SHARD_SAMPLES]
    size = sum(raw.image.stat().st_size for raw in raws if raw.image) / 2**20
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        base = Path(folder)
        with running(base, patch) as server:
            names, away = base / "names", []
            for raw in raws:
                assert raw.image is not None
                stores.upload(raw.image, f"s3://shop/raw/{raw.image.name}")
                away.append(replace(raw, image=names / raw.image.name))
            listed, _ = timed(lambda: raw_listing.lay("s3://shop/raw", names, inside=base))
            door = DoorConfig(root=names, store="s3://shop/raw")
            here, expected = timed(lambda: write_shard(raws, CLASSES, base, "here.tar").shard, repeats=ROUNDS)
            server.delay_s = DELAY_S
            there, found = timed(lambda: write_shard(away, CLASSES, base, "here.tar", door).shard, repeats=ROUNDS)
            assert found == expected
    what = f"one process shards {len(raws)} photographs, {size:.0f} MiB"
    return [
        Figure(what=f"{what}, from a store, 50 ms a request", value=there, beside="from a folder", other=here),
        Figure(what=f"the names of these {len(raws)} photographs, where annotations are none", value=listed),
    ]
