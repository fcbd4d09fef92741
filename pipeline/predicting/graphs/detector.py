"""`Detector`: one graph, images to detections, decoded and suppressed inside, image by image (`Graph.is_per_image`).

What an image has fewer of than the graph gives is filled up with zeros, and `counts` says how many it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from pipeline.predicting.graphs._family import BaseFamily, Graph, Run, Size, Value, images_like
from pipeline.predicting.graphs._parts import as_sizes, padded
from pipeline.predicting.graphs.classifier import IMAGES

_SAME_IOU = 0.99  # of two boxes that are the same detection
BATCH = {0: "batch"}
SIZES = Value(
    name="sizes", meaning="height and width in pixels of each image's content, from its upper left corner", axes=BATCH
)
OUTPUTS = (
    Value(name="boxes", meaning="x1, y1, x2, y2 in pixels of the input, best first", axes=BATCH),
    Value(name="labels", meaning="1 is the first of `classes`; 0: nothing, it fills up", axes=BATCH),
    Value(name="scores", meaning="0 to 1, falling", axes=BATCH),
    Value(name="counts", meaning="how many detections each image has", axes=BATCH),
)
MASKS = Value(name="masks", meaning="0 to 1, of each box, to be resized to it; 0.5 is the border", axes=BATCH)


class Family(BaseFamily):
    @staticmethod
    def graphs(model: Any, size: Size) -> list[Graph]:
        most, has_masks = most_detections(model), has_mask(model)

        def detect(image: Tensor, content: Tensor) -> tuple[Tensor, ...]:
            return one_row(model(image[None], sizes=[(content[0], content[1])], detect=True)[1][0], most)

        return [
            Graph(
                name="model",
                function=detect,
                example=(images_like(size)[0], torch.tensor(size)),
                inputs=(IMAGES, SIZES),
                outputs=OUTPUTS + ((MASKS,) if has_masks else ()),
                is_per_image=True,
            )
        ]

    @staticmethod
    def differences(own: Any, other: Any) -> dict[str, float]:
        """Of the detections that both found; and `unmatched`, the share of those that only one of them found."""
        return detection_differences(own[1], other[1])

    class Stand(nn.Module):
        def __init__(self, runs: Mapping[str, Run]):
            super().__init__()
            self.run = runs["model"]

        def forward(
            self,
            images: Tensor | Sequence[Tensor],
            targets: Any = None,
            *,
            sizes: Sequence[tuple[int, int]] | None = None,
            detect: bool = False,
        ) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
            """As `Detector`, without losses."""
            assert targets is None and detect, "an exported detector only detects"
            return {}, detections_of(self.run(images, as_sizes(sizes, images)))  # type: ignore[arg-type]


def most_detections(model: Any) -> int:
    """How many an image may have."""
    return int(model.roi_heads.detections_per_img if hasattr(model, "roi_heads") else model.config.max_detections)


def has_mask(model: Any) -> bool:
    return hasattr(model, "roi_heads") and bool(model.roi_heads.has_mask())


def one_row(found: Mapping[str, Tensor], most: int) -> tuple[Tensor, ...]:
    """Detections of an image, filled up, in the order of the outputs."""
    names = ("boxes", "labels", "scores")
    count = torch.ones_like(found["labels"]).sum()
    masks = (padded(found["masks"], most),) if "masks" in found else ()
    return (*(padded(found[name], most) for name in names), count, *masks)


def detections_of(outputs: Sequence[Tensor]) -> list[dict[str, Tensor]]:
    """The other way round: per image, of its own number."""
    boxes, labels, scores, counts, *masks = outputs
    named = {"boxes": boxes, "labels": labels, "scores": scores, **({"masks": masks[0]} if masks else {})}
    return [{name: part[i, : int(n)] for name, part in named.items()} for i, n in enumerate(counts)]


def detection_differences(
    own: Sequence[Mapping[str, Tensor]], other: Sequence[Mapping[str, Tensor]]
) -> dict[str, float]:
    """Each detection goes with the other side's of the same label and the nearest box. Two whose scores differ by a
    rounding change places, and one at a threshold is there or not, which says nothing of the numbers."""
    worst = dict.fromkeys(own[0], 0.0) if own else {}
    worst.pop("labels", None)
    unmatched = total = 0
    for one, two in zip(own, other, strict=True):
        total += len(one["scores"]) + len(two["scores"])
        same = (one["labels"][:, None] == two["labels"][None]) & (box_iou(one["boxes"], two["boxes"]) > _SAME_IOU)
        rows, columns = _pairs(same)
        unmatched += len(one["scores"]) + len(two["scores"]) - 2 * len(rows)
        for name in worst:
            if len(rows):
                apart = float((one[name][rows] - two[name][columns]).abs().max())
                worst[name] = max(worst[name], apart)
    return {**worst, "unmatched": unmatched / max(1, total)}


def _pairs(same: Tensor) -> tuple[list[int], list[int]]:
    """Each row with the first column that is free."""
    rows, columns, taken = [], [], set()
    for row, choices in enumerate(same.tolist()):
        free = next((c for c, is_same in enumerate(choices) if is_same and c not in taken), None)
        if free is not None:
            taken.add(free)
            rows.append(row)
            columns.append(free)
    return rows, columns
