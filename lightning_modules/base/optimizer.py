"""How weights are changed, in plain numbers: this file imports no torch, so that checking settings is quick.

`base/updates.py` makes torch's optimizers and schedules of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from contracts.errors import ConfigError
from contracts.ranges import AMOUNT, COUNT, POSITIVE, SHARE, Range, check_ranges

BELOW_ONE = Range(0, 1, open_high=True)
# The settings that only some have, with what they are where nothing is said; None: torch's default.
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adamw": {"betas": None, "eps": None},
    "adam": {"betas": None, "eps": None},
    "sgd": {"momentum": 0.9, "nesterov": None},
    "rmsprop": {"alpha": None, "eps": None, "momentum": None, "centered": None},
    "adadelta": {"rho": None, "eps": None},
}
SCHEDULES: dict[str, dict[str, Any]] = {
    "cosine": {"final_lr_fraction": 0.01},
    "linear": {"final_lr_fraction": 0.01},
    "step": {"milestones": None, "factor": 0.1},
    "plateau": {"factor": 0.1, "patience": 2},
    "constant": {},
}
_KINDS = {"name": ("optimizer", OPTIMIZERS), "schedule": ("schedule", SCHEDULES)}
_FACTOR = re.compile(r"(\d+(?:\.\d*)?|\.\d+)x")


@dataclass(frozen=True, kw_only=True)
class PartConfig:
    """A part of the model, named as the model names it (`backbone`, `decoder.embed`), trained otherwise than the rest.

    `lr` is a rate, or a multiple of the run's such as `0.1x`. Of a backbone, `freeze_until: c3` keeps what leads to c3
    and c3 itself as it is.
    """

    lr: float | str = "1x"
    freeze_until: Literal["c2", "c3", "c4", "c5"] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.lr, str):
            if not _FACTOR.fullmatch(self.lr) or self.rate(1.0) not in POSITIVE:
                raise ConfigError(
                    "not a learning rate", value=self.lr, where="lr", allowed="a number, or a multiple such as 0.1x",
                    fix="to keep a part as it is, name it in train.freeze",
                )  # fmt: skip
        else:
            check_ranges(self, lr=POSITIVE)

    def rate(self, run_lr: float) -> float:
        return run_lr * float(self.lr.removesuffix("x")) if isinstance(self.lr, str) else self.lr


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """torch's optimizers and schedules, by their settings' names there.

    `lr` is the peak rate, reached after `warmup_fraction` of all steps. `weight_decay` is that of matrices and
    kernels; biases and norms have none. `parts` are trained otherwise (`PartConfig`). Not set (null), the settings of
    one optimizer or schedule are its own defaults; set, they are refused with one that has no such setting.

    Attributes:
        momentum, nesterov: of sgd (0.9, false); momentum also of rmsprop (0).
        betas: of adamw and adam. alpha, centered: of rmsprop. rho: of adadelta. eps: of all but sgd.
        final_lr_fraction: what cosine and linear come down to at the end, as a share of `lr` (0.01).
        milestones: epochs after which step multiplies the rate by `factor` (0.1).
        patience: validations without a better monitored metric after which plateau multiplies it by `factor` (2).
    """

    name: Literal["adamw", "sgd", "adam", "rmsprop", "adadelta"] = "adamw"
    lr: float = 1e-3
    weight_decay: float = 1e-4
    momentum: float | None = None
    nesterov: bool | None = None
    betas: tuple[float, float] | None = None
    eps: float | None = None
    alpha: float | None = None
    centered: bool | None = None
    rho: float | None = None
    schedule: Literal["cosine", "linear", "step", "plateau", "constant"] = "cosine"
    warmup_fraction: float = 0.05
    final_lr_fraction: float | None = None
    milestones: tuple[float, ...] | None = None
    factor: float | None = None
    patience: int | None = None
    parts: dict[str, PartConfig] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_ranges(
            self,
            lr=POSITIVE,
            weight_decay=AMOUNT,
            momentum=BELOW_ONE,
            betas=BELOW_ONE,
            eps=POSITIVE,
            alpha=BELOW_ONE,
            rho=BELOW_ONE,
            warmup_fraction=SHARE,
            final_lr_fraction=SHARE,
            milestones=POSITIVE,
            factor=Range(0, 1, open_low=True, open_high=True),
            patience=COUNT,
        )
        if not all(name.strip() for name in self.parts):
            raise ConfigError("a part without a name", value=list(self.parts), where="optimizer.parts")
        for key, (what, known) in _KINDS.items():
            own = known[getattr(self, key)]
            for setting in _settings(known) - own.keys():
                if getattr(self, setting) is not None:
                    having = ", ".join(name for name, settings in known.items() if setting in settings)
                    raise ConfigError(
                        f"{what} {getattr(self, key)} has no setting {setting}",
                        value=getattr(self, setting),
                        where=f"optimizer.{setting}",
                        allowed=", ".join(sorted(own)) or "none of its own",
                        fix=f"take it out; {having} has it",
                    )
        if self.schedule == "step" and not self.milestones:
            raise ConfigError("schedule step needs milestones", where="optimizer.milestones", allowed="epochs: [6, 8]")

    def own(self, key: Literal["name", "schedule"]) -> dict[str, Any]:
        """The settings of this optimizer or schedule that are set, or have a default here."""
        defaults = _KINDS[key][1][getattr(self, key)]
        values = {n: default if getattr(self, n) is None else getattr(self, n) for n, default in defaults.items()}
        return {name: value for name, value in values.items() if value is not None}


class Phase(NamedTuple):
    """Epochs of a training with one optimizer and one schedule; `freeze` are parts of the model that stay as they are
    meanwhile."""

    epochs: int
    optimizer: OptimizerConfig
    freeze: tuple[str, ...] = ()


def laid_over(base: Any, own: Any) -> Any:
    """An `optimizer` section over a shared one, as YAML gives them.

    What only the shared one's optimizer or schedule has is not handed on to another.
    """
    if not isinstance(base, Mapping) or not isinstance(own, Mapping):
        return base if own is None else own
    out = dict(base)
    for key, (_, known) in _KINDS.items():
        named = own.get(key)
        if isinstance(named, str) and named in known and named != base.get(key, getattr(OptimizerConfig, key)):
            out = {k: v for k, v in out.items() if k not in _settings(known) or k in known[named]}
    parts = [section["parts"] for section in (base, own) if isinstance(section.get("parts"), Mapping)]
    return {**out, **own, **({"parts": {k: v for part in parts for k, v in part.items()}} if len(parts) == 2 else {})}


def lr_factor(config: OptimizerConfig, step: int, *, total_steps: int, steps_per_epoch: int) -> float:
    """Multiplier of the peak rate at `step` of `total_steps`: a linear warm-up, then the schedule.

    Plateau's own part is not here, as it depends on what was measured.
    """
    warmup, own = warmup_steps(config, total_steps), config.own("schedule")
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total_steps - warmup))
    if config.schedule == "cosine":
        final = own["final_lr_fraction"]
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))
    if config.schedule == "linear":
        return 1 - (1 - own["final_lr_fraction"]) * progress
    if config.schedule == "step":
        return own["factor"] ** sum(step >= round(epochs * steps_per_epoch) for epochs in own["milestones"])
    return 1.0


def warmup_steps(config: OptimizerConfig, total_steps: int) -> int:
    return max(1, round(total_steps * config.warmup_fraction))


def _settings(known: Mapping[str, Mapping[str, Any]]) -> set[str]:
    return {setting for settings in known.values() for setting in settings}
