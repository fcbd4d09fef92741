"""VQA v2: open-ended questions, and ten answers each (https://visualqa.org/download.html)."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from contracts.errors import ConfigError, DataError
from contracts.records import Problem, Question, RawRecord
from pipeline.reading import is_file
from pipeline.sources._files import (
    Spool,
    annotation_id,
    check_template,
    record_key,
    shown,
    stream_list,
    whole_number,
)
from pipeline.sources._splits import SPLITS, Split, SplitNames, check_all_there, file_splits, in_key_order, split_names


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
        if "{image_id" not in self.images:
            raise ConfigError("images names the same file for every image", value=self.images, allowed="{image_id}")


def splits(root: Path, config: Config) -> tuple[str, ...]:
    """Splits of `config.only` that have a question file."""
    return tuple(split for split in SPLITS if _names(root, split, config))


def _names(root: Path, split: str, config: Config) -> list[str]:
    """The names under which a split has a question file."""
    if split not in file_splits(config.questions, config.only):
        return []
    names = split_names(split, config.splits)
    found = [name for name in names if is_file(root / config.questions.format(split=name))]
    if found:
        check_all_there(split, names, found, f"{root}: {config.questions}")
    return found


def classes(root: Path, config: Config) -> tuple[str, ...]:
    """VQA knows no classes."""
    return ()


def read(root: Path, split: str, config: Config) -> Iterator[RawRecord | Problem]:
    """One record per image that has questions, in ascending key order, after the problems found in the files.

    Raises:
        DataError: a JSON file is broken or lists nothing.
    """
    return in_key_order([_read_name(root, name, config) for name in _names(root, split, config)])


def _read_name(root: Path, name: str, config: Config) -> Iterator[RawRecord | Problem]:
    question_file = root / config.questions.format(split=name)
    answer_file = root / config.annotations.format(split=name)
    labelled = is_file(answer_file)
    with Spool() as questions, Spool() as answers:
        question_ids = yield from _read_questions(question_file, questions)
        if labelled:
            yield from _read_answers(answer_file, question_ids, answers)
        images = {i: config.images.format(split=name, image_id=i) for i in questions.groups.tolist()}
        for key, image_id in sorted((record_key(image), i) for i, image in images.items()):
            joined: list[Question] = []
            for number, text in questions.of(image_id):
                question = _join(number, text, image_id, answers.of(number) if labelled else None)
                if isinstance(question, Question):
                    joined.append(question)
                else:
                    yield _problem(question, answer_file, number, key)
            yield RawRecord(
                key=key,
                image_id=image_id,
                image=root / images[image_id],
                annotation_file=str(question_file),
                questions=tuple(joined),
            )


def _join(number: int, text: str, image_id: int, answers: list | None) -> Question | str:
    """The question with its answers, or the reason why they do not go together."""
    if answers is None:
        return Question(question_id=number, text=text)
    if not answers:
        return "question_without_answers"
    answer_image, texts, most_common, question_type, answer_type = answers[0]
    if answer_image != image_id:
        return "question_image_mismatch"
    if not texts:
        return "question_without_answers"
    return Question(
        question_id=number,
        text=text,
        answers=tuple(texts),
        multiple_choice_answer=most_common,
        question_type=question_type,
        answer_type=answer_type,
    )


def _read_questions(path: Path, spool: Spool) -> Generator[Problem, None, np.ndarray]:
    """Put questions into `spool` by image; yields Problems, returns the sorted ids of the usable questions."""
    ids: list[int] = []
    position = -1
    for position, item in enumerate(stream_list(path, "questions")):
        number = annotation_id(item.get("question_id")) if isinstance(item, dict) else None
        if not isinstance(item, dict):
            yield _problem("not_an_object", path, f"questions[{position}]")
        elif number is None:
            yield _problem("bad_annotation_id", path, item.get("question_id"))
        elif (image_id := _image_id(item.get("image_id"))) is None:
            yield _problem("bad_image_id", path, number, detail=shown(item.get("image_id")))
        elif not isinstance(item.get("question"), str):
            yield _problem("bad_question", path, number)
        else:
            spool.add(image_id, number, [number, item["question"]])
            ids.append(number)
    if position < 0:
        raise DataError("this file lists no questions", where=f"{path}: questions")
    for repeated in spool.seal():
        yield _problem("duplicate_annotation_id", path, repeated)
    return np.unique(np.asarray(ids, np.int64))


def _read_answers(path: Path, question_ids: np.ndarray, spool: Spool) -> Iterator[Problem]:
    """Put answers into `spool` by question."""
    for position, item in enumerate(stream_list(path, "annotations")):
        number = annotation_id(item.get("question_id")) if isinstance(item, dict) else None
        if not isinstance(item, dict):
            yield _problem("not_an_object", path, f"annotations[{position}]")
            continue
        if number is None:
            yield _problem("bad_annotation_id", path, item.get("question_id"))
            continue
        place = int(np.searchsorted(question_ids, number))
        texts = _answer_texts(item.get("answers"))
        if place == len(question_ids) or question_ids[place] != number:
            yield _problem("unknown_question", path, number)
        elif texts is None:
            yield _problem("bad_answers", path, number, detail=shown(item.get("answers"), 200))
        else:
            labels = [_text(item.get(name)) for name in ("multiple_choice_answer", "question_type", "answer_type")]
            spool.add(number, number, [_image_id(item.get("image_id")), texts, *labels])
    for repeated in spool.seal():
        yield _problem("duplicate_annotation_id", path, repeated)


def _image_id(value: Any) -> int | None:
    number = whole_number(value)
    return number if number is not None and number >= 0 else None


def _answer_texts(answers: Any) -> list[str] | None:
    if not isinstance(answers, list):
        return None
    texts = [answer.get("answer") if isinstance(answer, dict) else None for answer in answers]
    known = [text for text in texts if isinstance(text, str)]
    return known if len(known) == len(texts) else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _problem(reason: str, path: Path, item_id: object, key: str = "", detail: str = "") -> Problem:
    return Problem(reason=reason, kind="question", file=str(path), item_id=shown(item_id), key=key, detail=detail)
