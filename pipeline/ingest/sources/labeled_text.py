"""Texts with classes, one a line, as fastText reads them: `__label__sky the clouds are in the`.

https://fasttext.cc/docs/en/supervised-tutorial.html. A line has one label or more, each a word that begins with
`prefix`, before its text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from contracts.annotations import Sentence
from contracts.errors import ConfigError, DataError
from contracts.raw import Problem, RawRecord
from pipeline.ingest.sources._files import check_classes, check_template, record_key, shown
from pipeline.ingest.sources._lines import is_there, lines_of
from pipeline.ingest.sources._splits import SPLITS, SplitNames, in_key_order, names_there


@dataclass(frozen=True, kw_only=True)
class Config:
    """`files` are below the data set's folder, plain or with `.gz` behind; without `{split}` they are train's.

    `classes` gives the order of labels; otherwise it is that of their names, sorted as text. `language` is a code such
    as `de`.
    """

    files: str = "{split}.txt"
    prefix: str = "__label__"
    language: str = ""
    splits: SplitNames = field(default_factory=dict)
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_template("files", self.files, split="train")
        check_classes(self.classes)
        if not self.prefix or any(map(str.isspace, self.prefix)):
            raise ConfigError("a label's prefix is empty or has a blank", value=self.prefix, where="prefix")


def splits(root: Path, config: Config) -> tuple[str, ...]:
    """Splits that have a file.

    Raises:
        DataError: one of a split's names has no file.
    """
    return tuple(split for split in SPLITS if _names(root, split, config))


def _names(root: Path, split: str, config: Config) -> list[str]:
    if "{split" not in config.files and split != "train":
        return []
    where = str(root / config.files)
    return names_there(split, config.splits, lambda name: is_there(_path(root, name, config)), where)


def _path(root: Path, name: str, config: Config) -> Path:
    return root / config.files.format(split=name)


def classes(root: Path, config: Config) -> tuple[str, ...]:
    """The configured list, or the labels of all splits, sorted.

    Raises:
        DataError: no line has a label.
    """
    if config.classes:
        return config.classes
    prefix = config.prefix.encode()
    paths = [_path(root, name, config) for split in SPLITS for name in _names(root, split, config)]
    words = (word for path in paths for line in lines_of(path) for word in line.split() if word.startswith(prefix))
    names = {word.removeprefix(prefix).decode(errors="replace") for word in words}
    if not names:
        raise DataError(
            "no line has a label", where=", ".join(map(str, paths)) or str(root / config.files),
            allowed=f"{config.prefix}<class> <text>", fix="set `files` and `prefix` of the source labeled_text",
        )  # fmt: skip
    return tuple(sorted(names))


def read(root: Path, split: str, config: Config) -> Iterator[RawRecord | Problem]:
    """A record for each line that is not blank, in ascending key order: `train-000000001`, counted from 1.

    Raises:
        DataError: a file is missing or damaged.
    """
    return in_key_order(_read(root, name, config) for name in _names(root, split, config))


def _read(root: Path, name: str, config: Config) -> Iterator[RawRecord | Problem]:
    path, slug = _path(root, name, config), record_key(f"{name}.jpg")  # without its ending
    for number, line in enumerate(lines_of(path), start=1):
        if line.strip():
            yield _record(line, f"{slug}-{number:09d}", f"{name}:{number}", path, config)


def _record(line: bytes, key: str, item: str, path: Path, config: Config) -> RawRecord | Problem:
    try:
        words = line.decode().split()
    except UnicodeDecodeError as error:
        detail = shown(repr(line[error.start : error.start + 20]))
        return Problem(reason="not_utf8", kind="record", file=str(path), item_id=item, key=key, detail=detail)
    labels = [word.removeprefix(config.prefix) for word in words if word.startswith(config.prefix)]
    text = " ".join(word for word in words if not word.startswith(config.prefix))
    if not labels:
        return Problem(reason="text_without_class", kind="record", file=str(path), item_id=item, key=key)
    sentence = Sentence(role="text", language=config.language, text=text)
    return RawRecord(
        key=key, image_id=item, annotation_file=str(path), labels=tuple(dict.fromkeys(labels)), sentences=(sentence,)
    )
