"""Questions that need one look, two looks or none, in the published layouts of VQA v2 and of Visual7W.

Layout under the root: `images/v7w_<id>.jpg`; `vqa/v2_OpenEnded_mscoco_{train,val}2014_questions.json` and
`vqa/v2_mscoco_{train,val}2014_annotations.json`; `dataset_v7w_telling.json` and `dataset_v7w_pointing.json`, the
official files, whose images name their split.

Open-ended questions (1511.02274's kinds): whether something is there, what color or shape it has, and, in two steps,
what is beside it. Multiple choice (1511.03416): the wrong candidates are of the kind of the right one and true of other
objects of the same picture, so that neither the question nor the picture alone tells which is right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from contracts.ranges import COUNT, check_ranges
from pipeline.ingest.worlds._grid import (
    COLOR_NAMES,
    PLACES,
    SHAPES,
    STEPS,
    Picture,
    Thing,
    draw_picture,
)
from pipeline.ingest.worlds._output import RANGES, SplitSizes, encode_jpeg, image_rng, write_json

NUM_ANSWERS = 10
_NUM_CANDIDATES = 4
_NUMBERS = ("none", "one", "two", "three", "four", "five", "six")
_SPLITS = {"train": ("train2014", 24, 0), "val": ("val2014", 25, 500_000)}  # name in VQA v2, stream, first id


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    Attributes:
        image_size: sides of a picture in pixels.
        open_ended: existence, attribute and relation questions of a picture, so many of each at most.
        choices: telling questions of a picture at most, and as many pointing ones.
    """

    seed: int = 1
    image_size: int = 96
    num_records: SplitSizes = field(default=SplitSizes(train=1600, val=240))
    jpeg_quality: int = 92
    open_ended: int = 3
    choices: int = 6

    def __post_init__(self) -> None:
        ranges = {name: RANGES[name] for name in ("seed", "image_size", "jpeg_quality")}
        check_ranges(self, open_ended=COUNT, choices=COUNT, **ranges)


@dataclass(frozen=True, kw_only=True)
class OpenQuestion:
    """`kind` is what VQA v2 calls the question type: "is there", "what color", "what shape" or "what is", the one that
    needs two looks."""

    text: str
    kind: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Of `wrong` there are three. They and `right` are texts, or the boxes' places among the picture's things."""

    text: str
    right: str | int
    wrong: tuple[str, ...] | tuple[int, ...]

    @property
    def kind(self) -> str:
        return self.text.split()[0].lower()


def generate(root: Path, config: Config, progress: Callable[[int], None]) -> None:
    """Write both splits under `root`.

    Args:
        progress: called with the number of pictures done since the last call.
    """
    (root / "images").mkdir(parents=True, exist_ok=True)
    telling, pointing = _Official("telling"), _Official("pointing")
    for split, (name, _, first) in _SPLITS.items():
        questions: list[dict[str, Any]] = []
        answers: list[dict[str, Any]] = []
        for index in range(getattr(config.num_records, split)):
            image_id = first + index + 1
            picture, asked, told, pointed = scene_of(config, split, index)
            file = f"v7w_{image_id}.jpg"
            (root / "images" / file).write_bytes(encode_jpeg(picture.image, config.jpeg_quality))
            for k, question in enumerate(asked):
                question_id = image_id * 1000 + k
                questions.append({"image_id": image_id, "question": question.text, "question_id": question_id})
                answers.append(_annotation(question, image_id, question_id))
            telling.add(image_id, file, split, told)
            pointing.add(image_id, file, split, pointed, picture.things)
            progress(1)
        head = {"data_type": "mscoco", "data_subtype": name}
        asked_file = root / f"vqa/v2_OpenEnded_mscoco_{name}_questions.json"
        write_json(asked_file, head | {"task_type": "Open-Ended", "questions": questions})
        write_json(root / f"vqa/v2_mscoco_{name}_annotations.json", head | {"annotations": answers})
    telling.write(root)
    pointing.write(root)


def scene_of(config: Config, split: str, index: int) -> tuple[Picture, list[OpenQuestion], list[Choice], list[Choice]]:
    """The `index`-th picture of a split with its open, telling and pointing questions."""
    rng = image_rng(config.seed, _SPLITS[split][1], index)
    picture = draw_picture(rng, config.image_size)
    return (
        picture,
        _open_ended(rng, picture, config.open_ended),
        _some(rng, _TELLING, picture, config.choices),
        _some(rng, _POINTING, picture, config.choices),
    )


# ---- open-ended


def _open_ended(rng: np.random.Generator, picture: Picture, most: int) -> list[OpenQuestion]:
    kinds = (_existence(rng, picture), _attributes(picture), _relations(picture))
    return [one for kind in kinds for one in _drawn(rng, list(kind), most)]


def _existence(rng: np.random.Generator, picture: Picture) -> list[OpenQuestion]:
    """As many with yes as with no; of a color, of a shape, or of both, where a near miss has one of the two."""
    there = {thing.name for thing in picture.things}
    there |= {thing.color for thing in picture.things} | {thing.shape for thing in picture.things}
    near = [f"{thing.color} {shape}" for thing in picture.things for shape in SHAPES]
    near += [f"{color} {thing.shape}" for thing in picture.things for color in COLOR_NAMES]
    absent = [one for one in (*near, *COLOR_NAMES * 2, *SHAPES * 2) if one not in there]
    yes, no = rng.permutation(sorted(there)).tolist(), rng.permutation(sorted(set(absent))).tolist()
    count = min(len(yes), len(no))
    pairs = [(one, "yes") for one in yes[:count]] + [(one, "no") for one in no[:count]]
    return [
        OpenQuestion(text=f"Is there a {name}{' object' if name in COLOR_NAMES else ''}?", kind="is there", answer=said)
        for name, said in pairs
    ]


def _attributes(picture: Picture) -> Iterable[OpenQuestion]:
    for thing in picture.only("shape"):
        yield OpenQuestion(text=f"What color is the {thing.shape}?", kind="what color", answer=thing.color)
    for thing in picture.only("color"):
        yield OpenQuestion(text=f"What shape is the {thing.color} object?", kind="what shape", answer=thing.shape)


def _relations(picture: Picture) -> Iterable[OpenQuestion]:
    for thing in picture.things:
        for side in STEPS:
            other = picture.beside(thing, side)
            if other is not None:
                text = f"What is {side} the {thing.name}?"
                yield OpenQuestion(text=text, kind="what is", answer=other.shape)


def _annotation(question: OpenQuestion, image_id: int, question_id: int) -> dict[str, Any]:
    types = {"yes": "yes/no", "no": "yes/no"}
    return {
        "question_type": question.kind,
        "multiple_choice_answer": question.answer,
        "answers": [
            {"answer": question.answer, "answer_confidence": "yes", "answer_id": i + 1} for i in range(NUM_ANSWERS)
        ],
        "image_id": image_id,
        "answer_type": types.get(question.answer, "other"),
        "question_id": question_id,
    }


# ---- multiple choice


def _some(
    rng: np.random.Generator,
    kinds: Iterable[Callable[[np.random.Generator, Picture], Iterable[Choice]]],
    picture: Picture,
    most: int,
) -> list[Choice]:
    """Of each kind about as many, `most` in all."""
    drawn = [_drawn(rng, list(kind(rng, picture)), most) for kind in kinds]
    in_turn = [one for row in range(most) for questions in drawn for one in questions[row : row + 1]]
    return in_turn[:most]


def _what_color(rng: np.random.Generator, picture: Picture) -> Iterable[Choice]:
    for thing in picture.only("shape"):
        others = [other.color for other in picture.things]
        yield _told(rng, f"What color is the {thing.shape}?", thing.color, others, COLOR_NAMES)


def _what_shape(rng: np.random.Generator, picture: Picture) -> Iterable[Choice]:
    for thing in picture.only("color"):
        others = [other.shape for other in picture.things]
        yield _told(rng, f"What shape is the {thing.color} object?", thing.shape, others, SHAPES)


def _where(rng: np.random.Generator, picture: Picture) -> Iterable[Choice]:
    for thing in picture.things:
        others = [PLACES[other.place] for other in picture.things]
        yield _told(rng, f"Where is the {thing.name}?", PLACES[thing.place], others, PLACES)


def _who(rng: np.random.Generator, picture: Picture) -> Iterable[Choice]:
    for thing in picture.things:
        others = [f"the {other.name}" for other in picture.things]
        yield _told(rng, f"Who is {PLACES[thing.place]}?", f"the {thing.name}", others, ())


def _how_many(rng: np.random.Generator, picture: Picture) -> Iterable[Choice]:
    """Each count that there is as often as any other."""
    by_count: dict[int, list[str]] = {}
    for shape in SHAPES:
        by_count.setdefault(sum(thing.shape == shape for thing in picture.things), []).append(shape)
    for count, shapes in sorted(by_count.items()):
        shape = shapes[int(rng.integers(len(shapes)))]
        others = [_NUMBERS[other] for other in by_count]
        text = f"How many {'crosses' if shape == 'cross' else f'{shape}s'} are there?"
        yield _told(rng, text, _NUMBERS[count], others, _NUMBERS[:_NUM_CANDIDATES])


def _which_name(rng: np.random.Generator, picture: Picture) -> Iterable[Choice]:
    for i, thing in enumerate(picture.things):
        yield _pointed(rng, f"Which object is the {thing.name}?", i, picture.things)


def _which_color(rng: np.random.Generator, picture: Picture) -> Iterable[Choice]:
    for thing in picture.only("color"):
        yield _pointed(rng, f"Which object is {thing.color}?", picture.things.index(thing), picture.things)


def _which_place(rng: np.random.Generator, picture: Picture) -> Iterable[Choice]:
    for i, thing in enumerate(picture.things):
        yield _pointed(rng, f"Which object is {PLACES[thing.place]}?", i, picture.things)


_TELLING = (_what_color, _what_shape, _where, _who, _how_many)
_POINTING = (_which_name, _which_color, _which_place)


def _told(rng: np.random.Generator, text: str, right: str, near: Iterable[str], far: Iterable[str]) -> Choice:
    """Wrong candidates are what is true of other objects of the picture, then any of the kind."""
    own, any_other = (sorted(set(names) - {right}) for names in (near, far))
    names = [*rng.permutation(own).tolist(), *rng.permutation(sorted(set(any_other) - set(own))).tolist()]
    wrong = tuple(_sentence(name) for name in names[: _NUM_CANDIDATES - 1])
    return Choice(text=text, right=_sentence(right), wrong=wrong)


def _pointed(rng: np.random.Generator, text: str, right: int, things: tuple[Thing, ...]) -> Choice:
    """Wrong candidates share the right one's color or shape where there is such a one."""
    order = rng.permutation(len(things)).tolist()
    thing = things[right]
    alike = [i for i in order if i != right and (things[i].color == thing.color or things[i].shape == thing.shape)]
    others = [i for i in order if i != right and i not in alike]
    return Choice(text=text, right=right, wrong=tuple([*alike, *others][: _NUM_CANDIDATES - 1]))


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _drawn(rng: np.random.Generator, items: list[Any], most: int) -> list[Any]:
    return [items[i] for i in rng.permutation(len(items))[:most]]


class _Official:
    """One of the two published files on its way to disk."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._images: list[dict[str, Any]] = []
        self._boxes: list[dict[str, Any]] = []
        self._num_pairs = 0

    def add(self, image_id: int, file: str, split: str, asked: list[Choice], things: tuple[Thing, ...] = ()) -> None:
        """The questions of a picture; `things` are what those of the pointing file point at."""
        first = len(self._boxes) + 1
        for i, thing in enumerate(things):
            x1, y1, x2, y2 = thing.box
            box = {"box_id": first + i, "image_id": image_id, "name": thing.name}
            self._boxes.append(box | {"x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1})
        pairs = []
        for choice in asked:
            self._num_pairs += 1
            right, *wrong = (
                candidate if isinstance(candidate, str) else first + candidate
                for candidate in (choice.right, *choice.wrong)
            )
            pairs.append({
                "qa_id": self._num_pairs, "image_id": image_id, "question": choice.text, "answer": right,
                "multiple_choices": wrong, "type": choice.kind,
            })  # fmt: skip
        entry = {"image_id": image_id, "filename": file, "split": split, "qa_pairs": pairs}
        self._images.append(entry)

    def write(self, root: Path) -> None:
        document: dict[str, Any] = {"dataset": f"visual7w-{self._kind}"}
        if self._kind == "pointing":
            document["boxes"] = self._boxes
        write_json(root / f"dataset_v7w_{self._kind}.json", document | {"images": self._images})
