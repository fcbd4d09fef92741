"""What the door refused of a data set: counts by reason in the reason's words, and some of it with its picture."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from contracts.errors import DataError
from lightning_modules.augment.images import decode_image
from pipeline.ingest.door import RULES
from pipeline.ingest.sources._files import IMAGE_SUFFIXES
from pipeline.measuring.viewing.pictures import data_url, drawn
from pipeline.shards.reader import SplitReader
from pipeline.system.project import Project

_EXAMPLES, _MOST_EXAMPLES = 3, 36  # of a reason, of all
_WIDTH_PX = 320
_MOST_PIXELS, _MOST_BYTES = 50_000_000, 64 << 20  # of a refused file that is opened to be shown


class Example(NamedTuple):
    """A line of the quarantine list. `picture` is a data URL or ""; `told` says why there is none, or what it is."""

    reason: str
    split: str
    where: str
    what: str
    picture: str
    told: str


class Reason(NamedTuple):
    """How often a rule of the door was applied, by split; `kind` is what was dropped, "" where it was mended."""

    name: str
    rule: str
    kind: str
    counts: list[int]


def reasons(manifest: Mapping[str, Any]) -> tuple[list[Reason], list[Reason]]:
    """What the manifest says was dropped, and what was mended and kept; most frequent first."""
    splits = manifest["splits"].values()
    dropped = {(kind, name) for split in splits for kind, of_kind in split["dropped"].items() for name in of_kind}
    fixed = {name for split in splits for name in split["fixed"]}
    found = [
        Reason(name, RULES.get(name, ""), kind, [split["dropped"].get(kind, {}).get(name, 0) for split in splits])
        for kind, name in sorted(dropped)
    ]
    mended = [
        Reason(name, RULES.get(name, ""), "", [s["fixed"].get(name, 0) for s in splits]) for name in sorted(fixed)
    ]
    return sorted(found, key=_frequency), sorted(mended, key=_frequency)


def _frequency(reason: Reason) -> int:
    return -sum(reason.counts)


def examples(
    project: Project, dataset: str, readers: Mapping[str, SplitReader], classes: Sequence[str]
) -> list[Example]:
    """The first few lines of the quarantine list of each reason, with pictures.

    Of a refused record the raw file is shown as far as it can be decoded; of a dropped part the record that was kept.

    Raises:
        DataError: the list is damaged.
    """
    lines: list[dict[str, str]] = []
    seen: Counter[str] = Counter()
    for problem in _lines(project.quarantine(dataset), dataset):
        seen[problem["reason"]] += 1
        if seen[problem["reason"]] <= _EXAMPLES and len(lines) < _MOST_EXAMPLES:
            lines.append(problem)
    lines.sort(key=lambda line: line["reason"])
    positions = _positions(readers, {(line["split"], line["key"]) for line in lines if line["key"]})
    try:
        root = project.raw_root(dataset)
    except DataError:
        root = None  # the raw data is not kept for ever
    found = []
    for line in lines:
        place = positions.get((line["split"], line["key"]))
        if line["kind"] != "record" and place is not None:
            pictures = drawn(readers[line["split"]].read(place), classes)
            picture, told = (
                (pictures[0], "the record, as it was kept") if pictures else ("", "the record has no picture")
            )
        else:
            picture, told = _raw_picture(line["file"], root)
        detail = f" {line['detail']}" if line["detail"] not in ("", line["file"]) else ""
        what = f"{line['kind']} {line['item_id']}{detail}"
        found.append(Example(line["reason"], line["split"], line["file"], what, picture, told))
    return found


def _lines(path: Path, dataset: str) -> Any:
    if not path.is_file():
        return
    fix = f"dvc repro --force shard@{dataset}"
    with open(path, "rb") as file:
        for number, data in enumerate(file, 1):
            try:
                line = json.loads(data)
                yield {
                    name: str(line[name]) for name in ("split", "reason", "kind", "file", "item_id", "key", "detail")
                }
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(
                    "a line of the quarantine list is damaged", value=f"{type(error).__name__}: {error}"[:200],
                    where=f"{path}:{number}", fix=fix,
                ) from None  # fmt: skip


def _positions(readers: Mapping[str, SplitReader], wanted: set[tuple[str, str]]) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for split, key in wanted:
        if split in readers and key.isascii():
            keys = readers[split].columns["key"]
            place = int(np.searchsorted(keys, key.encode()))
            if place < len(keys) and keys[place] == key.encode():
                found[split, key] = place
    return found


def _raw_picture(file: str, root: Path | None) -> tuple[str, str]:
    """A raw file as a data URL, or "" and why not. Nothing outside the data set's folder is opened."""
    path = Path(file)
    if root is None:
        return "", "the raw data is not there any more"
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        return "", "no picture belongs to it"
    try:
        if not path.resolve().is_relative_to(root.resolve()):
            return "", "the file is not in the data set's folder"
        if not path.is_file():
            return "", "the file is not there"
        if path.stat().st_size > _MOST_BYTES:
            return "", "the file is too large to be opened here"
        with warnings.catch_warnings(action="ignore"), Image.open(path) as header:  # of its size, which is looked at
            pixels = header.width * header.height
        if pixels > _MOST_PIXELS:
            return "", f"{pixels / 1e6:.0f} megapixels are too many to be opened here"
        picture = decode_image(path.read_bytes())  # lenient: a cut JPEG as far as it goes
    except (OSError, ValueError, SyntaxError, DataError, Image.DecompressionBombError):
        return "", "the file cannot be decoded"
    return data_url(picture, _WIDTH_PX), "the raw file, as far as it can be decoded"
