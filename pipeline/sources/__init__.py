"""Sources: one file per annotation format, raw files -> `RawRecord`s in ascending order of key.

A source module has
    Config                                  its settings, a frozen keyword-only dataclass
    classes(root, config)                   names of labels 1..C; () if it knows none
    splits(root, config)                    which of train, val, test exist
    read(root, split, config)               RawRecords in ascending key order, Problems anywhere between
Here the sources of one data set are joined by key.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from contracts.errors import ConfigError, DataError
from contracts.records import Problem, RawRecord

T = TypeVar("T")
SPLITS = ("train", "val", "test")


class SourceModule(Protocol):
    """What a file of this package provides."""

    def classes(self, root: Path, config: Any) -> tuple[str, ...]: ...

    def splits(self, root: Path, config: Any) -> tuple[str, ...]: ...

    def read(self, root: Path, split: str, config: Any) -> Iterator[RawRecord | Problem]: ...


@dataclass(frozen=True, kw_only=True)
class OpenSource:
    """A source with its settings, over one folder."""

    name: str
    module: SourceModule
    root: Path
    config: Any


def joined_splits(opened: Sequence[OpenSource]) -> tuple[str, ...]:
    """Splits that at least one source has, in the order train, val, test.

    Raises:
        DataError: there is none.
    """
    found = {split for source in opened for split in source.module.splits(source.root, source.config)}
    if not found:
        raise DataError(
            "no split of this data set has an annotation file",
            where=", ".join(f"{source.root} ({source.name}: {source.config})" for source in opened),
            fix="compare the sources' file names in params.yaml with the folder",
        )
    return tuple(split for split in SPLITS if split in found)


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


def read_joined(opened: Sequence[OpenSource], split: str) -> Iterator[RawRecord | Problem]:
    """Records of all sources that have `split`, joined by key, in ascending key order; Problems pass through.

    A record has what every source knows of its image. Holds one record of each source at a time.

    Raises:
        DataError: two sources name different files for one key, or two masks.
    """
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
        yield joined


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
    if a.image != b.image:
        raise DataError(
            "two sources name different files for one image",
            value=[str(a.image), str(b.image)],
            where=f"record {a.key}; {a.annotation_file}, {b.annotation_file}",
            fix="set the sources' `images` in params.yaml to one place",
        )
    for name in ("semantic_mask", "instance_mask"):
        if getattr(a, name) is not None and getattr(b, name) is not None:
            raise DataError(
                f"two sources give a {name}", where=f"record {a.key}; {a.annotation_file}, {b.annotation_file}"
            )
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
    return replace(
        a,
        annotation_file=", ".join(dict.fromkeys((a.annotation_file, b.annotation_file))),
        width=width,
        height=height,
        objects=_both(a.objects, b.objects),
        captions=_both(a.captions, b.captions),
        questions=_both(a.questions, b.questions),
        semantic_mask=a.semantic_mask or b.semantic_mask,
        instance_mask=a.instance_mask or b.instance_mask,
        label_map=a.label_map if a.semantic_mask else b.label_map,
    )


def _both(a: Sequence[T], b: Sequence[T]) -> Sequence[T]:
    """One after the other; where one is empty, the other as it is: it may not have been read yet."""
    return (*a, *b) if len(a) and len(b) else a if len(a) else b
