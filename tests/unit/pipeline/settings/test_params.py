"""params.yaml: every mistake is told, at once, with where it is and what was probably meant."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from contracts.errors import ConfigError
from pipeline.settings import discover
from pipeline.settings.check import check
from pipeline.settings.params import Params, load_params
from pipeline.settings.parse import merged
from pipeline.settings.sections import ClusterConfig, ShardsConfig


@pytest.fixture
def document(root: Path) -> dict[str, Any]:
    return yaml.safe_load((root / "params.yaml").read_text())


def put(document: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for key in parents:
        document = document.setdefault(key, {})
    document[last] = value


def message(document: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        check(Params(document))
    return str(caught.value)


def test_the_shipped_file_has_no_mistakes(document):
    check(Params(document))


def test_all_mistakes_are_told_at_once(document):
    document["runs"]["vqa_lstm"]["train"] = {"batch_sise": 3}
    document["runs"]["segmentation_fcn"]["model"] = {"name": "fcm"}
    document["datasets"]["coco"]["max_quarantined"] = "much"
    document["cluster"]["num_workers"] = 0
    text = message(document)
    for part in (
        "runs.vqa_lstm.train.batch_sise: unknown key; did you mean 'batch_size'?",
        "did you mean 'fcn'?",
        "datasets.coco.max_quarantined",
        "cluster.num_workers: must be 1 or more (is 0)",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("runs.vqa_lstm.dataset", "cocoo", "no such data set"),
        ("runs.vqa_lstm.model.backbone", "resnet19", "must be one of small, resnet18,"),
        ("runs.vqa_lstm.model.embedding_channels", -3, "embedding_channels: must be 1 or more (is -3)"),
        ("runs.vqa_lstm.model.dropuot", 0.1, "model.dropuot: unknown key; did you mean 'dropout'?"),
        ("runs.vqa_lstm.train.optimizer.lrr", 1, "train.optimizer.lrr: unknown key; did you mean 'lr'?"),
        ("runs.vqa_lstm.train.max_epochs", "3", "max_epochs"),
        ("datasets.voc.world", None, "origin: generated"),
        ("datasets.voc.sources", {"vocc": {}}, "did you mean 'voc'?"),
        ("datasets.voc.download", {"archives": ["voc2012_trainvall"]}, "unknown archive"),
        ("registry.gates", {"nobody": 0.5}, "registry.gates.nobody: no such run"),
        ("registry.slices", {"nobody": {"AP/*": 0.5}}, "registry.slices.nobody: no such run"),
        ("registry.max_latency_ms", {"nobody": 5}, "registry.max_latency_ms.nobody: no such run"),
        ("registry.max_latency_ms", {"vqa_lstm": 0}, "more than 0"),
        ("registry.slices", {"vqa_lstm": {"overall": -1.0}}, "0 or more"),
        ("registry.min_gain", float("inf"), "any finite number"),
        ("tracking.uri", "file:./mlruns", "plain files"),
    ],
)
def test_single_mistakes(document, path, value, expected):
    put(document, path, value)
    assert expected in message(document)


@pytest.mark.parametrize(
    ("run", "model", "said"),
    [
        ("detection_faster_rcnn", "fcn", "task detection gives its model DetectorSpec, and fcn takes SegmenterSpec;"),
        (
            "detection_faster_rcnn",
            "mask_rcnn",
            "models that fit detection: alternating_rcnn, faster_rcnn, grid_boxes, retinanet, ssd, "
            "torchvision_detector, yolo; tasks that fit mask_rcnn: instances",
        ),
        ("instances_mask_rcnn", "faster_rcnn", "task instances gives its model InstanceSegmenterSpec"),
        (
            "vqa_lstm",
            "soft_attention",
            "models that fit vqa: lstm_vqa, stacked_attention; tasks that fit soft_attention: captioning",
        ),
    ],
)
def test_a_model_that_cannot_do_the_task_is_told(document, run, model, said):
    document["runs"][run]["model"] = {"name": model}
    text = message(document)
    assert text.startswith("1 mistake in params.yaml") and f"runs.{run}.model: task" in text and said in text


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"pretrained": True}, "backbone 'small' is trained from scratch"),
        ({"norm": "frozen"}, "backbone 'small' is trained from scratch"),
        ({"backbone": "vgg16", "norm": "group"}, "this backbone has no batch norms"),
        ({"backbone": "resnet18", "norm": "group", "pretrained": True}, "pretrained weights belong to batch norms"),
    ],
)
def test_every_model_tells_a_backbone_that_could_not_be_built(document, settings, said):
    runs = document["runs"].values()
    for run in runs:
        run["model"] |= settings
    text = message(document)
    assert text.startswith(f"{len(runs)} mistakes in params.yaml") and text.count(said) == len(runs)


@pytest.mark.parametrize("run", ["vqa_lstm", "captioning_attention"])
def test_a_flip_that_knows_nothing_of_the_text_is_refused(document, run):
    put(document, f"runs.{run}.task.augment", {"horizontal_flip": 0.5})
    text = message(document)
    assert text.startswith("1 mistake in params.yaml")
    assert "set the task's `mirror` to that probability" in text
    document["runs"][run]["task"] |= {"augment": {"vertical_flip": 0.5}, "mirror": 0.25}
    check(Params(document))


@pytest.mark.parametrize("value", [[], [1], "text", 3, True, 1.5])
@pytest.mark.parametrize(
    "path",
    [
        "datasets",
        "datasets.voc",
        "datasets.voc.world",
        "datasets.voc.world.num_records",
        "datasets.voc.sources",
        "datasets.voc.sources.voc",
        "runs",
        "runs.vqa_lstm",
        "runs.vqa_lstm.task",
        "runs.vqa_lstm.model",
        "runs.vqa_lstm.train",
        "runs.vqa_lstm.loader",
        "runs.vqa_lstm.train.optimizer",
        "train",
        "train.optimizer",
        "loader",
        "shards",
        "cluster",
        "tracking",
        "registry",
        "registry.gates",
    ],
)
def test_a_section_of_another_kind_is_told_once_with_its_key(document, path, value):
    put(document, path, value)
    text = message(document)
    (line,) = [line for line in text.splitlines() if line.startswith(f"  - {path}: must be a mapping")]
    assert line.endswith(f"(is {json.dumps(value)})")
    if path not in ("runs", "registry"):  # gates of runs that are not there are told, too
        assert text.startswith("1 mistake in params.yaml"), text


@pytest.mark.parametrize(
    "path", ["train", "loader", "shards", "cluster", "tracking", "registry", "runs.vqa_lstm.train"]
)
def test_a_section_with_nothing_in_it_is_empty(document, path):
    put(document, path, None)
    check(Params(document))


@pytest.mark.parametrize("section", ["datasets", "runs"])
def test_data_sets_and_runs_must_be_there(document, section):
    del document[section]
    assert f"  - {section}: missing" in message(document)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("train.batch_size", 0, "1 or more (is 0)"),
        ("train.micro_batch_size", 0, "1 or more (is 0)"),
        ("train.max_epochs", -1, "1 or more (is -1)"),
        ("train.log_every_steps", 0, "1 or more (is 0)"),
        ("train.num_pictures", -1, "0 or more (is -1)"),
        ("train.ema_decay", 1, "more than 0 and less than 1 (is 1.0)"),
        ("train.seed", 2**32, "0 or more and at most 4294967295 (is 4294967296)"),
        ("train.optimizer.lr", -0.1, "more than 0 (is -0.1)"),
        ("train.optimizer.momentum", 1, "0 or more and less than 1 (is 1.0)"),
        ("loader.num_workers", -1, "0 or more (is -1)"),
        ("loader.prefetch", 0, "1 or more (is 0)"),
        ("loader.window", 0, "1 or more (is 0)"),
        ("shards.quality", 101, "1 or more and at most 100 (is 101)"),
        ("cluster.resize_every_s", 0, "more than 0 (is 0.0)"),
        ("cluster.max_failures", -1, "0 or more (is -1)"),
        ("cluster.collective_timeout_s", 0, "1 or more (is 0)"),
        ("tracking.patience_s", -1, "0 or more (is -1.0)"),
        ("datasets.voc.max_quarantined", 1.1, "0 or more and at most 1 (is 1.1)"),
        ("datasets.voc.world.num_records.train", 0, "1 or more and at most 400000 (is 0)"),
        ("runs.segmentation_fcn.model.dropout", 1, "0 or more and less than 1 (is 1.0)"),
        ("runs.detection_faster_rcnn.task.augment.crop", 0.5, "0 or more and less than 0.5 (is 0.5)"),
        ("runs.detection_faster_rcnn.model.anchors", [0.1, -0.2], "more than 0 (is [0.1, -0.2])"),
        ("registry.gates", {"vqa_lstm": float("nan")}, "any finite number"),
    ],
)
def test_a_number_out_of_range_is_told_once_with_what_is_allowed(document, path, value, said):
    put(document, path, value)
    text = message(document)
    assert text.startswith("1 mistake in params.yaml"), text
    assert f"{path}" in text
    assert f": must be {said}" in text


def test_several_mistakes_of_one_section_are_told_together(document):
    document["train"] |= {
        "batch_size": 0,
        "num_pictures": -1,
        "optimizer": {"lr": -1, "warmup_fraction": 2},
        "seeed": 1,
    }
    document["runs"]["vqa_lstm"]["train"]["max_epochs"] = 0
    document["cluster"]["num_workers"] = {"min": 0, "max": -1}
    document["datasets"]["Voc"] = document["datasets"]["voc"]
    document["shards"] = []
    lines = message(document).splitlines()
    assert lines[0] == "10 mistakes in params.yaml:"
    assert {line[4:].partition(": ")[0] for line in lines[1:]} == {
        *("datasets", "shards", "train.optimizer.lr", "train.optimizer.warmup_fraction", "train.seeed"),
        *("train.batch_size", "train.num_pictures", "runs.vqa_lstm.train.max_epochs"),
        *("cluster.num_workers.min", "cluster.num_workers.max"),
    }


def test_parts_are_checked_where_their_data_set_has_mistakes(document):
    document["datasets"]["voc"] |= {
        "input": 3,
        "sources": {"voc": {"one_based": 1}, "vocc": {}},
        "world": {"name": "x"},
    }
    text = message(document)
    assert text.startswith("4 mistakes in params.yaml")
    for said in (
        "datasets.voc.input: must be text (is 3)",
        "datasets.voc.sources.voc.one_based: must be true or false (is 1)",
        "datasets.voc.sources.vocc: unknown source (is \"vocc\"); did you mean 'voc'?",
        'datasets.voc.world: unknown world (is "x"); known: coco_scenes, motion, pairs, question_scenes, recall, '
        "sentences, voc_scenes",
    ):
        assert said in text


@pytest.mark.parametrize("value", ["two", None, 1.5, [1]])
def test_what_may_be_of_two_kinds_is_told_once(document, value):
    document["cluster"]["num_workers"] = value
    text = message(document)
    assert text.startswith("1 mistake in params.yaml")
    assert "cluster.num_workers: must be a whole number or auto or a mapping of min and max" in text


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"min": 2, "max": 1}, "cluster.num_workers: not a range of workers"),
        ({"min": 1}, "cluster.num_workers.max: missing"),
        ({"min": 1, "max": "x"}, 'cluster.num_workers.max: must be a whole number (is "x")'),
        ({"min": 1, "max": 2, "mox": 3}, "cluster.num_workers.mox: unknown key; did you mean 'max'?"),
        ({"min": 0, "max": 2}, "cluster.num_workers.min: must be 1 or more (is 0)"),
    ],
)
def test_the_mapping_that_was_meant_tells_its_own_mistakes(document, value, said):
    document["cluster"]["num_workers"] = value
    text = message(document)
    assert text.startswith("1 mistake in params.yaml"), text
    assert said in text


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("postgresql://me:hunter2@host/db", "the driver psycopg2 of this database is not installed"),
        ("postgresql+nobody://host/db", "the driver nobody of this database is not installed"),
        ("mysql://host/db", "the driver MySQLdb of this database is not installed"),
        ("/mlruns", "plain files"),
        ("mlruns", "not the url of a tracking store"),
        ("sqlite://", "not the url of a tracking store"),
    ],
)
def test_a_tracking_store_that_cannot_be_used_is_told(document, monkeypatch, uri, said):
    document["tracking"] = {"uri": uri}
    text = message(document)
    assert said in text
    assert "postgresql+pg8000://" in text
    assert "hunter2" not in text
    document["tracking"] = {}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert "environment variable MLFLOW_TRACKING_URI" in message(document)


def test_a_database_with_its_driver_is_taken(document, monkeypatch):
    monkeypatch.setattr("pipeline.settings.uris._installed", lambda module: module == "pg8000")
    document["tracking"] = {"uri": "postgresql+pg8000://me:pw@host/db"}
    check(Params(document))


def test_unknown_section_names_the_nearest(document):
    document["trian"] = {}
    assert "trian: unknown section; did you mean 'train'?" in message(document)


def test_missing_file_and_broken_yaml(tmp_path):
    with pytest.raises(ConfigError, match=r"no params\.yaml"):
        load_params(tmp_path)
    (tmp_path / "params.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_params(tmp_path)


def test_run_settings_lie_over_the_shared_ones(document):
    document["train"]["optimizer"] = {"lr": 0.5, "weight_decay": 0.25}
    document["runs"]["vqa_lstm"]["train"] = {"optimizer": {"lr": 0.125}}
    run = Params(document).run("vqa_lstm")
    assert (run.train.optimizer.lr, run.train.optimizer.weight_decay) == (0.125, 0.25)


def test_merged_leaves_its_arguments_alone():
    base = {"a": {"b": 1, "c": 2}}
    before = copy.deepcopy(base)
    assert merged(base, {"a": {"b": 3}}) == {"a": {"b": 3, "c": 2}}
    assert base == before


def test_unknown_run_lists_the_known_ones(document):
    with pytest.raises(ConfigError, match="vqa_lstm"):
        Params(document).run("vqa")


def test_sections_have_defaults():
    params = Params({"datasets": {}, "runs": {}})
    assert params.section(ShardsConfig, "shards").samples > 0
    assert params.section(ClusterConfig, "cluster").engine == "ray"


def test_discovered_names_are_the_files(root):
    assert set(discover.names("task")) >= {"captioning", "vqa", "segmentation", "detection", "instances"}
    with pytest.raises(ConfigError, match="did you mean 'camvid'"):
        discover.load("source", "camvit", where="here")


def dataset(**changes):
    known = {"origin": "local", "input": "/data", "sources": {"coco": {}}}
    return Params({"datasets": {"d": {**known, **changes}}, "runs": {}}).dataset("d")


def test_names_of_splits_reach_every_source_in_its_own_words():
    config = dataset(splits={"val": "valid"}, sources={"coco": {}, "vqa": None, "voc": {"test": ""}})
    assert config.sources["coco"] == config.sources["vqa"] == {"splits": {"val": "valid"}}
    assert config.sources["voc"] == {"val": "valid", "test": ""}  # whose settings name lists by split
    assert dataset(splits={"val": "valid"}, sources={"coco": {"splits": {"val": "v"}}}).sources["coco"] == {
        "splits": {"val": "v"}
    }
    assert dataset(splits={"train": ["a", "b"]}).splits == {"train": ("a", "b")}
    assert dataset().sources == {"coco": {}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"splits": {"valid": "val"}}, r"datasets\.d\.splits\.valid"),
        ({"splits": {"val": "v"}, "sources": {"camvid": {}}}, r"camvid\.splits: unknown key"),
        ({"split": {"val": 0}}, r"split\.val: must be more than 0"),
        ({"split": {"val": 0.6, "test": 0.5}}, r"nothing left for train"),
        ({"split": {}}, r"nothing to draw"),
        ({"split": {"val": 0.1, "by": "name"}}, r"split\.by: must be one of image or group"),
        ({"exif": "yes"}, r"exif: must be one of auto, apply or ignore"),
    ],
)
def test_mistakes_about_splits_are_told(changes, message):
    with pytest.raises(ConfigError, match=message):
        dataset(**changes)
