"""What a file of this folder holds: how the models of one protocol become ONNX graphs, and what runs in their place.

The file's name is the protocol's of `lightning_modules/base/families.py` in small letters (`ClipCaptioner`:
`clip_captioner.py`); nothing registers it. It has one class `Family(BaseFamily)`.
"""

from __future__ import annotations

import importlib.util
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Value:
    """An input or output of a graph.

    Attributes:
        axes: the axes that may be of any length, with what they count ("batch"); all others are fixed.
        meaning: for export.json, with units and ranges.
    """

    name: str
    meaning: str
    axes: Mapping[int, str]


@dataclass(frozen=True, kw_only=True)
class Graph:
    """One ONNX file.

    Attributes:
        name: of the file, without `.onnx`.
        function: tensors, in the order of `inputs`, to a tuple of tensors, in the order of `outputs`.
        example: tensors that it can be called with; axes of any length must be at least 2 long in them.
        is_per_image: `function` takes and gives one image's values, without their first axis, and the file runs it for
            each image of a batch: what a detector finds differs in number from image to image.
    """

    name: str
    function: Callable[..., tuple[Tensor, ...]]
    example: tuple[Tensor, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    is_per_image: bool = False


class Run(Protocol):
    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """One run of a graph: its outputs in order."""


class BaseFamily(ABC):
    """How models of one protocol are exported.

    Attributes:
        Stand: called as the protocol says, so that a task predicts with it as with the model; it is made of the graphs'
            runs by name.
    """

    Stand: ClassVar[type[Any]]

    @staticmethod
    @abstractmethod
    def graphs(model: Any, size: Size) -> list[Graph]:
        """The graphs of a model, which `_parts.exportable` has made. `size` is (height, width) of its images."""

    @staticmethod
    def reason(model: nn.Module) -> str | None:
        """Why this model cannot be exported, as a sentence; None: it can."""
        return None

    @staticmethod
    def differences(own: Any, other: Any) -> dict[str, float]:
        """The largest absolute difference of each output of a call of the protocol, of the model and of the graphs."""
        return dict(_differences(own, other, "output"))


def family_name(protocol: type) -> str:
    """`ClipCaptioner` -> `clip_captioner`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", protocol.__name__).lower()


def family_of(protocol: type) -> BaseFamily | None:
    """None: no file here is called so."""
    module = f"{__package__}.{family_name(protocol)}"
    return importlib.import_module(module).Family() if importlib.util.find_spec(module) else None


def _differences(own: Any, other: Any, name: str) -> Sequence[tuple[str, float]]:
    if isinstance(own, Tensor):
        return [(name, largest_difference(own, other))]
    if isinstance(own, dict):
        parts = [(key, own[key], other[key]) for key in own]
    elif own is None:
        parts = []
    else:
        parts = [(str(i), *pair) for i, pair in enumerate(zip(own, other, strict=True))]
    found: dict[str, float] = {}
    for key, one, two in parts:
        for inner, value in _differences(one, two, f"{name}.{key}"):
            found[inner] = max(value, found.get(inner, 0.0))
    return list(found.items())


def largest_difference(own: Tensor, other: Tensor) -> float:
    """Infinite for other shapes, and where one is finite and the other is not; 0 of nothing."""
    if own.shape != other.shape:
        return float("inf")
    if own.numel() == 0:
        return 0.0
    one, two = own.double().numpy(), other.double().numpy()
    with np.errstate(invalid="ignore"):  # infinity minus itself
        apart = np.where(one == two, 0.0, np.abs(one - two))
    return float(np.nan_to_num(apart, nan=np.inf, posinf=np.inf).max())


def images_like(size: Size, count: int = 2) -> Tensor:
    """(`count`, 3, H, W) uint8, not all alike."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8, generator=generator)


def ones(*sizes: int) -> Tensor:
    """int64 tokens that every vocabulary has."""
    return torch.ones(sizes, dtype=torch.int64)
