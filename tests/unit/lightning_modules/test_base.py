"""Validation over several processes: real gloo groups of one, two and three give the same digits."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from contracts.errors import DataError
from lightning_modules.base import TaskModule
from lightning_modules.optimizer import OptimizerConfig
from pipeline.checkpoints import build_task
from pipeline.datamodule import TarDataModule
from pipeline.params import load_params
from pipeline.project import Project
from pipeline.runs import load_run
from pipeline.sections import LoaderConfig

RUNS = ("captioning", "vqa", "segmentation", "detection", "instances")
WORLDS = (1, 2, 3)


def build(project: Project, run: str):
    """A run's task, and (key, prediction, truth) of its validation split: the truths of other images as predictions."""
    data = load_run(project, load_params(project.root), run)
    task = build_task(data.run.to_dict(), data.spec)
    folder = project.shards(data.run.dataset)
    loaded = TarDataModule(folder, task, LoaderConfig(), batch_size=4, micro_batch_size=None, eval_batch_size=4, seed=0)
    keys = loaded.eval_keys("val")
    truths = {key: task.truth(loaded.record("val", key)) for key in keys}
    constant = task.constant(truths)
    return task, [(key, constant[key], truths[key]) for key in keys], list(keys)


def module_of(task, keys: list[str]) -> tuple[TaskModule, list[dict[str, float]]]:
    module = TaskModule(task, torch.nn.Identity(), OptimizerConfig())
    module._trainer = SimpleNamespace(datamodule=SimpleNamespace(eval_keys=lambda split: keys))
    logged: list[dict[str, float]] = []
    module.log_dict = lambda values, **_: logged.append(dict(values))
    return module, logged


def validate(module: TaskModule, items: list[Any], losses: float) -> None:
    module.on_validation_epoch_start()
    module._items = list(items)
    module._loss_sums, module._loss_count = {"part": losses * len(items)}, len(items)
    module.on_validation_epoch_end()


def share(items: list[Any], rank: int, world: int) -> list[Any]:
    """Uneven parts in another order, with every fifth item delivered twice."""
    order = np.random.default_rng(world).permutation(len(items))
    cuts = np.sort(np.random.default_rng(world + 10).integers(0, len(items) + 1, world - 1))
    parts = np.split(order, cuts)
    mine = [items[i] for i in parts[rank]]
    return mine + [items[i] for i in parts[(rank + 1) % world][::5]]


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    cases = pickle.loads((Path(folder) / "cases.pkl").read_bytes())
    results: dict[Any, Any] = {}
    for world in WORLDS:
        if rank >= world:
            continue
        store = dist.FileStore(f"{folder}/store{world}", world)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
        for run, (task, items, keys) in cases.items():
            module, logged = module_of(task, keys)
            validate(module, share(items, rank, world), losses=2.0)
            results[world, run] = logged[0]
        dist.destroy_process_group()
    (Path(folder) / f"rank{rank}.pkl").write_bytes(pickle.dumps(results))


@pytest.fixture(scope="module")
def cases(tiny_project):
    return {run: build(tiny_project, run) for run in RUNS}


@pytest.fixture(scope="module")
def results(cases, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gloo")
    (folder / "cases.pkl").write_bytes(pickle.dumps(cases))
    mp.spawn(work, args=(str(folder),), nprocs=max(WORLDS))
    return [pickle.loads((folder / f"rank{rank}.pkl").read_bytes()) for rank in range(max(WORLDS))]


@pytest.mark.parametrize("run", RUNS)
def test_every_world_size_gives_the_same_digits_on_every_rank(cases, results, run):
    task, items, _ = cases[run]
    expected = task.score({k: p for k, p, _ in items}, {k: t for k, _, t in items})
    assert task.metric in expected and len(expected) >= 2
    for world in WORLDS:
        for rank in range(world):
            values = results[rank][world, run]
            scores = {name.removeprefix("val/"): value for name, value in values.items()}
            assert scores.pop("part") == scores.pop("loss") == 2.0
            assert scores == expected  # to the last digit


def test_a_missing_or_a_foreign_sample_stops_the_validation(cases):
    task, items, keys = cases["segmentation"]
    module, _ = module_of(task, keys)
    with pytest.raises(DataError, match=f"(?s)saw {len(keys) - 1} of the {len(keys)}.*missing.*{items[3][0]}"):
        validate(module, items[:3] + items[4:], losses=0.0)
    with pytest.raises(DataError, match=r"(?s)unexpected \['foreign'\]"):
        validate(module, [*items, ("foreign", *items[0][1:])], losses=0.0)
