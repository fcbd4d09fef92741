"""A sweep's file: every mistake at once, in the words of params.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from contracts.errors import ConfigError
from pipeline.settings.params import Params
from pipeline.settings.sweep import Sweep, read_sweep
from tests.conftest import TINY

SPACE = {"train.optimizer.lr": {"loguniform": [1e-4, 1e-2]}, "train.batch_size": {"choice": [4, 8]}}


def read(folder: Path, document: Any, name: str = "lr.yaml") -> Sweep:
    (folder / name).write_text(yaml.safe_dump(document))
    return read_sweep(folder / name, Params(TINY))


def told(folder: Path, **changed: Any) -> str:
    with pytest.raises(ConfigError) as error:
        read(folder, {"run": "segmentation", "space": SPACE} | changed)
    return str(error.value)


def test_a_file_is_read_with_its_defaults(tmp_path):
    sweep = read(tmp_path, {"run": "segmentation", "space": SPACE})
    assert (sweep.name, sweep.metric, sweep.mode) == ("lr", "mean_iou", "max")
    assert sweep.config.scheduler is not None and sweep.config.scheduler.reduction_factor == 3
    lr = sweep.space["train.optimizer.lr"]
    assert (lr.low, lr.high, lr.log) == (1e-4, 1e-2, True)
    assert read(tmp_path, {"run": "segmentation", "space": SPACE, "scheduler": None}).config.scheduler is None


def test_every_mistake_is_told_at_once(tmp_path):
    text = told(tmp_path, run="segmentatoin", num_trails=3, concurrent=0, space={"train.seed": {"unif": [1, 2]}})
    for said in (
        "4 mistakes in lr.yaml",
        "run: no such run in params.yaml (is \"segmentatoin\"); did you mean 'segmentation'?",
        "num_trails: unknown key; did you mean 'num_trials'?",
        "concurrent: must be 1 or more (is 0)",
        "space.train.seed.unif: unknown key; did you mean 'uniform'?",
    ):
        assert said in text, text


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("train.optimzer.lr", {"uniform": [0.1, 0.2]}, "no such setting of run segmentation; did you mean 'train.opt"),
        ("xyz", {"uniform": [0.1, 0.2]}, "settings begin with task, model, train, loader"),
        ("model.name", {"choice": ["fcn"]}, "no such setting of run segmentation"),
        ("train.num_pictures", {"int": [1, 3]}, "no weight depends on it"),
        ("loader.prefetch", {"int": [1, 3]}, "no weight depends on it"),
        ("train.batch_size", {"choice": [4, 0]}, "runs.segmentation.train.batch_size: must be 1 or more (is 0)"),
        ("train.max_epochs", {"uniform": [1, 3]}, "must be a whole number (is 1.0)"),
        ("train.seed", {"int": [5]}, "must be two whole numbers, [lowest, highest] (is [5])"),
        ("train.seed", {"int": [5, 5]}, "the first must be less than the second"),
        ("train.seed", {"int": [0, 5], "log": True}, "must be more than 0 to have a logarithm"),
        ("train.seed", {"uniform": [0, 5], "log": True}, "log: is true or false, beside `int` alone"),
        ("train.seed", {"int": [0, 5], "choice": [1]}, "must have one of uniform, loguniform, int, choice"),
        ("train.seed", {"choice": [1, 1]}, "must be a list of values, each once"),
        ("train.seed", {"choice": []}, "must be a list of values, each once"),
        ("train.seed", 3, "must be a mapping (is 3)"),
    ],
)
def test_a_wrong_dimension_is_told_with_its_place(tmp_path, name, values, said):
    text = told(tmp_path, space={name: values})
    assert f"space.{name}" in text and said in text, text


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"space": {}}, "space: is empty"),
        ({"metric": "loss"}, "metric and mode belong together"),
        ({"scheduler": {"reduction_factor": 1}}, "scheduler.reduction_factor: must be 2 or more"),
        ({"scheduler": {"name": "hyperband"}}, "scheduler.name: must be one of asha"),
    ],
)
def test_a_wrong_setting_is_told(tmp_path, changed, said):
    assert said in told(tmp_path, **changed)


def test_a_sweep_has_the_name_of_its_file(tmp_path):
    with pytest.raises(ConfigError, match="a sweep has the name of its file: 'A b'"):
        read(tmp_path, {"run": "segmentation", "space": SPACE}, "A b.yaml")


def test_settings_reach_the_run_and_nothing_else(tmp_path):
    sweep = read(tmp_path, {"run": "segmentation", "space": SPACE})
    params = sweep.with_settings({"train.optimizer.lr": 0.5, "train.batch_size": 4})
    changed, other = params.run("segmentation"), params.run("detection")
    assert (changed.train.optimizer.lr, changed.train.batch_size) == (0.5, 4)
    assert other == Params(TINY).run("detection")
    assert "train" not in TINY["runs"]["segmentation"], "the file's own document stays"


def test_a_drawn_number_is_cut_to_four_digits_and_stays_inside(tmp_path):
    lr = read(tmp_path, {"run": "segmentation", "space": SPACE}).space["train.optimizer.lr"]
    assert lr.value(0.00123456) == 0.001235
    assert lr.value(0.0099999999) == 0.01
    assert lr.value(0.00010000001) == 1e-4


def test_contradictions_are_told_before_training(tmp_path):
    space = {"train.max_epochs": {"int": [1, 4]}, "train.validate_every_epochs": {"choice": [1, 2]}}
    sweep = read(tmp_path, {"run": "segmentation", "space": space})
    problems: list[str] = []
    assert sweep.resolved({"train.max_epochs": 1, "train.validate_every_epochs": 2}, problems) is None
    assert "no epoch would be validated" in problems[0]
    assert sweep.resolved({"train.max_epochs": 2, "train.validate_every_epochs": 2}, problems) is not None
