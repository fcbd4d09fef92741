"""Object detection of given regions: R-CNN, Fast R-CNN and the sliding window, told apart by their models and regions.

Shapes and rules: `lightning_modules/base/object_task.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from contracts.ranges import COUNT, POSITIVE, check_ranges
from contracts.records import DataSpec, Record
from contracts.searching import Search
from lightning_modules.base.families import RegionDetectorSpec
from lightning_modules.base.object_task import ObjectConfig, ObjectTask
from lightning_modules.metrics.item_metric import ItemMetric
from lightning_modules.metrics.mean_ap import CocoMeanAP, VOCMeanAP
from lightning_modules.ops.proposing import search_regions
from lightning_modules.ops.windows import sliding_windows


@dataclass(frozen=True, kw_only=True)
class Windows:
    """A grid of windows (1312.6229): every scale and shape at every stride, as far as it lies inside the picture.

    Attributes:
        scales: roots of the windows' areas, in pixels of the record.
        ratios: heights / widths.
        stride: from one window to the next, in pixels of the record.
    """

    scales: tuple[float, ...] = (32.0, 45.0, 64.0)
    ratios: tuple[float, ...] = (1.0,)
    stride: float = 8.0

    def __post_init__(self) -> None:
        check_ranges(self, scales=POSITIVE, ratios=POSITIVE, stride=POSITIVE)


class Task(ObjectTask):
    """Metrics as of `detection`: VOC's mean AP at IoU 0.5, `mAP_2010` and `mAP_2007`, and COCO's twelve numbers."""

    @dataclass(frozen=True, kw_only=True)
    class Config(ObjectConfig):
        """
        Attributes:
            regions: "proposals" of the record, or "windows" of a grid, all of them.
            max_regions: of proposals so many of the best.
            search: for a picture without proposals, such as a new one that a trained model is asked about: as the data
                set's `proposals` say.
            windows: of `regions: windows`.
        """

        regions: Literal["proposals", "windows"] = "proposals"
        max_regions: int = 2000
        search: Search = field(default_factory=Search)
        windows: Windows = field(default_factory=Windows)

        def __post_init__(self) -> None:
            super().__post_init__()
            check_ranges(self, max_regions=COUNT)

    requires = ("num_objects",)
    eval_requires = ()
    spec_class = RegionDetectorSpec
    metric = "mAP_2010"
    with_masks = False
    config: Config

    def __init__(self, config: Config, data: DataSpec):
        super().__init__(config, data)
        self._windows: dict[tuple[int, int], np.ndarray] = {}  # by size: most data sets have few

    def regions(self, record: Record) -> np.ndarray:
        size = (record.height, record.width)
        if self.config.regions == "proposals":
            if record.proposals is not None:
                return record.proposals.boxes[: self.config.max_regions]
            return search_regions(record.image, size, self.config.search)[0][: self.config.max_regions]
        if size not in self._windows:
            windows = self.config.windows
            if len(self._windows) >= _MOST_SIZES:
                self._windows.clear()
            self._windows[size] = sliding_windows(
                size, scales=windows.scales, ratios=windows.ratios, stride=windows.stride
            )
        return self._windows[size]

    def metrics(self, *, thorough: bool = False) -> list[ItemMetric]:
        return [VOCMeanAP(self.data.classes), CocoMeanAP(self.data.classes)]


_MOST_SIZES = 100
