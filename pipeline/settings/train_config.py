"""The `train` section. Apart from `training.py`, so that checking settings does not import Lightning."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from contracts.errors import ConfigError
from contracts.ranges import AMOUNT, COUNT, POSITIVE, SEED, Range, check_ranges
from lightning_modules.base.optimizer import OptimizerConfig, Phase, laid_over
from pipeline.settings.parse import merged


def check_parts(key: str, names: tuple[str, ...]) -> None:
    """Raise ConfigError for names of a model's parts that are empty or stand twice."""
    if len(set(names)) != len(names) or not all(name.strip() for name in names):
        raise ConfigError(
            f"{key} has an empty name or one twice", value=names, where=key, allowed="parts such as backbone, each once"
        )


SOURCES = (
    "a run of params.yaml; a file of weights (.ckpt, .pt, .pth); models:/name@champion, models:/name/3 or runs:/..; "
    "weights of torchvision such as ResNet50_Weights.IMAGENET1K_V2"
)


@dataclass(frozen=True, kw_only=True)
class InitConfig:
    """Start from weights that are there: all of them, or those of some parts of the model, such as `backbone`. A run
    that is started from is trained first. What was loaded, and what not, is told and kept in run.json.

    Attributes:
        from: a run of params.yaml, whose best weights are taken; a file of weights (.ckpt, .pt, .pth), of this or of
            other software, below the project's folder or absolute; `models:/name@champion`, `models:/name/3` or
            `runs:/..` of MLflow; weights of torchvision such as `ResNet50_Weights.IMAGENET1K_V2`, for the backbone.
        parts: of the model, such as `[backbone]`; none: all of it.
        strict: refuse to start where a weight of these parts is missing or has another shape there; false: it begins
            as initialised then, and that is told.
        extend: go on where that run ended, with its optimizer, averages, epochs and steps, and the schedule planned
            anew for this run's `max_epochs`, which are more. It needs the state that `train.keep_state` keeps.
    """

    source: Annotated[str, Field(alias="from")]
    parts: tuple[str, ...] = ()
    strict: bool = True
    extend: bool = False

    def __post_init__(self) -> None:
        check_parts("parts", self.parts)
        if self.extend and (self.kind != "run" or self.parts or not self.strict):
            raise ConfigError(
                "a run is extended as a whole",
                value=self.to_dict(),
                allowed="init: {from: RUN, extend: true}, without parts",
                fix="take extend out to start a new training from these weights",
            )

    @property
    def kind(self) -> Literal["run", "file", "model", "torchvision"]:
        """What `source` names."""
        if re.match(r"(models|runs):/", self.source):
            return "model"
        if self.source.endswith((".ckpt", ".pt", ".pth")):
            return "file"
        return "torchvision" if re.fullmatch(r"\w+_Weights\.\w+", self.source) else "run"

    @property
    def run(self) -> str | None:
        """The run of params.yaml that is started from, if it is one."""
        return self.source if self.kind == "run" else None

    def to_dict(self) -> dict[str, Any]:
        """By the keys of params.yaml."""
        return {"from": self.source, "parts": list(self.parts), "strict": self.strict, "extend": self.extend}


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """Some epochs of a run with an optimizer and a schedule of their own, which begin anew; `freeze` names the parts of
    the model that stay as they are meanwhile. `optimizer` is laid over that of the run.

    Attributes:
        epochs: how many.
        freeze: parts of the model that stay as they are meanwhile.
    """

    epochs: int
    freeze: tuple[str, ...] = ()
    optimizer: OptimizerConfig | None = None

    def __post_init__(self) -> None:
        check_ranges(self, epochs=COUNT)
        check_parts("freeze", self.freeze)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a run is trained.

    `batch_size` is global: over all workers and accumulation steps. `micro_batch_size` is the most that a worker holds
    at once (None: its whole share); how many steps it accumulates follows from it and from the number of workers, also
    when a run goes on with another number. `monitor` (default: the task's metric) chooses the best checkpoint.
    `precision: auto` is bf16-mixed where the GPUs or CPUs have the instructions, decided when the run begins and kept
    with it: a later call, other machines and `evaluate` use the same. A state is written after every epoch, and inside
    it when the last one is `checkpoint_every_s` old, or at every so many steps: no more than that is lost. `ledger`
    records the sample keys of every step, for `sightline ledger`; a run that is trained already has
    none until it is trained anew: `dvc repro --force --single-item train@<run>`. So it is with `keep_state`, which
    keeps the last state, several times as large as the weights, for a run that extends this one. `freeze` names parts
    of the model that are never trained. With `stages`, one after the other, the run has as many epochs as they have
    together, and `max_epochs` says nothing. `recompute_norms` takes the running averages of all batch norms anew after
    the last epoch, over the training split with the best weights: for weights that are averages (`ema_decay`).

    Attributes:
        max_epochs: passes over the training split; with `stages` it says nothing.
        eval_batch_size: of validation and evaluation; changes no number.
        optimizer: with its schedule.
        stages: one after the other, each with an optimizer and a schedule that begin anew.
        channels_last: the layout of images in memory that convolutions are fastest with.
        gradient_clip_norm: longest gradient, as an L2 norm; null: any.
        ema_decay: of averaged weights, which are then validated and kept; null: none.
        recompute_norms: take the running averages of all batch norms anew after the last epoch, with the best weights.
        early_stopping_patience: validations without a better monitored metric after which training ends; null: never.
        monitor_mode: whether more or less of `monitor` is better.
        validate_every_epochs: an epoch that is not validated is never kept as the best.
        checkpoint_every_steps: a state at every so many steps as well; null: by the clock alone.
        log_every_steps: steps between two points of a curve.
        num_pictures: validation samples that are drawn with their predictions, the same ones in each run.
        seed: of weights, order and augmentation.
    """

    max_epochs: int = 10
    batch_size: int = 16
    eval_batch_size: int = 16
    micro_batch_size: int | None = None
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    freeze: tuple[str, ...] = ()
    stages: tuple[StageConfig, ...] = ()
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    channels_last: bool = True
    gradient_clip_norm: float | None = 1.0
    ema_decay: float | None = None
    recompute_norms: bool = False
    early_stopping_patience: int | None = None
    monitor: str | None = None
    monitor_mode: Literal["max", "min"] | None = None
    validate_every_epochs: int = 1
    checkpoint_every_s: float | None = 300.0
    checkpoint_every_steps: int | None = None
    log_every_steps: int = 10
    ledger: bool = False
    keep_state: bool = False
    num_pictures: int = 6
    seed: int = 0

    def __post_init__(self) -> None:
        check_ranges(
            self,
            max_epochs=COUNT,
            batch_size=COUNT,
            eval_batch_size=COUNT,
            micro_batch_size=COUNT,
            gradient_clip_norm=POSITIVE,
            ema_decay=Range(0, 1, open_low=True, open_high=True),
            early_stopping_patience=COUNT,
            validate_every_epochs=COUNT,
            checkpoint_every_s=POSITIVE,
            checkpoint_every_steps=COUNT,
            log_every_steps=COUNT,
            num_pictures=AMOUNT,
            seed=SEED,
        )
        check_parts("freeze", self.freeze)
        if self.validate_every_epochs > self.num_epochs:
            raise ConfigError(
                "no epoch would be validated", value=self.validate_every_epochs, where="validate_every_epochs"
            )
        if (self.monitor is None) != (self.monitor_mode is None):
            raise ConfigError(
                "monitor and monitor_mode belong together",
                value=(self.monitor, self.monitor_mode),
                allowed="both or none",
            )

    @property
    def num_epochs(self) -> int:
        return sum(phase.epochs for phase in self.phases)

    @property
    def phases(self) -> tuple[Phase, ...]:
        stages = self.stages or (StageConfig(epochs=self.max_epochs),)
        return tuple(
            Phase(stage.epochs, stage.optimizer or self.optimizer, (*self.freeze, *stage.freeze)) for stage in stages
        )


def train_section(shared: Any, own: Mapping[str, Any]) -> dict[str, Any]:
    """A run's own `train` section over the shared one, and the stages' optimizers over its own, as YAML gives them."""
    out = merged(shared, own)
    if "optimizer" in out:
        out["optimizer"] = laid_over(shared.get("optimizer"), own.get("optimizer"))
    if isinstance(stages := out.get("stages"), list):
        out["stages"] = [
            {**stage, "optimizer": laid_over(out.get("optimizer"), stage["optimizer"])}
            if isinstance(stage, Mapping) and isinstance(stage.get("optimizer"), Mapping)
            else stage
            for stage in stages
        ]
    return out
