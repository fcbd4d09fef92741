"""R-CNN (1311.2524): a small classifier of crops, one for each region. With a grid's windows as regions (the task's
`regions: windows`) it is the sliding window (1312.6229); nothing else differs.

Shapes: B images (B, 3, H, W) uint8 or B x (3, H_i, W_i); regions B x (R_i, 4) float32 in pixels; C classes without
background, label 0; crops (R, 3, s, s); their map (R, M, h, w), of D = M h w numbers, and its mean (R, M).

Training is in two parts. Gradients train backbone and softmax. Then, once, with the best weights, `finish` fits what is
fitted without gradients to the features of the training split: one linear SVM a class on the means, and one ridge
regression of boxes a class on the maps. Validation while training goes by the softmax.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contracts.errors import ConfigError
from contracts.ranges import AMOUNT, COUNT, POSITIVE, SHARE, Range, check_ranges
from lightning_modules.base.families import RegionDetectorSpec
from lightning_modules.base.finish import Batches
from lightning_modules.blocks.backbones import BackboneName, build_backbone, check_backbone
from lightning_modules.blocks.crops import contents, crop_regions
from lightning_modules.blocks.norms import NormName
from lightning_modules.blocks.pixels import PixelNorm
from lightning_modules.blocks.rcnn import Detection, Losses, fixed_random, full_precision
from lightning_modules.blocks.region_fitting import RegionFeatures, fit_boxes, fit_svms
from lightning_modules.blocks.single_map import Trunk
from lightning_modules.ops.box_coding import decode_boxes
from lightning_modules.ops.matching import MatchRule, assign
from lightning_modules.ops.sampling import sample_balanced
from lightning_modules.ops.suppression import suppress

Images = Tensor | Sequence[Tensor]
Sizes = Sequence[tuple[int, int]]
MATCH, POSITIVES = MatchRule(high=0.5, low=0.5), 0.25  # of the crops that the softmax learns from
_STD = 0.01  # of the softmax layer's first weights


@dataclass(frozen=True, kw_only=True)
class Config:
    """Defaults are for images of 128 px; the paper's: crops of 227 px, padding 16, 128 crops a batch.

    Attributes:
        level: map that a crop is known by; deeper stages do not run.
        norm: which statistics the backbone's norms use (`blocks/norms.py`).
        crop_size: sides of the crops, px.
        padding: of what surrounds the region, px of the crop at each side.
        crops_per_image: that are sampled of each image in training, a quarter of them on objects.
        classifier: what scores regions in the end: "softmax", or "svm", whose decision 0 is a score of 0.5.
        box_regression: "ridge" moves each box by a regression of its class, once; "none" leaves it.
        svm_cost: the SVMs' C, of features whose mean norm is 20.
        ridge_penalty: lambda of the box regression.
        score_threshold: detections that do not reach more are dropped, 0 to 1; low, because AP counts the whole curve.
        nms_threshold: of two boxes of one class whose IoU is larger only the one with the better score stays.
        max_detections: of an image, the best.
        max_test_regions: of an image, the first; more are not looked at, but for training.
        crops_at_once: so many go through the backbone at a time where no gradients are kept.
    """

    backbone: BackboneName = "small"
    pretrained: bool = False
    norm: NormName = "batch"
    level: Literal["c4", "c5"] = "c5"
    crop_size: int = 48
    padding: int = 4
    crops_per_image: int = 16
    classifier: Literal["softmax", "svm"] = "svm"
    box_regression: Literal["none", "ridge"] = "ridge"
    svm_cost: float = 1e-3
    ridge_penalty: float = 1000.0
    score_threshold: float = 0.05
    nms_threshold: float = 0.3
    max_detections: int = 100
    max_test_regions: int = 2000
    crops_at_once: int = 256

    def __post_init__(self) -> None:
        counts = ("crops_per_image", "max_detections", "max_test_regions", "crops_at_once")
        check_ranges(
            self,
            crop_size=Range(32),
            padding=AMOUNT,
            svm_cost=POSITIVE,
            ridge_penalty=POSITIVE,
            score_threshold=SHARE,
            nms_threshold=SHARE,
            **dict.fromkeys(counts, COUNT),
        )
        if self.crop_size <= 2 * self.padding:
            raise ConfigError(
                "padding leaves nothing of the crop",
                value=self.padding,
                where="model.padding",
                allowed=f"less than half of crop_size, {self.crop_size}",
            )
        check_backbone(self.backbone, pretrained=self.pretrained, norm=self.norm)


class Model(nn.Module):
    """A `RegionDetector` and a `Finisher`. What `finish` fits are buffers, so they are part of a checkpoint.

    Attributes:
        is_finished: whether it has been fitted; a step of training forgets that.
        svm_weight, svm_bias: (C, M), (C,), of features as they come, not scaled.
        box_weight, box_bias: (4 C, D), (4 C,), deltas of `ops/box_coding.py` of each class.
        cache_bytes_per_image: what `finish` kept of an image of the training split.
    """

    spec_class: ClassVar[type] = RegionDetectorSpec
    is_finished: Tensor
    svm_weight: Tensor
    svm_bias: Tensor
    box_weight: Tensor
    box_bias: Tensor
    cache_bytes_per_image: Tensor

    def __init__(self, config: Config, spec: RegionDetectorSpec):
        super().__init__()
        self.config = config
        self.pixel_norm = PixelNorm()
        whole = build_backbone(config.backbone, pretrained=config.pretrained, norm=config.norm)
        self.backbone = Trunk(whole, config.level)
        channels, num_classes = self.backbone.channels[config.level], spec.num_foreground_classes
        self.classify = nn.Linear(channels, num_classes + 1)
        nn.init.normal_(self.classify.weight, std=_STD)
        nn.init.zeros_(self.classify.bias)
        self.fits_svms, self.fits_boxes = config.classifier == "svm", config.box_regression == "ridge"
        self.register_buffer("is_finished", torch.tensor(False))
        self.register_buffer("cache_bytes_per_image", torch.tensor(0.0))
        if self.fits_svms:
            self.register_buffer("svm_weight", torch.zeros(num_classes, channels))
            self.register_buffer("svm_bias", torch.zeros(num_classes))
        if self.fits_boxes:
            self.register_buffer("box_weight", torch.zeros(4 * num_classes, self._map_numbers()))
            self.register_buffer("box_bias", torch.zeros(4 * num_classes))

    def forward(
        self,
        images: Images,
        regions: Sequence[Tensor],
        targets: Sequence[Mapping[str, Tensor]] | None = None,
        *,
        sizes: Sizes | None = None,
        detect: bool = False,
    ) -> tuple[Losses, list[Detection]]:
        """Losses if there are targets, detections if asked for: see `RegionDetector`.

        Returns:
            losses: `loss_classifier`, the softmax's cross-entropy, a sum over images of its mean over an image's crops;
                in evaluation mode it does not depend on the random state.
            detections: scores are probabilities, or after `finish` with SVMs their squashed distances from 0.
        """
        if sizes is None:
            sizes = [(int(image.shape[-2]), int(image.shape[-1])) for image in images]
        pictures = contents(self.pixel_norm, images, sizes)
        losses: Losses = {}
        if targets is not None:
            with contextlib.ExitStack() as stack:
                if self.training:
                    self.is_finished.fill_(False)  # what was fitted to other weights
                else:
                    stack.enter_context(fixed_random(self.is_finished.device))
                losses = {"loss_classifier": self._loss(pictures, regions, targets)}
        return losses, self._detect(pictures, regions) if detect else []

    def _crops(self, pictures: Sequence[Tensor], regions: Sequence[Tensor]) -> Tensor:
        with full_precision(self.is_finished.device):
            return crop_regions(pictures, regions, size=self.config.crop_size, padding=self.config.padding)

    def _map(self, crops: Tensor) -> Tensor:
        """(R, M, h, w) float32."""
        return self.backbone(crops)[self.config.level].float()

    def _map_numbers(self) -> int:
        """D: backbones round differently, so one looks at an empty crop."""
        was_training = self.training
        with torch.no_grad():
            numbers = self.eval()._map(torch.zeros(1, 3, self.config.crop_size, self.config.crop_size)).numel()
        self.train(was_training)
        return numbers

    def _loss(
        self, pictures: Sequence[Tensor], regions: Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]]
    ) -> Tensor:
        with full_precision(self.is_finished.device):
            samples = [self._sample(found, target) for found, target in zip(regions, targets, strict=True)]
        boxes, labels = [box for box, _ in samples], torch.cat([label for _, label in samples])
        if not len(labels):
            # Nothing to learn from, but every weight gets its gradient, of zeros: other workers have some.
            whole = [labels.new_tensor([[0, 0, one.shape[2], one.shape[1]]], dtype=torch.float32) for one in pictures]
            return 0.0 * self._logits(self._map(self._crops(pictures, whole)).mean(dim=(2, 3))).sum()
        shares = torch.cat([box.new_full((len(box),), 1 / max(1, len(box))) for box in boxes])
        logits = self._logits(self._map(self._crops(pictures, boxes)).mean(dim=(2, 3)))
        with full_precision(logits.device):
            return (F.cross_entropy(logits, labels, reduction="none") * shares).sum()

    def _logits(self, features: Tensor) -> Tensor:
        with full_precision(features.device):
            return self.classify(features.float())

    def _sample(self, regions: Tensor, target: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Boxes (P, 4) that the softmax learns from, of regions and true boxes, and their labels (P,), 0 background."""
        candidates = torch.cat([regions, target["boxes"]])
        matches = assign(candidates, target["boxes"], target["ignored"], MATCH)
        positive, negative = sample_balanced(matches, self.config.crops_per_image, POSITIVES)
        chosen = torch.where(positive | negative)[0]
        labels = torch.zeros_like(matches)
        labels[matches >= 0] = target["labels"][matches[matches >= 0]]
        return candidates[chosen], labels[chosen]

    def features(self, pictures: Sequence[Tensor], regions: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Means (R, M) and maps (R, D) of the regions, float32, R of all images one after the other.

        The maps are empty (R, 0) where no boxes are regressed."""
        means, maps = [], []
        for part in _parts(regions, self.config.crops_at_once):
            found = self._map(self._crops(pictures, part))
            means.append(found.mean(dim=(2, 3)))
            maps.append(found.flatten(1) if self.fits_boxes else found.new_zeros(len(found), 0))
        if not means:
            empty = self.classify.weight.new_zeros(0, self.classify.in_features)
            return empty, empty.new_zeros(0, self.box_weight.shape[1] if self.fits_boxes else 0)
        return torch.cat(means), torch.cat(maps)

    def _detect(self, pictures: Sequence[Tensor], regions: Sequence[Tensor]) -> list[Detection]:
        regions = [found[: self.config.max_test_regions] for found in regions]
        means, maps = self.features(pictures, regions)
        counts = [len(found) for found in regions]
        with full_precision(means.device):
            scores = self._scores(means)
            boxes = self._boxes(torch.cat(list(regions)).float(), maps, scores.shape[1])
            found = zip(boxes.split(counts), scores.split(counts), pictures, strict=True)
            return [self._choose(box, score, (one.shape[1], one.shape[2])) for box, score, one in found]

    def _scores(self, means: Tensor) -> Tensor:
        """(R, C) in 0..1 of the classes without background."""
        if self.fits_svms and self.is_finished:
            return torch.sigmoid(means @ self.svm_weight.T + self.svm_bias)
        return self._logits(means).softmax(dim=1)[:, 1:]

    def _boxes(self, regions: Tensor, maps: Tensor, num_classes: int) -> Tensor:
        """(R, C, 4): each region as each class would have it."""
        if self.fits_boxes and self.is_finished:
            return decode_boxes(maps @ self.box_weight.T + self.box_bias, regions)
        return regions[:, None].expand(-1, num_classes, 4)

    def _choose(self, boxes: Tensor, scores: Tensor, size: tuple[int, int]) -> Detection:
        config = self.config
        region, label = torch.where(scores > config.score_threshold)
        return suppress(
            boxes[region, label],
            label + 1,
            scores[region, label],
            size,
            iou=config.nms_threshold,
            most=config.max_detections,
        )

    def finish(self, batches: Batches) -> None:
        """Fit SVMs and box regressions to the training split: see `base/finish.py`. The regions' features are computed
        once and kept (`blocks/feature_cache.py`)."""
        if not self.fits_svms and not self.fits_boxes:
            return
        device, num_classes = self.is_finished.device, self.classify.out_features - 1
        with RegionFeatures(num_classes, *self._widths()) as found:
            for batch in batches():
                pictures = contents(self.pixel_norm, batch["images"], batch["sizes"])
                found.add_batch(batch, partial(self.features, pictures))
            if self.fits_svms:
                weight, bias = fit_svms(found, self.config.svm_cost)
                self.svm_weight.copy_(torch.from_numpy(weight).to(device))
                self.svm_bias.copy_(torch.from_numpy(bias).to(device))
            if self.fits_boxes:
                weight, bias = fit_boxes(found, self.config.ridge_penalty)
                self.box_weight.copy_(torch.from_numpy(weight).to(device))
                self.box_bias.copy_(torch.from_numpy(bias).to(device))
            self.cache_bytes_per_image.fill_(found.num_bytes / max(1, found.num_images))
        self.is_finished.fill_(True)

    def _widths(self) -> tuple[int, int]:
        return self.classify.in_features if self.fits_svms else 0, self.box_weight.shape[1] if self.fits_boxes else 0


def _parts(regions: Sequence[Tensor], at_once: int) -> list[list[Tensor]]:
    """The regions of all images, `at_once` in a part: of each part B x (P_i, 4), most of them empty."""
    counts = [len(found) for found in regions]
    parts = []
    for start in range(0, sum(counts), at_once):
        part, before = [], 0
        for found, count in zip(regions, counts, strict=True):
            part.append(found[max(0, start - before) : max(0, start + at_once - before)])
            before += count
        parts.append(part)
    return parts
