"""The champion's rule: which registered version of a model may be served, and why another one may not.

A pure function of facts. A score counts only beside another one of the same metric on the same data, and only as far as
chance does not explain it: both are measured on the same resamples of the split, and the 95 % interval of their
difference decides (`lightning_modules/metrics/paired.py`). What was trained for is no matter of this rule: new training
images make a better model, not another yardstick.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import numpy as np

from lightning_modules.metrics.bootstrap import LEVEL
from lightning_modules.metrics.paired import Difference, difference
from pipeline.training.scores import Scores


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A checkpoint with its score and its lineage.

    `model` is the name in the registry, `task` names the experiment. `value` is the run's `metric` on the data set's
    evaluation split, None where it was not finite, and `constant` that of the constant predictor, None where it has
    none; `scores` has every metric, on the resamples of the split too. `split` names that split, `step` is the last of
    the training. `split_digest` tells the measured split from any other, `manifest_digest` all data of the run.
    `changed` are files of the code that were in no commit when it was trained.

    Attributes:
        gate: the value that must be reached (None: any).
        min_gain: what the low end of the interval of the gain over the champion must be above; less than 0: a model
            that is surely not worse by more than this is enough.
        slices: patterns of metrics' names, such as `AP/*` -> how much none of them may surely fall; all are read as the
            metric is: more is better, where more of it is better.
        conditions: what else is asked of it, by name, as a number: another one is a new decision.
    """

    model: str
    task: str
    checkpoint: Path
    dataset: str
    metric: str
    mode: Literal["max", "min"]
    value: float | None
    constant: float | None = None
    scores: Scores = field(default_factory=Scores)
    split: str = "val"
    step: int = 0
    gate: float | None = None
    min_gain: float = 0.0
    slices: Mapping[str, float] = field(default_factory=dict)
    conditions: Mapping[str, float] = field(default_factory=dict)
    run_id: str = ""
    manifest_digest: str = ""
    split_digest: str = ""
    git_commit: str = ""
    changed: tuple[str, ...] = ()
    allow_dirty: bool = False


@dataclass(frozen=True, kw_only=True)
class Standing:
    """The reigning champion by the candidate's metric on the candidate's data.

    `scores` is None where that cannot be known, `unknown` then says why. `again`: it was measured for this comparison.
    """

    version: str
    scores: Scores | None
    again: bool = False
    unknown: str = ""


@dataclass(frozen=True)
class Verdict:
    """`gain`: of the metric over the champion's, so that more is better; None where none was compared."""

    accepted: bool
    reason: str
    gain: Difference | None = None


def judge(candidate: Candidate, champion: Standing | None, defect: str = "") -> Verdict:
    """Whether `candidate` becomes champion, and why.

    Args:
        champion: the reigning version; None if there is none or it is the candidate itself.
        defect: what the check of the registered model found; "" if it answers as the checkpoint does.
    """
    refusal = objection(candidate) or defect
    if refusal:
        return Verdict(False, refusal)
    value, name = candidate.value, candidate.metric
    assert value is not None
    if champion is None:
        return Verdict(True, f"the first version fit to be champion: {name} {value:.6g}")
    if champion.scores is None:
        return Verdict(True, f"version {champion.version} cannot be compared: {champion.unknown}")
    old = champion.scores.values.get(name, math.nan)
    beside = f"{old:.6g} of version {champion.version} on the same data" + ", measured again there" * champion.again
    if not math.isfinite(old):
        return Verdict(True, f"{name} {value:.6g} is better than {beside}")
    gain = _gain(candidate, name, (value, old), champion.scores)
    least = gain.value if gain.low is None else gain.low
    if not least > candidate.min_gain:
        how = "worse than" if gain.verdict == "worse" else "not better than"
        why = f"{_told(gain)}, and that must be above registry.min_gain {candidate.min_gain:g}"
        return Verdict(False, f"{name} {value:.6g} is {how} {beside}: {why}", gain)
    if fallen := _fallen(candidate, champion.scores):
        return Verdict(False, f"{fallen}, though {name} {value:.6g} is better than {beside}: {_told(gain)}", gain)
    return Verdict(True, f"{name} {value:.6g} is better than {beside}: {_told(gain)}", gain)


def objection(candidate: Candidate) -> str:
    """Why a candidate cannot be champion whoever reigns, or ""."""
    lineage = {"run id": candidate.run_id, "manifest digest": candidate.manifest_digest}
    missing = [name for name, value in lineage.items() if not value]
    if missing:
        return f"lineage incomplete: no {', no '.join(missing)}"
    if not candidate.git_commit and not candidate.allow_dirty:
        return (
            "lineage incomplete: no commit, since there is no git repository here: say which one the code is by "
            f"SIGHTLINE_GIT_COMMIT=<its 40 digits>, or commit it, and register again with `dvc repro --force "
            f"--single-item register@{candidate.model}`; or set registry.allow_dirty"
        )
    if candidate.changed and not candidate.allow_dirty:
        return (
            f"trained by code that is in no commit ({', '.join(candidate.changed)}): commit it and register again with "
            f"`dvc repro --force --single-item register@{candidate.model}`, or set registry.allow_dirty"
        )
    value, name, sign = candidate.value, candidate.metric, _sign(candidate)
    if value is None or not math.isfinite(value):
        return f"{name} is not finite"
    if told := _like_a_constant(candidate, value):
        return told
    if candidate.gate is not None and sign * value < sign * candidate.gate:
        return f"{name} {value:.6g} does not reach the gate {candidate.gate:.6g} ({candidate.mode})"
    return ""


def matching(patterns: Mapping[str, float], names: Mapping[str, float]) -> dict[str, float]:
    """Each metric that a pattern of `Candidate.slices` names -> how much it may fall, the least where several do."""
    found: dict[str, float] = {}
    for pattern, fall in patterns.items():
        for name in names:
            if fnmatchcase(name, pattern):
                found[name] = min(fall, found.get(name, fall))
    return found


def _like_a_constant(candidate: Candidate, value: float) -> str:
    """Why it may as well have looked at nothing, or "" where it surely has not."""
    if candidate.constant is None:
        return ""
    constant = Scores(drawn=candidate.scores.drawn_constant)
    gain = _gain(candidate, candidate.metric, (value, candidate.constant), constant)
    if (gain.value if gain.low is None else gain.low) > 0:
        return ""
    other = f"{candidate.constant:.6g} of a predictor that ignores the image"
    told = "" if gain.low is None else f": {_told(gain)}, and that must be above 0"
    return f"{candidate.metric} {value:.6g} is not better than {other}{told}"


def _fallen(candidate: Candidate, champion: Scores) -> str:
    """Which slice surely fell by more than it may, the worst of them; "" where none did.

    Of many slices some fall by chance: all intervals together, not each, hold with 95 % (Bonferroni).
    """
    both = {name: value for name, value in candidate.scores.values.items() if name in champion.values}
    slices = matching(candidate.slices, both)
    level = 1 - (1 - LEVEL) / max(1, len(slices))
    worst: tuple[float, str] = (0.0, "")
    for name, fall in slices.items():
        gain = _gain(candidate, name, (both[name], champion.values[name]), champion, level)
        beyond = -fall - (gain.value if gain.high is None else gain.high)
        if beyond > worst[0]:
            change = f"{champion.values[name]:.6g} to {both[name]:.6g}"
            worst = beyond, f"{name} fell from {change} ({_told(gain, level)}; it may fall by {fall:g})"
    return worst[1]


def _gain(
    candidate: Candidate, name: str, values: tuple[float, float], other: Scores, level: float = LEVEL
) -> Difference:
    """Of the candidate over another model, by a metric: more is better, whatever the metric's mode."""
    sign, own, theirs = _sign(candidate), candidate.scores.drawn.get(name), other.drawn.get(name)
    drawn: tuple[np.ndarray, np.ndarray] | None = None
    if own is not None and theirs is not None and own.shape == theirs.shape:
        drawn = sign * own, sign * theirs
    return difference((sign * values[0], sign * values[1]), drawn, level=level)


def _told(gain: Difference, level: float = LEVEL) -> str:
    if gain.low is None or gain.high is None:
        return f"a gain of {gain.value:.4g}, without an interval"
    return f"a gain of {gain.value:.4g}, {100 * level:.4g} % interval {gain.low:.4g} to {gain.high:.4g}"


def _sign(candidate: Candidate) -> int:
    return 1 if candidate.mode == "max" else -1
