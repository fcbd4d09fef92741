"""Soft attention: over the places of an image, or over the steps of a sequence.

Shapes: N rows (captions, hypotheses or questions), L places or steps, D feature channels, A attention channels,
Q query channels. A mask (N, L) bool is True where a row may look: `step_mask` makes one from lengths.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def step_mask(lengths: Tensor, size: int) -> Tensor:
    """(N,) int64 -> (N, size) bool: True at the first `lengths[n]` steps of row n."""
    return torch.arange(size, device=lengths.device) < lengths.unsqueeze(1)


def attend(scores: Tensor, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Context (N, D), in the features' dtype, and weights (N, L) float32.

    Weights are exactly 0 where the mask is False and sum to 1 over the rest; a row that may look nowhere gets zeros,
    no NaN.

    Args:
        scores: (N, L), any real numbers.
        features: (N, L, D).
        mask: (N, L) bool; None: a row may look everywhere.
    """
    scores = scores.float()
    if mask is None:
        weights = torch.softmax(scores, dim=-1)
    else:
        # Before the softmax, so that the rest sums to 1. The lowest number and not -inf: a row of -inf would be NaN.
        weights = torch.softmax(scores.masked_fill(~mask, torch.finfo(scores.dtype).min), dim=-1) * mask
    context = torch.bmm(weights.to(features.dtype).unsqueeze(1), features).squeeze(1)
    return context, weights


class AdditiveAttention(nn.Module):
    """Additive ("soft") attention: `e_l = v . tanh(key_l + query)`, `alpha = softmax(e)`, `context = sum alpha_l x_l`.

    1409.0473; 1502.03044 eq. 4-6 and 13. The keys depend on the image alone, so callers compute them once, outside
    their time loop, and callers project their own query, so that it can share one matrix product with other layers.
    """

    def __init__(self, feature_channels: int, channels: int):
        super().__init__()
        self.key = nn.Linear(feature_channels, channels)
        self.score = nn.Linear(channels, 1, bias=False)  # a bias would shift all scores alike: softmax removes it

    def keys(self, features: Tensor) -> Tensor:
        """(N, L, D) -> (N, L, A)."""
        return self.key(features)

    def forward(
        self, query: Tensor, keys: Tensor, features: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Context (N, D) and weights (N, L) float32: see `attend`.

        Args:
            query: (N, A), projected.
            keys: (N, L, A) from `keys`.
            features: (N, L, D).
            mask: (N, L) bool.
        """
        scores = self.score(torch.tanh(keys + query.unsqueeze(1))).squeeze(-1)
        return attend(scores, features, mask)


class GeneralAttention(nn.Module):
    """Multiplicative attention, "general" of 1508.04025: `e_l = query . (W x_l)`; "dot" is the same without W.

    Called as `AdditiveAttention` is.
    """

    def __init__(self, feature_channels: int, query_channels: int, *, projected: bool = True):
        """`projected` False: "dot", which needs as many feature as query channels."""
        super().__init__()
        assert projected or feature_channels == query_channels, "a dot product is one of equal lengths"
        self.key = nn.Linear(feature_channels, query_channels, bias=False) if projected else nn.Identity()

    def keys(self, features: Tensor) -> Tensor:
        """(N, L, D) -> (N, L, Q)."""
        return self.key(features)

    def forward(
        self, query: Tensor, keys: Tensor, features: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Context (N, D) and weights (N, L) float32: see `attend`.

        Args:
            query: (N, Q), the decoder's state itself.
            keys: (N, L, Q) from `keys`.
            features: (N, L, D).
            mask: (N, L) bool.
        """
        return attend(torch.bmm(keys, query.unsqueeze(2)).squeeze(2), features, mask)
