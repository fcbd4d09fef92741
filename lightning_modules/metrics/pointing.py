"""Whether attention looks at what the caption says: the pointing game (Zhang et al., 1608.00507) at words of a caption.

At each word that names the class of an object of the image, attention points at the middle of its largest cell. A hit
lies in a box of an object of that class. Who points anywhere, each cell alike, hits as often as cells' middles lie in
such boxes, their share of the area: `pointing/uniform`.

Shapes: T words, h x w cells of a map, N objects.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from contracts.text import words
from lightning_modules.metrics.item_metric import Id, Item, ItemMetric, array, by_groups, part, texts
from lightning_modules.metrics.measurement import SOURCE, Measurement, ratio_of_sums
from lightning_modules.ops.masks import decode_masks

# By what is counted: hits at the noun; at the word before it, such as its color; on a mask; by chance; nats.
NAMES = ("pointing", "pointing/before", "pointing/mask", "pointing/uniform", "attention_entropy")


class PointingScore(ItemMetric):
    """`NAMES`: shares in 0..1 of the words that name an object of the image, and the mean entropy of attention in nats.

    `pointing/before` is of the word before the noun, such as the color in "a red circle", and the same boxes.
    `pointing/mask` counts a hit only on the object's mask, and only objects with one.

    Prediction: `words` (T texts), `attention` (T, h, w), how much each was looked at; a map of one cell points nowhere.
    Truth: `object_names` (N class names), `object_boxes` (N, 4) as shares of the image's sides, `object_masks` (N COCO
    run lengths, "" for none) of images of `size` (height, width). A name of several words counts at its last.
    """

    def keep(self, prediction: Item, truth: Item) -> tuple[np.ndarray, np.ndarray]:
        maps = np.asarray(part(prediction, "attention", "prediction"), np.float64)
        tokens = texts(prediction, "words", "prediction")
        parts, totals = np.zeros(len(NAMES)), np.zeros(len(NAMES))
        if not len(tokens) or maps.size <= len(maps):
            return parts, totals
        shares = maps / np.maximum(maps.sum(axis=(1, 2), keepdims=True), 1e-12)
        entropy = -(shares * np.log(np.maximum(shares, 1e-12))).sum(axis=(1, 2))
        parts[4], totals[4] = entropy.sum(), len(tokens)
        names = texts(truth, "object_names", "truth")
        boxes = array(truth, "object_boxes", "truth", (len(names), 4))
        for first, last, objects in _named(tokens, names):
            self._add(parts, totals, maps, first, last, boxes[objects], _masks(truth, objects))
        return parts, totals

    @staticmethod
    def _add(
        parts: np.ndarray,
        totals: np.ndarray,
        maps: np.ndarray,
        first: int,
        last: int,
        boxes: np.ndarray,
        masks: np.ndarray,
    ) -> None:
        """Count one mention, of the words `first` to `last`."""
        parts[0] += _is_inside(*_pointed(maps[last]), boxes)
        parts[3] += _chance(maps.shape[1:], boxes)
        totals[[0, 3]] += 1
        if first:
            parts[1] += _is_inside(*_pointed(maps[first - 1]), boxes)
            totals[1] += 1
        if len(masks):
            x, y = _pointed(maps[last])
            parts[2] += bool(masks[:, int(y * masks.shape[1]), int(x * masks.shape[2])].any())
            totals[2] += 1

    def measure_kept(
        self, kept: Mapping[Id, tuple[np.ndarray, np.ndarray]], groups: Mapping[Id, Hashable]
    ) -> list[Measurement]:
        if not kept:
            return []
        parts, totals = (np.stack([pair[side] for pair in kept.values()]) for side in (0, 1))  # (I, 5) each
        found = [i for i in range(len(NAMES)) if totals[:, i].any()]
        if not found:
            return []

        def resample(weights: np.ndarray) -> dict[str, np.ndarray]:
            return {NAMES[i]: ratio_of_sums(weights, parts[:, i], totals[:, i]) for i in found}

        whole = resample(np.ones((1, len(parts))))
        measured = Measurement(
            values={name: float(values[0]) for name, values in whole.items()},
            variant="middle of the cell with the largest weight, in a box of an object of the class that the word "
            "names; words that name nothing in the image are left out",
            source=SOURCE,
            num_items=len(parts),
            resample=resample,
        )
        return by_groups([measured], groups)


def _named(tokens: Sequence[str], names: Sequence[str]) -> Iterator[tuple[int, int, list[int]]]:
    """Each mention of a class: its first and last word, and the objects of that class."""
    for name in sorted(set(names)):
        wanted = words(name)
        for first in range(len(tokens) - len(wanted) + 1):
            if wanted and list(tokens[first : first + len(wanted)]) == wanted:
                yield first, first + len(wanted) - 1, [i for i, other in enumerate(names) if other == name]


def _pointed(weights: np.ndarray) -> tuple[float, float]:
    """x and y of the middle of the largest cell of (h, w), as shares of the sides; the first of equal ones."""
    height, width = weights.shape
    row, column = np.unravel_index(int(weights.argmax()), weights.shape)
    return (float(column) + 0.5) / width, (float(row) + 0.5) / height


def _is_inside(x: Any, y: Any, boxes: np.ndarray) -> Any:
    """Whether points lie in any of the boxes."""
    x, y = np.asarray(x)[..., None], np.asarray(y)[..., None]
    inside = (boxes[:, 0] <= x) & (x < boxes[:, 2]) & (boxes[:, 1] <= y) & (y < boxes[:, 3])
    return inside.any(axis=-1)


def _chance(size: tuple[int, ...], boxes: np.ndarray) -> float:
    """The share of the cells whose middles lie in a box."""
    y, x = (np.indices(size) + 0.5) / np.reshape(size, (2, 1, 1))
    return float(_is_inside(x, y, boxes).mean())


def _masks(truth: Item, objects: Sequence[int]) -> np.ndarray:
    """Those that these objects have: (M, H, W)."""
    counts = texts(truth, "object_masks", "truth")
    height, width = (int(side) for side in part(truth, "size", "truth"))
    return decode_masks([counts[i] for i in objects if counts[i]], (height, width))
