"""`check`: what runs share is told once, and what no stage could use is told at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.settings.check import check
from pipeline.settings.params import Params
from tests.unit.pipeline.settings.test_params import message, put


@pytest.fixture
def document(root: Path) -> dict[str, Any]:
    return yaml.safe_load((root / "params.yaml").read_text())


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("train.optimizer", {"name": "adamw", "momentum": 0.9}, "train.optimizer: optimizer adamw has no setting"),
        ("train.monitor", "val/loss", "train: monitor and monitor_mode belong together"),
        ("train.validate_every_epochs", 99, "train: no epoch would be validated: 99"),
        ("train.optimizer.schedule", "step", "train.optimizer: schedule step has no setting final_lr_fraction"),
        ("loader.stages", {"records": ["no.file:x"]}, "loader.stages: no such stage: the file is not there"),
    ],
)
def test_what_runs_have_from_a_shared_section_is_told_once_and_there(document, path, value, said):
    put(document, path, value)
    text = message(document)
    assert text.startswith("1 mistake in params.yaml") and f"  - {said}" in text, text


def test_processes_that_are_copies_read_no_shards_of_a_store(document):
    """A thread that fetches would leave them the lock that it holds."""
    document["loader"]["start_method"] = "fork"
    check(Params(document))
    document["shards"] = document.get("shards", {}) | {"store": "s3://shop/shards"}
    text = message(document)
    assert text.startswith("1 mistake") and "  - loader.start_method: fork copies a process that fetches" in text, text
    document["loader"]["start_method"] = "spawn"
    document["runs"]["vqa_lstm"]["loader"] = {"start_method": "fork"}
    assert "runs.vqa_lstm.loader.start_method: fork copies" in message(document)


def test_a_bad_default_is_told_though_no_run_uses_it(document):
    for run in document["runs"].values():
        run["train"] = {"max_epochs": 3, "optimizer": {"name": "sgd", "lr": 0.1}}
        run["loader"] = {"stages": {"records": []}}
    document["train"] |= {"max_epochs": 0, "optimizer": {"name": "adamw", "momentum": 0.9}}
    document["loader"]["stages"] = {"records": ["no.file:x"]}
    text = message(document)
    for said in ("train.max_epochs: must be 1 or more", "train.optimizer: optimizer adamw", "loader.stages: no such"):
        assert text.count(said) == 1, text
    assert text.startswith("3 mistakes"), text


def test_what_goes_together_is_each_runs_matter_unless_there_is_none(document):
    document["train"]["validate_every_epochs"] = 20
    for run in document["runs"].values():
        run["train"] = {"max_epochs": 40}
    check(Params(document))
    document["runs"] = {}
    assert "  - train: no epoch would be validated: 20" in message(document)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("cluster.storage", "", "storage must be the url of a folder: ''"),
        ("cluster.storage", "/mnt/states", "storage must be the url of a folder"),
        ("shards.store", "s3://key@host/x", "store must be the url of a folder"),
        ("cluster.address", " ", "address is empty"),
        ("tracking.artifacts", "", "artifacts is empty"),
        ("datasets.voc.splits", {"val": ""}, "splits.val names nothing"),
        ("datasets.voc.splits", {"val": []}, "splits.val names nothing"),
        ("datasets.coco.sources.coco", {"only": []}, "only is empty"),
        ("datasets.coco.sources.coco", {"folders": ["../x"]}, "not folders below the data set's: ['../x']"),
        ("datasets.voc.sources.voc", {"folders": ["a", "a/"]}, "folders is empty or has one twice"),
        ("datasets.voc.sources.voc", {"folders": [""]}, "not folders below the data set's"),
        ("train.freeze", ["backbone", "backbone"], "freeze has an empty name or one twice"),
        ("train.stages", [{"epochs": 1, "freeze": [""]}], "freeze has an empty name or one twice"),
        ("runs.vqa_lstm.init", {"from": "segmentation_fcn", "parts": [""]}, "parts has an empty name"),
        ("runs.vqa_lstm.task.image_size", 31, "runs.vqa_lstm.task.image_size: must be 32 or more (is 31)"),
        ("runs.captioning_attention.task.image_size", 8, "task.image_size: must be 32 or more (is 8)"),
        ("train.optimizer.parts", {"backbone": {"lr": "0x"}}, "not a learning rate: '0x'"),
        ("train.optimizer.parts", {"": {"lr": "1x"}}, "a part without a name"),
        ("train.stages", [{"epochs": 0}], "must be 1 or more (is 0)"),
        ("shards.short_side", 31, "32 or more (is 31)"),
    ],
)
def test_values_that_no_stage_could_use_are_told_once(document, path, value, said):
    put(document, path, value)
    text = message(document)
    assert text.startswith("1 mistake in params.yaml") and said in text, text


def test_a_section_that_dvc_reads_must_be_there(document):
    del document["shards"], document["registry"]
    text = message(document)
    assert text.startswith("2 mistakes")
    for name in ("shards", "registry"):
        assert f"{name}: not there, and DVC's stages depend on it; `{name}: {{}}` takes the defaults" in text
