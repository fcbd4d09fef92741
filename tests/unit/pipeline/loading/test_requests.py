"""Loader processes run a webdataset pipeline: the plan's own batches, through stages that a user puts in."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from contracts.errors import DataError
from contracts.seeds import derive_seed
from lightning_modules.blocks.pixels import BatchRows, written_to
from pipeline.loading.datamodule import TarDataModule
from pipeline.settings.own import OwnStages
from pipeline.settings.params import load_params
from pipeline.settings.sections import LoaderConfig
from pipeline.training.checkpoints import build_task
from pipeline.training.runs import load_run

STAGES = """
import webdataset as wds


def invert(example):
    example["image"][:] = 255 - example["image"]
    return example


inverted = wds.map_dict(example=invert)


def lose(samples):
    next(samples)
    yield from samples


def swap(samples):
    first, second, *rest = samples
    yield from (second, first, *rest)


def hold_back(samples):
    held = list(samples)
    assert len(held) in (1, 8)  # one alone, once: how much memory does it take?
    assert not any("example" in sample for sample in held)
    yield from held


def seeds(samples):
    for sample in samples:
        sample["example"]["image"][:] = sample["seed"] % 251
        yield sample
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "ownstages.py").write_text(STAGES)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("ownstages", None)


def module(tiny_project, run: str = "segmentation", *, workers: int = 0, **stages: tuple[str, ...]) -> TarDataModule:
    data = load_run(tiny_project, load_params(tiny_project.root), run)
    return TarDataModule(
        tiny_project.shards(data.run.dataset),
        build_task(data.run.to_dict(), data.spec),
        LoaderConfig(num_workers=workers, stages=OwnStages(**stages)),
        batch_size=8,
        micro_batch_size=None,
        eval_batch_size=4,
        seed=3,
    )


def equal(found, expected) -> bool:
    if isinstance(expected, torch.Tensor):
        return found.dtype == expected.dtype and found.stride() == expected.stride() and torch.equal(found, expected)
    if isinstance(expected, np.ndarray):
        return found.dtype == expected.dtype and np.array_equal(found, expected)
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(equal(found[name], expected[name]) for name in expected)
    if isinstance(expected, (list, tuple)):
        return len(found) == len(expected) and all(map(equal, found, expected))
    return found == expected


@pytest.mark.parametrize("run", ["captioning", "vqa", "segmentation", "detection", "instances"])
def test_a_batch_is_what_reader_encoder_and_collation_make_of_the_plan(tiny_project, run):
    """Bit for bit, by hand: so the pipeline adds nothing, loses nothing and seeds as the plan says."""
    data = module(tiny_project, run)
    task, epoch = data.task, 1
    train = data.train_dataloader()
    train.set_epoch(epoch)
    for source, plan, training in (
        (train, data.train_plan(epoch), True),
        (data.val_dataloader(), data.val_dataloader()._plan(0), False),
    ):
        for batch, ask in zip(source, plan, strict=True):
            records = [data.reader(ask.split).read(position) for position in ask.request.positions]
            with written_to(BatchRows(len(records))):
                expected = task.collate(
                    [task.encode(r, derive_seed(3, epoch, r.key) if training else None) for r in records]
                )
            expected["keys"] = [record.key for record in records]
            if not training:
                expected["items"] = [item for record in records for item in task.items(record)]
                expected["truths"] = [truth for record in records for truth in task.truths(record)]
            assert equal({name: batch[name] for name in expected}, expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stage_of_the_users_own_changes_training_samples_and_no_others(tiny_project, own, workers):
    plain = module(tiny_project)
    changed = module(tiny_project, workers=workers, records=("ownstages:hold_back",), examples=("ownstages:inverted",))
    try:
        for before, after in zip(plain.train_dataloader(), changed.train_dataloader(), strict=True):
            assert after["keys"] == before["keys"] and torch.equal(after["images"], 255 - before["images"])
            assert torch.equal(after["labels"], before["labels"])
        for before, after in zip(plain.val_dataloader(), changed.val_dataloader(), strict=True):
            assert torch.equal(after["images"], before["images"])
    finally:
        changed.close()


def test_a_stage_has_a_seed_of_its_sample_in_this_epoch(tiny_project, own):
    data = module(tiny_project, examples=("ownstages:seeds",))
    train = data.train_dataloader()
    for epoch in (0, 1):
        train.set_epoch(epoch)
        for batch in train:
            drawn = [derive_seed(3, epoch, key) % 251 for key in batch["keys"]]
            assert batch["images"][:, 0, 0, 0].tolist() == drawn


@pytest.mark.parametrize("place", ["records", "examples"])
@pytest.mark.parametrize("stage", ["lose", "swap"])
def test_a_stage_that_does_not_give_each_sample_back_is_told(tiny_project, own, stage, place):
    data = module(tiny_project, **{place: (f"ownstages:{stage}",)})
    with pytest.raises(DataError, match="lost, added or moved samples of a batch") as caught:
        list(data.train_dataloader())
    assert f"ownstages:{stage}" in caught.value.where
