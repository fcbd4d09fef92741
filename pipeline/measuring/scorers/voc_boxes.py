"""Pascal VOC detection: XML objects; detections as the devkit's text files of one competition, or as one JSON list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from contracts.errors import DataError
from lightning_modules.metrics.voc_map import measure_voc, pr_curve_of_rows
from pipeline.measuring.scorers import Inputs, Scores
from pipeline.measuring.scorers._voc_files import (
    Rows,
    Truth,
    find_detection_files,
    listed_images,
    read_detection_files,
    read_detection_json,
    read_truth,
)


def score(inputs: Inputs) -> Scores:
    """`mAP_2007`, `mAP_2010` at `inputs.iou` (the kit's is 0.5), and `per_class` APs and counts (objects without the
    difficult ones).

    The set that the text files' names have restricts the images if ImageSets/Main lists it. A class without an object
    to find has no AP and counts in no mean; one without detections has 0.

    Raises:
        DataError: a file that cannot be read, or a detection of an image that is not in the truth.
    """
    truth, found, notes = _read(inputs)
    curves = {}
    for category in sorted(truth.objects.keys() | found.keys()):
        rows = found.get(category, Rows())
        boxes = np.array(rows.boxes, np.float64).reshape(-1, 4)
        curves[category] = pr_curve_of_rows(
            rows.images,
            boxes,
            np.array(rows.scores, np.float64),
            truth.objects.get(category, {}),
            iou_threshold=inputs.iou,
        )
    per_class: dict[str, Any] = {
        category: {
            "AP_2007": curve.ap_11_points(),
            "AP_2010": curve.ap_all_points(),
            "num_objects": curve.num_objects,
            "num_detections": len(found[category].scores) if category in found else 0,
        }
        for category, curve in curves.items()
    }
    measurement = measure_voc(curves, sorted(truth.images), iou_threshold=inputs.iou)
    return Scores(measurements=[measurement], details={"per_class": per_class}, notes=notes)


def _read(inputs: Inputs) -> tuple[Truth, Mapping[str, Rows], list[str]]:
    """Objects, detections by class, and what the user should know of them."""
    if not inputs.predictions.exists():
        raise DataError("no such file or folder", value=str(inputs.predictions))
    if inputs.predictions.is_dir():
        files = find_detection_files(inputs.predictions, inputs.truth)
        listed = listed_images(inputs.truth, files.image_set)
        truth = read_truth(inputs.truth, listed)
        found = read_detection_files(files.files, truth.images)
    else:
        listed = None
        truth = read_truth(inputs.truth, None)
        found = read_detection_json(inputs.predictions, truth.images)
    notes = [] if listed else [f"every XML file of {inputs.truth} counts: {len(truth.images)} images"]
    for category in sorted(truth.objects.keys() ^ found.keys()):
        lacking = "truth has no such object" if category in found else "predictions have no such detection"
        notes.append(f"class {category!r}: the {lacking}")
    return truth, found, notes
