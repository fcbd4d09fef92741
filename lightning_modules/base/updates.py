"""torch's optimizers and schedules of a phase of training, and the parts of a model that it leaves as they are."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.lr_scheduler import LambdaLR, LinearLR, ReduceLROnPlateau

from contracts.errors import ConfigError
from lightning_modules.base.optimizer import OptimizerConfig, Phase, lr_factor, warmup_steps
from lightning_modules.blocks.backbones import LEVELS, Backbone

_OPTIMIZERS: dict[str, Any] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
    "rmsprop": torch.optim.RMSprop,
    "adadelta": torch.optim.Adadelta,
}


def find_part(model: nn.Module, name: str, where: str) -> nn.Module:
    """The part of `model` called `name`, with dots between the names of parts in parts.

    Raises:
        ConfigError: there is none; names the nearest and the model's own.
    """
    parts = dict(model.named_modules(remove_duplicate=False))
    if not name or name not in parts:
        near = difflib.get_close_matches(name, parts, n=3)
        raise ConfigError(
            "the model has no such part",
            value=name,
            where=where,
            allowed=", ".join(child for child, _ in model.named_children()) + " and what is in them",
            fix=f"did you mean {' or '.join(map(repr, near))}?" if near else "",
        )
    return parts[name]


def frozen_modules(model: nn.Module, phase: Phase) -> list[nn.Module]:
    """What a phase leaves as it is.

    Raises:
        ConfigError: a part that the model has not; `freeze_until` of a part that is no backbone.
    """
    frozen = [find_part(model, name, "train.freeze") for name in phase.freeze]
    for name, part in phase.optimizer.parts.items():
        module = find_part(model, name, "train.optimizer.parts")
        if part.freeze_until is not None:
            if not isinstance(module, Backbone):
                backbones = [n for n, m in model.named_modules() if isinstance(m, Backbone)]
                raise ConfigError(
                    "only a backbone is frozen up to a level",
                    value=name,
                    where=f"train.optimizer.parts.{name}.freeze_until",
                    allowed=", ".join(backbones) or "nothing: this model has no backbone",
                    fix="freeze a whole part with train.freeze",
                )
            frozen += module.stages[: LEVELS.index(part.freeze_until) + 1]
    return frozen


def freeze(model: nn.Module, phase: Phase, trainable: Iterable[nn.Parameter]) -> None:
    """Of the `trainable` parameters, let those learn that the phase does not freeze."""
    frozen = {id(p) for module in frozen_modules(model, phase) for p in module.parameters()}
    for parameter in trainable:
        parameter.requires_grad_(id(parameter) not in frozen)
        if id(parameter) in frozen:
            parameter.grad = None


def hold_norms(model: nn.Module, phase: Phase, *, held: bool = True) -> None:
    """Let the batch norms of what the phase freezes use their running averages and leave them as they are, or learn
    again."""
    for frozen in frozen_modules(model, phase):
        for module in frozen.modules():
            if isinstance(module, _BatchNorm):
                module.train(not held)


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimizer of all parameters that require a gradient, in groups by rate and by whether they decay.

    Raises:
        ConfigError: there is none.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:  # biases and norms have one dimension or none, and do not decay
            key = _rate(name, config), parameter.ndim > 1
            groups.setdefault(key, []).append(parameter)
    if not groups:
        raise ConfigError("nothing is left to train", where="train.freeze", fix="freeze fewer parts")
    # Those that decay come first, whatever the order in the model.
    order = sorted(groups, key=lambda key: not key[1])
    return _OPTIMIZERS[config.name](
        [
            {"params": groups[lr, decays], "lr": lr, "weight_decay": config.weight_decay if decays else 0.0}
            for lr, decays in order
        ],
        lr=config.lr,
        **config.own("name"),
    )


def _rate(parameter: str, config: OptimizerConfig) -> float:
    """Of the parts that hold a parameter, the innermost says."""
    holding = [name for name in config.parts if parameter.startswith(f"{name}.") or parameter == name]
    return config.parts[max(holding, key=len)].rate(config.lr) if holding else config.lr


def make_schedules(
    optimizer: torch.optim.Optimizer, phase: Phase, *, steps_per_epoch: int, monitor: str, mode: str
) -> list[dict[str, Any]]:
    """The phase's schedules, as Lightning takes them."""
    config, total_steps = phase.optimizer, steps_per_epoch * phase.epochs
    if config.schedule != "plateau":
        schedule = LambdaLR(
            optimizer,
            lambda step: lr_factor(config, step, total_steps=total_steps, steps_per_epoch=steps_per_epoch),
        )
        return [{"scheduler": schedule, "interval": "step"}]
    warmup = warmup_steps(config, total_steps)
    own = config.own("schedule")
    # torch counts the validations that it bears; here `patience` of them are enough.
    plateau = ReduceLROnPlateau(optimizer, mode, factor=own["factor"], patience=own["patience"] - 1, threshold=0)  # type: ignore[arg-type]
    return [
        {"scheduler": LinearLR(optimizer, 1 / warmup, total_iters=warmup - 1), "interval": "step"},
        # Lightning would step it after the epoch's state is written, so that a resumed run misses one: it only keeps
        # its state, and `step_plateau` steps it.
        {"scheduler": plateau, "interval": "epoch", "frequency": sys.maxsize, "monitor": f"val/{monitor}"},
    ]


def step_plateau(schedulers: Iterable[Any], metrics: Mapping[str, Any], monitor: str) -> None:
    """Tell the plateau schedule, if there is one, what a validation measured."""
    for scheduler in schedulers:
        if isinstance(scheduler, ReduceLROnPlateau) and (value := metrics.get(f"val/{monitor}")) is not None:
            scheduler.step(float(value))
