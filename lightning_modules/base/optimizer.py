"""How weights are changed, in plain numbers: this file imports no torch, so that checking settings is quick."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from contracts.ranges import AMOUNT, POSITIVE, SHARE, Range, check_ranges


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """`lr` is the peak rate, reached after `warmup_fraction` of all steps, then cosine down to `final_lr_fraction`."""

    name: Literal["adamw", "sgd"] = "adamw"
    lr: float = 1e-3
    weight_decay: float = 1e-4
    momentum: float = 0.9  # of SGD
    warmup_fraction: float = 0.05
    final_lr_fraction: float = 0.01

    def __post_init__(self) -> None:
        check_ranges(
            self,
            lr=POSITIVE,
            weight_decay=AMOUNT,
            momentum=Range(0, 1, open_high=True),
            warmup_fraction=SHARE,
            final_lr_fraction=SHARE,
        )


def warmup_cosine(step: int, *, total_steps: int, warmup_fraction: float, final_fraction: float) -> float:
    """Multiplier of the peak learning rate at `step` of `total_steps`: linear warm-up, then half a cosine."""
    warmup = max(1, round(total_steps * warmup_fraction))
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total_steps - warmup))
    return final_fraction + (1 - final_fraction) * 0.5 * (1 + math.cos(math.pi * progress))
