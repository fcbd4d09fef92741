"""Boxes that another program proposed, in MATLAB files, to be joined to the pictures of another source.

`layout` says how:

- `list`: a file a split, `voc_2007_{split}.mat` of Fast R-CNN's selective_search_data (1504.08083): cell arrays
  `images`, names without suffix, and `boxes`, (P, 4) of y1, x1, y2, x2, counted from 1, the last pixel included.
- `files`: a file a picture, `000004_boxes.mat` of Fast R-CNN's demo: `boxes`, (P, 4) of x1, y1, x2, y2, counted from 0,
  the last pixel included.

Boxes come best first, without scores: a box's score is the share of boxes that do not come before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from contracts.annotations import Proposals
from contracts.errors import ConfigError, DataError
from contracts.raw import Problem, RawRecord
from pipeline.ingest.sources._files import check_template, is_inside, record_key
from pipeline.ingest.sources._splits import (
    SPLITS,
    Split,
    SplitNames,
    file_splits,
    in_key_order,
    names_there,
)
from pipeline.system.reading import is_file, is_folder, listed

_NAME = "{image}"


@dataclass(frozen=True, kw_only=True)
class Config:
    """`layout` is one of those above. `boxes` is a path below the data set's folder: of `list` with `{split}`, or of
    one split's file; of `files` with `{image}` for a picture's name without suffix. `images` is the picture's own path,
    by which its boxes are joined to it, as the source of the pictures has it.

    Attributes:
        only: the splits that there are boxes for.
        splits: how the files call a split, such as `{val: trainval}`.
    """

    layout: Literal["list", "files"] = "list"
    boxes: str = "selective_search_data/voc_2007_{split}.mat"
    images: str = "VOCdevkit/VOC2007/JPEGImages/{image}.jpg"
    only: tuple[Split, ...] = SPLITS
    splits: SplitNames = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_template("boxes", self.boxes, **({"split": "train"} if self.layout == "list" else {"image": "a"}))
        check_template("images", self.images, image="a")
        if _NAME not in self.images or (self.layout == "files" and _NAME not in Path(self.boxes).name):
            raise ConfigError(
                "nothing says which picture a file is of", value=[self.boxes, self.images],
                allowed=f"paths whose last part has {_NAME}, the picture's name",
            )  # fmt: skip
        if not self.only:
            raise ConfigError("only is empty", value=self.only, allowed=", ".join(SPLITS))


def classes(root: Path, config: Config) -> tuple[str, ...]:
    """Proposals know no classes."""
    return ()


def splits(root: Path, config: Config) -> tuple[str, ...]:
    """Splits that have boxes. Files of single pictures do not say of which split: records without a picture in a split
    are left out there.

    Raises:
        DataError: one of a split's names has no file.
    """
    if config.layout == "files":
        return config.only if is_folder((root / config.boxes).parent) else ()
    return tuple(split for split in SPLITS if _lists(root, split, config))


def _lists(root: Path, split: str, config: Config) -> list[Path]:
    if split not in config.only or split not in file_splits(config.boxes, config.only):
        return []
    there = names_there(
        split, config.splits, lambda name: is_file(root / config.boxes.format(split=name)), str(root / config.boxes)
    )
    return [root / config.boxes.format(split=name) for name in there]


def read(root: Path, split: str, config: Config) -> Iterator[RawRecord | Problem]:
    """A record of boxes alone per picture, in ascending order of key.

    Raises:
        DataError: a file is not such a MATLAB file.
    """
    if config.layout == "files":
        yield from _of_files(root, config)
    else:
        yield from in_key_order(_of_list(root, path, config) for path in _lists(root, split, config))


def _of_files(root: Path, config: Config) -> Iterator[RawRecord | Problem]:
    before, _, after = Path(config.boxes).name.partition(_NAME)
    pattern = re.compile(f"{re.escape(before)}(.+){re.escape(after)}")
    names = {match[1]: path for path in listed((root / config.boxes).parent) if (match := pattern.fullmatch(path.name))}
    keyed = sorted((record_key(config.images.format(image=name)), name) for name in names)
    for key, name in keyed:
        boxes = _loaded(names[name], "boxes")
        yield _record(key, name, names[name], boxes, corners=(0, 1, 2, 3), first=0)


def _of_list(root: Path, path: Path, config: Config) -> Iterator[RawRecord | Problem]:
    names, boxes = (_loaded(path, name).ravel() for name in ("images", "boxes"))
    if len(names) != len(boxes):
        raise _other(path, f"{len(names)} images, boxes of {len(boxes)}")
    found = [str(np.asarray(name).ravel()[0]) for name in names]
    if outside := [name for name in found if not is_inside(name)]:
        raise _other(path, f"an image {outside[0]!r}")
    keyed = sorted((record_key(config.images.format(image=name)), i) for i, name in enumerate(found))
    for key, i in keyed:
        yield _record(key, found[i], path, boxes[i], corners=(1, 0, 3, 2), first=1)


def _record(
    key: str, name: str, path: Path, boxes: Any, *, corners: tuple[int, ...], first: int
) -> RawRecord | Problem:
    """Half-open boxes that count from 0, of those that include their last pixel and count from `first`."""
    given = np.asarray(boxes)
    if given.size and (given.ndim != 2 or given.shape[1] != 4 or given.dtype.kind not in "uif"):
        return Problem(
            reason="bad_proposals", kind="record", file=str(path), item_id=name, key=key,
            detail=f"{given.dtype} {given.shape}",
        )  # fmt: skip
    # Unsigned numbers would wrap below zero.
    xyxy = given.reshape(-1, 4).astype(np.float64)[:, corners] - first + np.array([0, 0, 1, 1])
    scores = 1 - np.arange(len(xyxy)) / max(1, len(xyxy))
    proposals = Proposals(boxes=xyxy.astype(np.float32), scores=scores.astype(np.float32))
    return RawRecord(key=key, image_id=name, annotation_file=str(path), proposals=proposals)


def _loaded(path: Path, name: str) -> np.ndarray:
    """A variable of a MATLAB file."""
    from scipy.io.matlab import MatReadError, loadmat  # half a second, for this source alone

    try:
        return np.asarray(loadmat(path)[name])
    except (MatReadError, ValueError, TypeError, LookupError, OSError, NotImplementedError) as error:
        raise _other(path, f"{type(error).__name__}: {error}") from error


def _other(path: Path, found: str) -> DataError:
    return DataError(
        "this is not a file of proposals", value=found, where=str(path),
        allowed="MATLAB's format up to 7.2, with `boxes` (and `images`, of a list)",
        fix="set the source's `layout` and `boxes`, or save it anew without -v7.3",
    )  # fmt: skip
