"""`Pointer`: one graph, images, questions and boxes to how well each box answers its question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.predicting.graphs._family import BaseFamily, Graph, Run, Size, Value, images_like
from pipeline.predicting.graphs.answerer import QUESTIONS, questions_like
from pipeline.predicting.graphs.classifier import IMAGES

BOXES = (
    Value(name="boxes", meaning="x1, y1, x2, y2 in pixels of the input", axes={0: "boxes"}),
    Value(name="box_question", meaning="the question that each box is a candidate of, from 0", axes={0: "boxes"}),
)


class Family(BaseFamily):
    @staticmethod
    def graphs(model: Any, size: Size) -> list[Graph]:
        height, width = size
        boxes = torch.tensor([[0.0, 0.0, width / 2, height / 2], [4.0, 4.0, width, height]]).repeat(2, 1)
        scores = Value(name="scores", meaning="of a question's boxes the largest is its answer", axes={0: "boxes"})
        return [
            Graph(
                name="model",
                function=lambda *inputs: (model(*inputs),),
                example=(images_like(size), *questions_like(), boxes, torch.tensor([0, 0, 1, 2])),
                inputs=(IMAGES, *QUESTIONS, *BOXES),
                outputs=(scores,),
            )
        ]

    class Stand(nn.Module):
        def __init__(self, runs: Mapping[str, Run]):
            super().__init__()
            self.run = runs["model"]

        def forward(
            self,
            images: Tensor,
            questions: Tensor,
            lengths: Sequence[int],
            question_image: Tensor,
            boxes: Tensor,
            box_question: Tensor,
        ) -> Tensor:
            """As `Pointer`."""
            return self.run(images, questions, torch.tensor(lengths), question_image, boxes, box_question)[0]
