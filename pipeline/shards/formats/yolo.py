"""YOLO as Ultralytics lays it out: data.yaml, images/<split>/, labels/<split>/ (https://docs.ultralytics.com/datasets/detect/).

Boxes are shares of the picture's sides; a text file of labels has one line an object, `class cx cy w h`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from pipeline.shards.formats import Splits, put, with_image


def write(folder: Path, splits: Splits, classes: Sequence[str]) -> Counter[str]:
    """Boxes of every object that is no crowd. Masks, captions and questions have no place here."""
    left_out: Counter[str] = Counter()
    for split, records in splits.items():
        for record in with_image(records, left_out):
            objects = record.objects
            x1, y1, x2, y2 = (objects.boxes / np.tile((record.width, record.height), 2)).T.astype(np.float64)
            columns = zip(objects.labels - 1, (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, strict=True)
            lines = [
                f"{label} {cx:.9g} {cy:.9g} {w:.9g} {h:.9g}\n"
                for (label, cx, cy, w, h), is_crowd in zip(columns, objects.is_crowd, strict=True)
                if not is_crowd
            ]
            put(folder / f"images/{split}/{record.key}.{record.image_format}", record.image)
            put(folder / f"labels/{split}/{record.key}.txt", "".join(lines))
            left_out["crowd"] += int(objects.is_crowd.sum())
            left_out["mask"] += sum(map(bool, objects.masks))
            left_out["caption"] += len(record.captions)
            left_out["question"] += len(record.questions)
            left_out["label of an image"] += len(record.labels)
    places = {split: f"images/{split}" for split in splits}
    put(folder / "data.yaml", yaml.safe_dump({**places, "names": dict(enumerate(classes))}, sort_keys=False))
    return +left_out
