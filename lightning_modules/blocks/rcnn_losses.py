"""The losses of Faster and Mask R-CNN (1506.01497, 1703.06870) as sums over images.

Shapes: image i of B has A anchors or P_i proposals, flat in the images' order; C classes without background.

torchvision divides by what it sampled in the whole batch, so that an image's weight depends on its neighbours: on how a
batch is cut into micro-batches and among workers. Here each image's loss is the mean over its own samples, 0 without
any, which is torchvision's with one image a device.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.ops.masks import mask_targets

_BETA = 1 / 9  # where smooth L1 turns from quadratic to linear, torchvision's


def rpn_losses(
    objectness: Tensor, deltas: Tensor, samples: Sequence[tuple[Tensor, Tensor]], wanted: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Objectness and box loss over sampled anchors.

    Args:
        objectness: (B * A, 1) logits. deltas: (B * A, 4).
        samples: B x positive and negative, (A,) bool each. wanted: B x (A, 4), deltas to the matched objects.
    """
    shares = _shares([positive | negative for positive, negative in samples])
    is_positive = torch.cat([positive for positive, _ in samples])
    sampled, positive = torch.where(shares > 0)[0], torch.where(is_positive)[0]
    objectness_losses = F.binary_cross_entropy_with_logits(
        objectness.flatten()[sampled], is_positive[sampled].float(), reduction="none"
    )
    box_losses = F.smooth_l1_loss(deltas[positive], torch.cat(list(wanted))[positive], beta=_BETA, reduction="none")
    return (objectness_losses * shares[sampled]).sum(), (box_losses.sum(dim=1) * shares[positive]).sum()


def box_head_losses(
    logits: Tensor, deltas: Tensor, labels: list[Tensor], regression: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Class and box loss over sampled proposals.

    Args:
        logits: (sum P, C + 1). deltas: (sum P, 4 (C + 1)).
        labels: B x (P_i,) int64, 0 background. regression: B x (P_i, 4), wanted deltas.
    """
    shares, flat = _shares([torch.ones_like(label) for label in labels]), torch.cat(labels)
    positive = torch.where(flat > 0)[0]
    class_losses = F.cross_entropy(logits, flat, reduction="none")
    own = deltas.unflatten(1, (-1, 4))[positive, flat[positive]]
    box_losses = F.smooth_l1_loss(own, torch.cat(list(regression))[positive], beta=_BETA, reduction="none")
    return (class_losses * shares).sum(), (box_losses.sum(dim=1) * shares[positive]).sum()


def mask_loss(
    logits: Tensor, boxes: list[Tensor], matches: list[Tensor], targets: Sequence[dict[str, Tensor]]
) -> Tensor:
    """Binary cross-entropy of the true class's mask, over the cells of all boxes.

    Args:
        logits: (sum P, C + 1, M, M). boxes: B x (P_i, 4) positive proposals. matches: B x (P_i,), each one's object.
        targets: B x {`masks` (N, H, W), `labels` (N,)}.
    """
    side = logits.shape[-1]
    labels = torch.cat([target["labels"][match] for target, match in zip(targets, matches, strict=True)])
    wanted = torch.cat(
        [
            mask_targets(target["masks"], box, match, side)
            for target, box, match in zip(targets, boxes, matches, strict=True)
        ]
    )
    own = logits[torch.arange(len(labels), device=labels.device), labels]
    losses = F.binary_cross_entropy_with_logits(own, wanted, reduction="none").mean(dim=(1, 2))
    return (losses * _shares([torch.ones_like(match) for match in matches])).sum()


def _shares(chosen: Sequence[Tensor]) -> Tensor:
    """Each one's part of its image's mean, all images' in a row: 1 / number of chosen ones, 0 if not chosen."""
    return torch.cat([one.float() / one.sum().clamp(min=1) for one in chosen])
