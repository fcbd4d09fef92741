"""Shards of a store come before they are read: in time, no further ahead than a window, and what fails fails later."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contracts.errors import DataError
from pipeline.loading.prefetch import fetched_ahead, reach_of
from pipeline.loading.sampling import Request, epoch_order
from pipeline.settings.sections import LoaderConfig
from pipeline.shards import stores
from pipeline.shards.cache import ShardCache
from pipeline.shards.manifest import MANIFEST, index_name, load_manifest, stored_name
from pipeline.shards.reader import SplitReader
from tests.s3_server import Proxy
from tests.unit.pipeline.loading.test_loader_processes import module

WINDOW = 2


def in_store(local: Path, folder: Path) -> None:
    """The shards of a folder once more, in the store; `folder` has their manifest."""
    manifest = load_manifest(local)
    for entry in (entry for split in manifest["splits"].values() for entry in split["shards"]):
        for name, sha256 in ((entry["name"], entry["sha256"]), (index_name(entry["name"]), entry["index_sha256"])):
            stores.upload(local / name, f"s3://shop/shards/{stored_name(name, sha256)}")
    folder.mkdir(parents=True)
    (folder / MANIFEST).write_text(json.dumps({**manifest, "store": "s3://shop/shards"}))


@pytest.fixture
def reader(tmp_path: Path, s3: Proxy, tiny_project) -> SplitReader:
    """The training split of the tiny project's photographs, their shards in a store."""
    folder = tmp_path / "stored"
    in_store(tiny_project.shards("voc"), folder)
    return SplitReader(folder, load_manifest(folder), "train", ShardCache(folder=tmp_path / "cache"), window=WINDOW)


def requests_of(reader: SplitReader) -> list[Request]:
    sizes = [int((reader.columns["shard"] == shard).sum()) for shard in range(len(reader.shards))]
    order = epoch_order(sizes, seed=0, epoch=0, window=WINDOW, batch_size=4)
    return [Request(tuple(order[first : first + 4].tolist()), 0) for first in range(0, len(order), 4)]


def eventually(told: Callable[[], bool]) -> bool:
    ends = time.monotonic() + 20
    while not told() and time.monotonic() < ends:
        time.sleep(0.02)
    return told()


def here(reader: SplitReader, tmp_path: Path) -> set[int]:
    return {i for i, entry in enumerate(reader._entries) if (tmp_path / "cache" / entry["sha256"]).is_file()}


def test_the_next_window_comes_while_one_is_read(reader, tmp_path):
    requests = requests_of(reader)
    used = [set(reader.columns["shard"][list(request.positions)].tolist()) for request in requests]
    reach = reach_of(reader, len(requests), WINDOW)
    assert len(reader.shards) > 2 * WINDOW and reach == len(requests) * WINDOW // len(reader.shards)
    with fetched_ahead(reader, requests, reach) as advance:
        for done in range(len(requests)):
            advance(done)
            expected = set().union(*used[: done + reach + 1])
            assert eventually(lambda: here(reader, tmp_path) == expected), (done, expected)  # noqa: B023
        assert len(here(reader, tmp_path)) == len(reader.shards)


def test_no_more_comes_than_the_cache_has_room_for(reader):
    entries, num = reader._entries, 60
    mean = sum(entry["bytes"] for entry in entries) / len(entries)
    for windows, share in ((0.5, 0), (1, 0), (1.5, 0.5), (2, 1), (9, 1)):
        reader._cache.limit = int(windows * WINDOW * mean) + 1
        assert reach_of(reader, num, WINDOW) == int(num * WINDOW / len(entries) * share)


def test_what_cannot_be_fetched_is_told_by_who_reads_it(reader, s3: Proxy, monkeypatch):
    monkeypatch.setattr("pipeline.loading.prefetch._PATIENCE_S", 0.1)
    monkeypatch.setattr(stores, "PATIENCE_S", 0.1)
    s3.down_until = time.monotonic() + 600
    requests = requests_of(reader)
    with fetched_ahead(reader, requests, len(requests)) as advance:
        advance(1)
        with pytest.raises(DataError, match="failed to find"):
            reader.read(requests[0].positions[0])


def test_an_epoch_of_training_reads_ahead_into_the_next_one(tmp_path, s3: Proxy, tiny_project, monkeypatch):
    """And so does no validation, whose next epoch is the same one."""
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))
    seen: list[tuple[int, int]] = []

    def ahead(reader, requests, reach) -> Iterator[Callable[[int], None]]:
        seen.append((len(requests), reach))
        return fetched_ahead(reader, requests, reach)

    monkeypatch.setattr("pipeline.loading.datamodule.fetched_ahead", ahead)
    project = type(tiny_project)(tmp_path / "project")
    in_store(tiny_project.shards("voc"), project.shards("voc"))
    for name in ("params.yaml", "data/vocab"):
        (project.root / name).symlink_to(tiny_project.root / name)
    data = module(project, LoaderConfig(window=WINDOW))
    local = module(tiny_project, LoaderConfig(window=WINDOW))
    batches = [batch["keys"] for batch in data.train_dataloader()]
    assert batches == [batch["keys"] for batch in local.train_dataloader()]
    (num, reach), per_epoch = seen.pop(), len(batches)
    assert num == per_epoch + reach and reach == per_epoch * WINDOW // len(data.reader("train").shards) > 0
    num_eval = len([batch["keys"] for batch in data.val_dataloader()])
    assert seen.pop()[0] == num_eval and not seen
