"""Which of many scored boxes of an image are its detections. Shapes: A boxes (A, 4) float32 in pixels, half-open."""

from __future__ import annotations

from torch import Tensor
from torchvision.ops import batched_nms, clip_boxes_to_image, remove_small_boxes

_LEAST_SIDE = 0.01  # pixels; what clipping leaves no area of lies outside the image


def suppress(
    boxes: Tensor, labels: Tensor, scores: Tensor, size: tuple[int, int], *, iou: float, most: int
) -> dict[str, Tensor]:
    """The detections among boxes, labels (A,) int64 and scores (A,): cut to the image, suppressed label by label.

    Args:
        size: (height, width) of the image.
        iou: of two boxes of one label that overlap by more, only the one with the better score stays.
        most: how many stay at most, those with the best scores.

    Returns:
        `boxes` (D, 4), `labels` (D,), `scores` (D,) falling.
    """
    boxes = clip_boxes_to_image(boxes, size)
    there = remove_small_boxes(boxes, _LEAST_SIDE)
    boxes, labels, scores = boxes[there], labels[there], scores[there]
    kept: Tensor = batched_nms(boxes, scores, labels, iou)[:most]
    return {"boxes": boxes[kept], "labels": labels[kept], "scores": scores[kept]}
