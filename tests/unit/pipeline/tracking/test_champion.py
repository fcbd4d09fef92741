"""The champion's rule."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from pipeline.tracking.champion import Standing, Verdict, judge
from tests.candidates import FIT

REIGNING = Standing(version="3", value=0.4)
AGAIN = dataclasses.replace(REIGNING, again=True)
UNKNOWN = Standing(version="3", value=None, unknown="its weights are gone")


@pytest.mark.parametrize(
    ("change", "champion", "accepted", "reason"),
    [
        ({}, None, True, "first version"),
        ({}, REIGNING, True, "0.5 is better than 0.4 of version 3"),
        ({"value": 0.4}, REIGNING, False, "not better"),
        ({"value": 0.3}, REIGNING, False, "not better"),
        ({"value": 0.3, "mode": "min"}, REIGNING, True, "better"),
        ({"value": 0.5, "mode": "min"}, REIGNING, False, "not better"),
        ({"value": 0.1, "manifest_digest": "d2"}, REIGNING, False, "not better"),
        ({"value": 0.1}, UNKNOWN, True, "version 3 cannot be compared: its weights are gone"),
        ({"value": 0.1}, AGAIN, False, "not better than 0.4 of version 3 on the same data, measured again there"),
        ({"constant": 0.5}, None, False, "0.5 is not better than 0.5 of a predictor that ignores the image"),
        ({"constant": 0.6}, UNKNOWN, False, "not better than 0.6 of a predictor"),
        ({"constant": 0.4}, None, True, "first version"),
        ({"constant": 0.6, "mode": "min"}, None, True, "first version"),
        ({"constant": 0.5, "mode": "min"}, None, False, "of a predictor that ignores"),
        ({"constant": None}, None, True, "first version"),
        ({"changed": ("pipeline/a.py",)}, None, False, "in no commit (pipeline/a.py): commit it"),
        ({"changed": tuple("abcd")}, None, False, "in no commit (a, b, c, d)"),
        ({"changed": ("pipeline/a.py",), "allow_dirty": True}, None, True, "first version"),
        ({}, dataclasses.replace(REIGNING, value=float("nan")), True, "better than nan"),
        ({"value": None}, None, False, "not finite"),
        ({"value": float("inf")}, None, False, "not finite"),
        ({"gate": 0.6}, None, False, "0.5 does not reach the gate 0.6"),
        ({"gate": 0.5}, None, True, "first version"),
        ({"gate": 0.4, "mode": "min"}, None, False, "does not reach the gate"),
        ({"gate": 0.6, "mode": "min"}, None, True, "first version"),
        ({"run_id": "", "manifest_digest": ""}, None, False, "no run id, no manifest digest"),
        ({"git_commit": ""}, None, False, "no commit, since there is no git repository here"),
        ({"git_commit": ""}, None, False, "SIGHTLINE_GIT_COMMIT"),
        ({"git_commit": "", "allow_dirty": True}, None, True, "first version"),
        ({"manifest_digest": ""}, REIGNING, False, "no manifest digest"),
    ],
)
def test_the_rule(change: dict[str, Any], champion: Standing | None, accepted: bool, reason: str) -> None:
    verdict = judge(dataclasses.replace(FIT, **change), champion)
    assert verdict.accepted is accepted
    assert reason in verdict.reason


def test_a_model_that_answers_otherwise_is_refused_however_good() -> None:
    assert judge(FIT, REIGNING, "it answers otherwise") == Verdict(False, "it answers otherwise")
