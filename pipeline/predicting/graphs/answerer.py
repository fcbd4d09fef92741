"""`Answerer`: one graph, images and questions to logits of answers; an image's CNN runs once for all its questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.predicting.graphs._family import BaseFamily, Graph, Run, Size, Value, images_like, ones
from pipeline.predicting.graphs.classifier import IMAGES

QUESTIONS = (
    Value(
        name="questions",
        meaning="words by their places in `vocabulary`, 0 behind a question's end",
        axes={0: "questions", 1: "words"},
    ),
    Value(name="lengths", meaning="words of each question, at least 1", axes={0: "questions"}),
    Value(name="question_image", meaning="the image that each question is about, from 0", axes={0: "questions"}),
)


class Family(BaseFamily):
    @staticmethod
    def graphs(model: Any, size: Size) -> list[Graph]:
        logits = Value(name="logits", meaning="a number for each of `answers`; see `activation`", axes={0: "questions"})
        return [
            Graph(
                name="model",
                function=lambda *inputs: (model(*inputs),),
                example=(images_like(size), *questions_like()),
                inputs=(IMAGES, *QUESTIONS),
                outputs=(logits,),
            )
        ]

    class Stand(nn.Module):
        def __init__(self, runs: Mapping[str, Run]):
            super().__init__()
            self.run = runs["model"]

        def forward(self, images: Tensor, questions: Tensor, lengths: Sequence[int], question_image: Tensor) -> Tensor:
            """As `Answerer`."""
            return self.run(images, questions, torch.tensor(lengths), question_image)[0]


def questions_like() -> tuple[Tensor, Tensor, Tensor]:
    """Three of up to four words on two images."""
    return ones(3, 4), torch.tensor([4, 2, 3]), torch.tensor([0, 1, 1])
