"""Sources: one file per annotation format, raw files -> `RawRecord`s in ascending order of key.

A source module has
    Config                                  its settings, a frozen keyword-only dataclass
    classes(root, config)                   names of labels 1..C; () if it knows none
    splits(root, config)                    which of train, val, test exist
    read(root, split, config)               RawRecords in ascending key order, Problems anywhere between
    notes(root, config)                     not in every source: what a user should know though nothing is wrong
A Config with a field `splits` takes the data set's names of splits. Here the sources of one data set are joined by key.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from contracts.errors import ConfigError, DataError
from contracts.raw import Problem, RawRecord
from pipeline.ingest.sources._draw import Draw
from pipeline.ingest.sources._recognise import what_lies_in
from pipeline.ingest.sources._splits import SPLITS, split_names

T = TypeVar("T")


class SourceModule(Protocol):
    """What a file of this package provides."""

    def classes(self, root: Path, config: Any) -> tuple[str, ...]: ...

    def splits(self, root: Path, config: Any) -> tuple[str, ...]: ...

    def read(self, root: Path, split: str, config: Any) -> Iterator[RawRecord | Problem]: ...


@dataclass(frozen=True, kw_only=True)
class OpenSource:
    """A source with its settings, over one folder. `store`: url of what the folder stands in for, if it does."""

    name: str
    module: SourceModule
    root: Path
    config: Any
    store: str | None = None


def joined_splits(opened: Sequence[OpenSource], draw: Draw | None = None) -> tuple[str, ...]:
    """Splits that at least one source has, and those that are drawn, in the order train, val, test.

    Raises:
        DataError: there is none; says what lies there instead.
        ConfigError: a split that is to be drawn has files of its own.
    """
    found = {split for source in opened for split in source.module.splits(source.root, source.config)}
    if not found:
        there = "".join(f"\n    - {line}" for line in what_lies_in(opened[0].root))
        compare = "compare the sources' file names in params.yaml with the folder"
        raise DataError(
            "no split of this data set has an annotation file",
            where=", ".join(f"{source.root} ({source.name}: {source.config})" for source in opened),
            fix=f"{compare}; what lies there:{there}" if there else compare,
        )
    drawn = set(draw.shares) if draw is not None else set()
    if both := drawn & found:
        raise ConfigError(
            f"`split` draws {', '.join(sorted(both))}, which has files of its own",
            where=", ".join(str(source.root) for source in opened),
            fix=f"take it out of `split`, or set sources.{opened[0].name}.only: [train]",
        )
    if drawn and "train" not in found:
        raise DataError("there is no train split to draw others from", value=sorted(found), where=str(opened[0].root))
    return tuple(split for split in SPLITS if split in found | drawn)


def expected_files(opened: Sequence[OpenSource], split: str) -> str:
    """The files that would make a split, as far as the sources' settings name them."""
    found = []
    for source in opened:
        templates = (value for value in vars(source.config).values() if isinstance(value, str) and "{split}" in value)
        files = [str(source.root / text) for text in templates if text.endswith((".json", ".txt"))]
        names = split_names(split, getattr(source.config, "splits", {}))
        filled = ", ".join(text.replace("{split}", name) for text in files for name in names)
        found.append(filled or f"{source.root} ({source.name}: {source.config})")
    return "; ".join(found)


def check_splits(opened: Sequence[OpenSource], splits: Sequence[str]) -> None:
    """Raise DataError unless there is something to train on, something to measure on, and all that `splits` names."""
    named = {split for source in opened for split in getattr(source.config, "splits", {})}
    for split in SPLITS:
        if split in splits or (split == "test" and split not in named):
            continue
        raise DataError(
            f"this data set has no {split} split", value=list(splits),
            where=f"looked for {expected_files(opened, split)}",
            allowed="train, and val, on which checkpoints and models are chosen; test if you like",
            fix="where the files call it otherwise, `splits: {val: valid}` beside `sources`; "
            "where there is one file, `split: {val: 0.1}`",
        )  # fmt: skip


def draw_from(opened: Sequence[OpenSource], draw: Draw) -> Draw:
    """`draw` with its bounds; reads the train split once.

    Raises:
        DataError: there are too few images or folders for the shares.
    """
    return draw.among(item for item in _read(opened, "train") if isinstance(item, RawRecord))


def joined_notes(opened: Sequence[OpenSource]) -> list[str]:
    """What the sources have to tell though nothing is wrong."""
    told = (getattr(s.module, "notes", _no_notes)(s.root, s.config) for s in opened)
    return [note for notes in told for note in notes]


def _no_notes(root: Path, config: Any) -> tuple[str, ...]:
    return ()


def joined_classes(opened: Sequence[OpenSource]) -> tuple[str, ...]:
    """The one class list that the sources agree on; () if none of them has classes.

    Raises:
        ConfigError: two sources have different class lists.
    """
    lists = {source.name: source.module.classes(source.root, source.config) for source in opened}
    known = {name: classes for name, classes in lists.items() if classes}
    if len(set(known.values())) > 1:
        raise ConfigError(
            "the sources of one data set have different class lists",
            value=known,
            fix="make them two data sets, or give both sources the same classes",
        )
    return next(iter(known.values()), ())


def read_joined(opened: Sequence[OpenSource], split: str, draw: Draw | None = None) -> Iterator[RawRecord | Problem]:
    """Records of all sources that have `split`, joined by key, in ascending key order; Problems pass through.

    A record has what every source knows of its image. Holds one record of each source at a time. With `draw`, which has
    its bounds, train is without the records of the splits that are drawn from it, and has all Problems.

    Raises:
        DataError: two sources name different files for one key, or two masks.
    """
    if draw is None or split not in ("train", *draw.shares):
        yield from _read(opened, split)
        return
    for item in _read(opened, "train"):
        if split == ("train" if isinstance(item, Problem) else draw.split_of(item)):
            yield item


def _read(opened: Sequence[OpenSource], split: str) -> Iterator[RawRecord | Problem]:
    streams = [_Stream(s, split) for s in opened if split in s.module.splits(s.root, s.config)]
    for stream in streams:
        yield from stream.advance()
    while heads := [stream for stream in streams if stream.head is not None]:
        key = min(stream.head.key for stream in heads if stream.head is not None)
        joined: RawRecord | Problem | None = None
        for stream in heads:
            record = stream.head
            if record is None or record.key != key:
                continue
            if joined is None:
                joined = record
            elif isinstance(joined, RawRecord):
                joined = _merge(joined, record)
            yield from stream.advance()
        assert joined is not None
        if not _only_proposes(joined):
            yield joined


def _only_proposes(item: RawRecord | Problem) -> bool:
    """Whether there are proposals for a picture that no source has in this split: it is another's, or not wanted."""
    return isinstance(item, RawRecord) and item.proposals is not None and not any(_pixels(item))


class _Stream:
    """A source's records with the next one at hand."""

    def __init__(self, source: OpenSource, split: str):
        self.name = source.name
        self.items = iter(source.module.read(source.root, split, source.config))
        self.head: RawRecord | None = None

    def advance(self) -> Iterator[Problem]:
        """Move to the next record; the problems before it."""
        last, self.head = self.head, None
        for item in self.items:
            if isinstance(item, RawRecord):
                assert last is None or last.key < item.key, f"source {self.name}: {item.key} after {last.key}"
                self.head = item
                return
            yield item


def _merge(a: RawRecord, b: RawRecord) -> RawRecord | Problem:
    where = f"record {a.key}; {a.annotation_file}, {b.annotation_file}"
    with_pixels = [r for r in (a, b) if r.image is not None or r.frames or r.video is not None]
    if len(with_pixels) == 2 and _pixels(a) != _pixels(b):
        raise DataError(
            "two sources name different files for one image or clip, or other frames of it",
            value=[str(r.image or r.video or [*map(str, r.frames[:3])]) for r in (a, b)],
            where=where,
            fix="set the sources' `images` in params.yaml to one place",
        )
    for name in ("semantic_mask", "instance_mask", "alignment", "transcript", "proposals", "frame_labels"):
        if getattr(a, name) and getattr(b, name):
            raise DataError(f"two sources give a {name}", where=where)
    if a.group and b.group and a.group != b.group:
        raise DataError("two sources give different groups", value=[a.group, b.group], where=where)
    sizes = [(r.width, r.height) for r in (a, b) if r.width or r.height]
    if len(set(sizes)) > 1:
        return Problem(
            reason="conflicting_size",
            kind="record",
            file=b.annotation_file,
            item_id=str(b.image_id),
            key=b.key,
            detail=f"{sizes[1]}, but {sizes[0]} in {a.annotation_file}",
        )
    width, height = sizes[0] if sizes else (0, 0)
    pixels = with_pixels[0] if with_pixels else a
    return replace(
        a,
        annotation_file=", ".join(dict.fromkeys((a.annotation_file, b.annotation_file))),
        image=pixels.image,
        image_part=pixels.image_part,
        frames=pixels.frames,
        video=pixels.video,
        times_s=pixels.times_s,
        width=width,
        height=height,
        objects=_both(a.objects, b.objects),
        group=a.group or b.group,
        frame_labels=a.frame_labels or b.frame_labels,
        segments=_both(a.segments, b.segments),
        sentences=_both(a.sentences, b.sentences),
        alignment=a.alignment or b.alignment,
        transcript=a.transcript or b.transcript,
        proposals=a.proposals or b.proposals,
        captions=_both(a.captions, b.captions),
        questions=_both(a.questions, b.questions),
        labels=tuple(dict.fromkeys(a.labels + b.labels)),
        semantic_mask=a.semantic_mask or b.semantic_mask,
        instance_mask=a.instance_mask or b.instance_mask,
        label_map=a.label_map if a.semantic_mask else b.label_map,
        label_colors=a.label_colors if a.semantic_mask else b.label_colors,
        fixes=a.fixes + b.fixes,
    )


def _pixels(raw: RawRecord) -> tuple[Any, ...]:
    """What names a record's pixels."""
    return (raw.image, raw.image_part, raw.video, *raw.frames)


def _both(a: Sequence[T], b: Sequence[T]) -> Sequence[T]:
    """One after the other; where one is empty, the other as it is: it may not have been read yet."""
    return (*a, *b) if len(a) and len(b) else a if len(a) else b
