"""COCO box AP and AR: annotation JSON, results `[{image_id, category_id, bbox: [x, y, width, height], score}]`."""

from __future__ import annotations

from pipeline.measuring.scorers import Inputs, Scores
from pipeline.measuring.scorers._coco import score_objects


def score(inputs: Inputs) -> Scores:
    """`AP`, `AP50`, .., `ARl`, and `per_class` AP by name."""
    return score_objects(inputs, "bbox")
