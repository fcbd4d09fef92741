"""`RegionDetector`: as `Detector`, with the regions that it looks at as an input, filled up to a fixed number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from pipeline.predicting.graphs._family import BaseFamily, Graph, Run, Size, Value, images_like
from pipeline.predicting.graphs._parts import as_sizes
from pipeline.predicting.graphs.classifier import IMAGES
from pipeline.predicting.graphs.detector import (
    OUTPUTS,
    SIZES,
    detection_differences,
    detections_of,
    most_detections,
    one_row,
)

_MOST = 2000  # regions of an image: Selective Search's "fast" gives about as many (1311.2524)
REGIONS = Value(
    name="regions", meaning=f"x1, y1, x2, y2 in pixels, best first, filled up to {_MOST}", axes={0: "batch"}
)
COUNTS = Value(name="region_counts", meaning="how many regions each image has", axes={0: "batch"})


class Family(BaseFamily):
    @staticmethod
    def graphs(model: Any, size: Size) -> list[Graph]:
        most = most_detections(model)

        def detect(image: Tensor, content: Tensor, regions: Tensor, count: Tensor) -> tuple[Tensor, ...]:
            own = regions[torch.where(torch.arange(_MOST) < count)[0]]
            sizes = [(content[0], content[1])]
            return one_row(model(image[None], [own], sizes=sizes, detect=True)[1][0], most)

        regions = torch.zeros(_MOST, 4)
        regions[:2] = torch.tensor([[0.0, 0.0, size[1] / 2, size[0] / 2], [4.0, 4.0, size[1], size[0]]])
        return [
            Graph(
                name="model",
                function=detect,
                example=(images_like(size)[0], torch.tensor(size), regions, torch.tensor(2)),
                inputs=(IMAGES, SIZES, REGIONS, COUNTS),
                outputs=OUTPUTS,
                is_per_image=True,
            )
        ]

    @staticmethod
    def differences(own: Any, other: Any) -> dict[str, float]:
        return detection_differences(own[1], other[1])

    class Stand(nn.Module):
        def __init__(self, runs: Mapping[str, Run]):
            super().__init__()
            self.run = runs["model"]

        def forward(
            self,
            images: Tensor,
            regions: Sequence[Tensor],
            targets: Any = None,
            *,
            sizes: Sequence[tuple[int, int]] | None = None,
            detect: bool = False,
        ) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
            """As `RegionDetector`, without losses; of more regions than the graph takes the best."""
            assert targets is None and detect, "an exported detector only detects"
            best = [own[:_MOST] for own in regions]
            filled = pad_sequence([torch.zeros(_MOST, 4), *best], batch_first=True)[1:]
            counts = torch.tensor([len(own) for own in best])
            return {}, detections_of(self.run(images, as_sizes(sizes, images), filled, counts))  # type: ignore[arg-type]
