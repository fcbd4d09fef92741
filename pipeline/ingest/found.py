"""How a folder of data is read, and what its training records are like: what `sightline init` asks of it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from contracts.errors import DataError, SightlineError
from contracts.raw import Problem, RawRecord
from contracts.records import IGNORE_INDEX
from pipeline.ingest.door.masks import decode_ids
from pipeline.ingest.door.rules import Refused
from pipeline.ingest.layouts import LOOKED_FOR, Layout, layouts
from pipeline.ingest.presets import Setting
from pipeline.ingest.sources import OpenSource, joined_classes, joined_splits, read_joined
from pipeline.ingest.sources._recognise import what_lies_in
from pipeline.ingest.statistics import Statistics, look
from pipeline.ingest.tree import Tree
from pipeline.settings import discover
from pipeline.settings.params import Params
from pipeline.system.reading import read_bytes

_NUM_MASKS, _MOST_CLASSES = 50, 64
_LOOKED_AT = 200  # records of the training split that must show all that the task requires
_HAS: dict[str, Callable[[RawRecord], bool]] = {
    "num_captions": lambda record: bool(record.captions),
    "num_objects": lambda record: bool(record.objects),
    "num_masks": lambda record: record.instance_mask is not None or any(o.segmentation for o in record.objects),
    "num_questions": lambda record: bool(record.questions),
    "num_choices": lambda record: any(question.answer_index is not None for question in record.questions),
    "num_labels": lambda record: bool(record.labels),
    "num_frames": lambda record: bool(record.frames) or record.video is not None,
    "num_frame_labels": lambda record: bool(record.segments or record.frame_labels),
    "has_semantic": lambda record: record.semantic_mask is not None,
    "num_texts": lambda record: any(sentence.role == "text" for sentence in record.sentences),
    "num_sources": lambda record: any(sentence.role == "source" for sentence in record.sentences),
    "num_targets": lambda record: any(sentence.role == "target" for sentence in record.sentences),
    "has_transcript": lambda record: record.transcript is not None,
    "candidates": lambda record: any(one.candidates and not one.candidate_boxes for one in record.questions),
    "boxes": lambda record: any(question.candidate_boxes for question in record.questions),
}
_WHAT = {
    "num_captions": "captions",
    "num_objects": "objects with boxes",
    "num_masks": "objects with masks",
    "num_questions": "questions",
    "num_choices": "questions with candidates",
    "num_labels": "labels of whole images or texts",
    "num_frames": "clips",
    "num_frame_labels": "labels of frames, or segments",
    "has_semantic": "label masks",
    "num_texts": "texts",
    "num_sources": "sentences to translate",
    "num_targets": "translations",
    "has_transcript": "pictures with what is written in them",
    "candidates": "questions with texts to choose from",
    "boxes": "questions with boxes to choose from",
}


@dataclass(frozen=True)
class Found:
    """`document` is the section `datasets` that reads the data; `told` is what a user should know of it."""

    layout: Layout
    document: dict[str, Any]
    statistics: Statistics
    told: list[str] = field(default_factory=list)


@dataclass
class _Tried:
    """What was found wanting, by source."""

    lacking: dict[str, list[str]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def find(data: Path, task: str, source: str | None) -> Found:
    """The first way to read `data` that finds training and validation data with all that `task` requires.

    Raises:
        DataError: there is none; says what was looked for, and what lies there.
    """
    asked = discover.load("task", task, where="--task").Task
    required: tuple[str, ...] = (*asked.requires, *(name for name in asked.inputs if name in _HAS))
    tree, tried = Tree(data), _Tried()
    for name in [source] if source else discover.names("source"):
        for layout in layouts(tree, name, with_masks="has_semantic" in required):
            opened = _opened(data, layout, tried)
            if opened is None:
                continue
            lacking = _lacking(opened, required)
            if lacking:
                tried.lacking.setdefault(name, lacking)
                continue
            return _measured(data, layout, opened)
    raise _nothing(tree, task, source, required, tried)


def _document(data: Path, layout: Layout) -> dict[str, Any]:
    dataset = {"origin": "local", "input": str(data), "sources": layout.sources, **layout.beside}
    return {"datasets": {"data": dataset}, "runs": {}}


def _opened(data: Path, layout: Layout, tried: _Tried) -> list[OpenSource] | None:
    """The layout's sources, if they find a train split and a val split there."""
    try:
        config = Params(_document(data, layout)).dataset("data")
        opened = [
            OpenSource(
                name=name,
                module=discover.load("source", name, where="--source"),
                root=data,
                config=Params({}).part_config("source", {"name": name, **section}, name),
            )
            for name, section in config.sources.items()
        ]
        found, drawn = joined_splits(opened), set(config.split.shares if config.split else ())
    except (SightlineError, OSError) as error:
        if any(layout.sources.values()):  # the published layouts are tried where nothing speaks for them
            tried.refused.setdefault(next(iter(layout.sources)), str(error).partition("\n")[0])
        return None
    is_whole = {"train", "val"} <= {*found, *drawn} and not drawn & set(found)
    return opened if is_whole else None


def _lacking(opened: list[OpenSource], required: tuple[str, ...]) -> list[str]:
    """What of the required the first records have not."""
    try:
        records = (one for one in read_joined(opened, "train") if not isinstance(one, Problem))
        seen = list(itertools.islice(records, _LOOKED_AT))
    except (SightlineError, OSError) as error:
        return [f"training data that can be read ({str(error).partition(chr(10))[0]})"]
    if not seen:
        return ["training records"]
    lacking = [_WHAT[column] for column in required if column in _HAS and not any(map(_HAS[column], seen))]
    pictures = [record.image for record in seen if record.image is not None]
    missing = [path for path in pictures[:20] if not path.is_file()]
    if missing and len(missing) == len(pictures[:20]):
        lacking.append(f"image where its files name them, such as {missing[0]}")
    return lacking


def _measured(data: Path, layout: Layout, opened: list[OpenSource]) -> Found:
    document = _document(data, layout)
    entry = document["datasets"]["data"]
    try:
        num_classes = len(joined_classes(opened))
    except (SightlineError, OSError) as error:
        values = _mask_values(opened)
        if not values:
            raise DataError(str(error), fix="the files can be read, but for this") from error
        num_classes = len(values.keys() - {"background", "ignore"})
        (name,) = layout.sources  # only one source has masks of values
        said = "the masks hold these values, and no file names them: put your names in place of class_1, .."
        entry["sources"] = Setting({name: {**layout.sources[name], "mask_values": values}}, said)
    statistics = look(read_joined(opened, "train"), num_classes)
    if "split" in entry:
        # Of few records a larger share: a val split of one or two pictures says nothing.
        share = 0.1 if statistics.num_records >= 200 else 0.2
        said = f"{'a tenth' if share == 0.1 else 'a fifth'} of train, since there is no val split"
        entry["split"] = Setting({"val": share}, said)
    return Found(layout, document, statistics, _told(statistics))


def _mask_values(opened: list[OpenSource]) -> dict[str, int]:
    """Names for the values of VOC's label masks, which nothing names; empty where there is no such mask."""
    if [source.name for source in opened] != ["voc"]:
        return {}
    records = (one for one in read_joined(opened, "train") if not isinstance(one, Problem))
    found: set[int] = set()
    masks = (one.semantic_mask for one in records if one.semantic_mask is not None)
    for mask in itertools.islice(masks, _NUM_MASKS):
        try:
            found |= set(np.unique(decode_ids(read_bytes(mask))).tolist())
        except (Refused, OSError):
            continue  # the door says why
    found -= {0}
    if not 0 < len(found) <= _MOST_CLASSES:
        return {}
    if len(found) == 1:
        return {"background": 0, "class_1": found.pop()}
    ignored = {"ignore": IGNORE_INDEX} if IGNORE_INDEX in found else {}
    names = {f"class_{value}": value for value in sorted(found - {IGNORE_INDEX})}
    return {"background": 0, **names, **ignored}


def _told(found: Statistics) -> list[str]:
    number = f"{found.num_records}{'' if found.is_all else ' or more'} training records"
    lines = [f"{number}, {found.num_classes} classes" if found.num_classes else number]
    if found.objects is not None:
        objects = found.objects
        lines[0] += f", {objects.per_image.median:.0f} objects a picture (at most {objects.most_per_image})"
    if found.pictures is not None:
        long, short = found.pictures.long_px, found.pictures.short_px
        lines.append(
            f"pictures of {long.median:.0f} x {short.median:.0f} px, longer sides {long.low:.0f} to {long.high:.0f}"
        )
    if found.missing:
        lines.append(f"{len(found.missing)} of the pictures looked for are not there, such as {found.missing[0]}")
    return lines


def _nothing(tree: Tree, task: str, source: str | None, required: tuple[str, ...], tried: _Tried) -> DataError:
    wanted = " and ".join(_WHAT.get(column, column) for column in required)
    if tried.lacking:
        told = "; ".join(f"as {name} it has no {' and no '.join(what)}" for name, what in tried.lacking.items())
        return DataError(
            f"this data has not what {task} learns from", value=told, where=str(tree.root),
            allowed=f"data with {wanted}",
            fix="choose the task that suits it, or write params.yaml by hand: docs/adding.md, your own files",
        )  # fmt: skip
    sources = [source] if source else discover.names("source")
    looked_for = [f"{name}: {LOOKED_FOR[name]}" for name in sources if name in LOOKED_FOR]
    looked_for += [f"{name}, but: {error}" for name, error in tried.refused.items()]
    there = [*_contents(tree), *what_lies_in(tree.root)]
    return DataError(
        "no source reads this folder as it stands", where=str(tree.root), allowed=_listing(looked_for),
        fix=f"name the folder that holds one of these, or write params.yaml by hand; what lies there:{_listing(there)}",
    )  # fmt: skip


def _listing(lines: list[str]) -> str:
    return "".join(f"\n    - {line}" for line in lines)


def _contents(tree: Tree) -> list[str]:
    """How many files of each ending, with an example."""
    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for path in itertools.islice((one for one in tree.root.rglob("*") if one.is_file()), 20_000):
        suffix = path.suffix.lower() or "no ending"
        counts[suffix] += 1
        name = path.relative_to(tree.root).as_posix()
        examples[suffix] = min(name, examples.get(suffix, name))
    lines = [f"{number} files with {suffix}, such as {examples[suffix]}" for suffix, number in counts.most_common(8)]
    return lines or ["nothing"]
