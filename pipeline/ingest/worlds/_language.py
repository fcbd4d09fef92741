"""What people would say and ask about a scene: five captions, and questions with ten answers each.

Captions speak of the one or two most salient objects in a small grammar with paraphrases. Questions are balanced: what
is asked is chosen so that its text says little about the answer (Goyal et al., VQA v2, arXiv 1612.00837).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from pipeline.ingest.worlds._scenes import COLORS, SHAPES, Scene, SceneObject

_T = TypeVar("_T")

NUM_ANSWERS = 10
RELATIONS = ("left of", "right of", "above", "below")
_INVERSE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above", "near": "near"}
_CLEAR_RATIO = 1.3  # the longer axis of the offset over the shorter one, from which a relation is called by a side
_SYNONYMS = {"large": "big", "small": "little"}
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six")  # `_output.RANGES` leave six beside a large one
_ANSWER_SYNONYMS = {
    "yes": "yeah",
    "no": "nope",
    "circle": "disc",
    "purple": "violet",
    "cyan": "turquoise",
    "1": "one",
    "2": "two",
}
_DISAGREEMENT = 0.15  # of the questions have one or two annotators who say something else


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question with its annotators' answers; `answer` is the most frequent one."""

    text: str
    question_type: str
    answer_type: str
    answer: str
    answers: tuple[str, ...]
    confidences: tuple[str, ...]


def relation(a: SceneObject, b: SceneObject) -> str:
    """Where `a` is as seen from `b`: one of `RELATIONS`, or "near" where neither axis clearly leads."""
    (ax, ay), (bx, by) = a.center, b.center
    dx, dy = ax - bx, ay - by
    if abs(dx) >= _CLEAR_RATIO * abs(dy):
        return "left of" if dx < 0 else "right of"
    if abs(dy) >= _CLEAR_RATIO * abs(dx):
        return "above" if dy < 0 else "below"
    return "near"


# ---- captions


def captions(rng: np.random.Generator, scene: Scene) -> list[str]:
    """Five captions of a scene, in random order.

    Two large objects: the left or upper one is named first by most. One large and one small: the large one first.
    One large and several small ones: the large one and the number of the others.
    """
    large = [o for o in scene.objects if o.size == "large"]
    small = [o for o in scene.objects if o.size == "small"]
    if len(scene.objects) == 1:
        sentences = _single_captions(scene.objects[0])
    elif len(large) >= 2:
        a, b = sorted(large, key=lambda o: -int(o.mask.sum()))[:2]
        if relation(a, b) in ("right of", "below") or (relation(a, b) == "near" and a.center[0] > b.center[0]):
            a, b = b, a
        sentences = _pair_captions(a, b)
    elif large and len(small) == 1:
        sentences = _pair_captions(large[0], small[0])
    elif large:
        sentences = _group_captions(large[0], len(small))
    else:  # several small objects only, where a large one found no place
        first, *others = sorted(small, key=lambda o: o.center)
        sentences = _pair_captions(first, others[0]) if len(others) == 1 else _group_captions(first, len(others))
    return [_sentence(sentences[i]) for i in rng.permutation(len(sentences))]


def _phrase(o: SceneObject, *, synonym: bool = False, sized: bool = True) -> str:
    """ "a large red circle", or without the word for its size."""
    size = "" if not sized else _SYNONYMS[o.size] if synonym else o.size
    return " ".join(word for word in ("a", size, o.color, o.shape) if word)


def _single_captions(o: SceneObject) -> list[str]:
    return [
        _phrase(o),
        _phrase(o),
        f"{_phrase(o)} alone",
        f"only {_phrase(o)}",
        f"{_phrase(o, synonym=True)} by itself",
    ]


def _pair_captions(a: SceneObject, b: SceneObject) -> list[str]:
    side, other = relation(a, b), _phrase(b)
    return [
        f"{_phrase(a)} {side} {other}",
        f"{_phrase(a)} {side} {other}",
        f"{_phrase(a, sized=False)} {side} {_phrase(b, sized=False)}",
        f"{other} {_INVERSE[side]} {_phrase(a)}",
        f"{_phrase(a, synonym=True)} {side} {_phrase(b, synonym=True)}",
    ]


def _group_captions(a: SceneObject, num_others: int) -> list[str]:
    number = _NUMBERS[num_others]
    return [
        f"{_phrase(a)} with {number} small shapes",
        f"{_phrase(a)} with {number} small shapes",
        f"{_phrase(a, sized=False)} with {number} small shapes",
        f"{number} small shapes and {_phrase(a)}",
        f"{_phrase(a, synonym=True)} and {number} little shapes",
    ]


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


# ---- questions


@dataclass(frozen=True, kw_only=True)
class _Draft:
    text: str
    question_type: str
    answer_type: str
    answer: str
    wrong: tuple[str, ...]  # what a careless annotator may say


def ask(rng: np.random.Generator, scene: Scene, *, most: int = 5) -> list[Asked]:
    """Three to `most` different questions; any scene has more, as each shape but the crowd's may be asked for."""
    wanted = int(rng.integers(3, most + 1))
    drafts: dict[str, _Draft] = {}
    known, kinds = _Known(scene), list(_KINDS)
    weights = np.array(list(_KINDS.values())) / sum(_KINDS.values())
    while len(drafts) < wanted:
        draft = kinds[rng.choice(len(kinds), p=weights)](rng, known)
        if draft is not None and draft.text not in drafts:
            drafts[draft.text] = draft
    return [_with_answers(rng, draft) for draft in drafts.values()]


class _Known:
    """What may be asked about: shapes and colours of the crowd are left out, as nobody agrees on its count."""

    def __init__(self, scene: Scene):
        self.objects = scene.objects
        crowd = scene.crowd
        self.shapes = [s for s in SHAPES if crowd is None or s != crowd.shape]
        self.colors = [c for c in COLORS if crowd is None or c != crowd.color]

    def only(self, attribute: str) -> list[SceneObject]:
        """Objects that nothing else in the scene shares this attribute with."""
        values = [getattr(o, attribute) for o in self.objects]
        return [o for o, value in zip(self.objects, values, strict=True) if values.count(value) == 1]


def _pick(rng: np.random.Generator, items: Sequence[_T]) -> _T:
    return items[int(rng.integers(len(items)))]


def _yes_no(text: str, question_type: str, truth: bool) -> _Draft:
    answer, wrong = ("yes", "no") if truth else ("no", "yes")
    return _Draft(text=text, question_type=question_type, answer_type="yes/no", answer=answer, wrong=(wrong,))


def _is_there_shape(rng: np.random.Generator, known: _Known) -> _Draft | None:
    present = {o.shape for o in known.objects}
    truth = bool(rng.random() < 0.5)
    options = [s for s in known.shapes if (s in present) == truth]
    return _yes_no(f"is there a {_pick(rng, options)}?", "is there a", truth) if options else None


def _is_there_color(rng: np.random.Generator, known: _Known) -> _Draft | None:
    present = {o.color for o in known.objects}
    truth = bool(rng.random() < 0.5)
    options = [c for c in known.colors if (c in present) == truth]
    return _yes_no(f"is there a {_pick(rng, options)} object?", "is there a", truth) if options else None


def _is_there_both(rng: np.random.Generator, known: _Known) -> _Draft | None:
    """ "is there a red circle?": a no is often a near miss, the colour or the shape being there."""
    present = {(o.color, o.shape) for o in known.objects}
    truth = bool(rng.random() < 0.5)
    if truth:
        options = sorted(present)
    elif rng.random() < 0.5:
        seen = _pick(rng, known.objects)
        options = [(c, seen.shape) for c in known.colors] + [(seen.color, s) for s in known.shapes]
    else:
        options = [(c, s) for c in known.colors for s in known.shapes]
    options = [pair for pair in options if (pair in present) == truth]
    if not options:
        return None
    color, shape = _pick(rng, options)
    return _yes_no(f"is there a {color} {shape}?", "is there a", truth)


def _is_on_side(rng: np.random.Generator, known: _Known) -> _Draft | None:
    options = [o for o in known.only("shape") if o.shape in known.shapes]
    if len(options) < 2:
        return None
    first, second = (options[i] for i in rng.permutation(len(options))[:2])
    side = relation(first, second)
    if side == "near":
        return None
    truth = bool(rng.random() < 0.5)
    asked = side if truth else _INVERSE[side]
    return _yes_no(f"is the {first.shape} {asked} the {second.shape}?", "is the", truth)


def _what_color(rng: np.random.Generator, known: _Known) -> _Draft | None:
    options = [o for o in known.only("shape") if o.shape in known.shapes]
    if not options:
        return None
    o = _pick(rng, options)
    wrong = tuple(c for c in COLORS if c != o.color)
    text = f"what color is the {o.shape}?"
    return _Draft(text=text, question_type="what color is the", answer_type="other", answer=o.color, wrong=wrong)


def _what_shape(rng: np.random.Generator, known: _Known) -> _Draft | None:
    options = [o for o in known.only("color") if o.color in known.colors]
    if not options:
        return None
    o = _pick(rng, options)
    wrong = tuple(s for s in SHAPES if s != o.shape)
    text = f"what shape is the {o.color} object?"
    return _Draft(text=text, question_type="what", answer_type="other", answer=o.shape, wrong=wrong)


def _what_is_beside(rng: np.random.Generator, known: _Known) -> _Draft | None:
    """Asked only of two objects, so that no third one could be meant."""
    if len(known.objects) != 2 or len(known.shapes) < len(SHAPES):
        return None
    a, b = (known.objects[i] for i in rng.permutation(2))
    side = relation(a, b)
    if side == "near" or a.shape == b.shape:
        return None
    wrong = tuple(s for s in SHAPES if s != a.shape)
    text = f"what is {side} the {b.shape}?"
    return _Draft(text=text, question_type="what is", answer_type="other", answer=a.shape, wrong=wrong)


def _how_many(rng: np.random.Generator, known: _Known) -> _Draft | None:
    """All objects, or those of one shape or colour; there the count is drawn first, so that "1" is not always right."""
    if rng.random() < 0.4:
        if len(known.shapes) < len(SHAPES):
            return None
        asked, count = "objects", len(known.objects)
    else:
        shapes, colors = [o.shape for o in known.objects], [o.color for o in known.objects]
        counts = {"crosses" if s == "cross" else f"{s}s": shapes.count(s) for s in known.shapes}
        counts |= {f"{c} objects": colors.count(c) for c in known.colors}
        values = sorted(set(counts.values()))
        count = values[-1] if rng.random() < 0.4 else _pick(rng, values)
        asked = _pick(rng, [name for name, n in counts.items() if n == count])
    wrong = tuple(str(n) for n in (count - 1, count + 1) if n >= 0)
    text = f"how many {asked} are there?"
    return _Draft(text=text, question_type="how many", answer_type="number", answer=str(count), wrong=wrong)


_KINDS: dict[Callable[[np.random.Generator, _Known], _Draft | None], float] = {
    _is_there_shape: 0.14,
    _is_there_color: 0.16,
    _is_there_both: 0.14,
    _is_on_side: 0.03,
    _what_color: 0.32,
    _what_shape: 0.22,
    _what_is_beside: 0.02,
    _how_many: 0.05,
}


def _with_answers(rng: np.random.Generator, draft: _Draft) -> Asked:
    """Ten annotators: mostly of one mind; some use another word or are wrong, and are less sure."""
    answers, confidences = [draft.answer] * NUM_ANSWERS, ["yes"] * NUM_ANSWERS
    if rng.random() < _DISAGREEMENT:
        for i in rng.permutation(NUM_ANSWERS)[: int(rng.integers(1, 3))]:
            synonym = _ANSWER_SYNONYMS.get(draft.answer)
            answers[i] = synonym if synonym and rng.random() < 0.4 else _pick(rng, draft.wrong)
            confidences[i] = "maybe" if rng.random() < 0.7 else "no"
    text = draft.text[0].upper() + draft.text[1:]
    return Asked(
        text=text, question_type=draft.question_type, answer_type=draft.answer_type, answer=draft.answer,
        answers=tuple(answers), confidences=tuple(confidences),
    )  # fmt: skip
