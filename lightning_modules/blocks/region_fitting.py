"""What R-CNN's SVMs and box regressions are fitted to (1311.2524, appendices B and C), and the fitting.

Shapes: an image has R regions and N objects; means (R + N, M) and maps (R, D) of features, C classes.

The SVMs' positives are true boxes alone; negatives of a class overlap each of its objects by an IoU below 0.3, true
boxes of other classes among them; what lies between is not used. Boxes are regressed from regions that overlap an
object by more than 0.6. What lies in an ignored region (half of its area) is no negative.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from lightning_modules.base.object_task import targets_of
from lightning_modules.base.task import Batch
from lightning_modules.blocks.feature_cache import FeatureCache
from lightning_modules.ops.box_coding import encode_boxes
from lightning_modules.ops.boxes import covered_fraction
from lightning_modules.solvers.linear_svm import HardNegatives
from lightning_modules.solvers.ridge import fit_regression

NEGATIVE_BELOW, REGRESSED_ABOVE, IGNORED_COVER = 0.3, 0.6, 0.5
MEAN_NORM = 20.0  # of the features that the SVMs see: their cost depends on it

Features = Callable[[Sequence[Tensor]], tuple[Tensor, Tensor]]


class RegionFeatures:
    """What is kept of the training split: a context, see `FeatureCache`.

    Attributes:
        means: (R + N, M) of each image, regions before true boxes.
        labels: (R + N,) of each image: the class of a true box, 0 of a region.
        negative: (R + N, C) bool of each image: of which classes it is a negative.
        maps: of each class (P, D) of regions on its objects, in blocks.
        deltas: of each class (P, 4) in blocks, from those regions to the objects.
    """

    def __init__(self, num_classes: int, mean_channels: int, map_numbers: int):
        self.num_classes, self.keeps_means, self.keeps_maps = num_classes, mean_channels > 0, map_numbers > 0
        self.means = FeatureCache(mean_channels)
        self.maps = [FeatureCache(map_numbers) for _ in range(num_classes)]
        self.labels: list[np.ndarray] = []
        self.negative: list[np.ndarray] = []
        self.deltas: list[list[np.ndarray]] = [[] for _ in range(num_classes)]
        self.num_images = 0

    @property
    def num_bytes(self) -> int:
        return self.means.num_bytes + sum(cache.num_bytes for cache in self.maps)

    def __enter__(self) -> RegionFeatures:
        with ExitStack() as stack:
            for cache in (self.means, *self.maps):
                stack.enter_context(cache)
            self._open = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._open.close()

    def add_batch(self, batch: Batch, features: Features) -> None:
        """A batch of `base/object_task.py`; `features` gives means and maps (sum A_i, ..) of its images' boxes."""
        regions, targets = batch["regions"].split(batch["num_regions"]), targets_of(batch)
        candidates = [torch.cat([one, target["boxes"]]) for one, target in zip(regions, targets, strict=True)]
        counts = [len(one) for one in candidates]
        means, maps = (part.split(counts) for part in features(candidates))
        for one in zip(regions, targets, means, maps, strict=True):
            self.add(*one)

    def add(self, regions: Tensor, target: dict[str, Tensor], means: Tensor, maps: Tensor) -> None:
        """One image: its regions (R, 4), objects and ignored boxes, features (R + N, ..) of regions and true boxes."""
        self.num_images += 1
        if self.keeps_means:
            candidates = torch.cat([regions, target["boxes"]])
            self.means.append(means.cpu().numpy())
            self.labels.append(np.concatenate([np.zeros(len(regions), np.int64), target["labels"].cpu().numpy()]))
            self.negative.append(negatives(candidates, target, self.num_classes).cpu().numpy())
        if self.keeps_maps:
            for label in target["labels"].unique().tolist():
                chosen, deltas = regressed(regions, target["boxes"][target["labels"] == label])
                self.maps[label - 1].append(maps[chosen].cpu().numpy())
                self.deltas[label - 1].append(deltas.cpu().numpy())


def negatives(boxes: Tensor, target: dict[str, Tensor], num_classes: int) -> Tensor:
    """(A, C) bool: which boxes (A, 4) are negatives of which class."""
    far = box_iou(boxes, target["boxes"]) < NEGATIVE_BELOW
    out = (covered_fraction(boxes, target["ignored"]) < IGNORED_COVER)[:, None].repeat(1, num_classes)
    for label in target["labels"].unique().tolist():
        out[:, label - 1] &= far[:, target["labels"] == label].all(dim=1)
    return out


def regressed(regions: Tensor, objects: Tensor) -> tuple[Tensor, Tensor]:
    """Which regions (R, 4) lie on one of the objects (N, 4) of a class, N > 0: indices (P,), and deltas (P, 4)."""
    ious, nearest = box_iou(regions, objects).max(dim=1)
    chosen = torch.where(ious > REGRESSED_ABOVE)[0]
    return chosen, encode_boxes(objects[nearest[chosen]], regions[chosen])


def fit_svms(found: RegionFeatures, cost: float) -> tuple[np.ndarray, np.ndarray]:
    """Weight (C, M) and bias (C,) float32 of the features as they come."""
    norms = [np.linalg.norm(rows, axis=1) for rows in found.means]
    mean = float(np.mean(np.concatenate(norms))) if any(len(one) for one in norms) else 0.0
    scale = MEAN_NORM / mean if mean > 0 else 1.0
    positives: list[list[np.ndarray]] = [[np.zeros((0, found.means.num_features))] for _ in range(found.num_classes)]
    for rows, labels in zip(found.means, found.labels, strict=True):
        for label in np.unique(labels[labels > 0]):
            positives[label - 1].append(rows[labels == label] * scale)
    classes = [HardNegatives(np.concatenate(rows), cost) for rows in positives]
    for rows, negative in zip(found.means, found.negative, strict=True):
        for label, one in enumerate(classes):
            one.add(rows[negative[:, label]] * scale)
    svms = [one.finish() for one in classes]
    weight, bias = np.stack([svm.weight * scale for svm in svms]), np.array([svm.bias for svm in svms])
    return weight.astype(np.float32), bias.astype(np.float32)


def fit_boxes(found: RegionFeatures, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """Weight (4 C, D) and bias (4 C,) float32: the deltas of each class, one class after the other."""
    weights, biases = [], []
    for maps, deltas in zip(found.maps, found.deltas, strict=True):
        weight, bias = fit_regression(maps.rows(), np.concatenate([np.zeros((0, 4)), *deltas]), penalty)
        weights.append(weight.T)
        biases.append(bias)
    return np.concatenate(weights).astype(np.float32), np.concatenate(biases).astype(np.float32)
