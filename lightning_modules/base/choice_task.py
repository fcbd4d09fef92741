"""What telling and pointing have in common: questions with candidates of which one is right (1511.03416).

Prediction, of each question: `{"question_id", "question": str, "candidates": [str, ..], "scores": (K,) float32, larger
is better, "choice": 0..K-1}`. Truth: `question_type`, `candidates`, and `answer`, the right candidate, "" where nobody
says which it is. B images, Q questions of all images, K candidates of a question.

The released code has the right candidate at one fixed place and the first of equally good ones count, so that what
makes candidates alike makes them right. Here the first of equally good ones is chosen in an order that a seed of the
question's id draws: who says the same of k candidates is right in one of k.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch

from contracts.errors import DataError
from contracts.ranges import COUNT, SHARE, Range, check_ranges
from contracts.records import DataSpec, Question, Record
from contracts.seeds import derive_seed
from contracts.text import PAD, UNKNOWN
from lightning_modules.augment.augment import Augment, AugmentConfig
from lightning_modules.augment.mirror import check_flip, draw_mirror, mirror_text
from lightning_modules.base.task import BaseTask, Batch, Example, Item, Prediction, Truth
from lightning_modules.metrics.item_metric import ItemMetric
from lightning_modules.metrics.question_accuracy import UntiedAccuracy, Visual7WAccuracy

_SAME = 1e-6  # of the larger one: rows of a batch differ by rounding
_AUGMENT = AugmentConfig(scale=0.15, shift=0.06, rotate=8.0, saturation=0.1)  # nothing that changes what words say


@dataclass(frozen=True, kw_only=True)
class ChoiceConfig:
    """
    Attributes:
        image_size: images are resized to a square of this side, in pixels.
        questions_per_image: how many of an image's questions one training step uses at most, drawn anew each epoch.
        max_words: longer questions are cut; 15 in the paper.
        min_word_count: rarer words become `<unk>`.
        mirror: probability that an image is mirrored in training, "left" and "right" in texts with it.
        augment: further changes in training; `horizontal_flip` is `mirror`'s matter here.
    """

    image_size: int = 96
    questions_per_image: int = 8
    max_words: int = 15
    min_word_count: int = 2
    mirror: float = 0.5
    augment: AugmentConfig = _AUGMENT

    def __post_init__(self) -> None:
        counts = ("questions_per_image", "max_words", "min_word_count")
        check_ranges(self, image_size=Range(32), mirror=SHARE, **dict.fromkeys(counts, COUNT))
        check_flip(self.augment)


class ChoiceTask(BaseTask):
    """Base of the tasks that choose one of a question's candidates.

    Attributes:
        kind: of candidates, as messages call them. text: the kind of text that a model reads, of `texts`.
    """

    kind: ClassVar[str]
    text: ClassVar[str]
    requires: ClassVar[tuple[str, ...]] = ("num_choices",)
    eval_requires: ClassVar[tuple[str, ...]] = ("num_choices",)
    metric: ClassVar[str] = "overall"
    config: ChoiceConfig

    def __init__(self, config: ChoiceConfig, data: DataSpec):
        super().__init__(config, data)
        self.vocabulary = self.read_vocabulary(self.text, min_count=config.min_word_count)
        self._augment = Augment(config.augment, size=config.image_size)

    @staticmethod
    @abstractmethod
    def is_mine(question: Question) -> bool:
        """Whether a question has candidates of the kind that this task chooses from."""

    # data

    def questions(self, record: Record) -> tuple[Question, ...]:
        """Those of a record that this task asks.

        Raises:
            DataError: there is none.
        """
        mine = tuple(question for question in record.questions if self.is_mine(question))
        if not mine:
            raise DataError(
                f"no question of this record has {self.kind} to choose from", where=f"record {record.key}",
                allowed=f"questions with {self.kind} as candidates",
                fix="make questions with texts and questions with boxes two data sets",
            )  # fmt: skip
        return mine

    def drawn(self, record: Record, seed: int | None) -> tuple[Question, ...]:
        """The questions of one example: in training some of those whose right candidate is known."""
        questions = self.questions(record)
        if seed is None:
            return questions
        known = [question for question in questions if question.answer_index is not None]
        # Its own stream: the same number also seeds the augmentation.
        order = np.random.default_rng([seed, 1]).permutation(len(known))[: self.config.questions_per_image]
        return tuple(known[i] for i in order)

    def mirrored(self, seed: int | None) -> bool:
        return draw_mirror(seed, self.config.mirror)

    def words(self, text: str) -> list[int]:
        """Ids of a question, at least one."""
        return self.vocabulary.encode(text, max_length=self.config.max_words) or [UNKNOWN]

    def asked(self, questions: Sequence[Question]) -> Example:
        """The part of an example that is about questions alone."""
        return {
            "questions": [self.words(question.text) for question in questions],
            "right": [-1 if q.answer_index is None else q.answer_index for q in questions],
            "question_ids": [question.question_id for question in questions],
            "question_texts": [question.text for question in questions],
            "candidates": [list(shown(question)) for question in questions],
        }

    @staticmethod
    def joined(examples: Sequence[Example]) -> Batch:
        """`asked` of several examples: `questions` (Q, T) int64 padded at the end, `lengths`, `question_image` (Q,),
        `right` (Q,) int64, -1 where it is not known, `candidate_question` (N,) and `slot` (N,) int64, the place of each
        candidate among those of its question; and the lists."""

        def all_of(name: str) -> list[Any]:
            return [value for example in examples for value in example[name]]

        questions, candidates = all_of("questions"), all_of("candidates")
        counts = torch.tensor([len(some) for some in candidates], dtype=torch.int64)
        return {
            "questions": padded(questions),
            "lengths": [len(question) for question in questions],
            "question_image": torch.repeat_interleave(torch.tensor([len(e["questions"]) for e in examples])),
            "right": torch.tensor(all_of("right"), dtype=torch.int64),
            "candidate_question": torch.repeat_interleave(counts),
            "slot": torch.cat([torch.arange(count) for count in counts.tolist()] or [counts]),
            "question_ids": all_of("question_ids"),
            "question_texts": all_of("question_texts"),
            "candidates": candidates,
        }

    @staticmethod
    def by_question(scores: torch.Tensor, batch: Batch) -> torch.Tensor:
        """(N,) scores of all candidates -> (Q, K) float32, -inf where a question has fewer."""
        slot = batch["slot"]
        most = int(slot.max()) + 1 if len(slot) else 1
        table = scores.new_full((len(batch["lengths"]), most), -torch.inf, dtype=torch.float32)
        return table.index_put((batch["candidate_question"], slot), scores.float())

    @torch.no_grad()
    def chosen(self, scores: torch.Tensor, batch: Batch) -> list[Prediction]:
        """Predictions of (N,) scores."""
        rows = self.by_question(scores, batch).cpu().numpy()
        predictions: list[Prediction] = []
        for row, question_id, text, candidates in zip(
            rows, batch["question_ids"], batch["question_texts"], batch["candidates"], strict=True
        ):
            own = row[: len(candidates)]
            best = choice(own, question_id)
            predictions.append({
                "question_id": question_id, "question": text, "candidates": candidates, "scores": own, "choice": best,
            })  # fmt: skip
        return predictions

    # measuring

    def items(self, record: Record) -> list[Item]:
        """Its questions."""
        return [Item(f"{record.key}/{q.question_id}", record.key, record.group) for q in self.questions(record)]

    def truths(self, record: Record) -> list[Truth]:
        return [
            {
                "question_type": q.question_type or (q.text.split() or [""])[0].lower(),
                "answer": "" if q.answer_index is None else shown(q)[q.answer_index],
                "candidates": list(shown(q)),
            }
            for q in self.questions(record)
        ]

    def metrics(self, *, thorough: bool = False) -> list[ItemMetric]:
        """The official accuracy, by the question's first word as well; and what is left of it if ties are wrong."""
        return [Visual7WAccuracy(), UntiedAccuracy()]

    def measurable(self, prediction: Prediction, truth: Truth) -> tuple[Prediction, Truth]:
        best = prediction["candidates"][prediction["choice"]]
        return {"answer": best, "is_tied": int(len(ties(prediction["scores"])) > 1)}, truth

    def answer(self, prediction: Prediction) -> dict[str, Any]:
        """As the official results have it: candidates, the best first."""
        scores, best = prediction["scores"], prediction["choice"]
        order = sorted(range(len(scores)), key=lambda i: (i != best, -scores[i]))
        return {
            "qa_id": prediction["question_id"],
            "question": prediction["question"],
            "candidates": [{"answer": prediction["candidates"][i], "score": float(scores[i])} for i in order],
        }


def shown(question: Question) -> tuple[str, ...]:
    """What candidates are called: by their texts; boxes without any are counted from 0."""
    return question.candidates or tuple(map(str, range(len(question.candidate_boxes))))


def padded(texts: Sequence[Sequence[int]]) -> torch.Tensor:
    """Ids as (number, longest) int64."""
    out = np.full((len(texts), max(map(len, texts), default=1)), PAD, np.int64)
    for row, text in zip(out, texts, strict=True):
        row[: len(text)] = text
    return torch.from_numpy(out)


def ties(scores: np.ndarray) -> np.ndarray:
    """Places of the best scores, of (K,): one, or several that are equal to rounding."""
    best = scores.max()
    return np.flatnonzero(scores >= best - _SAME * max(1.0, abs(float(best))))


def choice(scores: np.ndarray, question_id: int | str) -> int:
    """The best of (K,) scores; of equal ones the first in an order that the question's id seeds."""
    best = set(ties(scores).tolist())
    order = np.random.default_rng(derive_seed("tie", question_id)).permutation(len(scores)).tolist()
    return next(i for i in order if i in best)


def mirrored_question(question: Question) -> Question:
    """Left and right exchanged in its texts; boxes are the augmentation's matter."""
    candidates = tuple(map(mirror_text, question.candidates)) if not question.candidate_boxes else question.candidates
    return replace(question, text=mirror_text(question.text), candidates=candidates)
