"""How loader processes start and what they hold: one set of them, one index, imports that are there already."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace
from multiprocessing.context import set_spawning_popen
from multiprocessing.reduction import ForkingPickler

import numpy as np
import psutil
import pytest
import torch

from pipeline.loading.datamodule import TarDataModule
from pipeline.settings.params import load_params
from pipeline.settings.sections import LoaderConfig
from pipeline.shards import reader as shards
from pipeline.shards.manifest import load_manifest
from pipeline.shards.reader import SplitReader
from pipeline.training.checkpoints import build_task
from pipeline.training.runs import load_run


def module(tiny_project, config: LoaderConfig) -> TarDataModule:
    data = load_run(tiny_project, load_params(tiny_project.root), "segmentation")
    task = build_task(data.run.to_dict(), data.spec)
    sizes = {"batch_size": 8, "micro_batch_size": None, "eval_batch_size": 4}
    return TarDataModule(tiny_project.shards("voc"), task, config, seed=3, **sizes)


def loaders_of(process: psutil.Process) -> dict[int, psutil.Process]:
    """Loader processes below `process`, by their number."""
    return {child.pid: child for child in process.children(recursive=True) if len(child.children()) == 0}


def seen(batches) -> list[tuple]:
    return [(batch["keys"], batch["images"].clone(), "truths" in batch) for batch in batches]


def assert_equal(found: list[tuple], expected: list[tuple]) -> None:
    assert len(found) == len(expected)
    for (keys, images, has_truths), (expected_keys, expected_images, expected_truths) in zip(
        found, expected, strict=True
    ):
        assert keys == expected_keys and has_truths == expected_truths and torch.equal(images, expected_images)


def test_training_and_validation_share_one_set_of_processes_that_import_nothing(tiny_project):
    alone = module(tiny_project, LoaderConfig())
    here = psutil.Process()
    before = loaders_of(here)
    data = module(tiny_project, LoaderConfig(num_workers=2))
    try:
        found, expected = [], []
        for source, out in ((alone, expected), (data, found)):
            train, val = source.train_dataloader(), source.val_dataloader()
            for epoch in range(2):
                train.set_epoch(epoch)
                out += seen(train) + seen(val)
        assert_equal(found, expected)
        started = [process for pid, process in loaders_of(here).items() if pid not in before]
        workers = [process for process in started if "resource_tracker" not in " ".join(process.cmdline())]
        assert len(workers) == 2, "training and validation have them in common"
        server = psutil.Process(workers[0].ppid())
        assert any("libtorch_cpu" in part.path for part in server.memory_maps()), "the fork server imported it for all"
    finally:
        data.close()
    psutil.wait_procs(workers, timeout=10)
    assert not [process for process in workers if process.is_running()]


def test_an_iteration_that_is_taken_over_before_its_end_is_a_defect_that_is_told(tiny_project):
    data = module(tiny_project, LoaderConfig())
    train = iter(data.train_dataloader())
    next(train)
    list(data.val_dataloader())
    with pytest.raises(AssertionError, match="took the loader processes over"):
        next(train)


class Starting:
    """What multiprocessing asks of a child that is being started; here it is this process."""

    def duplicate_for_child(self, fd: int) -> int:
        return os.dup(fd)

    class DupFd:
        def __init__(self, fd: int):
            self.fd = fd

        def detach(self) -> int:
            return self.fd


def test_a_process_that_starts_gets_a_descriptor_and_not_the_index(tiny_project):
    folder = tiny_project.shards("voc")
    reader = SplitReader(folder, load_manifest(folder), "train")
    expected = {name: column.copy() for name, column in reader.columns.items()}
    times = 1000  # an index of 40,000 samples
    reader.columns = {name: np.tile(column, times) for name, column in reader.columns.items()}
    set_spawning_popen(Starting())
    try:
        sent = [bytes(ForkingPickler.dumps(reader)) for _ in range(2)]
    finally:
        set_spawning_popen(None)
    assert all(len(data) < 2_000 for data in sent), "a pipe takes 64 KiB before its writer waits"
    one, other = (pickle.loads(data) for data in sent)
    for name, column in expected.items():
        np.testing.assert_array_equal(one.columns[name], np.tile(column, times))
    assert one.read(7).key == other.read(7).key == reader.keys(np.array([7]))[0]
    assert one.shards == reader.shards and one.select(["has_semantic"]).shape == (40 * times,)
    with pytest.raises(ValueError, match="read-only"):
        one.columns["size"][0] = 1
    reader._shared._view("size")[0] = 77  # all see the same memory
    assert one.columns["size"][0] == other.columns["size"][0] == reader.columns["size"][0] == 77


@pytest.mark.parametrize(("window", "opened"), [(2, 10), (5, 5)])
def test_every_shard_of_a_window_stays_open(tiny_project, monkeypatch, window, opened):
    monkeypatch.setattr(shards, "_OPEN_FILES", 2)
    folder = tiny_project.shards("voc")
    reader = SplitReader(folder, load_manifest(folder), "train", window=window)
    calls = []
    open_tar = shards._open_tar
    monkeypatch.setattr(shards, "_open_tar", lambda *given: calls.append(given[0]) or open_tar(*given))
    first = np.flatnonzero(np.diff(reader.columns["shard"], prepend=-1))
    assert len(first) == 5
    for position in [*first, *first]:
        reader.read(int(position))
    assert len(calls) == opened


def test_files_of_a_window_leave_half_of_what_a_process_may_open(monkeypatch):
    monkeypatch.setattr(shards.resource, "getrlimit", lambda which: (1024, 4096))
    assert [shards._files_for(window) for window in (4, 200, 5000)] == [64, 200, 512]
    monkeypatch.setattr(shards.resource, "getrlimit", lambda which: (shards.resource.RLIM_INFINITY,) * 2)
    assert shards._files_for(5000) == 5000


def test_the_window_of_the_settings_reaches_the_readers(tiny_project):
    data = module(tiny_project, replace(LoaderConfig(), window=100))
    assert data.reader("train")._max_files == 100
