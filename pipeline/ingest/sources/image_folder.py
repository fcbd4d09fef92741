"""Class folders, the layout of torchvision's ImageFolder: `train/<class>/x.jpg`, `val/<class>/y.png`.

Each image has one label, the name of the folder right below the split's. Images may lie deeper than that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from contracts.errors import DataError
from contracts.raw import Problem, RawRecord
from pipeline.ingest.sources._files import IMAGE_SUFFIXES, check_classes
from pipeline.ingest.sources._images import files_below, keyed
from pipeline.ingest.sources._splits import SPLITS
from pipeline.system.reading import is_folder, listed


@dataclass(frozen=True, kw_only=True)
class Config:
    """Folders of class folders, below the data set's folder; "" for no such split. A folder that is absent is no split.

    `classes` gives the order of labels; otherwise it is that of torchvision, the folders' names sorted as text.
    """

    train: str = "train"
    val: str = "val"
    test: str = "test"
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_classes(self.classes)


def splits(root: Path, config: Config) -> tuple[str, ...]:
    """Splits whose folder is there."""
    return tuple(split for split in SPLITS if getattr(config, split) and is_folder(root / getattr(config, split)))


def classes(root: Path, config: Config) -> tuple[str, ...]:
    """The configured list, or the names of the class folders of all splits, sorted.

    Raises:
        DataError: there is no class folder.
    """
    if config.classes:
        return config.classes
    folders = [root / getattr(config, split) for split in splits(root, config)]
    names = {path.name for folder in folders for path in listed(folder) if is_folder(path)}
    if not names:
        raise DataError(
            "no class folder here", where=", ".join(map(str, folders)), allowed="<split>/<class>/<image>",
            fix="set sources.image_folder.train (and val, test) to the folders that hold the class folders",
        )  # fmt: skip
    return tuple(sorted(names))


def read(root: Path, split: str, config: Config) -> Iterator[RawRecord | Problem]:
    """One record per image, in ascending key order."""
    base = root / getattr(config, split)
    found, problems = keyed(files_below(base, IMAGE_SUFFIXES), root)
    yield from problems
    for key, image in found:
        below, name = image.relative_to(base), image.relative_to(root).as_posix()
        if len(below.parts) == 1:
            yield Problem(reason="image_without_class", kind="record", file=str(image), item_id=name, key=key)
            continue
        yield RawRecord(key=key, image_id=name, image=image, annotation_file=str(image.parent), labels=below.parts[:1])
