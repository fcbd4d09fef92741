"""Hard attention: one place a word, and the moving average that its rewards are compared with (1502.03044, 4.1).

Shapes: N rows (captions or hypotheses), L places, D feature channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_modules.ops.gather import sum_over_ranks

DECAY = 0.9  # of the baseline, b <- 0.9 b + 0.1 r, the paper's


def draw_places(weights: Tensor, uniform: Tensor) -> Tensor:
    """The place (N,) int64 at which the summed weights (N, L) pass a number in [0, 1), (N,).

    A function of its numbers alone, equal on every device, where `torch.multinomial` is not. A place of weight 0 is
    never drawn.
    """
    reached = weights.double().cumsum(dim=1)
    wanted = uniform.double().unsqueeze(1) * reached[:, -1:]
    return torch.searchsorted(reached, wanted, right=True).squeeze(1).clamp(max=weights.shape[1] - 1)


def pick(features: Tensor, places: Tensor) -> Tensor:
    """Features (N, L, D) at `places` (N,): (N, D)."""
    return features[torch.arange(len(places), device=places.device), places]


def log_of(weights: Tensor) -> Tensor:
    """log of attention weights; finite, and without a gradient, where float32 knows no smaller ones."""
    return weights.clamp_min(torch.finfo(weights.dtype).tiny).log()


def entropies(weights: Tensor) -> Tensor:
    """Entropy in nats, 0 .. ln L, of attention (..., L): (...)."""
    return -(weights * log_of(weights)).sum(dim=-1)


class RewardBaseline(nn.Module):
    """A moving average of the mean reward of each step of the optimizer: part of the model's state.

    Rewards are summed over micro-batches and ranks, in float64, and taken in once a step, so that it is the same
    however the step's images were cut up.
    """

    value: Tensor
    pending: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("value", torch.zeros((), dtype=torch.float64))
        self.register_buffer("pending", torch.zeros(3, dtype=torch.float64))  # sum of rewards, their number, images

    @torch.no_grad()
    def add(self, rewards: Tensor, *, num_images: int, num_step_images: int) -> None:
        """Take in the rewards (M,) of a micro-batch of `num_images` images; a collective. Nothing waits for a GPU.

        Args:
            num_step_images: of the whole step, after which the average moves.
        """
        counts = torch.tensor([len(rewards), num_images], dtype=torch.float64, device=rewards.device)
        self.pending += sum_over_ranks(torch.cat([rewards.double().sum().unsqueeze(0), counts]))
        total, count, images = self.pending
        moved = DECAY * self.value + (1 - DECAY) * total / count.clamp(min=1)
        is_whole = images >= num_step_images
        self.value.copy_(torch.where(is_whole & (count > 0), moved, self.value))
        self.pending *= ~is_whole
