"""Parallel text, one sentence a line: `train.de` and `train.en`, also as `.gz`, as Multi30k and WMT publish it.

https://github.com/multi30k/dataset. Line i of one file says what line i of the other says. A line ends at a line feed,
with or without a carriage return before it, and nowhere else; a byte order mark and blank lines at the end are no text.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from contracts.annotations import Alignment, Link, Role, Sentence
from contracts.errors import ConfigError, DataError
from contracts.ranges import Range, check_ranges
from contracts.raw import Problem, RawRecord
from pipeline.ingest.sources._files import check_template, record_key, shown
from pipeline.ingest.sources._lines import is_there, lines_of
from pipeline.ingest.sources._splits import SPLITS, SplitNames, in_key_order, names_there

_LINK = re.compile(r"(\d{1,9})([-?p])(\d{1,9})", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Config:
    """`files` are below the data set's folder, plain or with `.gz` behind; without `{split}` they are train's.

    `languages` says what each sentence is to its record: `{source: de, target: en}`, or `{text: en}` for text of one
    language. `splits` says how the files call a split. `alignment` are the files of word alignments, if there are any:
    links `i-j` between word i of the source and word j of the target, `i?j` or `ipj` where that is only possible,
    counted from `first_word`.
    """

    files: str = "{split}.{language}"
    languages: dict[Role, str] = field(default_factory=lambda: {"source": "de", "target": "en"})
    splits: SplitNames = field(default_factory=dict)
    alignment: str = ""
    first_word: int = 0

    def __post_init__(self) -> None:
        check_ranges(self, first_word=Range(0, 1))
        check_template("files", self.files, split="train", language="de")
        check_template("alignment", self.alignment, split="train")
        if not self.languages or (len(self.languages) > 1 and "{language" not in self.files):
            raise ConfigError(
                "files and languages do not go together", value=self.files,
                allowed="at least one language, and {language} in `files` where there are several",
            )  # fmt: skip
        if self.alignment and not {"source", "target"} <= self.languages.keys():
            raise ConfigError("an alignment joins a source with a target", value=self.languages)


def splits(root: Path, config: Config) -> tuple[str, ...]:
    """Splits that have a file.

    Raises:
        DataError: one of a split's names has no file.
    """
    return tuple(split for split in SPLITS if _names(root, split, config))


def classes(root: Path, config: Config) -> tuple[str, ...]:
    return ()


def _names(root: Path, split: str, config: Config) -> list[str]:
    if "{split" not in config.files and split != "train":
        return []
    return names_there(
        split,
        config.splits,
        lambda name: any(is_there(path) for path in _paths(root, name, config).values()),
        str(root / config.files),
    )


def _paths(root: Path, name: str, config: Config) -> dict[Role, Path]:
    return {
        role: root / config.files.format(split=name, language=language) for role, language in config.languages.items()
    }


def read(root: Path, split: str, config: Config) -> Iterator[RawRecord | Problem]:
    """A record for each line, in ascending key order: `train-000000001`, by the name of the split and from 1.

    Raises:
        DataError: a file is missing or damaged, or the files have not equally many lines.
    """
    return in_key_order(_read(root, name, config) for name in _names(root, split, config))


def _read(root: Path, name: str, config: Config) -> Iterator[RawRecord | Problem]:
    paths = _paths(root, name, config)
    files = [*paths.values(), *([root / config.alignment.format(split=name)] if config.alignment else [])]
    slug = record_key(f"{name}.jpg")  # without its ending
    blank: list[int] = []
    for number, lines in enumerate(itertools.zip_longest(*map(lines_of, files)), start=1):
        if not any(line and line.strip() for line in lines):
            blank.append(number)  # no sentences, unless others follow
            continue
        if None in lines:
            raise DataError(
                "the files of parallel text have not equally many lines",
                value=f"{files[lines.index(None)].name} ends before line {number}",
                where=", ".join(map(str, files)),
                fix="fetch them again, or make them anew from one table: nothing says which lines belong together",
            )
        for passed in blank:
            yield _record(f"{slug}-{passed:09d}", f"{name}:{passed}", [b""] * len(paths), files, config)
        blank.clear()
        yield _record(f"{slug}-{number:09d}", f"{name}:{number}", list(lines), files, config)


def _record(key: str, item: str, lines: list[bytes], files: list[Path], config: Config) -> RawRecord | Problem:
    """The record of one line. `lines` has the sentences' in the order of the languages, then the alignment's."""
    sentences = []
    for (role, language), line, file in zip(config.languages.items(), lines, files, strict=False):
        try:
            sentences.append(Sentence(role=role, language=language, text=line.decode()))
        except UnicodeDecodeError as error:
            detail = shown(repr(line[error.start : error.start + 20]))
            return Problem(reason="not_utf8", kind="record", file=str(file), item_id=item, key=key, detail=detail)
    alignment = _alignment(lines[len(sentences)], config.first_word) if len(lines) > len(sentences) else None
    return RawRecord(
        key=key, image_id=item, annotation_file=str(files[0]), sentences=tuple(sentences), alignment=alignment
    )


def _alignment(line: bytes, first_word: int) -> Alignment:
    """Links of one line; what is no link becomes one to word -1, which the door refuses."""
    links: dict[bool, list[Link]] = {True: [], False: []}
    for part in line.split():
        match = _LINK.fullmatch(part.decode(errors="replace"))
        source, target = (int(match[1]) - first_word, int(match[3]) - first_word) if match else (-1, -1)
        links[match is None or match[2] == "-"].append((source, target))
    return Alignment(source="source", target="target", links=tuple(links[True]), possible_links=tuple(links[False]))
