"""Visual7W's pointing: which of several boxes of an image answers a question (1511.03416).

Batch: what `ChoiceTask.joined` says; `images` (B, 3, S, S) uint8; `boxes` (N, 4) float32 in their pixels; `counts`. B
images, Q questions, N candidates of all questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contracts.inputs import InputName
from contracts.records import Question, Record
from lightning_modules.base.choice_task import ChoiceConfig, ChoiceTask, mirrored_question, shown
from lightning_modules.base.families import PointerSpec
from lightning_modules.base.task import Batch, Example, Mean, Prediction
from lightning_modules.blocks.pixels import stack_images


class Task(ChoiceTask):
    Config: ClassVar[type] = ChoiceConfig
    inputs: ClassVar[tuple[InputName, ...]] = ("image", "question", "boxes")
    texts: ClassVar[Mapping[str, str | None]] = {"pointing_questions": "words"}
    spec_class = PointerSpec
    kind, text = "boxes", "pointing_questions"

    def spec(self) -> PointerSpec:
        return PointerSpec(vocabulary_size=len(self.vocabulary))

    @staticmethod
    def is_mine(question: Question) -> bool:
        return bool(question.candidate_boxes)

    # data

    def encode(self, record: Record, seed: int | None) -> Example:
        questions = self.drawn(record, seed)
        mirrored = self.mirrored(seed)
        boxes = np.array([box for q in questions for box in q.candidate_boxes], np.float32).reshape(-1, 4)
        moved = self._augment(record.image, (record.height, record.width), seed=seed, mirror=mirrored, boxes=boxes)
        if mirrored:
            questions = tuple(map(mirrored_question, questions))
        kept, chosen = _left(questions, moved.indices)
        return {"image": moved.image, "boxes": moved.boxes[chosen], **self.asked(kept)}

    def collate(self, examples: Sequence[Example]) -> Batch:
        batch = self.joined(examples)
        boxes = np.concatenate([example["boxes"].reshape(-1, 4) for example in examples])
        return {
            **batch,
            "images": stack_images([example["image"] for example in examples]),
            "boxes": torch.from_numpy(boxes),
            "counts": {"cross_entropy": int((batch["right"] >= 0).sum())},
        }

    # learning

    def losses(self, model: nn.Module, batch: Batch) -> dict[str, Mean]:
        """`cross_entropy`: mean over questions, over their candidates."""
        return self._losses(_scores(model, batch), batch)

    def predict(self, model: nn.Module, batch: Batch) -> list[Prediction]:
        return self.chosen(_scores(model, batch), batch)

    def evaluate_batch(self, model: nn.Module, batch: Batch) -> tuple[dict[str, Mean], list[Prediction]]:
        scores = _scores(model, batch)  # once for both
        return self._losses(scores, batch), self.chosen(scores, batch)

    def _losses(self, scores: Tensor, batch: Batch) -> dict[str, Mean]:
        table = self.by_question(scores, batch)
        total = F.cross_entropy(table, batch["right"], ignore_index=-1, reduction="sum")
        return {"cross_entropy": Mean(total, batch["counts"]["cross_entropy"])}


def _scores(model: nn.Module, batch: Batch) -> Tensor:
    return model(
        batch["images"], batch["questions"], batch["lengths"], batch["question_image"],
        batch["boxes"], batch["candidate_question"],
    )  # fmt: skip


def _left(questions: Sequence[Question], indices: np.ndarray) -> tuple[list[Question], list[int]]:
    """What the augmentation left of the questions, and which of the boxes that are left are theirs: a candidate that
    is no longer seen is no candidate, and a question without its right one, or without a wrong one, is not asked.

    Args:
        indices: (M,) which of all candidates, one after the other, are left.
    """
    place = {index: i for i, index in enumerate(indices.tolist())}
    kept: list[Question] = []
    chosen: list[int] = []
    first = 0
    for question in questions:
        own = [i for i in range(len(question.candidate_boxes)) if first + i in place]
        whole = len(own) == len(question.candidate_boxes)
        if whole or (len(own) > 1 and question.answer_index in own):
            right = question.answer_index
            kept.append(
                replace(
                    question,
                    candidates=tuple(shown(question)[i] for i in own),
                    candidate_boxes=tuple(question.candidate_boxes[i] for i in own),
                    answer_index=None if right is None else own.index(right),
                )
            )
            chosen += [place[first + i] for i in own]
        first += len(question.candidate_boxes)
    return kept, chosen
