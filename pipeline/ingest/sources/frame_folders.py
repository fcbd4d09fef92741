"""Clips as folders of frames, `<video>/img_00001.jpg`, and a list of them: `path num_frames label` or
`path first last label`, as TSN (https://github.com/yjxiong/temporal-segment-networks) and many after it have them.

Frames are in the order of the numbers that their names end in, not of the names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

from contracts.errors import ConfigError
from contracts.ranges import COUNT, POSITIVE, check_ranges
from contracts.raw import Problem, RawRecord
from pipeline.ingest.sources._files import (
    IMAGE_SUFFIXES,
    check_classes,
    check_template,
    forward_slashes,
    is_inside,
    record_key,
    shown,
)
from pipeline.ingest.sources._splits import SPLITS, SplitNames, names_there
from pipeline.system.reading import is_file, is_folder, listed, read_text

_NUMBER = re.compile(r"(\d{1,9})\D*$", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Config:
    """`lists` are below the data set's folder, the folders of frames below `folder` of it; without `{split}` there is
    one list, train's. A line is a folder, then the number of its frames (`span: length`) or the numbers of the first
    and the last one (`span: range`), then any number of classes, as names or as numbers from 0 on.

    `fps` is how many frames a second were taken; each `every`th is kept. `group` is a regular expression with one group
    that says of a folder's name what belongs together (`v_.*_(g\\d+)_c` of UCF-101); by default a folder is a group.
    `classes` names the numbers; otherwise the classes that are found are the class list. `splits` says how the lists
    call a split.
    """

    lists: str = "{split}.txt"
    folder: str = ""
    span: Literal["length", "range"] = "length"
    fps: float = 25.0
    every: int = 1
    group: str = ""
    classes: tuple[str, ...] = ()
    splits: SplitNames = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_ranges(self, fps=POSITIVE, every=COUNT)
        check_template("lists", self.lists, split="train")
        check_classes(self.classes)
        try:
            groups = re.compile(self.group).groups
        except re.error as error:
            raise ConfigError("group is no regular expression", value=self.group, fix=str(error)) from None
        if self.group and groups != 1:
            raise ConfigError("group must have one pair of brackets", value=self.group, allowed=r"v_.*_(g\d+)_c")


@dataclass(frozen=True)
class _Clip:
    """A line of a list: frames `first` to `last` (inclusive) of a folder; `first` is None where the least is meant."""

    path: str
    first: int | None
    last: int
    labels: tuple[str, ...]

    @property
    def key(self) -> str:
        return record_key(f"{self.path}.jpg" if self.first is None else f"{self.path}_{self.first}_{self.last}.jpg")


def splits(root: Path, config: Config) -> tuple[str, ...]:
    """Splits that have a list.

    Raises:
        DataError: one of a split's names has no list.
    """
    return tuple(split for split in SPLITS if _lists(root, split, config))


def _lists(root: Path, split: str, config: Config) -> list[Path]:
    if "{split" not in config.lists and split != "train":
        return []

    def path(name: str) -> Path:
        return root / config.lists.format(split=name)

    names = names_there(split, config.splits, lambda name: is_file(path(name)), str(root / config.lists))
    return list(dict.fromkeys(map(path, names)))


def classes(root: Path, config: Config) -> tuple[str, ...]:
    """The configured list, or the classes of all lists: by number if they are numbers, else sorted as text."""
    if config.classes:
        return config.classes
    found = {
        label
        for split in splits(root, config)
        for path in _lists(root, split, config)
        for _, clip in _clips(path, config)
        if isinstance(clip, _Clip)
        for label in clip.labels
    }
    is_numbered = all(name.isdecimal() for name in found)
    return tuple(sorted(found, key=lambda name: (int(name) if is_numbered else 0, name)))


def _clips(path: Path, config: Config) -> Iterator[tuple[int, _Clip | str]]:
    """Number and clip of each line that is not blank, or the line where it cannot be read."""
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        name, *words = line.split() or [""]
        numbers, labels = (words[:1], words[1:]) if config.span == "length" else (words[:2], words[2:])
        if not name:
            continue
        if not all(re.fullmatch(r"\d{1,9}", word, re.ASCII) for word in numbers) or len(numbers) < 1:
            yield number, line
            continue
        first, last = (int(numbers[0]), int(numbers[-1])) if config.span == "range" else (None, int(numbers[0]))
        if last < (first if first is not None else 1) or (config.span == "range" and len(numbers) < 2):
            yield number, line
            continue
        found = dict.fromkeys(_name(label, config.classes) for label in labels)
        yield number, _Clip(forward_slashes(name).rstrip("/"), first, last, tuple(found))


def _name(label: str, names: tuple[str, ...]) -> str:
    return names[int(label)] if label not in names and label.isdecimal() and int(label) < len(names) else label


def read(root: Path, split: str, config: Config) -> Iterator[RawRecord | Problem]:
    """One record per clip, in ascending key order, after the problems of the lists."""
    found: dict[str, tuple[_Clip, Path, int]] = {}
    for path in _lists(root, split, config):
        for number, clip in _clips(path, config):
            item = f"line {number}"
            if not isinstance(clip, _Clip):
                yield _problem("bad_list_line", path, item, detail=shown(clip))
            elif not is_inside(clip.path):
                yield _problem("unsafe_path", path, item, detail=shown(clip.path))
            elif clip.key in found:
                yield _problem("duplicate_key", path, item, clip.key, shown(clip.path))
            else:
                found[clip.key] = (clip, path, number)
    frames_of = lru_cache(maxsize=8)(_frames)  # clips of one folder follow one another
    for key, (clip, path, number) in sorted(found.items()):
        folder = root / config.folder / clip.path
        frames, repeated = frames_of(folder)
        first = min(frames, default=1) if clip.first is None else clip.first
        last = first + clip.last - 1 if clip.first is None else clip.last
        if missing := [i for i in range(first, last + 1) if i not in frames]:
            detail = f"{len(missing)} of {last - first + 1} frames, such as number {missing[0]}"
            yield _problem("missing_frame", folder, f"{path.name}, line {number}", key, detail)
            continue
        wanted = range(first, last + 1, config.every)
        yield RawRecord(
            key=key,
            image_id=clip.path,
            group=_group(clip.path, config),
            frames=tuple(frames[i] for i in wanted),
            times_s=tuple((i - first) / config.fps for i in wanted),
            annotation_file=str(path),
            labels=clip.labels,
            fixes=("duplicate_frame",) * repeated,
        )


def _group(path: str, config: Config) -> str:
    match = re.search(config.group, path) if config.group else None
    return path if match is None else match[1]


def _frames(folder: Path) -> tuple[dict[int, Path], int]:
    """Image files of a folder by number, and how many have a number that another one has."""
    found: dict[int, Path] = {}
    repeated = 0
    for path in listed(folder) if is_folder(folder) else ():
        match = _NUMBER.search(path.stem)
        if match is not None and path.suffix.lower() in IMAGE_SUFFIXES:
            repeated += found.setdefault(int(match[1]), path) != path
    return found, repeated


def _problem(reason: str, file: Path, item: str, key: str = "", detail: str = "") -> Problem:
    return Problem(reason=reason, kind="record", file=str(file), item_id=item, key=key, detail=detail)
