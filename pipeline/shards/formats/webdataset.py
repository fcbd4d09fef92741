"""WebDataset tars as img2dataset writes them: picture, `.txt` (a caption), `.json` (all), `.cls` (the label's number).

Our own shards are WebDataset tars, too, with all annotations in one `.json` of our schema; these are for other readers.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from webdataset import TarWriter

from contracts.records import Record
from pipeline.shards.formats import Splits, with_image

_SAMPLES = 1000  # of a tar; they wait in memory


def write(folder: Path, splits: Splits, classes: Sequence[str]) -> Counter[str]:
    """Pictures with captions and labels, these by number: who reads them must be told `classes`. Objects and questions
    have no place here."""
    left_out: Counter[str] = Counter()
    numbers = {name: i for i, name in enumerate(classes)}
    for split, records in splits.items():
        (folder / split).mkdir(parents=True)
        waiting = with_image(records, left_out)
        for number in itertools.count():
            samples = list(itertools.islice(waiting, _SAMPLES))
            if not samples and number:
                break
            with open(folder / split / f"{number:05d}.tar", "wb") as file, TarWriter(file) as tar:
                for record in samples:
                    tar.write(_sample(record, numbers))
                    left_out["object"] += len(record.objects)
                    left_out["question"] += len(record.questions)
    return +left_out


def _sample(record: Record, numbers: Mapping[str, int]) -> dict[str, Any]:
    captions = [caption.text for caption in record.captions]
    document = {"caption": captions, "label": list(record.labels), "width": record.width, "height": record.height}
    sample: dict[str, Any] = {"__key__": record.key, record.image_format: record.image}
    if captions:
        sample["txt"] = captions[0].encode()
    if len(record.labels) == 1:
        sample["cls"] = str(numbers[record.labels[0]]).encode()
    return {**sample, "json": json.dumps(document, ensure_ascii=False).encode()}
