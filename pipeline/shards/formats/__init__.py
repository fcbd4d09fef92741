"""Formats that shards can be written in for other tools, one file each, named as the source that reads it.

A module has
    write(folder, splits, classes)      writes what the format can say of each record; returns how much it cannot say
`splits` maps a split's name to its records, `classes` are the names of labels 1..C. See `pipeline/shards/convert.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from contracts.records import Record

Splits = Mapping[str, Iterable[Record]]


class FormatModule(Protocol):
    """What a file of this package provides."""

    def write(self, folder: Path, splits: Splits, classes: Sequence[str]) -> Counter[str]: ...


def with_image(records: Iterable[Record], left_out: Counter[str]) -> Iterator[Record]:
    """Those that have an image. The others, and what no format here has a place for, are counted."""
    for record in records:
        if record.media != "image":
            left_out[f"record of a {record.media}"] += 1
            continue
        left_out["sentence"] += len(record.sentences)
        left_out["transcript"] += record.transcript is not None
        left_out["proposal"] += record.counts().get("num_proposals", 0)
        yield record


def put(path: Path, data: bytes | str) -> None:
    """Write a file, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
