"""What a sweep tries and stops, by the real sampler and the real rule, without any training."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from contracts.errors import ConfigError, DataError
from pipeline.settings.params import Params
from pipeline.settings.sweep import Sweep, read_sweep
from pipeline.sweeping.records import Records, Trial
from pipeline.sweeping.study import Study
from pipeline.system.project import Project
from tests.conftest import TINY

SPACE = {"train.optimizer.lr": {"loguniform": [1e-4, 1e-2]}, "train.batch_size": {"choice": [4, 8]}}


def made(folder: Path, **changed: Any) -> Sweep:
    document = {"run": "segmentation", "space": SPACE, "num_trials": 8} | changed
    (folder / "lr.yaml").write_text(json.dumps(document))
    return read_sweep(folder / "lr.yaml", Params(TINY))


def score(settings: dict[str, Any]) -> float:
    return -abs(settings["train.optimizer.lr"] - 3e-3)


def swept(sweep: Sweep, count: int, before: list[Trial]) -> list[Trial]:
    """`count` trials in all, in a new study that knows those of before."""
    study, trials = Study(sweep), list(before)
    for trial in before:
        study.add(trial)
    for number in range(len(before), count):
        settings = study.draw(number, lambda settings: None)
        assert settings is not None
        trial = Trial(number=number, settings=settings)
        trial.see(1, score(settings))
        study.report(number, 1, score(settings))
        trial.rungs, trial.state, trial.value = study.rungs(number), "complete", score(settings)
        study.end(trial)
        trials.append(trial)
    return trials


def test_an_interrupted_sweep_tries_what_it_would_have_tried(tmp_path):
    sweep = made(tmp_path)
    whole = swept(sweep, 14, [])
    assert swept(sweep, 14, whole[:6]) == whole
    assert swept(made(tmp_path, seed=1), 3, []) != whole[:3]
    assert len({trial.settings["train.optimizer.lr"] for trial in whole}) == 14


def test_after_ten_trials_the_sampler_keeps_to_what_was_good(tmp_path):
    values = [-score(trial.settings) for trial in swept(made(tmp_path), 60, [])]
    assert median(values[25:]) < 0.6 * median(values[:10])


def reported(study: Study, sweep: Sweep, values: list[float]) -> list[bool]:
    """Whether each of some trials may end after its first epoch."""
    found = []
    for number, value in enumerate(values, start=100):
        assert study.draw(number, lambda settings: None)
        found.append(study.report(number, 1, value))
    return found


def test_what_is_not_among_the_best_share_ends_early(tmp_path):
    sweep = made(tmp_path, scheduler={"reduction_factor": 2})
    assert reported(Study(sweep), sweep, [0.5, 0.4, 0.6, 0.1]) == [False, True, False, True]
    fewer = made(tmp_path, scheduler={"reduction_factor": 2}, metric="loss", mode="min")
    assert reported(Study(fewer), fewer, [0.5, 0.4, 0.6]) == [False, False, True]
    later = made(tmp_path, scheduler={"reduction_factor": 2, "grace_epochs": 2})
    assert reported(Study(later), later, [0.5, 0.4]) == [False, False]
    never = made(tmp_path, scheduler=None)
    assert reported(Study(never), never, [0.5, 0.4, 0.1]) == [False] * 3


def test_trials_of_an_earlier_call_count_when_others_are_stopped(tmp_path):
    sweep = made(tmp_path, scheduler={"reduction_factor": 2})
    before = swept(sweep, 2, [])
    study = Study(sweep)
    for trial in before:
        study.add(trial)
    assert reported(study, sweep, [min(score(trial.settings) for trial in before) - 1]) == [True]


def test_what_the_run_refuses_is_never_tried_and_a_space_ends(tmp_path):
    sweep = made(tmp_path, space={"train.batch_size": {"choice": [2, 4, 8]}})
    study, tried = Study(sweep), []

    def refuses(settings: dict[str, Any]) -> str | None:
        return "no" if settings["train.batch_size"] == 4 or settings in tried else None

    while (settings := study.draw(len(tried), refuses)) is not None:
        tried.append(settings)
    assert sorted(one["train.batch_size"] for one in tried) == [2, 8]


def test_an_unfinished_trial_keeps_its_settings(tmp_path):
    sweep = made(tmp_path)
    (trial,) = swept(sweep, 1, [])
    study = Study(sweep)
    study.go_on(trial)
    assert study.report(0, 1, 0.5) is False
    trial.state, trial.value = "complete", 0.5
    study.end(trial)


def test_a_record_is_read_again_as_it_was(tmp_path):
    sweep, project = made(tmp_path), Project(tmp_path)
    records = Records(project, sweep, "base")
    records.trials = [*swept(sweep, 3, []), Trial(number=3, settings={"train.batch_size": 4})]
    records.run_id = "abc"
    records.write()
    again = Records(project, sweep, "base")
    assert (again.trials, again.run_id) == (records.trials, "abc")
    assert [trial.value for trial in again.ranked()] == sorted(score(t.settings) for t in again.trials[:3])[::-1]
    assert Records(project, made(tmp_path, num_trials=99, concurrent=3), "base").trials, "asking for more is the same"


def test_a_record_of_something_else_is_refused(tmp_path):
    sweep, project = made(tmp_path), Project(tmp_path)
    Records(project, sweep, "base").write()
    with pytest.raises(ConfigError, match="the run's other settings, its data or its code"):
        Records(project, sweep, "other")
    with pytest.raises(ConfigError, match="other space"):
        Records(project, made(tmp_path, space={"train.batch_size": {"choice": [4]}}), "base")
    (tmp_path / "sweeps/lr.json").write_text('{"sweep": "lr"}')
    with pytest.raises(DataError, match="the record of the sweep is damaged"):
        Records(project, sweep, "base")
