"""Soft attention over image locations.

Shapes: N rows (captions, hypotheses or questions), L locations, D feature channels, A attention channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


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

    def forward(self, query: Tensor, keys: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Context (N, D) and weights (N, L) float32, which sum to 1 over L.

        Args:
            query: (N, A), projected.
            keys: (N, L, A) from `keys`.
            features: (N, L, D).
        """
        scores = self.score(torch.tanh(keys + query.unsqueeze(1))).squeeze(-1)
        weights = torch.softmax(scores.float(), dim=-1)
        context = torch.bmm(weights.to(features.dtype).unsqueeze(1), features).squeeze(1)
        return context, weights
