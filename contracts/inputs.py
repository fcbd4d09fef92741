"""What a trained model is asked with: the inputs that a task names, as they are given and as parts of a record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from contracts.errors import ConfigError
from contracts.records import Box, Question, Record, Role, Sentence

InputName = Literal["image", "clip", "question", "text", "source", "candidates", "boxes"]
FPS = 25.0  # frames a second of a clip that does not say


@dataclass(frozen=True, kw_only=True)
class Clip:
    """The frames of a clip in the order of time.

    Attributes:
        frames: bytes of image files, JPEG or PNG above all, of one size; T of them.
        times_s: of each, in seconds from the clip's start, ascending.
    """

    frames: tuple[bytes, ...]
    times_s: tuple[float, ...]

    @staticmethod
    def even(frames: Sequence[bytes], fps: float = FPS) -> Clip:
        """Frames of which `fps` were taken a second."""
        return Clip(frames=tuple(frames), times_s=tuple(i / fps for i in range(len(frames))))

    def __bool__(self) -> bool:
        return bool(self.frames)


Given = bytes | str | Clip
_KINDS: dict[str, tuple[type, str]] = {"image": (bytes, "the bytes of a file"), "clip": (Clip, "frames and times")}
_FIXES = {
    "image": "name a JPEG or PNG file",
    "clip": "name a folder of frames, or a file that has several: a GIF, a WebP, a video",
}


@dataclass(frozen=True, kw_only=True)
class TextInput:
    """A text that a model is asked with.

    Attributes:
        says: what it is, for a command's help.
        parts: the text -> fields of a record.
        of: a record -> the text, None where it has none.
    """

    says: str
    parts: Callable[[str], dict[str, Any]]
    of: Callable[[Record], str | None]


def _sentence(role: Role, says: str) -> TextInput:
    def of(record: Record) -> str | None:
        found = record.sentence(role)
        return None if found is None else found.text

    return TextInput(says=says, parts=lambda text: {"sentences": (Sentence(role=role, text=text),)}, of=of)


def _candidates(text: str) -> dict[str, Any]:
    """ "red | dark blue": what stands between the bars."""
    return {"candidates": tuple(part.strip() for part in text.split(BAR))}


def _boxes(text: str) -> dict[str, Any]:
    """ "10,20,50,60 | 0,0,9,9": x1,y1,x2,y2 each, in pixels.

    Raises:
        ConfigError: a box is not four numbers.
    """
    boxes: list[Box] = []
    for part in text.split(BAR):
        try:
            x1, y1, x2, y2 = (float(value) for value in part.split(","))
        except ValueError:
            raise ConfigError(
                "a box is four numbers", value=part.strip(), where="boxes", allowed="x1,y1,x2,y2 in pixels",
                fix='name them as "10,20,50,60 | 70,20,90,60"',
            ) from None  # fmt: skip
        boxes.append((x1, y1, x2, y2))
    return {"candidate_boxes": tuple(boxes)}


def _text_candidates(question: Question) -> str | None:
    return f" {BAR} ".join(question.candidates) if question.candidates and not question.candidate_boxes else None


def _text_boxes(question: Question) -> str | None:
    boxes = (",".join(f"{side:g}" for side in box) for box in question.candidate_boxes)
    return f" {BAR} ".join(boxes) or None


# What a question has beside its text: a text -> fields of it, and a question -> the text.
BAR = "|"
OF_A_QUESTION: dict[str, tuple[Callable[[str], dict[str, Any]], Callable[[Question], str | None]]] = {
    "candidates": (_candidates, _text_candidates),
    "boxes": (_boxes, _text_boxes),
}
_MANY = ("candidates", "boxes")


def _of_first_question(name: str) -> Callable[[Record], str | None]:
    return lambda record: OF_A_QUESTION[name][1](record.questions[0]) if record.questions else None


# All inputs but `image`, the bytes of a JPEG or PNG file, and `clip`, a `Clip`.
TEXT_INPUTS: dict[str, TextInput] = {
    "question": TextInput(
        says="the question to answer",
        parts=lambda text: {"questions": (Question(question_id=0, text=text),)},
        of=lambda record: record.questions[0].text if record.questions else None,
    ),
    "text": _sentence("text", "the text to read"),
    "source": _sentence("source", "the sentence to translate"),
    "candidates": TextInput(
        says="one answer | another | a third", parts=lambda text: {}, of=_of_first_question("candidates")
    ),
    "boxes": TextInput(says="x1,y1,x2,y2 | x1,y1,x2,y2", parts=lambda text: {}, of=_of_first_question("boxes")),
}


def check_inputs(given: Mapping[str, Any], wanted: Sequence[InputName], where: str) -> None:
    """Refuse, by name, what a model needs and is not given (a text without a visible character is none), and what it
    is given and does not take.

    Raises:
        ConfigError: in both cases.
    """
    takes = " and ".join(wanted)
    for name in wanted:
        value = given.get(name)
        if not (value.strip() if isinstance(value, str) else value):
            fix = _FIXES[name] if name in _FIXES else f'--{name} "{TEXT_INPUTS[name].says}"'
            raise ConfigError(f"{_a(name)} missing", where=where, allowed=takes, fix=fix)
        kind, allowed = _KINDS.get(name, (str, "text"))
        if not isinstance(value, kind):
            raise ConfigError(f"{_a(name)} of the wrong kind", value=type(value).__name__, where=where, allowed=allowed)
    for other in sorted(given.keys() - set(wanted)):
        shown = {"value": given[other]} if isinstance(given[other], str) else {}
        raise ConfigError(f"this model takes no {other}", where=where, allowed=takes, fix="leave it out", **shown)


def text_parts(given: Mapping[str, Any]) -> dict[str, Any]:
    """The texts of checked inputs as fields of a record.

    Raises:
        ConfigError: boxes that are none.
    """
    parts: dict[str, Any] = {}
    for name, text_input in TEXT_INPUTS.items():
        if name in given:
            for field, values in text_input.parts(given[name]).items():
                parts[field] = (*parts.get(field, ()), *values)
    for name, (read, _) in OF_A_QUESTION.items():
        if name in given:
            (question,) = parts["questions"]
            parts["questions"] = (replace(question, **read(given[name])),)
    return parts


def inputs_of(record: Record, wanted: Sequence[InputName]) -> dict[str, Given]:
    """What a record would be asked with.

    Raises:
        ConfigError: it lacks one of them.
    """
    if beside := [name for name in wanted if name in OF_A_QUESTION]:  # the first question that has all of them
        of_all = (q for q in record.questions if all(OF_A_QUESTION[name][1](q) for name in beside))
        record = replace(record, questions=tuple(of_all))
    given: dict[str, Given | None] = {name: _given(record, name) for name in wanted}
    check_inputs(given, wanted, f"record {record.key}")
    return {name: value for name, value in given.items() if value is not None}


def _given(record: Record, name: InputName) -> Given | None:
    if name == "image":
        return record.image
    if name == "clip":
        return Clip(frames=record.frames, times_s=record.times_s)
    return TEXT_INPUTS[name].of(record)


def _a(name: str) -> str:
    return f"{name} are" if name in _MANY else f"{'an' if name[0] in 'aeiou' else 'a'} {name} is"
