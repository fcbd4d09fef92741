"""Detectors of a single stage (RetinaNet, SSD): every anchor of every map is judged, in one pass that can give losses
and detections together.

Shapes: B images (B, 3, H, W) uint8; targets of image i: `boxes` (N, 4) float32, `labels` (N,) int64 in 1..C,
`ignored` (K, 4) float32. A anchors an image (A, 4), the same of all, finest map first; logits (B, A, ..), deltas
(B, A, 4), matches (B, A) int64 of `ops/matching.py`. D detections.

As in `blocks/rcnn.py` the convolutions may run in bf16; anchors, matching, losses, decoding and suppression do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contracts.errors import ConfigError
from contracts.ranges import COUNT, SHARE, check_ranges
from lightning_modules.blocks.backbones import BackboneName, check_backbone
from lightning_modules.blocks.dense_losses import per_positive
from lightning_modules.blocks.norms import NormName
from lightning_modules.blocks.pixels import PixelNorm, pad_to_stride
from lightning_modules.blocks.rcnn import Detection, Losses, Sizes, Target, full_precision, matched_objects
from lightning_modules.ops.box_coding import Weights, decode_boxes, encode_boxes
from lightning_modules.ops.suppression import suppress

Candidates = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class DenseConfig:
    """
    Attributes:
        norm: which statistics the backbone's norms use (`blocks/norms.py`).
        score_threshold: detections that do not reach more are dropped, 0 to 1; low, because AP counts the whole curve.
        candidates: best scores that are kept before suppression, of each map (RetinaNet) or of each class (SSD).
        nms_threshold: of two boxes of one class whose IoU is larger, 0 to 1, only the one with the better score stays.
        max_detections: of an image.
    """

    backbone: BackboneName = "small"
    pretrained: bool = False
    norm: NormName = "batch"
    score_threshold: float = 0.05
    candidates: int = 1000
    nms_threshold: float = 0.5
    max_detections: int = 100

    def __post_init__(self) -> None:
        check_ranges(self, score_threshold=SHARE, candidates=COUNT, nms_threshold=SHARE, max_detections=COUNT)
        check_backbone(self.backbone, pretrained=self.pretrained, norm=self.norm)


class DenseDetector(nn.Module):
    """What is common. A model gives its parts, and says how anchors are made and matched, what classes cost and which
    scores are looked at.

    Objects that are not to be learnt (crowds, VOC difficult) come as `ignored` boxes: anchors of which one covers half
    and that match no object are neither positive nor negative.

    Args:
        backbone: images -> maps by name. neck: those -> the maps with anchors, a list, finest first.
        head: a list of maps -> `cls_logits` (B, A, ..) and `bbox_regression` (B, A, 4), as of torchvision.
        box_weights, box_beta: of the deltas; where smooth L1 turns from quadratic to linear, 0: it is L1.
        side: images are padded to this many pixels each way; None: up to the next multiples of 32.
    """

    def __init__(
        self,
        config: DenseConfig,
        *,
        backbone: nn.Module,
        neck: nn.Module,
        head: nn.Module,
        box_weights: Weights,
        box_beta: float,
        side: int | None = None,
    ):
        super().__init__()
        self.config = config
        self.pixel_norm = PixelNorm()
        self.backbone, self.neck, self.head = backbone, neck, head
        self.box_weights, self.box_beta, self.side = box_weights, box_beta, side

    def anchors(self, images: Tensor, maps: list[Tensor]) -> list[Tensor]:
        """(A_l, 4) float32 of each map, in the order in which the head judges them; SSD's all in one."""
        raise NotImplementedError

    def assign(self, anchors: Tensor, target: Target) -> Tensor:
        """The match (A,) of each anchor."""
        raise NotImplementedError

    def class_losses(self, logits: Tensor, labels: Tensor, matches: Tensor) -> Tensor:
        """(B, A) of the anchors; labels (B, A) int64 are 0 where nothing matched."""
        raise NotImplementedError

    def scores(self, logits: Tensor) -> Tensor:
        """(B, A, C) probabilities of the classes without background."""
        raise NotImplementedError

    def choose(self, scores: Tensor, per_map: list[int]) -> Candidates:
        """Of one image's scores (A, C) those worth a look: anchors, classes from 0 on and scores, (P,) each.
        `per_map` says how many anchors each of `anchors` has."""
        raise NotImplementedError

    def forward(
        self,
        images: Tensor | Sequence[Tensor],
        targets: list[Target] | None = None,
        *,
        sizes: Sizes | None = None,
        detect: bool = False,
    ) -> tuple[Losses, list[Detection]]:
        """Losses if there are targets, detections if asked for; the backbone runs once. The same in training and
        evaluation mode but for norms; nothing is drawn.

        Args:
            images: (B, 3, H, W) uint8, or B tensors (3, H, W) uint8 of any sizes.
            targets: one dict per image, see the module's legend.
            sizes: (height, width) of each image's content, from its upper left corner; the whole image by default.
            detect: whether to return detections.

        Returns:
            losses: `loss_classifier` and `loss_box_reg`, float32 scalars, sums over images of each one's mean over its
                matched anchors (`blocks/dense_losses.py`); empty without targets.
            detections: per image `boxes` (D, 4) float32 in input pixels, within the content, `labels` (D,) in 1..C,
                `scores` (D,) falling; empty if not asked for.

        Raises:
            ConfigError: an image larger than `side`.
        """
        if sizes is None:
            sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        x = self._batch(images)
        maps = self.neck(self.backbone(x))
        out = self.head(maps)
        losses: Losses = {}
        detections: list[Detection] = []
        with full_precision(x.device):
            logits, deltas = out["cls_logits"].float(), out["bbox_regression"].float()
            by_map = self.anchors(x, [one.float() for one in maps])
            anchors = torch.cat(by_map)
            if targets is not None:
                losses = self._losses(logits, deltas, anchors, targets)
            if detect:
                per_map = [len(one) for one in by_map]
                detections = [
                    self._detect(one_scores, one_deltas, anchors, per_map, size)
                    for one_scores, one_deltas, size in zip(self.scores(logits), deltas, sizes, strict=True)
                ]
        return losses, detections

    def _batch(self, images: Tensor | Sequence[Tensor]) -> Tensor:
        """Normalises and pads below and right with zeros, ImageNet's mean colour, to one size."""
        largest = max(image.shape[-2] for image in images), max(image.shape[-1] for image in images)
        if self.side is not None and max(largest) > self.side:
            raise ConfigError(
                "an image is larger than this detector's input",
                value=f"{largest[0]} x {largest[1]} pixels",
                allowed=f"at most {self.side} x {self.side}",
                fix="give it images that the task has resized to task.image_size",
            )
        if isinstance(images, Tensor):
            return self._pad(self.pixel_norm(images), largest)
        x = torch.cat([self._pad(self.pixel_norm(image[None]), largest) for image in images])
        return x.contiguous(memory_format=torch.channels_last)

    def _pad(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        if self.side is None:
            return pad_to_stride(x, size)
        return F.pad(x, (0, self.side - x.shape[-1], 0, self.side - x.shape[-2]))

    def _losses(self, logits: Tensor, deltas: Tensor, anchors: Tensor, targets: list[Target]) -> Losses:
        matches = torch.stack([self.assign(anchors, target) for target in targets])
        is_positive = matches >= 0
        labels = torch.zeros_like(matches)
        wanted = torch.zeros_like(deltas)
        for i, target in enumerate(targets):
            own = is_positive[i]
            labels[i, own] = target["labels"][matches[i, own]]
            wanted[i] = encode_boxes(matched_objects(target["boxes"], matches[i]), anchors, self.box_weights)
        box_losses = F.smooth_l1_loss(deltas, wanted, beta=self.box_beta, reduction="none").sum(dim=2)
        return {
            "loss_classifier": per_positive(self.class_losses(logits, labels, matches), matches),
            "loss_box_reg": per_positive(box_losses.masked_fill(~is_positive, 0.0), matches),
        }

    def _detect(
        self, scores: Tensor, deltas: Tensor, anchors: Tensor, per_map: list[int], size: tuple[int, int]
    ) -> Detection:
        """Of one image: scores (A, C), deltas (A, 4), content of `size` (height, width)."""
        chosen, classes, best = self.choose(scores, per_map)
        boxes = decode_boxes(deltas[chosen], anchors[chosen], self.box_weights)[:, 0]
        config = self.config
        return suppress(boxes, classes + 1, best, size, iou=config.nms_threshold, most=config.max_detections)
