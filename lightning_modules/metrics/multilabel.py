"""Which classes an image shows: average precision by the rules of the VOC devkit's VOCevalcls.m.

Shapes: I images, N of them that count for a class, K scores that differ among these, C classes, B resamples; `weights`
(B, I), how often a resample holds each image.

Labels are the devkit's: 1 an image that shows the class, -1 one that does not, 0 one that shows only difficult objects
of it, which is left out of that class's ranking, so neither right nor wrong.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from contracts.errors import DataError
from lightning_modules.metrics.item_metric import Id, Item, ItemMetric, array, by_groups
from lightning_modules.metrics.measurement import SOURCE, Measurement
from lightning_modules.metrics.voc_map import ap_11_points, ap_all_points

_LABELS = (1, 0, -1)
Kept = Mapping[Id, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, kw_only=True)
class ClassRanking:
    """The images that count for one class, highest score first.

    Attributes:
        images: (N,) int64, which column of `weights` each is.
        shows: (N,) whether it shows the class.
        ends: (K,) int64, the last image of each score.
    """

    images: np.ndarray
    shows: np.ndarray
    ends: np.ndarray

    @staticmethod
    def of(scores: np.ndarray, labels: np.ndarray) -> ClassRanking:
        """Of (I,) scores and (I,) labels 1, 0 and -1."""
        counted = np.flatnonzero(labels != 0)
        images = counted[np.argsort(-scores[counted], kind="stable")]
        ranked = scores[images]
        ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)) if len(ranked) else np.zeros(0, np.int64)
        return ClassRanking(images=images, shows=labels[images] > 0, ends=ends)

    def curves(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Recall and precision (B, K) of the images down to each score that occurs: those of equal scores come
        together, so that their order is of no matter. Recall is NaN where no image shows the class."""
        held = weights[:, self.images]
        found = (held * self.shows).cumsum(axis=1)
        total = found[:, -1:] if found.shape[1] else np.zeros((len(weights), 1))
        found, seen = found[:, self.ends], held.cumsum(axis=1)[:, self.ends]
        with np.errstate(invalid="ignore", divide="ignore"):
            return found / np.where(total > 0, total, np.nan), np.where(seen > 0, found / seen, 0.0)

    def average_precisions(self, weights: np.ndarray) -> np.ndarray:
        """(2, B): with 11 points (VOC2007) and with all (VOC2010 and later); NaN where no image shows the class."""
        aps = np.full((2, len(weights)), np.nan)
        for row, (recall, precision) in enumerate(zip(*self.curves(weights), strict=True)):
            if len(recall) and not np.isnan(recall[-1]):
                aps[:, row] = ap_11_points(recall, precision), ap_all_points(recall, precision)
        return aps


class MultilabelMeanAP(ItemMetric):
    """`mAP_2010` (all points, VOC2010 and later) and `mAP_2007` (11 points), fractions in 0..1: means over the classes
    that an image shows, as VOCevalcls.m gives each of them (Everingham et al., 2010). NaN if no image shows any.

    An item is an image. Prediction: `probs` (C,), any scores. Truth: `labels` (C,) of 1, 0 and -1, as above.

    Images of equal scores come together, as one point of the curve, where the kit takes them in the order of its files:
    the number depends on no order, and a predictor that says the same of every image gets the class's share of them.

    Args:
        class_names: C names.
        each: also `AP/<class>`, with all points.
        **settings: of `ItemMetric` and `torchmetrics.Metric`.
    """

    def __init__(self, class_names: Sequence[str], *, each: bool = False, **settings: Any):
        super().__init__(**settings)
        self.class_names, self.each = tuple(class_names), each

    def keep(self, prediction: Item, truth: Item) -> tuple[np.ndarray, np.ndarray]:
        shape = (len(self.class_names),)
        labels = array(truth, "labels", "truth", shape)
        if labels.dtype == bool or not np.isin(labels, _LABELS).all():
            raise DataError(
                "labels of a truth are not those of VOC", value=labels.tolist(), where=f"item {truth['id']!r}",
                allowed="1 (shows the class), -1 (does not), 0 (counts for nothing)",
                fix="write -1, not 0 or false, for a class that the image does not show",
            )  # fmt: skip
        return array(prediction, "probs", "prediction", shape), labels.astype(np.int8)

    def measure_kept(self, kept: Kept, groups: Mapping[Id, Hashable]) -> list[Measurement]:
        rankings = class_rankings(list(kept.values()), len(self.class_names))

        def values(weights: np.ndarray) -> dict[str, np.ndarray]:
            none = np.full((0, 2, len(weights)), np.nan)
            aps = np.concatenate([none, *(one.average_precisions(weights)[None] for one in rankings)])  # (C, 2, B)
            there = ~np.isnan(aps)
            with np.errstate(invalid="ignore"):
                means = np.where(there, aps, 0.0).sum(axis=0) / there.sum(axis=0)
            told = {f"AP/{name}": aps[c, 1] for c, name in enumerate(self.class_names)} if self.each else {}
            return {"mAP_2010": means[1], "mAP_2007": means[0], **told}

        measured = Measurement(
            values={name: float(value[0]) for name, value in values(np.ones((1, len(kept)))).items()},
            variant="VOC devkit rules of classification, difficult left out, mean over the classes that are shown, "
            "equal scores together",
            source=SOURCE,
            num_items=len(kept),
            resample=values,
        )
        return by_groups([measured], groups)


def class_rankings(items: Sequence[tuple[np.ndarray, np.ndarray]], num_classes: int) -> list[ClassRanking]:
    """Of each class. Items are I pairs of scores (C,) and labels (C,)."""
    scores = np.array([row for row, _ in items], np.float64).reshape(len(items), num_classes)
    labels = np.array([row for _, row in items], np.int8).reshape(len(items), num_classes)
    return [ClassRanking.of(scores[:, c], labels[:, c]) for c in range(num_classes)]
