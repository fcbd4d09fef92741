"""The chapter on questions decides by the numbers it is given; its runs differ in what is compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from pipeline.measuring.claims import Results, chapters
from pipeline.system.project import Project

OPEN = {"overall": 80.0, "is there": 90.0, "what color": 85.0, "what shape": 85.0, "what is": 75.0}
GOOD: dict[str, Any] = {
    "vqa_mean": {**OPEN, "what is": 40.0, "is there": 88.0},
    "vqa_one": {**OPEN, "what is": 70.0},
    "vqa_two": OPEN,
    "telling": 0.9,
    "telling_no_picture": 0.27,
    "telling_no_question": 0.35,
    "pointing": 0.95,
    "pointing_no_picture": 0.24,
    "pointing_no_question": 0.3,
}


def chapter(root: Path) -> ModuleType:
    (module,) = (one for one in chapters(root / "lecture/claims") if one.__name__ == "questions")
    return module


def decided(root: Path, folder: Path, numbers: dict) -> dict[str, bool]:
    """Claims by name, whether they hold, of these numbers for each seed."""
    shutil.rmtree(folder / "evaluations", ignore_errors=True)
    project = Project(folder)
    for run, value in numbers.items():
        if isinstance(value, dict):
            named = {n if n == "overall" else f"perQuestionType/{n}": v for n, v in value.items()}
        else:
            named = dict.fromkeys(("overall", "overall, ties wrong", "what", "where", "who", "how", "which"), value)
        measured = [{"name": n, "value": v, "interval_95": [v - 0.01, v + 0.01]} for n, v in named.items()]
        for seed in "abc":
            path = project.measured(f"{run}_{seed}")
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps({"measured": measured, "constant": {"overall": 30.0}}))
    found = chapter(root).claims(Results(project))
    assert all(claim.rows and claim.figure.rows and claim.slides for claim in found)
    return {claim.name: claim.holds for claim in found}


def test_claims_hold_where_the_numbers_bear_them_out(root: Path, tmp_path: Path) -> None:
    assert decided(root, tmp_path, GOOD) == {"two-looks": True, "telling": True, "pointing": True}


@pytest.mark.parametrize(
    ("claim", "changed"),
    [
        ("two-looks", {"vqa_mean": OPEN}),
        ("two-looks", {"vqa_mean": {**OPEN, "what is": 40.0, "is there": 60.0}}),
        ("telling", {"telling": 0.6}),
        ("telling", {"telling_no_picture": 0.5}),
        ("telling", {"telling_no_question": 0.8}),
        ("pointing", {"pointing": 0.7}),
        ("pointing", {"pointing_no_question": 0.6}),
    ],
)
def test_each_fails_alone_where_they_do_not(root: Path, tmp_path: Path, claim: str, changed: dict) -> None:
    found = decided(root, tmp_path, GOOD | changed)
    assert [name for name, holds in found.items() if not holds] == [claim]


def test_runs_differ_in_what_is_compared_and_their_seed(root: Path) -> None:
    seeds = chapter(root).SEEDS
    runs = yaml.safe_load((root / "lecture/params.yaml").read_text())["runs"]
    for name, base in {
        "vqa_one": "vqa_two", "vqa_mean": "vqa_two", "telling_no_picture": "telling",
        "telling_no_question": "telling", "pointing_no_picture": "pointing", "pointing_no_question": "pointing",
    }.items():  # fmt: skip
        for seed in seeds:
            one, other = runs[f"{name}_{seed}"], runs[f"{base}_{seed}"]
            assert {**one, "model": 0} == {**other, "model": 0}
            assert len(one["model"].items() ^ other["model"].items()) in (1, 2)
    for name in GOOD:
        own = [runs[f"{name}_{seed}"] for seed in seeds]
        assert [run["train"]["seed"] for run in own] == list(range(len(own)))
        assert len({json.dumps({**run, "train": {**run["train"], "seed": 0}}) for run in own}) == 1
