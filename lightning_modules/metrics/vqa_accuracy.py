"""VQA accuracy and answer normalisation as the official evaluator computes them (1505.00468, GT-Vision-Lab/VQA).

Rules kept because published numbers depend on them:
- a question's accuracy is the mean over its annotators of min(1, matches among the other annotators / 3): with ten
  annotators 0, .3, .6, .9, 1 for 0, 1, 2, 3, 4 or more matches;
- answers are normalised, on both sides, only where the annotators do not all agree;
- the comparison is case-sensitive (normalising lower-cases, so this shows on unanimous questions only);
- the contraction table has entries that can never match and entries that look wrong.
Of a question with fewer than `NUM_ANNOTATORS` answers the official formula makes 0 of one answer and .67 of three equal
ones. Such questions have a rule of ours: 1 where an annotator gave the answer, else 0, both sides always normalised.
The normaliser of TextVQA / EvalAI is a different one; scores made with it cannot be compared.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lightning_modules.metrics.measurement import SOURCE, Measurement, ratio_of_sums

# Words whose key is the word without its apostrophes, then the entries with some apostrophes in the wrong place.
_PLAIN = """
ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's isn't it'd
it'll ma'am mightn't might've mustn't must've needn't o'clock oughtn't shan't should've shouldn't somebody'll somebody's
someone'd someone'll someone's something'd something'll that's there'd there're there's they'd they'll they're they've
'twas wasn't we've weren't what'll what're what's what've when's where'd where's where've who'd who'll who's who've
why'll why're why's won't would've wouldn't y'all you'd you'll you're you've
"""
_ODD = {
    "couldn'tve": "couldn't've", "couldnt've": "couldn't've", "hadnt've": "hadn't've", "hadn'tve": "hadn't've",
    "hed've": "he'd've", "he'dve": "he'd've", "itd've": "it'd've", "it'dve": "it'd've",
    "mightnt've": "mightn't've", "mightn'tve": "mightn't've", "notve": "not've", "ow's'at": "'ow's'at",
    "'ows'at": "'ow's'at", "'ow'sat": "'ow's'at", "shed've": "she'd've", "she'dve": "she'd've",
    "shouldnt've": "shouldn't've", "shouldn'tve": "shouldn't've", "somebody'd": "somebodyd",
    "somebodyd've": "somebody'd've", "somebody'dve": "somebody'd've", "someoned've": "someone'd've",
    "someone'dve": "someone'd've", "somethingd've": "something'd've", "something'dve": "something'd've",
    "thered've": "there'd've", "there'dve": "there'd've", "theyd've": "they'd've", "they'dve": "they'd've",
    "wed've": "we'd've", "we'dve": "we'd've", "whod've": "who'd've", "who'dve": "who'd've",
    "wouldnt've": "wouldn't've", "wouldn'tve": "wouldn't've", "yall'll": "y'all'll", "y'allll": "y'all'll",
    "yall'd've": "y'all'd've", "y'alld've": "y'all'd've", "y'all'dve": "y'all'd've", "youd've": "you'd've",
    "you'dve": "you'd've",
}  # fmt: skip
_CONTRACTIONS = {word.replace("'", ""): word for word in _PLAIN.split()} | _ODD
_DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBERS = {"none": "0"} | {word: str(i) for i, word in enumerate(_DIGIT_WORDS)}
_ARTICLES = frozenset(("a", "an", "the"))
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_PERIOD = re.compile(r"\.(?!\d)")  # the official pattern's look-behind is mistyped and never holds anything back
_DIGIT_COMMA_DIGIT = re.compile(r"\d,\d")
NUM_ANNOTATORS = 10  # of each question of VQA v1 and v2
_MAX_PERIODS = 32  # the official code passes re.UNICODE (32) where `count` belongs


def strip_blanks(answer: str) -> str:
    """What is done to every answer: newline and tab become spaces, both ends are stripped."""
    return answer.replace("\n", " ").replace("\t", " ").strip()


@lru_cache(maxsize=1 << 16)  # the same few thousand answers come again and again
def normalise_answer(answer: str) -> str:
    """The official normaliser: punctuation, full stops, case, number words, articles, contractions."""
    text = strip_blanks(answer)
    has_digit_comma = _DIGIT_COMMA_DIGIT.search(text) is not None
    out = text
    for mark in _PUNCTUATION:
        removed = mark + " " in text or " " + mark in text or has_digit_comma
        out = out.replace(mark, "" if removed else " ")
    out = _PERIOD.sub("", out, count=_MAX_PERIODS)
    tokens = [_NUMBERS.get(word, word) for word in out.lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in tokens if word not in _ARTICLES)


def most_frequent_form(forms: Counter[str]) -> str:
    """Of the ways in which one answer was written the most frequent; of equally frequent ones the first by alphabet."""
    return min(forms, key=lambda form: (-forms[form], form))


def leave_one_out(num_matches: int, num_annotators: int) -> float:
    """Mean of min(1, matches among the others / 3) over all annotators, when `num_matches` of them match."""
    matching = min(1.0, (num_matches - 1) / 3) if num_matches else 0.0
    others = min(1.0, num_matches / 3)
    return (num_matches * matching + (num_annotators - num_matches) * others) / num_annotators


def _accuracy(num_matches: int, num_annotators: int) -> float:
    """The official formula where there are ten annotators (or more), min(1, matches) where there are fewer."""
    return leave_one_out(num_matches, num_annotators) if num_annotators >= NUM_ANNOTATORS else min(1.0, num_matches)


def question_accuracy(answer: str, annotations: Sequence[str]) -> float:
    """Accuracy in 0..1 of one answer against the annotators' answers (ten in VQA v2; at least one)."""
    given = strip_blanks(answer)
    expected = [strip_blanks(a) for a in annotations]
    if len(set(expected)) > 1 or len(expected) < NUM_ANNOTATORS:
        given, expected = normalise_answer(given), [normalise_answer(a) for a in expected]
    return _accuracy(expected.count(given), len(expected))


def answer_scores(annotations: Sequence[str]) -> dict[str, float]:
    """Soft target of every answer that an annotator gave: normalised answer -> accuracy in 0..1.

    Unlike `question_accuracy` this normalises unanimous answers as well: one answer is learned whatever it is written
    like, and given in its most frequent form.
    """
    counts = Counter(normalise_answer(a) for a in annotations)
    return {answer: _accuracy(count, len(annotations)) for answer, count in counts.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One question with what was answered and what the annotators said."""

    answer: str
    annotations: Sequence[str]
    answer_type: str = ""
    question_type: str = ""


def measure_vqa(items: Sequence[Answered], images: Sequence[Hashable]) -> Measurement:
    """Accuracies in percent, as the official evaluator gives them (it rounds to two digits): `overall`,
    `perAnswerType/<type>` and `perQuestionType/<type>`, each a mean over questions; a question without a type counts in
    `overall` alone.

    Args:
        items: every question of the split that has annotators' answers.
        images: the image of each item: an image is drawn again with all its questions, in sorted order.
    """
    columns = {image: i for i, image in enumerate(sorted(set(images), key=str))}
    column = np.array([columns[image] for image in images], np.int64)
    scores = np.array([100 * question_accuracy(item.answer, item.annotations) for item in items])
    groups: dict[str, list[int]] = {"overall": list(range(len(items)))}
    for i, item in enumerate(items):
        for kind, of_item in (("perAnswerType", item.answer_type), ("perQuestionType", item.question_type)):
            if of_item:
                groups.setdefault(f"{kind}/{of_item}", []).append(i)

    def resample(weights: np.ndarray) -> dict[str, np.ndarray]:
        size = len(columns)
        return {
            name: ratio_of_sums(
                weights,
                np.bincount(column[rows], scores[rows], minlength=size),
                np.bincount(column[rows], minlength=size),
            )
            for name, rows in groups.items()
        }

    return Measurement(
        values={name: math.fsum(scores[rows]) / len(rows) if rows else 0.0 for name, rows in sorted(groups.items())},
        variant=_variant(items),
        source=SOURCE,
        num_items=len(items),
        unit="questions",
        num_clusters=len(columns),
        resample=resample if items else None,
    )


def _variant(items: Sequence[Answered]) -> str:
    official = "official VQA v2 accuracy in percent, answers normalised where annotators disagree"
    few = sum(len(item.annotations) < NUM_ANNOTATORS for item in items)
    if not few:
        return official
    own = f"an answer that an annotator gave counts 100, normalised, as there are fewer than {NUM_ANNOTATORS} answers"
    return own if few == len(items) else f"{official}; for {few} of {len(items)} questions: {own}"
