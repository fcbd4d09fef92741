"""The champion's rule: which registered version of a model may be served, and why another one may not.

A pure function of facts. A score counts only beside another one of the same metric on the same data, and only if it is
better than that of the best predictor that never looks at the image. What was trained for is no matter of this rule:
new training images make a better model, not another yardstick.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A checkpoint with its score and its lineage.

    `model` is the name in the registry, `task` names the experiment. `value` is the run's `metric` on the data set's
    evaluation split, None where it was not finite, and `constant` that of the constant predictor, None where it has
    none. `split` names that split, `step` is the last of the training. `split_digest` tells the measured split from any
    other, `manifest_digest` all data of the run. `gate` is the value that must be reached (None: any). `changed` are
    files of the code that were in no commit when it was trained.
    """

    model: str
    task: str
    checkpoint: Path
    dataset: str
    metric: str
    mode: Literal["max", "min"]
    value: float | None
    constant: float | None = None
    split: str = "val"
    step: int = 0
    gate: float | None = None
    run_id: str = ""
    manifest_digest: str = ""
    split_digest: str = ""
    git_commit: str = ""
    changed: tuple[str, ...] = ()
    allow_dirty: bool = False


@dataclass(frozen=True, kw_only=True)
class Standing:
    """The reigning champion by the candidate's metric on the candidate's data.

    `value` is None where that cannot be known, `unknown` then says why. `again`: it was measured for this comparison.
    """

    version: str
    value: float | None
    again: bool = False
    unknown: str = ""


@dataclass(frozen=True)
class Verdict:
    accepted: bool
    reason: str


def judge(candidate: Candidate, champion: Standing | None, defect: str = "") -> Verdict:
    """Whether `candidate` becomes champion, and why.

    Args:
        champion: the reigning version; None if there is none or it is the candidate itself.
        defect: what the check of the registered model found; "" if it answers as the checkpoint does.
    """
    refusal = objection(candidate) or defect
    if refusal:
        return Verdict(False, refusal)
    value, name, sign = candidate.value, candidate.metric, _sign(candidate)
    assert value is not None
    if champion is None:
        return Verdict(True, f"the first version fit to be champion: {name} {value:.6g}")
    old = f"version {champion.version}"
    if champion.value is None:
        return Verdict(True, f"{old} cannot be compared: {champion.unknown}")
    where = "on the same data" + ", measured again there" * champion.again
    if not math.isfinite(champion.value) or sign * value > sign * champion.value:
        return Verdict(True, f"{name} {value:.6g} is better than {champion.value:.6g} of {old} {where}")
    return Verdict(False, f"{name} {value:.6g} is not better than {champion.value:.6g} of {old} {where}")


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
    if candidate.constant is not None and not sign * value > sign * candidate.constant:
        return f"{name} {value:.6g} is not better than {candidate.constant:.6g} of a predictor that ignores the image"
    if candidate.gate is not None and sign * value < sign * candidate.gate:
        return f"{name} {value:.6g} does not reach the gate {candidate.gate:.6g} ({candidate.mode})"
    return ""


def _sign(candidate: Candidate) -> int:
    return 1 if candidate.mode == "max" else -1
