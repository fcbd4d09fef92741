"""`sightline sweep` on a tiny project: interrupted, gone on with, applied; training is real, without Ray."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.settings.params import load_params
from pipeline.settings.sections import TrackingConfig
from pipeline.stages.train import train
from pipeline.system.project import Project
from pipeline.tracking.connection import connect
from pipeline.tracking.sweep_runs import PARENT
from pipeline.training.callbacks import StateWriter
from tests.command import sightline

pytestmark = pytest.mark.filterwarnings("default")
SPEC = {
    "run": "segmentation",
    "num_trials": 2,
    "keep": 1,
    "scheduler": None,
    "space": {"train.optimizer.lr": {"loguniform": [1e-4, 1e-2]}},
}
COMMENT = "# by hand\n"
EPOCHS = 4


@pytest.fixture
def project(tiny_project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A copy of the tiny project with its one data set and run, and a sweep's file."""
    shutil.copytree(tiny_project.shards("voc"), tmp_path / "data/shards/voc")
    shutil.copytree(tiny_project.vocabulary("voc").parent, tmp_path / "data/vocab")
    document = yaml.safe_load((tiny_project.root / "params.yaml").read_text())
    document["datasets"] = {"voc": document["datasets"]["voc"]}
    document["runs"] = {"segmentation": document["runs"]["segmentation"]}
    document["train"] |= {"max_epochs": EPOCHS, "num_pictures": 0}
    (tmp_path / "params.yaml").write_text(COMMENT + yaml.safe_dump(document))
    (tmp_path / "lr.yaml").write_text(yaml.safe_dump(SPEC))
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)


def trials(project: Project) -> list[dict[str, Any]]:
    path = project.root / "sweeps/lr.json"
    return json.loads(path.read_text())["trials"] if path.is_file() else []


def interrupt_in_the_second_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C, once, when its second state is written; the training waits until the command has had it."""
    original = StateWriter._save
    states: dict[Path, int] = {}

    def save(self: StateWriter, trainer: Any) -> None:
        original(self, trainer)
        states[self.folder] = states.get(self.folder, 0) + 1
        if list(states.values()) == [EPOCHS, 2]:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(2)

    monkeypatch.setattr(StateWriter, "_save", save)


def test_a_sweep_goes_on_after_an_interruption_and_its_best_needs_no_training(project, capsys, monkeypatch):
    interrupt_in_the_second_trial(monkeypatch)
    assert sightline("sweep", ["lr.yaml"]) == 130
    first, second = trials(project)
    assert (first["state"], second["state"]) == ("complete", "running")
    assert list((project.root / "state" / second["folder"]).glob("state-*.ckpt")), "to go on from"
    client = connect(TrackingConfig(), project.root)
    assert client.get_run(second["run_id"]).info.status == "KILLED"

    assert sightline("sweep", ["lr.yaml", "--apply"]) == 0
    again, finished = trials(project)
    assert again == first, "what was finished is not trained again"
    assert finished["settings"] == second["settings"] and finished["run_id"] == second["run_id"]
    assert finished["state"] == "complete" and list(finished["history"]) == [str(i) for i in range(1, EPOCHS + 1)]
    out = capsys.readouterr().out
    assert "goes on from state-" in out and "2 complete" in out

    parent = json.loads((project.root / "sweeps/lr.json").read_text())["run_id"]
    for trial in (again, finished):
        run = client.get_run(trial["run_id"])
        assert (run.info.status, run.data.tags[PARENT]) == ("FINISHED", parent)
        assert run.data.params["train.optimizer.lr"] == str(trial["settings"]["train.optimizer.lr"])
    shown = client.get_run(parent)
    best = max((again, finished), key=lambda trial: (trial["value"], -trial["number"]))
    assert (shown.info.status, shown.data.metrics["best/mean_iou"]) == ("FINISHED", best["value"])
    assert [path.name for path in (project.root / "state").glob("segmentation-*")] == [best["folder"]], "keep: 1"

    text = (project.root / "params.yaml").read_text()
    assert text.startswith(COMMENT)
    params = load_params(project.root)
    assert params.run("segmentation").train.optimizer.lr == best["settings"]["train.optimizer.lr"]
    train(project, params, "segmentation")
    record = json.loads((project.artifacts("segmentation") / "run.json").read_text())
    assert record["run_id"] == best["run_id"]
    assert "epoch" not in capsys.readouterr().out.replace("best at epoch", ""), "it was trained by the sweep"


def test_trials_that_all_fail_end_the_sweep_with_the_reason(project, capsys):
    spec = SPEC | {"num_trials": 5, "space": {"train.optimizer.lr": {"uniform": [1e30, 1e35]}}}
    (project.root / "lr.yaml").write_text(yaml.safe_dump(spec))
    assert sightline("sweep", ["lr.yaml"]) == 2
    assert "every trial failed" in capsys.readouterr().err
    assert [trial["state"] for trial in trials(project)] == ["failed"] * 3
    assert not list((project.root / "state").glob("segmentation-*"))


def test_a_metric_that_validation_does_not_give_ends_the_sweep_at_once(project, capsys):
    (project.root / "lr.yaml").write_text(yaml.safe_dump(SPEC | {"metric": "miou", "mode": "max"}))
    assert sightline("sweep", ["lr.yaml"]) == 2
    told = capsys.readouterr().err
    assert "validation gives no such metric: 'miou'" in told and "mean_iou" in told
    assert [trial["state"] for trial in trials(project)] == ["running"]
