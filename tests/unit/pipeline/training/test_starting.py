"""Starting from another run's weights: all of them or a part, and what does not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from contracts.errors import DataError
from contracts.records import DataSpec
from pipeline.settings.params import Params, load_params
from pipeline.system.project import Project, write_json
from pipeline.training.checkpoints import BEST, build_module, file_sha256, start_from, weights_digest
from pipeline.training.fit import START, fit
from pipeline.training.runs import load_run
from pipeline.training.starting import is_current, lay_start
from tests.local_training import arguments, make_checkpoint

pytestmark = pytest.mark.filterwarnings("default")


def module_of(project: Project, run: str):
    data = load_run(project, load_params(project.root), run)
    return build_module(data.run.to_dict(), DataSpec.from_dict(data.spec.to_dict()))


def test_a_part_is_taken_and_the_rest_stays(tiny_project, tmp_path):
    path = make_checkpoint(tmp_path / BEST, seed=1)  # an FCN
    given = torch.load(path, weights_only=True)["state_dict"]
    module = module_of(tiny_project, "detection")
    before = {name: value.clone() for name, value in module.state_dict().items()}
    start_from(module, path, "backbone")
    after = module.state_dict()
    backbone = {name for name in after if name.startswith("model.backbone.")}
    assert backbone and all(torch.equal(after[name], given[name]) for name in backbone)
    assert all(torch.equal(after[name], before[name]) for name in after.keys() - backbone)
    assert any(not torch.equal(after[name], before[name]) for name in backbone)


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (None, r"head.6.bias is \(3,\) there and \(\d+,\) here"),
        ("head", r"head.6.weight is \(3, 256, 1, 1\) there and \(\d+, 256, 1, 1\) here"),
        ("decoder", "neither model has such a part"),
    ],
)
def test_what_does_not_fit_is_refused_with_both_shapes(tiny_project, tmp_path, part, said):
    path = make_checkpoint(tmp_path / BEST, seed=1)
    module = module_of(tiny_project, "segmentation")
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(DataError, match=f"(?s)the weights of run seg do not fit this model.*{said}"):
        start_from(module, path, part)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_weights_that_only_one_side_has_are_refused(tiny_project, tmp_path):
    path = make_checkpoint(tmp_path / BEST, seed=1)
    with pytest.raises(DataError, match=r"(?s)head.0.bias is \(256,\) there and nothing here.*and 34 more"):
        start_from(module_of(tiny_project, "detection"), path, None)


def test_training_starts_there_and_a_resumed_one_does_not_start_again(tiny_project, tmp_path, monkeypatch):
    """With a rate of next to nothing the weights are those of the start."""
    optimizer = {"name": "sgd", "lr": 1e-30, "weight_decay": 0.0}

    def given(name: str):
        found = arguments(tiny_project, tmp_path / name, max_epochs=1, ema_decay=None, optimizer=optimizer)
        found["run"]["init"] = {"run": "seg", "part": "backbone"}
        make_checkpoint(tmp_path / name / START, seed=1)
        return found

    fit(**given("whole"))
    trained = torch.load(tmp_path / "whole" / BEST, weights_only=True)["state_dict"]
    start = torch.load(tmp_path / "whole" / START, weights_only=True)["state_dict"]
    learnt = [n for n in trained if n.startswith("model.backbone.") and n.endswith("weight")]
    assert learnt and all(torch.allclose(trained[name], start[name]) for name in learnt)

    again = given("again")
    fit(**again)
    make_checkpoint(tmp_path / "again" / START, seed=2)
    fit(**again)
    weights = [torch.load(tmp_path / name / BEST, weights_only=True)["state_dict"] for name in ("whole", "again")]
    assert weights_digest(weights[0]) == weights_digest(weights[1])


def test_the_fingerprint_counts_the_checkpoint(tiny_project, tmp_path):
    document = load_params(tiny_project.root).document
    runs = {**document["runs"], "tuned": {**document["runs"]["detection"], "init": {"run": "segmentation"}}}
    params = Params({**document, "runs": runs})
    folder = tiny_project.artifacts("segmentation")
    with pytest.raises(DataError, match=r"(?s)the record of the training is not there"):
        load_run(tiny_project, params, "tuned")
    assert not is_current(tiny_project, params, "segmentation")
    found = []
    try:
        for seed in (1, 2):
            record = {
                **dict.fromkeys(("run_id", "git_commit"), "x"),
                **dict.fromkeys(("code", "manifest_digest"), "0" * 64),
                "git_changed": [],
                "checkpoint_sha256": file_sha256(make_checkpoint(folder / BEST, seed=seed)),
                "fingerprint": load_run(tiny_project, params, "segmentation").fingerprint,
            }
            write_json(folder / "run.json", record)
            assert is_current(tiny_project, params, "segmentation")
            found.append(load_run(tiny_project, params, "tuned"))
        assert found[0].fingerprint != found[1].fingerprint
        lay_start(tiny_project, found[1], tmp_path)
        assert file_sha256(tmp_path / START) == found[1].start
        with pytest.raises(DataError, match="has changed meanwhile"):
            lay_start(tiny_project, replace(found[1], start="0" * 64), tmp_path)
        write_json(folder / "run.json", {**record, "fingerprint": "0" * 64})
        assert not is_current(tiny_project, params, "segmentation"), "of other settings"
    finally:
        for path in (folder / BEST, folder / "run.json"):
            Path(path).unlink(missing_ok=True)
