"""Which boxes a loss is taken of. Shapes: matches (A,) int64 of `ops/matching.py`."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_modules.ops.matching import BACKGROUND


def sample_balanced(
    matches: Tensor, size: int, positive_share: float, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Up to `size` boxes at random: matched ones, at most `positive_share` of `size`, and background for the rest.

    Args:
        generator: on the device of `matches`; the device's global one by default.

    Returns:
        positive, negative: (A,) bool each. Fewer than `size` in all where there are not as many.
    """
    positive, negative = torch.where(matches >= 0)[0], torch.where(matches == BACKGROUND)[0]
    num_positive = min(len(positive), int(size * positive_share))
    num_negative = min(len(negative), size - num_positive)
    return _draw(positive, num_positive, matches, generator), _draw(negative, num_negative, matches, generator)


def _draw(indices: Tensor, count: int, matches: Tensor, generator: torch.Generator | None) -> Tensor:
    order = torch.randperm(len(indices), device=indices.device, generator=generator)
    chosen = torch.zeros_like(matches, dtype=torch.bool)
    chosen[indices[order[:count]]] = True
    return chosen
