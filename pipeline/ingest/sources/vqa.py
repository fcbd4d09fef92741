"""VQA v2: open-ended questions, and ten answers each (https://visualqa.org/download.html)."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from contracts.errors import ConfigError, DataError
from contracts.raw import ItemKind, Problem, RawRecord
from contracts.records import Question
from pipeline.ingest.sources._files import (
    Spool,
    check_template,
    forward_slashes,
    is_inside,
    record_key,
    shown,
    stream_list,
    whole_number,
)
from pipeline.ingest.sources._splits import (
    SPLITS,
    Split,
    SplitNames,
    file_splits,
    in_key_order,
    names_there,
)
from pipeline.system.reading import is_file

_LABELS = ("multiple_choice_answer", "question_type", "answer_type")  # of a question's answers


@dataclass(frozen=True, kw_only=True)
class Config:
    """Paths below the data set's folder; a split exists if its question file does, under a name that `splits` gives it
    (`{val: valid}`; a list is read as one). `questions` without `{split}` is the file of one split: of the one in
    `only`, else of train.

    `images` also takes `{image_id}`. The official images of VQA v2 are COCO 2014:
    `{split}2014/COCO_{split}2014_{image_id:012d}.jpg`. A split without an annotation file is unlabelled: its
    questions have no answers.
    """

    questions: str = "vqa/v2_OpenEnded_mscoco_{split}2014_questions.json"
    annotations: str = "vqa/v2_mscoco_{split}2014_annotations.json"
    images: str = "{split}2017/{image_id:012d}.jpg"
    splits: SplitNames = field(default_factory=dict)
    only: tuple[Split, ...] = SPLITS

    def __post_init__(self) -> None:
        check_template("questions", self.questions, split="train")
        check_template("annotations", self.annotations, split="train")
        check_template("images", self.images, split="train", image_id=1)
        if not self.only:
            raise ConfigError("only is empty", value=self.only, allowed=", ".join(SPLITS))
        if "{image_id" not in self.images:
            raise ConfigError("images names the same file for every image", value=self.images, allowed="{image_id}")


def splits(root: Path, config: Config) -> tuple[str, ...]:
    """Splits of `config.only` that have a question file."""
    return tuple(split for split in SPLITS if _names(root, split, config))


def _names(root: Path, split: str, config: Config) -> list[str]:
    """The names under which a split has a question file."""
    if split not in file_splits(config.questions, config.only):
        return []
    return names_there(
        split,
        config.splits,
        lambda name: is_file(root / config.questions.format(split=name)),
        f"{root}: {config.questions}",
    )


def classes(root: Path, config: Config) -> tuple[str, ...]:
    """VQA knows no classes."""
    return ()


def read(root: Path, split: str, config: Config) -> Iterator[RawRecord | Problem]:
    """One record per image that has questions, in ascending key order, after the problems found in the files.

    Every question of the question file is in a record or one Problem of kind "question"; entries of the answer file
    that belong to none of them are Problems of kind "answer".

    Raises:
        DataError: a JSON file is broken or lists nothing.
    """
    return in_key_order([_read_name(root, name, config) for name in _names(root, split, config)])


def _read_name(root: Path, name: str, config: Config) -> Iterator[RawRecord | Problem]:
    question_file = root / config.questions.format(split=name)
    answer_file = root / config.annotations.format(split=name)
    labelled = is_file(answer_file)
    numbers, images = _Numbers(), _Numbers()
    with Spool() as questions, Spool() as answers:
        asked = yield from _read_questions(question_file, questions, numbers, images)
        if labelled:
            yield from _read_answers(answer_file, asked, answers, numbers)
        files = yield from _image_files(question_file, questions, numbers, images, name, config)
        for key, file, group in sorted((record_key(file), file, group) for group, file in files.items()):
            joined: list[Question] = []
            for number, text in questions.of(group):
                question = _join(numbers.id(number), text, images.id(group), answers.of(number) if labelled else None)
                if isinstance(question, Question):
                    joined.append(question)
                else:
                    reason, detail = question
                    yield _problem(reason, answer_file, numbers.id(number), key, detail)
            yield RawRecord(
                key=key,
                image_id=images.id(group),
                image=root / file,
                annotation_file=str(question_file),
                questions=tuple(joined),
            )


class _Numbers:
    """Ids as the numbers that a `Spool` takes: whole numbers from 0 on as they are, texts as -1, -2 and so on.

    A text that is how a whole number is written is that number: one file may have 25 where the other has "25".
    """

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._texts: list[str] = []

    def of(self, value: Any) -> int | None:
        """The number of an id; None for what is none: no whole number from 0 on and no text."""
        if isinstance(value, str) and value.isascii() and value.isdigit() and str(int(value[:20])) == value:
            value = int(value)
        number = whole_number(value)
        if number is not None:
            return number if number >= 0 else None
        if not isinstance(value, str) or not value.strip():
            return None
        if value not in self._numbers:
            self._texts.append(value)
            self._numbers[value] = -len(self._texts)
        return self._numbers[value]

    def id(self, number: int) -> int | str:
        return number if number >= 0 else self._texts[-1 - number]


def _image_files(
    where: Path, questions: Spool, numbers: _Numbers, images: _Numbers, name: str, config: Config
) -> Generator[Problem, None, dict[int, str]]:
    """Image number -> its file; a Problem for each question on an image whose id gives no file's name."""
    files: dict[int, str] = {}
    for group in questions.groups.tolist():
        try:
            file = forward_slashes(config.images.format(split=name, image_id=images.id(group)))
        except ValueError:  # a text where the name has digits
            file = ""
        if is_inside(file):
            files[group] = file
            continue
        detail = f"{shown(images.id(group))} in {config.images}"
        for number, _ in questions.of(group):
            yield _problem("bad_image_id", where, numbers.id(number), detail=detail)
    return files


def _join(question_id: int | str, text: str, image_id: int | str, answers: list | None) -> Question | tuple[str, str]:
    """The question with its answers, or the reason why they do not go together, with what was found."""
    if answers is None:
        return Question(question_id=question_id, text=text)
    if not answers:
        return "question_without_answers", ""
    answer_image, texts, most_common, question_type, answer_type = answers[0]
    if isinstance(texts, str):
        return "bad_answers", texts
    if answer_image is not None and answer_image != image_id:
        return "question_image_mismatch", shown(answer_image)
    if not texts:
        return "question_without_answers", ""
    return Question(
        question_id=question_id,
        text=text,
        answers=tuple(texts),
        multiple_choice_answer=most_common,
        question_type=question_type,
        answer_type=answer_type,
    )


@dataclass(frozen=True)
class _Asked:
    """The numbers of the questions that are kept, sorted, and of those that were dropped already."""

    kept: np.ndarray
    dropped: set[int]


def _read_questions(path: Path, spool: Spool, numbers: _Numbers, images: _Numbers) -> Generator[Problem, None, _Asked]:
    """Put questions into `spool` by image; yields a Problem for each that cannot be used."""
    ids: list[int] = []
    dropped: set[int] = set()
    position = -1
    for position, item in enumerate(stream_list(path, "questions")):
        if not isinstance(item, dict):
            yield _problem("not_an_object", path, f"questions[{position}]")
            continue
        number, image = numbers.of(item.get("question_id")), images.of(item.get("image_id"))
        if number is None:
            yield _problem("bad_annotation_id", path, item.get("question_id"))
        elif image is None:
            dropped.add(number)
            yield _problem("bad_image_id", path, numbers.id(number), detail=shown(item.get("image_id")))
        elif not isinstance(item.get("question"), str):
            dropped.add(number)
            yield _problem("bad_question", path, numbers.id(number))
        else:
            spool.add(image, number, [number, item["question"]])
            ids.append(number)
    if position < 0:
        raise DataError("this file lists no questions", where=f"{path}: questions")
    for repeated in spool.seal():
        yield _problem("duplicate_annotation_id", path, numbers.id(int(repeated)))
    return _Asked(np.unique(np.asarray(ids, np.int64)), dropped)


def _read_answers(path: Path, asked: _Asked, spool: Spool, numbers: _Numbers) -> Iterator[Problem]:
    """Put answers into `spool` by question; what is wrong with a question's answers is told with the question."""
    images = _Numbers()
    for position, item in enumerate(stream_list(path, "annotations")):
        if not isinstance(item, dict):
            yield _problem("not_an_object", path, f"annotations[{position}]", kind="answer")
            continue
        number = numbers.of(item.get("question_id"))
        if number is None:
            yield _problem("bad_annotation_id", path, item.get("question_id"), kind="answer")
            continue
        place = int(np.searchsorted(asked.kept, number))
        if place == len(asked.kept) or asked.kept[place] != number:
            if number not in asked.dropped:
                yield _problem("unknown_question", path, numbers.id(number), kind="answer")
            continue
        texts = _answer_texts(item.get("answers"))
        found = shown(item.get("answers"), 200) if texts is None else texts
        image = images.of(item.get("image_id"))
        labels = [answer_text(item.get(name)) or "" for name in _LABELS]
        spool.add(number, number, [None if image is None else images.id(image), found, *labels])
    for repeated in spool.seal():
        yield _problem("duplicate_annotation_id", path, numbers.id(int(repeated)), kind="answer")


def _answer_texts(answers: Any) -> list[str] | None:
    if not isinstance(answers, list):
        return None
    texts = [answer_text(answer.get("answer")) if isinstance(answer, dict) else None for answer in answers]
    known = [text for text in texts if text is not None]
    return known if len(known) == len(texts) else None


def answer_text(value: Any) -> str | None:
    """A text, or a number as one: "how many" is often answered with 2 in place of "2"."""
    if isinstance(value, str):
        return value
    number = whole_number(value)
    if number is not None:
        return str(number)
    return str(value) if isinstance(value, float) and math.isfinite(value) else None


def _problem(
    reason: str, path: Path, item_id: object, key: str = "", detail: str = "", kind: ItemKind = "question"
) -> Problem:
    return Problem(reason=reason, kind=kind, file=str(path), item_id=shown(item_id), key=key, detail=detail)
