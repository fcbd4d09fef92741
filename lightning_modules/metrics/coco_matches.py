"""Which detection finds which object by COCO's rules, in columns, from hotcoco's matching of a whole split.

Shapes: T = 10 IoU thresholds, I images; for one category D detections, best first, of which E are told from the others.

hotcoco tells its matches as Python dicts, some 0.1 ms and 5 kB for each image, category and size. So it is asked about
one category at a time, and only about detections with an object of their category in their image: others match nothing.
It is asked about each size apart only where an image's objects of the category differ in size, or one is a crowd: where
they are alike, matching is the same for every size, and only what counts differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import hotcoco
import numpy as np

MAX_DETECTIONS = (1, 10, 100)
NUM_THRESHOLDS = 10
_SIZES = tuple(tuple(bounds) for bounds in hotcoco.Params().area_rng)  # all, small, medium, large; both ends inclusive


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Objects or detections of a split: image 0..I-1, category and area of each, with a crowd's flag or the score."""

    images: np.ndarray
    categories: np.ndarray
    areas: np.ndarray
    crowds: np.ndarray | None = None
    scores: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class SizeMatches:
    """One category measured for one size.

    Attributes:
        inside: (D,) bool, detections of that size: these count where they are not told otherwise.
        special: (E,) ascending, detections that at some threshold find an object to be found, or count otherwise.
        found: (T, E) bool. counted: (T, E) bool; what is matched to a crowd or to an object of another size does not.
        objects: (I,) to be found.
    """

    inside: np.ndarray
    special: np.ndarray
    found: np.ndarray
    counted: np.ndarray
    objects: np.ndarray


@dataclass(frozen=True, kw_only=True)
class CategoryMatches:
    """`images` (D,) and `ranks` (D,) in their image of one category's detections, best first; one of `sizes` each for
    all, small, medium and large objects."""

    images: np.ndarray
    ranks: np.ndarray
    sizes: list[SizeMatches]


def match(
    coco: Any,
    iou_type: str,
    objects: Columns,
    found: Columns,
    results: Callable[[np.ndarray], Any],
    *,
    num_images: int,
) -> Iterator[CategoryMatches]:
    """The matches of every category, by rising id.

    Args:
        coco: hotcoco's truth, whose images are 1..I. objects: the same as columns.
        results: chosen detections (their numbers) -> what `coco.load_res` takes, in this order.
    """
    assert found.scores is not None
    groups = _Groups(objects, num_images)
    group, has_objects = groups.of(found)
    alike = groups.alike[group]
    asked = [
        _Asked(coco, iou_type, np.flatnonzero(has_objects & alike), results, _SIZES[:1]),
        _Asked(coco, iou_type, np.flatnonzero(has_objects & ~alike), results, _SIZES),
    ]
    place = np.zeros(len(found.images), np.int64)  # among the detections of its category, best first
    by_category = np.lexsort((-found.scores, found.images, found.categories))  # equal scores keep their order
    sorted_categories = found.categories[by_category]
    for category in sorted(coco.get_cat_ids()):
        low, high = np.searchsorted(sorted_categories, [category, category + 1])
        order = by_category[low:high]
        ranks = np.arange(len(order)) - np.searchsorted(found.images[order], found.images[order])
        order, ranks = order[ranks < MAX_DETECTIONS[-1]], ranks[ranks < MAX_DETECTIONS[-1]]
        best = np.argsort(-found.scores[order], kind="stable")
        order, ranks = order[best], ranks[best]
        place[order] = np.arange(len(order))
        answers = [one.answers(category) for one in asked]
        sizes = []
        for i, (small, large) in enumerate(_SIZES):
            inside = (found.areas[order] >= small) & (found.areas[order] <= large)
            own, other = answers[0][0], answers[1][i]
            # An object of another size is ignored, and so is what it is matched to.
            ignored = np.where(own.matched, ~groups.within[i][group[own.numbers]], ~inside[place[own.numbers]])
            sizes.append(
                _told(
                    inside,
                    place[np.concatenate([own.numbers, other.numbers])],
                    np.concatenate([own.matched, other.matched], axis=1),
                    np.concatenate([ignored, other.ignored], axis=1),
                    groups.num_objects(category, i),
                )
            )
        yield CategoryMatches(images=found.images[order], ranks=ranks, sizes=sizes)


def _told(
    inside: np.ndarray, places: np.ndarray, matched: np.ndarray, ignored: np.ndarray, objects: np.ndarray
) -> SizeMatches:
    """Of what was asked, places (A,), matched and ignored (T, A), only the detections that need be told."""
    found, counted = matched & ~ignored, ~ignored
    chosen = np.flatnonzero((found | (counted != inside[places])).any(axis=0))
    chosen = chosen[np.argsort(places[chosen])]
    return SizeMatches(
        inside=inside, special=places[chosen], found=found[:, chosen], counted=counted[:, chosen], objects=objects
    )


class _Groups:
    """The objects of one category in one image, G of them in all.

    Attributes:
        within: (4, G) whether all objects are of a size. alike: (G,) whether for each size all or none are, and
            there is no crowd.
    """

    def __init__(self, objects: Columns, num_images: int):
        assert objects.crowds is not None
        self._objects, self._num_images = objects, num_images
        self._keys, group = np.unique(self._key(objects), return_inverse=True)
        self._within = np.array([(objects.areas >= low) & (objects.areas <= high) for low, high in _SIZES])
        sizes = np.bincount(group, minlength=len(self._keys))
        counts = np.array([np.bincount(group, one, minlength=len(self._keys)) for one in self._within])
        crowds = np.bincount(group, objects.crowds, minlength=len(self._keys))
        self.within = counts == sizes
        self.alike = (self.within | (counts == 0)).all(axis=0) & (crowds == 0)
        self._order = np.argsort(objects.categories, kind="stable")

    def _key(self, columns: Columns) -> np.ndarray:
        return columns.categories * np.int64(self._num_images) + columns.images

    def of(self, found: Columns) -> tuple[np.ndarray, np.ndarray]:
        """The group of each detection (0 where there is none) and whether there is one: (D,) each."""
        keys = self._key(found)
        group = np.searchsorted(self._keys, keys).clip(max=len(self._keys) - 1)
        has_objects = self._keys[group] == keys
        return np.where(has_objects, group, 0), has_objects

    def num_objects(self, category: int, size: int) -> np.ndarray:
        """(I,) objects of a category to be found in each image."""
        assert self._objects.crowds is not None
        low, high = np.searchsorted(self._objects.categories, [category, category + 1], sorter=self._order)
        own = self._order[low:high]
        own = own[self._within[size][own] & ~self._objects.crowds[own]]
        return np.bincount(self._objects.images[own], minlength=self._num_images)


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """Of some detections, by `numbers` (A,), whether they are `matched` and `ignored`: (T, A) bool."""

    numbers: np.ndarray
    matched: np.ndarray
    ignored: np.ndarray


class _Asked:
    """hotcoco, asked about some detections."""

    def __init__(
        self,
        coco: Any,
        iou_type: str,
        numbers: np.ndarray,
        results: Callable[[np.ndarray], Any],
        sizes: tuple[tuple[float, ...], ...],
    ):
        self._numbers, self._sizes, self._evaluator = numbers, sizes, None
        if len(numbers):
            self._evaluator = hotcoco.COCOeval(coco, coco.load_res(results(numbers)), iou_type)
            self._evaluator.params.area_rng = [list(bounds) for bounds in sizes]
            self._evaluator.params.area_rng_lbl = [str(i) for i in range(len(sizes))]

    def answers(self, category: int) -> list[_Answer]:
        """One for each size."""
        entries: dict[tuple[float, ...], list[dict[str, Any]]] = {bounds: [] for bounds in self._sizes}
        if self._evaluator is not None:
            self._evaluator.params.cat_ids = [category]
            self._evaluator.evaluate()
            for entry in self._evaluator.eval_imgs:
                if entry is not None:
                    entries[tuple(entry["aRng"])].append(entry)
        return [self._answer(entries[bounds]) for bounds in self._sizes]

    def _answer(self, entries: list[dict[str, Any]]) -> _Answer:
        ids = np.fromiter(chain.from_iterable(entry["dtIds"] for entry in entries), np.int64)
        matched, ignored = (
            np.array(
                [
                    np.fromiter(chain.from_iterable(entry[key][t] for entry in entries), bool, len(ids))
                    for t in range(NUM_THRESHOLDS)
                ]
            )
            for key in ("dtMatched", "dtIgnore")
        )
        return _Answer(numbers=self._numbers[ids - 1], matched=matched, ignored=ignored)  # ids of results: 1, 2, ..
