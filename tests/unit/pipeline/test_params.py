"""params.yaml: every mistake is told, at once, with where it is and what was probably meant."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from contracts.errors import ConfigError
from pipeline import discover
from pipeline.check import check
from pipeline.params import ClusterConfig, Params, ShardsConfig, load_params
from pipeline.settings import merged


@pytest.fixture
def document(root: Path) -> dict[str, Any]:
    return yaml.safe_load((root / "params.yaml").read_text())


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
        ("runs.vqa_lstm.model.dropuot", 0.1, "model.dropuot: unknown key; did you mean 'dropout'?"),
        ("runs.vqa_lstm.train.optimizer.lrr", 1, "train.optimizer.lrr: unknown key; did you mean 'lr'?"),
        ("runs.vqa_lstm.train.max_epochs", "3", "max_epochs"),
        ("datasets.voc.world", None, "origin: generated"),
        ("datasets.voc.sources", {"vocc": {}}, "did you mean 'voc'?"),
        ("datasets.voc.download", {"archives": ["voc2012_trainvall"]}, "unknown archive"),
        ("registry.gates", {"nobody": 0.5}, "registry.gates.nobody: no such run"),
        ("tracking.uri", "file:./mlruns", "plain files"),
    ],
)
def test_single_mistakes(document, path, value, expected):
    *parents, last = path.split(".")
    target = document
    for key in parents:
        target = target.setdefault(key, {})
    target[last] = value
    assert expected in message(document)


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
