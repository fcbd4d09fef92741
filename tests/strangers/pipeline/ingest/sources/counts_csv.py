"""Images with a number each, in a CSV: a header `image,count`, then `photos/a.png,3` a line, paths below the data set's
folder."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from contracts.errors import DataError
from contracts.ranges import COUNT, check_ranges
from contracts.raw import Problem, RawRecord
from pipeline.ingest.sources._files import check_template, image_key
from pipeline.ingest.sources._splits import SPLITS, SplitNames, in_key_order, names_there
from pipeline.system.reading import is_file, read_text


@dataclass(frozen=True, kw_only=True)
class Config:
    """`files` are below the data set's folder. Counts are classes: 0 to `largest`."""

    files: str = "{split}.csv"
    largest: int = 9
    splits: SplitNames = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_ranges(self, largest=COUNT)
        check_template("files", self.files, split="train")


def classes(root: Path, config: Config) -> tuple[str, ...]:
    return tuple(map(str, range(config.largest + 1)))


def splits(root: Path, config: Config) -> tuple[str, ...]:
    return tuple(split for split in SPLITS if _files(root, split, config))


def _files(root: Path, split: str, config: Config) -> list[Path]:
    def path(name: str) -> Path:
        return root / config.files.format(split=name)

    return [path(name) for name in names_there(split, config.splits, lambda name: is_file(path(name)), str(root))]


def read(root: Path, split: str, config: Config) -> Iterator[RawRecord | Problem]:
    """One record a line, in ascending key order. A count that is no class is refused at the door."""
    return in_key_order(_read(path, root) for path in _files(root, split, config))


def _read(path: Path, root: Path) -> Iterator[RawRecord]:
    rows = csv.DictReader(read_text(path).splitlines())
    if not {"image", "count"} <= set(rows.fieldnames or ()):
        raise DataError("no columns image and count", value=rows.fieldnames, where=str(path), fix="name them in line 1")
    for row in sorted(rows, key=lambda row: image_key(root / row["image"], root)):
        image = root / row["image"]
        yield RawRecord(
            key=image_key(image, root),
            image_id=row["image"],
            annotation_file=str(path),
            image=image,
            labels=(row["count"].strip(),),
        )
