"""The losses of detectors that judge every anchor, as sums over images of each image's mean over its positives.

Shapes: B images of A anchors each, C classes without background; matches (B, A) int64 of `ops/matching.py`.

Each image's sum is divided by its own number of matched anchors, at least 1, as torchvision's RetinaNet does. Detectron
and Caffe's SSD divide by the matched anchors of the whole batch on a device, so that an image's weight depends on its
neighbours: another number of workers or micro-batches would be another recipe.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.ops.matching import BACKGROUND, NEITHER


def per_positive(losses: Tensor, matches: Tensor) -> Tensor:
    """Losses (B, A) of anchors -> the scalar that is minimised, float32."""
    return (losses.sum(dim=1) / (matches >= 0).sum(dim=1).clamp(min=1)).sum()


def focal_loss(logits: Tensor, wanted: Tensor, alpha: float, gamma: float) -> Tensor:
    """-alpha_t (1 - p_t)^gamma log p_t (1708.02002, eq. 5) of each logit; with `alpha` -1 and `gamma` 0 cross-entropy.

    torchvision's `sigmoid_focal_loss` in logarithms: there 1 - p_t becomes 0 from a logit of about 17 on, whose power
    has no finite gradient for a `gamma` between 0 and 1, of which the paper tries three.

    Args:
        logits, wanted: of one shape, float32 and bool.
        alpha: weight of what is wanted, 1 - alpha of the rest; -1: all alike.
    """
    signed = logits.where(wanted, -logits)  # p_t is its sigmoid
    losses = F.softplus(-signed) * torch.exp(-gamma * F.softplus(signed))
    return losses * (wanted * (2 * alpha - 1) + (1 - alpha)) if alpha >= 0 else losses


def focal_losses(logits: Tensor, labels: Tensor, matches: Tensor, alpha: float, gamma: float) -> Tensor:
    """The focal losses (B, A) of anchors, each the sum over its classes; 0 where a match is `NEITHER`.

    Args:
        logits: (B, A, C). labels: (B, A) int64, 1..C of what matched, else 0.
    """
    classes = torch.arange(1, logits.shape[2] + 1, device=logits.device)
    losses = focal_loss(logits, labels[..., None] == classes, alpha, gamma).sum(dim=2)
    return losses.masked_fill(matches == NEITHER, 0.0)


def hard_negatives(losses: Tensor, matches: Tensor, ratio: float) -> Tensor:
    """(B, A) bool: of each image's background the `ratio` times as many as it has matched anchors whose losses (B, A)
    are the largest; none without a matched one, all where there are fewer."""
    is_negative = matches == BACKGROUND
    order = losses.detach().masked_fill(~is_negative, -1.0).argsort(dim=1, descending=True, stable=True)
    ranks = order.argsort(dim=1)
    return is_negative & (ranks < ratio * (matches >= 0).sum(dim=1, keepdim=True))
