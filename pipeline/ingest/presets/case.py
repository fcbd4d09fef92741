"""What a rule of the presets sees, and what it says."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pipeline.ingest.statistics import Statistics


class Setting(NamedTuple):
    """A value, and why; `reason` becomes the comment beside it."""

    value: Any
    reason: str


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a training may take. `work` is how many pictures of 128 x 128 pixels a detector learns from over a whole
    training, each as often as it comes: two or three minutes of two cores, about an hour of a GPU (an estimate)."""

    name: str
    most_px: int  # of image_size
    usual_px: int  # where nothing asks for more
    mask_px: int  # for label masks: borders are much of what is measured
    work: float
    most_batch: int


CPU = Machine(name="a CPU", most_px=320, usual_px=128, mask_px=192, work=4_700, most_batch=16)
GPU = Machine(name="a GPU", most_px=800, usual_px=224, mask_px=448, work=9_000_000, most_batch=64)


@dataclass(frozen=True, kw_only=True)
class Case:
    """What a rule may look at. `chosen` are the settings so far; `weights` the backbones whose pretrained weights lie
    on this machine."""

    found: Statistics
    task: str
    machine: Machine
    weights: tuple[str, ...]
    chosen: Mapping[str, Setting]

    def of(self, path: str, default: Any) -> Any:
        return self.chosen[path].value if path in self.chosen else default

    @property
    def size(self) -> int:
        return int(self.of("task.image_size", self.machine.usual_px))

    @property
    def batch(self) -> int:
        return int(self.of("train.batch_size", self.machine.most_batch))

    @property
    def sees(self) -> bool:
        return self.found.pictures is not None


Rule = Callable[[Case], Setting | None]
OF_OBJECTS = ("detection", "instances", "region_detection")


def up(value: float, multiple: int) -> int:
    return max(1, math.ceil(value / multiple - 1e-9)) * multiple


def percent(share: float) -> str:
    return f"{100 * share:.2g} %"
