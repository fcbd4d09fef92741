"""Class folders, as torchvision's `ImageFolder` reads them: <split>/<class>/<picture>."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from contracts.errors import DataError
from pipeline.shards.formats import Splits, put, with_image


def write(folder: Path, splits: Splits, classes: Sequence[str]) -> Counter[str]:
    """Pictures with one label. Others, and all that is not a label, have no place here.

    Raises:
        DataError: a class is called what no folder can be.
    """
    for name in classes:
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            raise DataError("no folder can have the name of this class", value=name, fix="rename the class")
    left_out: Counter[str] = Counter()
    for split, records in splits.items():
        for record in with_image(records, left_out):
            if len(record.labels) == 1:
                put(folder / split / record.labels[0] / f"{record.key}.{record.image_format}", record.image)
            else:
                left_out["image without one label"] += 1
            left_out["object"] += len(record.objects)
            left_out["caption"] += len(record.captions)
            left_out["question"] += len(record.questions)
    return +left_out
