"""Every discovered part keeps its contract: a new source, task or model is tested here without a line being added."""

from __future__ import annotations

import dataclasses
import json
import math
from itertools import groupby
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch

from contracts.errors import ConfigError
from contracts.inputs import inputs_of
from contracts.records import DataSpec
from lightning_modules.base.families import Spec
from lightning_modules.base.optimizer import OptimizerConfig, PartConfig
from lightning_modules.metrics.measurement import values_of
from lightning_modules.reports._report import BaseReport
from pipeline.settings import discover
from pipeline.settings.params import Params, load_params
from pipeline.settings.parse import parse
from pipeline.settings.sections import (
    ClusterConfig,
    DrawConfig,
    LoaderConfig,
    ShardsConfig,
    TrackingConfig,
    WorkerRange,
)
from pipeline.settings.train_config import StageConfig, TrainConfig
from pipeline.shards.reader import SplitReader
from pipeline.system.project import Project
from pipeline.training.checkpoints import build_module
from pipeline.training.predictor import Predictor
from pipeline.training.reports import build_report
from pipeline.training.runs import RunData, load_run
from tests.conftest import FLAGS, LARGE
from tests.shipped import LOCAL, SHIPPED

pytestmark = pytest.mark.filterwarnings("default")


def config_class(kind: str, name: str) -> type:
    module = discover.load(kind, name, where="test")
    return module.Task.Config if kind == "task" else module.Config


CONFIGURED = [kind for kind in discover.KINDS if kind not in ("scorer", "format", "report", "text")]  # nothing to set
PARTS = [(kind, name) for kind in CONFIGURED for name in discover.names(kind)]


@pytest.mark.parametrize(("kind", "name"), PARTS)
def test_config_is_strict_frozen_and_has_defaults(kind, name):
    cls = config_class(kind, name)
    assert dataclasses.is_dataclass(cls)
    assert cls.__dataclass_params__.frozen, "a part must not change its settings"
    problems: list[str] = []
    assert parse(cls, {}, name, problems) is not None, problems
    assert parse(cls, {"no_such_key": 1}, name, problems) is None
    assert "no_such_key: unknown key" in problems[-1]


@pytest.mark.parametrize("name", discover.names("source"))
def test_a_source_whose_paths_name_a_split_takes_other_names_for_it(name):
    cls = config_class("source", name)
    has_templates = any("{split}" in value for value in vars(cls()).values() if isinstance(value, str))
    assert not has_templates or "splits" in {f.name for f in dataclasses.fields(cls)}


@pytest.mark.parametrize(("kind", "name"), PARTS)
def test_config_survives_storage(kind, name):
    config = parse(config_class(kind, name), {}, name, [])
    assert config is not None
    stored = json.loads(json.dumps(dataclasses.asdict(config)))
    assert parse(config_class(kind, name), stored, name, []) == config


def shipped(project: Project) -> Params:
    """The shipped runs, and those of large models, on the tiny data sets."""
    return Params({**load_params(project.root).document, "runs": SHIPPED | LARGE})


def sections(cls: type) -> list[dataclasses.Field]:
    """Fields of a Config that are sections of their own."""
    return [f for f in dataclasses.fields(cls) if dataclasses.is_dataclass(getattr(cls(), f.name))]


@pytest.mark.parametrize(
    "cls", [cls for cls in (*(config_class(*part) for part in PARTS), TrainConfig) if sections(cls)], ids=str
)
def test_a_partial_section_keeps_the_other_defaults(cls):
    default = cls()
    for section in sections(cls):
        for field in dataclasses.fields(getattr(default, section.name)):
            value = json.loads(json.dumps(getattr(getattr(default, section.name), field.name)))
            problems: list[str] = []
            assert parse(cls, {section.name: {field.name: value}}, "part", problems) == default, problems


SECTION_CONFIGS = (
    DrawConfig,
    ShardsConfig,
    LoaderConfig,
    ClusterConfig,
    WorkerRange,
    TrackingConfig,
    TrainConfig,
    OptimizerConfig,
    PartConfig,
    StageConfig,
)


def number_fields(cls: type) -> list[str]:
    """Fields of a Config that hold numbers."""
    hints = get_type_hints(cls)
    return [f.name for f in dataclasses.fields(cls) if {int, float} & {hints[f.name], *get_args(hints[f.name])}]


@pytest.mark.parametrize(
    "cls",
    [*SECTION_CONFIGS, *(config_class(*part) for part in PARTS)],
    ids=lambda cls: f"{cls.__module__}.{cls.__name__}",
)
def test_every_number_has_a_range(cls):
    """NaN fails every comparison, so that only a range that says what is allowed refuses it."""
    good = {WorkerRange: {"min": 1, "max": 2}, StageConfig: {"epochs": 1}}.get(cls, {})
    for name in number_fields(cls):
        several = "tuple" in str(get_type_hints(cls)[name])
        for number in (math.nan, -math.inf, -1_000_000):
            with pytest.raises(ConfigError, match=rf"{name} must be .* \(is"):
                cls(**good | {name: (number,) if several else number})


def test_every_task_has_a_model_and_every_model_a_task():
    made = {discover.load("task", name, where="test").Task.spec_class for name in discover.names("task")}
    taken = {discover.load("model", name, where="test").Model.spec_class for name in discover.names("model")}
    assert made == taken == set(Spec.__subclasses__())


def test_every_task_has_its_report_and_every_report_a_task():
    assert discover.names("report") == discover.names("task")
    for name in discover.names("report"):
        assert issubclass(discover.load("report", name, where="test").Report, BaseReport)


def test_every_task_and_model_is_in_a_shipped_run(root):
    """Or in one of those that the tests train."""
    documents = (load_params(root).document, load_params(root / "lecture").document, FLAGS, {"runs": LARGE})
    runs = [run for document in documents for run in document["runs"].values()]
    assert {run["task"]["name"] for run in runs} == set(discover.names("task"))
    assert {run["model"]["name"] for run in runs} == set(discover.names("model"))


RUNS = [
    *(("tiny_project", run) for run in (*SHIPPED, *LARGE)),
    *(("flags_project", run) for run in FLAGS["runs"]),
    *(("local_project", run) for run in LOCAL),
]


def run_data(request: pytest.FixtureRequest, project: str, run: str) -> tuple[Project, RunData]:
    made = request.getfixturevalue(project)
    params = shipped(made) if project == "tiny_project" else load_params(made.root)
    return made, load_run(made, params, run)


@pytest.mark.parametrize(("project", "run"), RUNS)
def test_a_batch_goes_all_the_way(request, project, run):
    project, data = run_data(request, project, run)
    module = build_module(data.run.to_dict(), DataSpec.from_dict(data.spec.to_dict()))
    task, model = module.task, module.model
    reader = SplitReader(project.shards(data.run.dataset), data.manifest, "train")
    positions = reader.select(task.requires)[:3]
    records = [reader.read(int(i)) for i in positions]

    batch = task.collate([task.encode(record, 7) for record in records])
    losses = task.losses(model.train(), batch)
    assert losses
    assert all(loss.total.ndim == 0 and torch.isfinite(loss.total) for loss in losses.values())
    assert all(loss.count == batch.get("counts", {}).get(name, len(records)) for name, loss in losses.items())
    torch.stack([loss.value for loss in losses.values()]).sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())

    batch = task.collate([task.encode(record, None) for record in records])
    with torch.inference_mode():
        parts, predictions = task.evaluate_batch(model.eval(), batch)
    items = [item for record in records for item in task.items(record)]
    assert len(predictions) == len(items) == len({item.id for item in items}) >= len(records)
    assert [key for key, _ in groupby(item.key for item in items)] == [record.key for record in records]
    assert all(item.id.startswith(item.key) for item in items)
    assert all(torch.isfinite(part.total) for part in parts.values())
    groups = {item.id: item.group for item in items}
    truths = dict(zip(groups, (truth for record in records for truth in task.truths(record)), strict=True))
    keyed = dict(zip(groups, predictions, strict=True))
    measured = values_of(task.measure(keyed, truths, groups))
    assert task.metric in measured and measured == task.score(keyed, truths), "groups move no score"
    report = build_report(data.run.to_dict(), task)
    constant = report.constant(truths)
    assert constant.keys() == truths.keys()
    assert task.metric in task.score(constant, truths)
    json.dumps(task.answer(predictions[0]), allow_nan=False)
    first = len(task.items(records[0]))
    for known in (None, task.truths(records[0])):
        picture = report.picture(records[0], predictions[:first], known)
        assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
    for plot in report.plots(keyed, truths):
        assert all(len(row) == len(plot.columns) for row in plot.rows)


@pytest.mark.parametrize(("project", "run"), RUNS)
def test_every_weight_starts_by_the_seed(request, project, run, memory_full_of_nan):
    _, data = run_data(request, project, run)
    module = build_module(data.run.to_dict(), data.spec)
    assert [name for name, value in module.state_dict().items() if not value.isfinite().all()] == []


@pytest.mark.parametrize(("project", "run"), RUNS)
def test_groups_are_drawn_again_as_wholes(request, project, run):
    """Two groups of records: a resample that holds one of them twice has its items twice, and none of the other's."""
    project, data = run_data(request, project, run)
    task = build_module(data.run.to_dict(), data.spec).task
    reader = SplitReader(project.shards(data.run.dataset), data.manifest, "val")
    records = [reader.read(int(i)) for i in reader.select(task.eval_requires)[:6]]
    items = [item for record in records for item in task.items(record)]
    groups = {item.id: "even" if records[0].key <= item.key <= records[2].key else "odd" for item in items}
    truths = dict(zip(groups, (truth for record in records for truth in task.truths(record)), strict=True))
    predictions = build_report(data.run.to_dict(), task).constant(truths)
    held = np.array([[2.0 * (groups[item] == "even") for item in sorted(groups)]])
    by_item, by_group = (task.measure(predictions, truths, given) for given in (None, groups))
    for alone, together in zip(by_item, by_group, strict=True):
        assert together.num_clusters == 2 and values_of([alone]) == values_of([together])
        assert alone.resample is not None and together.resample is not None
        expected, drawn = alone.resample(held), together.resample(np.array([[2.0, 0.0]]))
        assert drawn.keys() == expected.keys()
        for name in expected:
            np.testing.assert_allclose(drawn[name], expected[name], rtol=1e-12, err_msg=name)


@pytest.mark.parametrize(("project", "run"), RUNS)
def test_a_model_answers_to_its_inputs_alone(request, project, run):
    """What it is asked with when it is served: no annotation."""
    project, data = run_data(request, project, run)
    predictor = Predictor(build_module(data.run.to_dict(), data.spec).eval(), data.run.to_dict())
    reader = SplitReader(project.shards(data.run.dataset), data.manifest, "val")
    example = reader.read(int(reader.select(predictor.module.task.eval_requires)[0]))
    record = predictor.record(inputs_of(example, predictor.inputs))
    assert not len(record.objects) and not record.captions and not record.labels and not record.semantic_mask
    predictions = predictor.predict(record)
    assert len(predictions) == len(predictor.module.task.items(record)) > 0
    json.dumps(predictor.answers(predictions), allow_nan=False)
    assert predictor.picture(record, predictions).dtype == np.uint8


@pytest.mark.parametrize(("project", "run"), RUNS)
def test_encoding_depends_on_the_seed_alone(request, project, run):
    project, data = run_data(request, project, run)
    task = build_module(data.run.to_dict(), data.spec).task
    reader = SplitReader(project.shards(data.run.dataset), data.manifest, "train")
    record = reader.read(int(reader.select(task.requires)[0]))
    first, again = task.encode(record, 3), task.encode(record, 3)
    np.random.rand(5)
    torch.rand(5)
    np.testing.assert_array_equal(first["image"], again["image"])
    np.testing.assert_array_equal(task.encode(record, None)["image"], task.encode(record, None)["image"])
