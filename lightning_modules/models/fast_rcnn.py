"""Fast R-CNN (1504.08083): the backbone runs once an image, and each given region is read from its map.

Shapes: B images (B, 3, H, W) uint8; regions of image i (R_i, 4) float32 in pixels, and targets of it: `boxes` (N, 4)
float32, `labels` (N,) int64 in 1..C, `ignored` (K, 4) float32. P sampled regions, of all images in a row. D detections.

As in `blocks/rcnn.py` the convolutions and the head may run in bf16; matching, losses, decoding and suppression do not.

Not as the authors' (github.com/rbgirshick/fast-rcnn): wanted box deltas are divided by fixed deviations (0.1, 0.1, 0.2,
0.2), as their Faster R-CNN does, not by each class's own, which would need a pass over the training split before the
first step; biases learn as fast as weights; difficult objects are ignored regions, not positives; each image is divided
by its own number of sampled regions, and the losses are added up (`blocks/rcnn_losses.py`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.ops import box_iou, roi_align

from contracts.errors import ConfigError
from contracts.ranges import COUNT, SHARE, check_ranges
from lightning_modules.base.families import RegionDetectorSpec
from lightning_modules.blocks.backbones import LEVELS, BackboneName, build_backbone, check_backbone
from lightning_modules.blocks.detectors import BOX_WEIGHTS
from lightning_modules.blocks.norms import NormName
from lightning_modules.blocks.pixels import PixelNorm, pad_to_stride
from lightning_modules.blocks.rcnn import Detection, Losses, Target, fixed_random, full_precision, matched_objects
from lightning_modules.blocks.single_map import RoIMaxPool, Trunk
from lightning_modules.blocks.vgg import FC7_CHANNELS, VGG16FC7
from lightning_modules.ops.box_coding import decode_boxes, encode_boxes
from lightning_modules.ops.matching import BACKGROUND, NEITHER, MatchRule, assign
from lightning_modules.ops.sampling import sample_balanced
from lightning_modules.ops.suppression import suppress

FOREGROUND_IOU, FOREGROUND_SHARE = 0.5, 0.25  # the paper's 2.3
BOX_BETA = 1.0  # where smooth L1 turns from quadratic to linear, the paper's eq. 3
CLASS_STD, BOX_STD = 0.01, 0.001  # of the last layers' first weights
_ROI_SIZE_OF_FC6 = 7  # places each way that the ImageNet weights of fc6 look at


@dataclass(frozen=True, kw_only=True)
class Config:
    """The paper's network is `backbone: vgg16, pretrained: true, head_channels: 4096`, which starts fc6 and fc7 from
    ImageNet's, too.

    Attributes:
        norm: which statistics the backbone's norms use (`blocks/norms.py`).
        level: the map that regions are read from, of stride 4, 8, 16 or 32; of vgg16's c4 conv5_3, the last of its
            stride.
        pooling: "max" (RoIPool, which rounds to the cells of the map) or "align" (RoIAlign, 1703.06870).
        roi_size: places of a pooled region each way.
        head_channels: width of the two fully connected layers. dropout: behind each of them, 0 to 1.
        roi_batch: regions and true boxes sampled for the losses, an image; the paper's 128 of two images. At most a
            quarter of them overlap an object by an IoU of 0.5 or more.
        background_low: regions are background from this best IoU on, up to 0.5, below it neither: a cheap choice of
            hard ones. With 0, which later work prefers, all are, and an image without objects is learnt from, too.
        score_threshold: detections that do not reach more are dropped, 0 to 1; low, because AP counts the whole curve.
        nms_threshold: of two boxes of one class whose IoU is larger, 0 to 1, only the one with the better score stays.
        max_detections: of an image.
    """

    backbone: BackboneName = "small"
    pretrained: bool = False
    norm: NormName = "batch"
    level: Literal["c2", "c3", "c4", "c5"] = "c4"
    pooling: Literal["max", "align"] = "max"
    roi_size: int = 7
    head_channels: int = 256
    dropout: float = 0.5
    roi_batch: int = 64
    background_low: float = 0.1
    score_threshold: float = 0.05
    nms_threshold: float = 0.3
    max_detections: int = 100

    def __post_init__(self) -> None:
        check_ranges(
            self,
            **dict.fromkeys(("roi_size", "head_channels", "roi_batch", "max_detections"), COUNT),
            **dict.fromkeys(("dropout", "background_low", "score_threshold", "nms_threshold"), SHARE),
        )
        if self.background_low >= FOREGROUND_IOU:
            raise ConfigError(
                "no region could be background",
                value=self.background_low,
                where="model.background_low",
                allowed=f"0 or more, below {FOREGROUND_IOU}, from where on a region is an object",
            )
        check_backbone(self.backbone, pretrained=self.pretrained, norm=self.norm)

    @property
    def has_pretrained_head(self) -> bool:
        """Whether the head has the shape of VGG-16's fc6 and fc7, and shall start from theirs."""
        shape = (self.backbone, self.level, self.roi_size, self.head_channels)
        return self.pretrained and shape == ("vgg16", "c4", _ROI_SIZE_OF_FC6, FC7_CHANNELS)


class RoIAlignPool(nn.Module):
    """RoIAlign (1703.06870) called as `RoIMaxPool`: means of four values each, read between the cells."""

    def __init__(self, level: str, size: int):
        super().__init__()
        self.level, self.size, self.scale = level, size, 2.0 ** -(LEVELS.index(level) + 2)

    def forward(
        self, features: Mapping[str, Tensor], boxes: Sequence[Tensor], sizes: Sequence[tuple[int, int]]
    ) -> Tensor:
        """Maps, B x (P_i, 4) boxes in pixels -> (sum P, C, size, size); `sizes` are not needed."""
        return roi_align(features[self.level], list(boxes), self.size, self.scale, sampling_ratio=2, aligned=True)


class Model(nn.Module):
    """Boxes with class and score. Column 0 of the logits is background."""

    spec_class: ClassVar[type] = RegionDetectorSpec

    def __init__(self, config: Config, spec: RegionDetectorSpec):
        super().__init__()
        self.config = config
        self.pixel_norm = PixelNorm()
        backbone = build_backbone(config.backbone, pretrained=config.pretrained, norm=config.norm)
        self.backbone = Trunk(backbone, config.level, pools_last=config.backbone == "vgg16")
        self.pool: RoIMaxPool | RoIAlignPool
        if config.pooling == "max":
            self.pool = RoIMaxPool(config.level, config.roi_size)
        else:
            self.pool = RoIAlignPool(config.level, config.roi_size)
        width = config.head_channels
        self.head = nn.Sequential(
            nn.Linear(self.backbone.channels[config.level] * config.roi_size**2, width),
            nn.ReLU(inplace=True),
            nn.Dropout(config.dropout),
            nn.Linear(width, width),
            nn.ReLU(inplace=True),
            nn.Dropout(config.dropout),
        )
        if config.has_pretrained_head:
            self.head.load_state_dict(VGG16FC7(pretrained=True).classifier.state_dict())
        self.predictor = FastRCNNPredictor(width, spec.num_foreground_classes + 1)
        for layer, std in ((self.predictor.cls_score, CLASS_STD), (self.predictor.bbox_pred, BOX_STD)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        images: Tensor,
        regions: Sequence[Tensor],
        targets: Sequence[Target] | None = None,
        *,
        sizes: Sequence[tuple[int, int]] | None = None,
        detect: bool = False,
    ) -> tuple[Losses, list[Detection]]:
        """Losses if there are targets, detections if asked for; the backbone runs once.

        Args:
            images: (B, 3, H, W) uint8.
            regions: B x (R_i, 4), see the module's legend; an image may have none.
            targets: one dict per image.
            sizes: (height, width) of each image's content, from its upper left corner; the whole image by default.
            detect: whether to return detections.

        Returns:
            losses: `loss_classifier` and `loss_box_reg`, float32 scalars, sums over images of each one's mean over its
                sampled regions, 0 of an image without any; empty without targets. In evaluation mode they do not depend
                on the random state.
            detections: per image `boxes` (D, 4) float32 in input pixels, within the content, `labels` (D,) in 1..C,
                `scores` (D,) falling; empty if not asked for.
        """
        if sizes is None:
            sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        maps = self.backbone(pad_to_stride(self.pixel_norm(images)))
        features = {name: one.float() for name, one in maps.items()}
        losses: Losses = {}
        detections: list[Detection] = []
        if targets is not None:
            losses = self._losses(features, regions, targets)
        if detect:
            # An image at a time: two thousand regions of each of many images would not fit into memory.
            for i, (boxes, size) in enumerate(zip(regions, sizes, strict=True)):
                own = {name: one[i : i + 1] for name, one in features.items()}
                detections.append(self._detect(own, boxes, size))
        return losses, detections

    def _classify(self, features: Mapping[str, Tensor], boxes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Class logits (sum P, C + 1) and box deltas (sum P, 4 (C + 1)) of the boxes, float32."""
        logits, deltas = self.predictor(self.head(self.pool(features, boxes, ()).flatten(1)))
        return logits.float(), deltas.float()

    def _losses(self, features: Mapping[str, Tensor], regions: Sequence[Tensor], targets: Sequence[Target]) -> Losses:
        device = features[self.config.level].device
        # A validation loss must not depend on what was drawn before it.
        random = contextlib.nullcontext() if self.training else fixed_random(device)
        with full_precision(device), random:
            samples = [self._sample(boxes, target) for boxes, target in zip(regions, targets, strict=True)]
        boxes, labels, wanted = (list(column) for column in zip(*samples, strict=True))
        logits, deltas = self._classify(features, boxes)
        with full_precision(device):
            class_loss, box_loss = head_losses(logits, deltas, labels, wanted)
        return {"loss_classifier": class_loss, "loss_box_reg": box_loss}

    def _sample(self, regions: Tensor, target: Target) -> tuple[Tensor, Tensor, Tensor]:
        """Of an image's regions and true boxes those that are learnt from: boxes, labels (0 background) and deltas."""
        objects = target["boxes"]
        candidates = torch.cat([regions, objects])
        matches = match_regions(candidates, target, self.config.background_low)
        positive, negative = sample_balanced(matches, self.config.roi_batch, FOREGROUND_SHARE)
        chosen = torch.where(positive | negative)[0]
        boxes, matches = candidates[chosen], matches[chosen]
        labels = torch.zeros_like(matches)
        labels[matches >= 0] = target["labels"][matches[matches >= 0]]
        return boxes, labels, encode_boxes(matched_objects(objects, matches), boxes, BOX_WEIGHTS)

    def _detect(self, features: Mapping[str, Tensor], regions: Tensor, size: tuple[int, int]) -> Detection:
        """Of one image, whose content is of `size`."""
        # Only RoIPool rounds, so that different regions may be read alike.
        first, index = distinct(pooled_cells(regions, self.pool.scale) if self.config.pooling == "max" else regions)
        logits, deltas = self._classify(features, [regions[first]])
        with full_precision(logits.device):
            scores = logits.softmax(dim=1)[index, 1:]
            rows, classes = torch.where(scores > self.config.score_threshold)
            boxes = decode_boxes(deltas[index], regions, BOX_WEIGHTS)[rows, classes + 1]
            return suppress(
                boxes,
                classes + 1,
                scores[rows, classes],
                size,
                iou=self.config.nms_threshold,
                most=self.config.max_detections,
            )


def match_regions(candidates: Tensor, target: Target, background_low: float) -> Tensor:
    """The match (A,) of each candidate (A, 4): an object from an IoU of 0.5 on, background from `background_low` on and
    unless an ignored region covers half of it, else neither."""
    rule = MatchRule(high=FOREGROUND_IOU, low=FOREGROUND_IOU)
    matches = assign(candidates, target["boxes"], target["ignored"], rule)
    nothing = candidates.new_zeros(1, len(candidates))  # the best IoU where there are no objects
    best = torch.cat([nothing, box_iou(target["boxes"], candidates)]).amax(dim=0)
    return matches.where((matches != BACKGROUND) | (best >= background_low), NEITHER)


def head_losses(
    logits: Tensor, deltas: Tensor, labels: Sequence[Tensor], wanted: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Cross-entropy, and smooth L1 of the true class's four deltas over foreground: both sums over images of what they
    are divided by the number of the image's sampled regions (the paper's eq. 1, lambda 1).

    Args:
        logits: (P, C + 1). deltas: (P, 4 (C + 1)).
        labels: B x (P_i,) int64, 0 background. wanted: B x (P_i, 4).
    """
    shares = torch.cat([torch.full_like(one, 1 / max(1, len(one)), dtype=torch.float32) for one in labels])
    flat = torch.cat(list(labels))
    positive = torch.where(flat > 0)[0]
    class_losses = F.cross_entropy(logits, flat, reduction="none")
    own = deltas.unflatten(1, (-1, 4))[positive, flat[positive]]
    box_losses = F.smooth_l1_loss(own, torch.cat(list(wanted))[positive], beta=BOX_BETA, reduction="none")
    return (class_losses * shares).sum(), (box_losses.sum(dim=1) * shares[positive]).sum()


def pooled_cells(boxes: Tensor, scale: float) -> Tensor:
    """The first and last cell (R, 4) int64 each way that RoIPool looks at: regions with equal ones are read alike."""
    ends = boxes.new_tensor([0.0, 0.0, 1.0, 1.0])  # the last pixel, not its edge; as `RoIMaxPool`
    return torch.floor((boxes - ends).double() * scale + 0.5).long()  # halves go up, unlike those of torch.round


def distinct(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The first of each group of equal rows (D,) int64 in the order of the rows, and which of these each is (R,)."""
    unique, group = torch.unique(rows, dim=0, return_inverse=True)
    places = torch.arange(len(rows), device=rows.device)
    first = torch.full((len(unique),), len(rows), device=rows.device).scatter_reduce(0, group, places, "amin")
    first, order = first.sort()
    return first, order.argsort()[group]
