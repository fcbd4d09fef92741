"""The two ways of judging anchors in one stage, whatever the network and its anchors: RetinaNet's and SSD's.

Shapes as in `blocks/dense.py`. A detector of either kind makes its anchors and says its numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

from lightning_modules.blocks.dense import Candidates, DenseDetector
from lightning_modules.blocks.dense_losses import focal_losses, hard_negatives
from lightning_modules.blocks.rcnn import Target
from lightning_modules.ops.matching import MatchRule, assign
from lightning_modules.ops.one_to_one import assign_one_to_one

FOCAL_MATCH = MatchRule(high=0.5, low=0.4, keep_best=True)
MULTIBOX_MATCH_IOU = 0.5


class FocalDetector(DenseDetector):
    """RetinaNet's (1708.02002): the focal loss of every anchor. Class c of a target, 1..C, is column c - 1 of the
    logits: there is no background."""

    @property
    def focal(self) -> tuple[float, float]:
        """Alpha, the weight of the true class, and gamma, how much less an anchor counts that is judged well."""
        return 0.25, 2.0

    def assign(self, anchors: Tensor, target: Target) -> Tensor:
        return assign(anchors, target["boxes"], target["ignored"], FOCAL_MATCH)

    def class_losses(self, logits: Tensor, labels: Tensor, matches: Tensor) -> Tensor:
        return focal_losses(logits, labels, matches, *self.focal)

    def scores(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()

    def choose(self, scores: Tensor, per_map: list[int]) -> Candidates:
        """Of each map the best pairs of an anchor and a class."""
        indices, num_classes, start = [], scores.shape[1], 0
        for part in scores.split(per_map):
            flat = part.flatten()
            best, index = flat.topk(min(self.config.candidates, len(flat)))
            indices.append(index[best > self.config.score_threshold] + start)
            start += len(flat)
        index = torch.cat(indices)
        return index // num_classes, index % num_classes, scores.flatten()[index]


class MultiboxDetector(DenseDetector):
    """SSD's (1512.02325): the cross-entropy of matched default boxes and of the hardest of the others. Column 0 of the
    logits is background.

    Attributes:
        default_boxes: makes the anchors.
    """

    default_boxes: DefaultBoxGenerator

    @property
    def negative_ratio(self) -> float:
        """Background boxes that count per matched box."""
        return 3.0

    def anchors(self, images: Tensor, maps: list[Tensor]) -> list[Tensor]:
        out: list[Tensor] = self.default_boxes(ImageList(images, [(images.shape[-2], images.shape[-1])]), maps)
        return out

    def assign(self, anchors: Tensor, target: Target) -> Tensor:
        return assign_one_to_one(anchors, target["boxes"], target["ignored"], MULTIBOX_MATCH_IOU)

    def class_losses(self, logits: Tensor, labels: Tensor, matches: Tensor) -> Tensor:
        losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)
        counts = (matches >= 0) | hard_negatives(losses, matches, self.negative_ratio)
        return losses.masked_fill(~counts, 0.0)

    def scores(self, logits: Tensor) -> Tensor:
        return logits.softmax(dim=2)[..., 1:]

    def choose(self, scores: Tensor, per_map: list[int]) -> Candidates:
        """Of each class the best boxes."""
        best, index = scores.T.topk(min(self.config.candidates, len(scores)), dim=1)
        classes, rank = torch.where(best > self.config.score_threshold)
        return index[classes, rank], classes, best[classes, rank]
