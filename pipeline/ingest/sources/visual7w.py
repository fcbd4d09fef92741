"""Visual7W: multiple-choice questions, answered by a text ("telling") or by pointing at a box (1511.03416).

The official files, `dataset_v7w_telling.json` and `dataset_v7w_pointing.json` (a copy is often called `dataset.json`):
`{images: [{image_id, filename, split, qa_pairs: [{qa_id, question, answer, multiple_choices, type}]}], boxes: [..]}`.
`multiple_choices` are the three wrong ones. Those of pointing, and its answers, are ids of `boxes: [{box_id, name, x,
y, width, height}]`.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from contracts.errors import ConfigError, DataError
from contracts.raw import ItemKind, Problem, RawRecord
from contracts.records import Box, Question
from contracts.seeds import derive_seed
from pipeline.ingest.sources._files import (
    Spool,
    forward_slashes,
    is_inside,
    number,
    record_key,
    shown,
    stream_list,
    whole_number,
)
from pipeline.ingest.sources._splits import SPLITS, Split, SplitNames, check_all_there, split_names
from pipeline.system.reading import is_file


@dataclass(frozen=True, kw_only=True)
class Config:
    """Paths below the data set's folder.

    Attributes:
        questions: the JSON file; None: the one of `published` that is there. Telling and pointing are two data sets: a
            question's number is unique in its own file only.
        images: the folder of the pictures, which are called as `filename` says.
        splits: what the file calls a split, where it does not call it so: `{val: dev}`; a list is read as one.
        only: limits the splits.
    """

    published: ClassVar[tuple[str, ...]] = ("dataset_v7w_telling.json", "dataset_v7w_pointing.json", "dataset.json")
    questions: str | None = None
    images: str = "images"
    splits: SplitNames = field(default_factory=dict)
    only: tuple[Split, ...] = SPLITS

    def __post_init__(self) -> None:
        if self.questions is not None and not is_inside(self.questions):
            raise ConfigError("questions is no path below the data set's folder", value=self.questions)
        if not self.only:
            raise ConfigError("only is empty", value=self.only, allowed=", ".join(SPLITS))


def _file(root: Path, config: Config) -> Path | None:
    """The file to read, if it is there.

    Raises:
        ConfigError: there are several, and the settings name none.
    """
    names = config.published if config.questions is None else (config.questions,)
    found = [name for name in names if is_file(root / name)]
    if len(found) > 1:
        raise ConfigError(
            "there are several files of questions", value=found, where=str(root),
            fix=f"name one: `questions: {found[0]}`; telling and pointing are two data sets",
        )  # fmt: skip
    return root / found[0] if found else None


def splits(root: Path, config: Config) -> tuple[str, ...]:
    """Splits of `config.only` that an image of the file is in."""
    path = _file(root, config)
    named = {str(image.get("split")) for image in _images(path)} if path is not None else set()
    found = {split for split in config.only if named & set(split_names(split, config.splits))}
    for split in found:
        check_all_there(split, split_names(split, config.splits), named, str(path))
    return tuple(split for split in SPLITS if split in found)


def classes(root: Path, config: Config) -> tuple[str, ...]:
    """Visual7W's questions know no classes."""
    return ()


def read(root: Path, split: str, config: Config) -> Iterator[RawRecord | Problem]:
    """One record per image that has questions, in ascending key order, after the problems found in the file.

    Candidates are shuffled by a seed of the question's number: in the file the right one is told apart by its place.

    Raises:
        DataError: the JSON file is broken or lists no images.
    """
    path, names = _file(root, config), split_names(split, config.splits)
    assert path is not None, "a split was found in it"
    is_first = split == next(one for one in SPLITS if one in config.only)  # what is in no split is told once
    boxes = _Boxes(path)
    yield from boxes.problems if is_first else ()
    with Spool() as asked:
        images: dict[str, tuple[str, int | str]] = {}
        for position, image in enumerate(_images(path)):
            if image.get("split") in names:
                yield from _read_image(image, position, path, boxes, asked, images, config)
            elif is_first and not isinstance(image.get("split"), str):
                yield _problem("bad_image_entry", path, f"images[{position}]", "it is in no split")
        for repeated in asked.seal():
            yield _problem("duplicate_annotation_id", path, repeated)
        for key, (file, image_id) in sorted(images.items()):
            questions = tuple(_question(*values) for values in asked.of(key))
            if questions:
                yield RawRecord(
                    key=key, image_id=image_id, image=root / file, annotation_file=str(path), questions=questions
                )


def _images(path: Path) -> Iterator[dict[str, Any]]:
    """The entries of a file; one that is no object is in no split.

    Raises:
        DataError: it lists none.
    """
    none = True
    for image in stream_list(path, "images"):
        none = False
        yield image if isinstance(image, dict) else {}
    if none:
        raise DataError("this file lists no images", where=f"{path}: images", allowed="Visual7W's dataset.json")


def _read_image(
    image: dict[str, Any],
    position: int,
    path: Path,
    boxes: _Boxes,
    asked: Spool,
    images: dict[str, tuple[str, int | str]],
    config: Config,
) -> Iterator[Problem]:
    """Put the questions of an image into `asked` by its key; a Problem for each that cannot be used."""
    name, pairs = image.get("filename"), image.get("qa_pairs")
    file = posixpath.join(config.images, forward_slashes(name)) if isinstance(name, str) and name else ""
    if not isinstance(pairs, list) or not is_inside(file):
        reason = "unsafe_path" if file and isinstance(pairs, list) else "bad_image_entry"
        yield _problem(reason, path, f"images[{position}]", shown(name))
        return
    key = record_key(file)
    image_id = image.get("image_id")
    images.setdefault(key, (file, image_id if isinstance(image_id, int | str) else position))
    for place, pair in enumerate(pairs):
        read = _pair(pair, boxes)
        if isinstance(read, str):
            item = pair.get("qa_id") if isinstance(pair, dict) else f"images[{position}].qa_pairs[{place}]"
            yield _problem(read, path, item, shown(pair), key)
        else:
            asked.add(key, read[0], read)


def _pair(pair: Any, boxes: _Boxes) -> tuple[Any, ...] | str:
    """Number, text, type, the candidates' texts, the right one first, and their boxes, where they are boxes; or
    the reason why it cannot be used."""
    if not isinstance(pair, dict):
        return "not_an_object"
    qa_id = whole_number(pair.get("qa_id"))
    if qa_id is None or qa_id < 0:
        return "bad_annotation_id"
    text, wrong = pair.get("question"), pair.get("multiple_choices")
    if not isinstance(text, str):
        return "bad_question"
    if not isinstance(wrong, list) or not wrong:
        return "bad_choices"
    candidates = [pair.get("answer"), *wrong]
    if boxes.there:
        found = [boxes.of(candidate) for candidate in candidates]
        if None in found:
            return "bad_choices"
    elif not all(isinstance(candidate, str) for candidate in candidates):
        return "bad_choices"
    else:
        found = []
    kind = pair.get("type")
    return qa_id, text, kind if isinstance(kind, str) else "", [str(one) for one in candidates], found


def _question(question_id: int, text: str, kind: str, candidates: list[str], boxes: list[Box]) -> Question:
    order = np.random.default_rng(derive_seed(question_id)).permutation(len(candidates)).tolist()
    first = text.split()[0].lower() if text.split() else ""
    return Question(
        question_id=question_id,
        text=text,
        answers=() if boxes else (candidates[0],),
        multiple_choice_answer="" if boxes else candidates[0],
        question_type=kind or first,
        candidates=tuple(candidates[i] for i in order),
        candidate_boxes=tuple(boxes[i] for i in order if boxes),
        answer_index=order.index(0),
    )


class _Boxes:
    """The boxes of a pointing file by id, in 40 bytes each; of a telling file there are none.

    Attributes:
        problems: with those that are none.
    """

    def __init__(self, path: Path):
        ids: list[int] = []
        corners: list[Box] = []
        self.problems: list[Problem] = []
        for position, box in enumerate(stream_list(path, "boxes")):
            box_id = whole_number(box.get("box_id")) if isinstance(box, dict) else None
            sides = [number(box.get(name))[0] for name in ("x", "y", "width", "height")] if box_id is not None else []
            if box_id is None or None in sides:
                item = f"boxes[{position}]" if box_id is None else box_id
                self.problems.append(_problem("bad_box", path, item, shown(box), kind="object"))
                continue
            x, y, width, height = (side for side in sides if side is not None)
            ids.append(box_id)
            corners.append((x, y, x + width, y + height))
        order = np.argsort(np.array(ids, np.int64), kind="stable")
        self._ids = np.array(ids, np.int64)[order]
        self._corners = np.array(corners, np.float64).reshape(-1, 4)[order]

    @property
    def there(self) -> bool:
        return bool(len(self._ids))

    def of(self, box_id: Any) -> Box | None:
        """(x1, y1, x2, y2) as written: x and y may be -1, and boxes may reach outside, which the door clips."""
        found = whole_number(box_id)
        place = int(np.searchsorted(self._ids, found)) if found is not None else len(self._ids)
        if place == len(self._ids) or self._ids[place] != found:
            return None
        x1, y1, x2, y2 = self._corners[place].tolist()
        return x1, y1, x2, y2


def _problem(
    reason: str, path: Path, item_id: object, detail: str = "", key: str = "", kind: ItemKind = "question"
) -> Problem:
    return Problem(reason=reason, kind=kind, file=str(path), item_id=shown(item_id), key=key, detail=detail)
