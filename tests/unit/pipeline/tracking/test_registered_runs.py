"""`registry.runs`: which runs become models."""

from __future__ import annotations

import json

import pytest

from contracts.errors import ConfigError
from pipeline.settings.check import check
from pipeline.settings.params import Params, load_params
from pipeline.stages.register import register
from pipeline.system.project import Project


def params_with(project: Project, runs: object) -> Params:
    return Params(load_params(project.root).document | {"registry": {"runs": runs}})


def test_a_run_that_is_left_out_is_not_registered(tiny_project, tmp_path, capsys):
    project = Project(tmp_path)
    register(project, params_with(tiny_project, ["vqa"]), "segmentation")  # without a checkpoint or a metric
    decision = json.loads(project.registry("segmentation").read_text())
    assert decision["decision"] == "not registered" and "registry.runs" in decision["reason"]
    assert "register segmentation: not registered" in capsys.readouterr().out
    assert not (tmp_path / "mlflow.db").exists()


def test_only_runs_can_be_named(tiny_project):
    check(params_with(tiny_project, "all"))
    check(params_with(tiny_project, ["vqa", "segmentation"]))
    with pytest.raises(ConfigError, match=r"registry\.runs: no such run \(is 'segmentatoin'\); did you mean"):
        check(params_with(tiny_project, ["segmentatoin"]))
    with pytest.raises(ConfigError, match=r"registry\.runs"):
        check(params_with(tiny_project, "some"))
