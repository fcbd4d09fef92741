"""The champion's rule."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from lightning_modules.metrics.bootstrap import resampling_weights
from pipeline.tracking.champion import Candidate, Standing, Verdict, judge
from pipeline.training.scores import Scores
from tests.candidates import FIT

REIGNING = Standing(version="3", scores=Scores(values={"miou": 0.4}))
AGAIN = dataclasses.replace(REIGNING, again=True)
UNKNOWN = Standing(version="3", scores=None, unknown="its weights are gone")
NAN = Standing(version="3", scores=Scores(values={"miou": float("nan")}))


@pytest.mark.parametrize(
    ("change", "champion", "accepted", "reason"),
    [
        ({}, None, True, "first version"),
        ({}, REIGNING, True, "0.5 is better than 0.4 of version 3"),
        ({"value": 0.4}, REIGNING, False, "not better"),
        ({"value": 0.3}, REIGNING, False, "not better"),
        ({"value": 0.3, "mode": "min"}, REIGNING, True, "better"),
        ({"value": 0.5, "mode": "min"}, REIGNING, False, "not better"),
        ({"min_gain": 0.05}, REIGNING, True, "a gain of 0.1, without an interval"),
        ({"min_gain": 0.2}, REIGNING, False, "a gain of 0.1, without an interval, and that must be above registry.min"),
        ({"value": 0.35, "min_gain": -0.1}, REIGNING, True, "a gain of -0.05"),
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
        ({}, NAN, True, "better than nan"),
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


NUM_IMAGES, NUM_RESAMPLES = 200, 1000
WEIGHTS = np.concatenate(list(resampling_weights(NUM_IMAGES, num_resamples=NUM_RESAMPLES, seed=0))) / NUM_IMAGES


def resampled(images: np.ndarray) -> np.ndarray:
    """The mean of each image's score, on the resamples that the evaluation has."""
    return np.asarray(WEIGHTS @ images)


def scores(images: np.ndarray, **slices: np.ndarray) -> Scores:
    """Of a model with these scores of the images; of a slice likewise."""
    every = {"miou": images, **slices}
    return Scores(
        values={name: float(found.mean()) for name, found in every.items()},
        drawn={name: resampled(found) for name, found in every.items()},
    )


def against(own: Scores, other: Scores, **change: Any) -> Verdict:
    entry: Candidate = dataclasses.replace(FIT, value=own.values["miou"], scores=own, **change)
    return judge(entry, Standing(version="3", scores=other))


def pairs(gain: float, count: int) -> list[tuple[Scores, Scores]]:
    """Models that find the same images hard, the first better by `gain` on the whole, in eight classes each."""
    made = []
    for seed in range(count):
        generator = np.random.default_rng([seed, 1])
        hard = generator.normal(0.5, 0.2, (9, NUM_IMAGES))
        first, second = (
            scores(part[0], **{f"AP/{i}": part[i] for i in range(1, 9)})
            for part in (hard + generator.normal(mean, 0.1, hard.shape) for mean in (gain, 0.0))
        )
        made.append((first, second))
    return made


def test_of_equal_models_at_most_one_in_twenty_is_called_better_worse_or_fallen() -> None:
    found = pairs(0.0, 200)
    verdicts = [against(*pair) for pair in found]
    assert sum(v.accepted for v in verdicts) <= 10 and sum("is worse than" in v.reason for v in verdicts) <= 10
    lenient = [against(*pair, min_gain=-0.1, slices={"AP/*": 0.0}) for pair in found]
    assert 0 < sum(not v.accepted for v in lenient) <= 10, "eight classes together, not each"


def test_a_better_model_is_let_in_and_a_worse_one_told() -> None:
    for first, second in pairs(0.05, 20):
        assert against(first, second).accepted
        refused = against(second, first)
        assert not refused.accepted and "is worse than" in refused.reason and refused.gain is not None
        assert refused.gain.high is not None and refused.gain.high < 0
        assert against(second, first, mode="min").accepted, "where less is better"


@pytest.mark.parametrize("num_lost", [1, 8])
def test_a_planted_loss_in_some_classes_is_refused_however_good_the_whole(num_lost: int) -> None:
    for first, second in pairs(0.05, 20):
        lost = [f"AP/{i}" for i in range(1, 1 + num_lost)]
        planted = Scores(
            values={name: value - 0.2 * (name in lost) for name, value in first.values.items()},
            drawn={name: drawn - 0.2 * (name in lost) for name, drawn in first.drawn.items()},
        )
        assert against(planted, second).accepted, "nobody asked"
        refused = against(planted, second, slices={"AP/*": 0.05})
        assert not refused.accepted and refused.reason.startswith("AP/") and "it may fall by 0.05" in refused.reason
        assert against(planted, second, slices={"AP/*": 0.3}).accepted
        assert against(planted, second, slices={"AP/*": 0.3, "AP/1": 0.0}).reason.startswith("AP/1 fell")


def test_a_gain_that_two_images_make_is_not_enough() -> None:
    found = np.full(NUM_IMAGES, 0.5)
    other = scores(found.copy())
    found[:2] = 0.9
    refused = against(scores(found), other)
    assert not refused.accepted and "a gain of 0.004, 95 % interval 0 to" in refused.reason


def test_a_model_that_may_as_well_have_looked_at_nothing_is_refused() -> None:
    """A detector of mAP 0.014 beside a constant of 0.01 became champion once."""
    found = np.zeros(NUM_IMAGES)
    found[:3] = 1.0
    own = dataclasses.replace(scores(found), drawn_constant={"miou": resampled(np.full(NUM_IMAGES, 0.004))})
    entry = dataclasses.replace(FIT, value=0.015, constant=0.004, scores=own)
    assert "of a predictor that ignores the image: a gain of 0.011, 95 % interval" in judge(entry, None).reason
    found[:60] = 1.0
    own = dataclasses.replace(scores(found), drawn_constant=own.drawn_constant)
    assert judge(dataclasses.replace(entry, value=0.3, scores=own), None).accepted


def test_scores_of_other_resamples_are_not_paired() -> None:
    own, other = pairs(0.05, 1)[0]
    short = Scores(values=other.values, drawn={name: drawn[:10] for name, drawn in other.drawn.items()})
    assert "without an interval" in against(own, short).reason
