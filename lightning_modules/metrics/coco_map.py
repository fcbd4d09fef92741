"""COCO average precision and recall through hotcoco, which gives pycocotools' numbers.

Shapes: I images, N objects, D detections, C categories, T = 10 IoU thresholds 0.50, 0.55, .., 0.95, R = 101 recalls.
Boxes are COCO's `[x, y, width, height]` float64 in pixels; masks are run lengths `{"size": [H, W], "counts": str}`.

The official code trusts its input: an annotation id of 0 or a repeated one changes the numbers, unknown images and
categories are dropped in silence, and nothing detected is an error. Here ids are made anew and the rest is checked.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import hotcoco
import numpy as np

from contracts.errors import DataError
from lightning_modules.metrics.coco_matches import CategoryMatches, Columns, match
from lightning_modules.metrics.coco_resample import resampled_stats
from lightning_modules.metrics.measurement import Measurement

STAT_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
SIZE_BOUNDS = {"s": (0, 32**2), "m": (32**2, 96**2), "l": (96**2, 1e10)}  # of areas, both inclusive as COCO has them
SOURCE = f"hotcoco {hotcoco.__version__}"


@dataclass(frozen=True, kw_only=True)
class CocoTruth:
    """The objects of a split.

    Attributes:
        sizes: (height, width) of every image by its id, also of those without objects.
        categories: name of every category by its id; one without objects counts in no mean.
        image_ids, category_ids: of each object. areas: (N,) of the segments, by which sizes are told apart.
        is_crowd: (N,) bool; what is found in a crowd counts neither for nor against.
        masks: run lengths or polygons of each object, if masks are measured.
        name: what errors call it: the file.
    """

    sizes: Mapping[Any, tuple[int, int]]
    categories: Mapping[int, str]
    image_ids: Sequence[Hashable]
    category_ids: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    is_crowd: np.ndarray
    masks: Sequence[Any] | None = None
    name: str = "the annotations"


@dataclass(frozen=True, kw_only=True)
class CocoDetections:
    """What was found, in the order that decides between equal scores: boxes, masks or both.

    Boxes are those of the masks where only these are given. With both, a detection's size is its box's even if masks
    are compared: that is how the official code reads such results.
    """

    image_ids: Sequence[Hashable]
    category_ids: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray | None = None
    masks: Sequence[Mapping[str, Any]] | None = None
    name: str = "the results"


@dataclass(frozen=True)
class CocoEvaluation:
    """Every image is evaluated, with or without detections, in the order of the ids.

    Raises:
        DataError: an id that the truth does not know, or a number that is not finite.
    """

    truth: CocoTruth
    found: CocoDetections
    iou_type: Literal["bbox", "segm"]
    _numbers: dict[Any, int] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        ordered = sorted(self.truth.sizes, key=lambda key: (isinstance(key, str), key))  # numbers before texts
        self._numbers.update({key: i for i, key in enumerate(ordered, 1)})
        for part in (self.truth, self.found):
            _check(part, self._numbers, self.truth)

    @cached_property
    def stats(self) -> dict[str, float]:
        """The twelve official numbers; 0 where nothing was detected or the split has no objects at all, NaN for a size
        that no object has."""
        absent = _absent_sizes(self.truth)
        if self._evaluator is None:
            return dict.fromkeys(STAT_NAMES, 0.0) | absent
        self._evaluator.summary_lines()
        values = [float(v) for v in self._evaluator.stats]
        named = {name: v if v > -1 else 0.0 for name, v in zip(STAT_NAMES, values, strict=True)}
        return named | absent

    def measure(self, prefix: str = "") -> Measurement:
        """The twelve numbers by `prefix` + name, with their resampling over images."""
        matches: list[CategoryMatches] = []

        def resample(weights: np.ndarray) -> dict[str, np.ndarray]:
            if not matches:
                matches.extend(self._matches())
            return {prefix + name: values for name, values in resampled_stats(matches, weights).items()}

        kind = {"bbox": "boxes", "segm": "masks"}[self.iou_type]
        return Measurement(
            values={prefix + name: value for name, value in self.stats.items()},
            variant=f"COCO {kind}: IoU 0.50:0.05:0.95, 101 recalls, at most 1, 10 or 100 detections a class and image",
            source=SOURCE,
            num_items=len(self.truth.sizes),
            resample=resample if self._evaluator is not None else None,
        )

    def _matches(self) -> Iterator[CategoryMatches]:
        truth, found = self.truth, self.found
        assert self._coco is not None
        objects = Columns(
            images=self._image_numbers(truth.image_ids) - 1,
            categories=np.asarray(truth.category_ids, np.int64),
            areas=np.asarray(truth.areas, np.float64),
            crowds=np.asarray(truth.is_crowd, bool),
        )
        detections = Columns(
            images=self._image_numbers(found.image_ids) - 1,
            categories=np.asarray(found.category_ids, np.int64),
            areas=_areas(found),
            scores=np.asarray(found.scores, np.float64),
        )
        return match(self._coco[0], self.iou_type, objects, detections, self._results, num_images=len(self._numbers))

    def class_ap(self, *, iou: float | None = None) -> dict[int, float]:
        """AP by category id, at one IoU of 0.5, 0.55, .., 0.95 or their mean; NaN without objects."""
        out: dict[int, float] = {}
        for i, category in enumerate(sorted(self.truth.categories)):
            precision = np.zeros((1, 1)) if self._precision is None else self._precision[:, :, i, 0, -1]
            if iou is not None and self._precision is not None:
                precision = precision[[round((iou - 0.5) / 0.05)]]
            values = precision[precision > -1]
            out[category] = float(values.mean()) if len(values) else float("nan")
        return out

    def pr_points(self, category_id: int) -> tuple[np.ndarray, np.ndarray]:
        """Recall 0, 0.01, .., 1 and the precision there at IoU 0.5: (R,) each; empty without objects."""
        if self._precision is None:
            return np.zeros(0), np.zeros(0)
        precision = self._precision[0, :, sorted(self.truth.categories).index(category_id), 0, -1]
        return (np.zeros(0), np.zeros(0)) if precision[0] < 0 else (np.linspace(0, 1, 101), precision)

    def errors(self) -> dict[str, float]:
        """TIDE's kinds of errors (2008.08115) -> how much AP50 would gain if all of a kind were mended.

        `Cls` right place, wrong class; `Loc` right class, poor place (IoU 0.1 to 0.5); `Both`; `Dupe` found twice;
        `Bkg` nothing there; `Miss` not found by anything. `FP` and `FN`: all false positives, all misses.
        """
        names = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss", "FP", "FN")
        if self._evaluator is None:
            return dict.fromkeys(names, 0.0)
        gains = self._evaluator.tide_errors(pos_thr=0.5, bg_thr=0.1)["delta_ap"]
        return {name: float(gains[name]) for name in names}

    @cached_property
    def _coco(self) -> tuple[Any, Any] | None:
        """Truth and detections as hotcoco has them; None where there is nothing to compare."""
        truth = self.truth
        if not (len(truth.image_ids) and self._numbers):
            return None
        coco = hotcoco.COCO.from_arrays(
            images=[
                {"id": n, "height": truth.sizes[key][0], "width": truth.sizes[key][1]}
                for key, n in self._numbers.items()
            ],
            categories=[{"id": int(id_), "name": name} for id_, name in truth.categories.items()],
            image_ids=self._image_numbers(truth.image_ids),
            category_ids=np.asarray(truth.category_ids, np.int64),
            boxes=np.asarray(truth.boxes, np.float64).reshape(-1, 4),
            area=np.asarray(truth.areas, np.float64),
            iscrowd=np.asarray(truth.is_crowd, np.int64),
            segmentation=list(truth.masks) if self.iou_type == "segm" and truth.masks else None,
        )
        return coco, coco.load_res(self._results(np.arange(len(self.found.image_ids))))

    def _results(self, chosen: np.ndarray) -> Any:
        """Detections by their numbers as hotcoco takes them."""
        found = self.found
        numbers, categories = self._image_numbers(found.image_ids)[chosen], np.asarray(found.category_ids)[chosen]
        scores = np.asarray(found.scores, np.float64)[chosen]
        if self.iou_type == "bbox" and found.boxes is not None:
            boxes = np.asarray(found.boxes, np.float64).reshape(-1, 4)[chosen]
            return np.concatenate([numbers[:, None], boxes, scores[:, None], categories[:, None]], axis=1)
        assert found.masks is not None
        masks = [found.masks[i] for i in chosen]
        results: list[dict[str, Any]] = [
            {"image_id": int(image), "category_id": int(category), "score": float(score), "segmentation": mask}
            for image, category, score, mask in zip(numbers, categories, scores, masks, strict=True)
        ]
        if found.boxes is not None:
            for result, box in zip(results, np.asarray(found.boxes)[chosen], strict=True):
                result["bbox"] = [float(v) for v in box]
        return results

    @cached_property
    def _evaluator(self) -> Any:
        """hotcoco's evaluator after matching and accumulation; None where nothing was or could be found."""
        if not len(self.found.image_ids) or self._coco is None:
            return None
        evaluator = hotcoco.COCOeval(*self._coco, self.iou_type)
        evaluator.evaluate()
        evaluator.accumulate()
        return evaluator

    @cached_property
    def _precision(self) -> np.ndarray | None:
        """(T, R, C, 4 sizes, 3 detection counts)."""
        return None if self._evaluator is None else self._evaluator.eval["precision"]

    def _image_numbers(self, image_ids: Sequence[Hashable]) -> np.ndarray:
        return np.array([self._numbers[key] for key in image_ids], np.int64)


def _check(part: CocoTruth | CocoDetections, images: Mapping[Any, int], truth: CocoTruth) -> None:
    """Ids that the truth knows, numbers that are finite, sides that are not negative."""
    for i, key in enumerate(part.image_ids):
        if key not in images:
            raise DataError(
                "an image that the annotations do not have", value=key, where=_place(part, i),
                allowed=f"an id of {truth.name}, such as {next(iter(images), 'none: it has no image')!r}",
            )  # fmt: skip
    known = np.isin(np.asarray(part.category_ids, np.int64), np.fromiter(truth.categories, np.int64))
    if not known.all():
        i = int(known.argmin())
        raise DataError(
            "a category that the annotations do not have", value=int(part.category_ids[i]), where=_place(part, i),
            allowed=f"{sorted(truth.categories)[:12]}" + ", .." * (len(truth.categories) > 12),
        )  # fmt: skip
    numbers = {"box": part.boxes}
    numbers |= {"area": part.areas} if isinstance(part, CocoTruth) else {"score": part.scores}
    for name, values in numbers.items():
        if values is None or not len(values):
            continue
        rows = np.asarray(values, np.float64).reshape(len(values), -1)
        good = np.isfinite(rows).all(axis=1)
        if name != "score":
            good &= (rows[:, -2:] >= 0).all(axis=1)
        if not good.all():
            i = int(good.argmin())
            raise DataError(
                f"invalid {name}", value=rows[i].tolist(), where=_place(part, i),
                allowed="finite numbers" + ", sides and areas not negative" * (name != "score"),
            )  # fmt: skip


def _areas(found: CocoDetections) -> np.ndarray:
    """(D,) of the boxes, or of the masks where there are no boxes, as the official code has it."""
    if found.boxes is not None:
        sides = np.asarray(found.boxes, np.float64).reshape(-1, 4)[:, 2:]
        return sides[:, 0] * sides[:, 1]
    assert found.masks is not None
    return np.asarray(hotcoco.mask.area([dict(mask) for mask in found.masks]), np.float64)


def _place(part: CocoTruth | CocoDetections, index: int) -> str:
    return f"{part.name}, entry {index + 1} (image {part.image_ids[index]!r})"


def _absent_sizes(truth: CocoTruth) -> dict[str, float]:
    """NaN for AP and AR of the sizes that no object to be found has."""
    areas = np.asarray(truth.areas, np.float64)[~np.asarray(truth.is_crowd, bool)]
    absent = [size for size, (low, high) in SIZE_BOUNDS.items() if not ((areas >= low) & (areas <= high)).any()]
    return {kind + size: float("nan") for size in absent for kind in ("AP", "AR")}
