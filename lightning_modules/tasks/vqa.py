"""Visual question answering as classification over the most frequent answers; measured by the official soft accuracy.

Batch: `images` (B, 3, S, S) uint8; `questions` (Q, T) int64, padded with 0 at the end; `lengths` Q ints;
`question_image` (Q,) int64, the image of each question; `question_ids` (Q ints or strings) and `question_texts` (Q
strings), lists; `targets` (Q, K) float32, the official accuracy of every answer; `is_counted` (Q,) bool, has a target
to learn; `counts`, how many those are.
B images, Q questions of all images, T words, K answers. The CNN runs once an image, however many questions it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contracts.inputs import InputName
from contracts.ranges import COUNT, SHARE, Range, check_ranges
from contracts.records import DataSpec, Question, Record
from contracts.text import PAD, UNKNOWN
from lightning_modules.augment.augment import Augment, AugmentConfig
from lightning_modules.augment.mirror import check_flip, draw_mirror, mirror_text
from lightning_modules.base.families import AnswererSpec, Looker
from lightning_modules.base.task import BaseTask, Batch, Example, Item, Mean, Prediction, Truth
from lightning_modules.blocks.pixels import stack_images
from lightning_modules.metrics.item_metric import ItemMetric
from lightning_modules.metrics.question_accuracy import VQAAccuracy
from lightning_modules.metrics.vqa_accuracy import (
    answer_scores,
    normalise_answer,
)

_NUM_TOP = 5
_AUGMENT = AugmentConfig(scale=0.15, shift=0.06, rotate=8.0, saturation=0.1)  # nothing that changes what words say


@dataclass(frozen=True, kw_only=True)
class VQAConfig:
    """
    Attributes:
        image_size: images are resized to a square of this side, in pixels.
        num_answers: the most frequent answers of the training split that can be given.
        questions_per_image: how many of an image's questions one training step uses at most, drawn anew each epoch.
        max_words: longer questions are cut.
        min_word_count: rarer words become `<unk>`.
        loss: "softmax": cross-entropy with the ten answers' soft scores, normalised; "sigmoid": binary
            cross-entropy of each answer with its soft score, summed over answers (1708.02711).
        mirror: probability that an image is mirrored in training, "left" and "right" in questions and answers with it.
        augment: further changes in training; `horizontal_flip` is `mirror`'s matter here.
    """

    image_size: int = 96
    num_answers: int = 1000
    questions_per_image: int = 16
    max_words: int = 24
    min_word_count: int = 2
    loss: Literal["softmax", "sigmoid"] = "softmax"
    mirror: float = 0.5
    augment: AugmentConfig = _AUGMENT

    def __post_init__(self) -> None:
        counts = ("num_answers", "questions_per_image", "max_words", "min_word_count")
        check_ranges(self, image_size=Range(32), mirror=SHARE, **dict.fromkeys(counts, COUNT))
        check_flip(self.augment)


class Task(BaseTask):
    Config: ClassVar[type] = VQAConfig
    requires: ClassVar[tuple[str, ...]] = ("num_questions",)
    eval_requires: ClassVar[tuple[str, ...]] = ("num_questions",)
    inputs: ClassVar[tuple[InputName, ...]] = ("image", "question")
    texts: ClassVar[Mapping[str, str | None]] = {"questions": "words", "answers": None}
    spec_class = AnswererSpec
    metric: ClassVar[str] = "overall"
    config: VQAConfig

    def __init__(self, config: VQAConfig, data: DataSpec):
        super().__init__(config, data)
        self.vocabulary = self.read_vocabulary("questions", min_count=config.min_word_count)
        self.answers = [answer for answer, _ in self.counted("answers")[: config.num_answers]]
        self._answer_ids = {normalise_answer(answer): i for i, answer in enumerate(self.answers)}
        self._augment = Augment(config.augment, size=config.image_size)

    def spec(self) -> AnswererSpec:
        return AnswererSpec(vocabulary_size=len(self.vocabulary), num_answers=len(self.answers))

    # data

    def encode(self, record: Record, seed: int | None) -> Example:
        mirrored = draw_mirror(seed, self.config.mirror)
        image = self._augment(record.image, (record.height, record.width), seed=seed, mirror=mirrored).image
        questions = record.questions
        if seed is not None and len(questions) > self.config.questions_per_image:
            # Its own stream: the same number also seeds the augmentation.
            generator = np.random.default_rng([seed, 1])
            chosen = generator.choice(len(questions), self.config.questions_per_image, replace=False)
            questions = tuple(questions[i] for i in chosen)
        if mirrored:
            questions = tuple(map(_mirrored, questions))
        return {
            "image": image,
            "questions": [self._words(question.text) for question in questions],
            "targets": [self._targets(question) for question in questions],
            "has_answers": [bool(question.answers) for question in questions],
            "question_ids": [question.question_id for question in questions],
            "question_texts": [question.text for question in questions],
        }

    def _words(self, text: str) -> list[int]:
        ids = self.vocabulary.encode(text, max_length=self.config.max_words)
        return ids or [UNKNOWN]  # a question without a single word still has one token

    def _targets(self, question: Question) -> np.ndarray:
        targets = np.zeros(len(self.answers), np.float32)
        for answer, score in answer_scores(question.answers).items():
            if answer in self._answer_ids:
                targets[self._answer_ids[answer]] = score
        return targets

    def collate(self, examples: Sequence[Example]) -> Batch:
        def joined(name: str) -> list[Any]:
            return [value for example in examples for value in example[name]]

        questions = joined("questions")
        padded = np.full((len(questions), max(map(len, questions), default=1)), PAD, np.int64)
        for row, question in zip(padded, questions, strict=True):
            row[: len(question)] = question
        targets, has_answers = joined("targets"), joined("has_answers")
        # With "softmax" a question whose answers are all too rare to be given has no target.
        counted = [bool(target.any()) for target in targets] if self.config.loss == "softmax" else has_answers
        return {
            "images": stack_images([example["image"] for example in examples]),
            "questions": torch.from_numpy(padded),
            "lengths": [len(question) for question in questions],
            "question_image": torch.repeat_interleave(torch.tensor([len(e["questions"]) for e in examples])),
            "targets": torch.from_numpy(np.stack(targets) if targets else np.zeros((0, len(self.answers)), np.float32)),
            "is_counted": torch.tensor(counted, dtype=torch.bool),
            "counts": {"answer": sum(counted)},
            "question_ids": joined("question_ids"),
            "question_texts": joined("question_texts"),
        }

    # learning

    def losses(self, model: nn.Module, batch: Batch) -> dict[str, Mean]:
        return self._losses(model(*_inputs(batch)), batch)

    def predict(self, model: nn.Module, batch: Batch) -> list[Prediction]:
        logits, looks = _looked(model, batch)
        return self._predictions(logits, batch, looks)

    def evaluate_batch(self, model: nn.Module, batch: Batch) -> tuple[dict[str, Mean], list[Prediction]]:
        logits, looks = _looked(model, batch)  # once for both
        return self._losses(logits, batch), self._predictions(logits, batch, looks)

    def _losses(self, logits: Tensor, batch: Batch) -> dict[str, Mean]:
        """`answer`: mean over the questions that have answers (with "softmax": one in the answer list)."""
        targets = batch["targets"].float()
        with torch.autocast(logits.device.type, enabled=False):
            logits = logits.float()
            if self.config.loss == "softmax":
                mass = targets.sum(dim=1)
                per_question = F.cross_entropy(logits, targets / mass.clamp(min=1e-6).unsqueeze(1), reduction="none")
            else:
                per_question = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(dim=1)
            total = (per_question * batch["is_counted"]).sum()
        return {"answer": Mean(total, batch["counts"]["answer"])}

    @torch.no_grad()
    def _predictions(self, logits: Tensor, batch: Batch, looks: Tensor | None = None) -> list[Prediction]:
        """Per question `{"question_id", "question": str, "answer": str, "top": [(answer, probability), ..]}`, and of a
        model that tells where it looked `looks` (hops, h, w) float16."""
        probs = torch.softmax(logits.float(), dim=1) if self.config.loss == "softmax" else torch.sigmoid(logits.float())
        top_probs, top = probs.topk(min(_NUM_TOP, len(self.answers)), dim=1)
        predictions: list[Prediction] = []
        rows = zip(batch["question_ids"], batch["question_texts"], top.tolist(), top_probs.tolist(), strict=True)
        for question_id, text, ids, values in rows:
            answers = [(self.answers[i], value) for i, value in zip(ids, values, strict=True)]
            predictions.append({"question_id": question_id, "question": text, "answer": answers[0][0], "top": answers})
        if looks is not None:
            for prediction, maps in zip(predictions, looks.cpu().numpy(), strict=True):
                prediction["looks"] = maps.astype(np.float16)
        return predictions

    # measuring

    def items(self, record: Record) -> list[Item]:
        """Its questions."""
        return [Item(f"{record.key}/{question.question_id}", record.key, record.group) for question in record.questions]

    def truths(self, record: Record) -> list[Truth]:
        return [
            {
                "question_id": q.question_id,
                "answers": list(q.answers),
                "answer_type": q.answer_type,
                "question_type": q.question_type,
            }
            for q in record.questions
        ]

    def metrics(self, *, thorough: bool = False) -> list[ItemMetric]:
        """By question type only if thorough: VQA v2 has 65 of them."""
        return [VQAAccuracy(question_types=thorough)]

    def answer(self, prediction: Prediction) -> dict[str, Any]:
        top = [{"answer": answer, "probability": probability} for answer, probability in prediction["top"]]
        return {**{name: prediction[name] for name in ("question_id", "question", "answer")}, "top": top}


def _mirrored(question: Question) -> Question:
    answers = tuple(mirror_text(answer) for answer in question.answers)
    return replace(question, text=mirror_text(question.text), answers=answers)


def _inputs(batch: Batch) -> tuple[Any, ...]:
    return batch["images"], batch["questions"], batch["lengths"], batch["question_image"]


def _looked(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor | None]:
    """Logits, and where the model looked (Q, hops, h, w), if it is a `Looker`."""
    return model.look(*_inputs(batch)) if isinstance(model, Looker) else (model(*_inputs(batch)), None)
