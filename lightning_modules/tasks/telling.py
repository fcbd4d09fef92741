"""Visual7W's telling: which of several texts answers a question on an image (1511.03416).

Batch: what `ChoiceTask.joined` says; `images` (B, 3, S, S) uint8; `answers` (N, L) int64, words and `END`, padded with
0; `answer_lengths` N ints; `is_right` (N,) bool; `counts`. B images, Q questions, N candidates of all questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contracts.inputs import InputName
from contracts.ranges import COUNT, check_ranges
from contracts.records import Question, Record
from contracts.text import END
from lightning_modules.base.choice_task import ChoiceConfig, ChoiceTask, mirrored_question, padded
from lightning_modules.base.families import TellerSpec
from lightning_modules.base.task import Batch, Example, Mean, Prediction
from lightning_modules.blocks.pixels import stack_images


@dataclass(frozen=True, kw_only=True)
class TellingConfig(ChoiceConfig):
    """
    Attributes:
        score: "loglik": the model writes the right answer, and the candidate that it would most likely write is chosen,
            as in the paper; "match": it says of each candidate whether it is the right one (1606.08390).
        length_normalise: with "loglik", compare means over tokens, as the released code does; false: sums.
        max_answer_words: longer candidates are cut; 5 in the paper, where some become alike.
    """

    score: Literal["loglik", "match"] = "loglik"
    length_normalise: bool = True
    max_answer_words: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, max_answer_words=COUNT)


class Task(ChoiceTask):
    Config: ClassVar[type] = TellingConfig
    inputs: ClassVar[tuple[InputName, ...]] = ("image", "question", "candidates")
    texts: ClassVar[Mapping[str, str | None]] = {"telling_questions": "words"}
    spec_class = TellerSpec
    kind, text = "texts", "telling_questions"
    config: TellingConfig

    def spec(self) -> TellerSpec:
        return TellerSpec(vocabulary_size=len(self.vocabulary), score=self.config.score)

    @staticmethod
    def is_mine(question: Question) -> bool:
        return bool(question.candidates) and not question.candidate_boxes

    # data

    def encode(self, record: Record, seed: int | None) -> Example:
        mirrored = self.mirrored(seed)
        image = self._augment(record.image, (record.height, record.width), seed=seed, mirror=mirrored).image
        questions = self.drawn(record, seed)
        if mirrored:
            questions = tuple(map(mirrored_question, questions))
        answers = [[self._tokens(text) for text in question.candidates] for question in questions]
        return {"image": image, "answers": answers, **self.asked(questions)}

    def _tokens(self, text: str) -> list[int]:
        return [*self.vocabulary.encode(text, max_length=self.config.max_answer_words), END]

    def collate(self, examples: Sequence[Example]) -> Batch:
        batch = self.joined(examples)
        answers = [tokens for example in examples for some in example["answers"] for tokens in some]
        right = batch["right"].index_select(0, batch["candidate_question"])
        is_right = right == batch["slot"]
        lengths = [len(tokens) for tokens in answers]
        if self.config.score == "loglik":
            counts = {"answer": int(torch.tensor(lengths, dtype=torch.int64)[is_right].sum())}
        else:
            counts = {"match": int((right >= 0).sum())}
        return {
            **batch,
            "images": stack_images([example["image"] for example in examples]),
            "answers": padded(answers),
            "answer_lengths": lengths,
            "is_right": is_right,
            "counts": counts,
        }

    # learning

    def losses(self, model: nn.Module, batch: Batch) -> dict[str, Mean]:
        """`answer`: mean over the right answers' tokens. `match`: mean over candidates, binary."""
        if self.config.score == "match":
            return self._losses(_given(model, batch), batch)
        rows = batch["is_right"].nonzero().squeeze(1)  # only what is right is written
        right = {name: batch[name].index_select(0, rows) for name in ("answers", "candidate_question", "is_right")}
        right["answer_lengths"] = [batch["answer_lengths"][row] for row in rows.tolist()]
        return self._losses(_given(model, {**batch, **right}), {**batch, **right})

    def predict(self, model: nn.Module, batch: Batch) -> list[Prediction]:
        return self.chosen(self._scores(_given(model, batch), batch), batch)

    def evaluate_batch(self, model: nn.Module, batch: Batch) -> tuple[dict[str, Mean], list[Prediction]]:
        given = _given(model, batch)  # once for both
        return self._losses(given, batch), self.chosen(self._scores(given, batch), batch)

    def _losses(self, given: Tensor, batch: Batch) -> dict[str, Mean]:
        given, is_right = given.float(), batch["is_right"]
        if self.config.score == "loglik":
            return {"answer": Mean(-given[is_right].sum(), batch["counts"]["answer"])}
        known = batch["right"].index_select(0, batch["candidate_question"]) >= 0
        losses = F.binary_cross_entropy_with_logits(given, is_right.float(), reduction="none")
        return {"match": Mean(losses[known].sum(), batch["counts"]["match"])}

    def _scores(self, given: Tensor, batch: Batch) -> Tensor:
        """(N,) of each candidate, larger is better."""
        if self.config.score == "match":
            return given
        total = given.float().sum(dim=1)
        lengths = torch.tensor(batch["answer_lengths"], device=total.device)
        return total / lengths if self.config.length_normalise else total


def _given(model: nn.Module, batch: Batch) -> Tensor:
    return model(
        batch["images"], batch["questions"], batch["lengths"], batch["question_image"],
        batch["answers"], batch["answer_lengths"], batch["candidate_question"],
    )  # fmt: skip
