"""`Classifier`: one graph, images to logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from pipeline.predicting.graphs._family import BaseFamily, Graph, Run, Size, Value, images_like

IMAGES = Value(name="images", meaning="RGB, 0 to 255, already of this size; normalized inside", axes={0: "batch"})


class Family(BaseFamily):
    @staticmethod
    def graphs(model: Any, size: Size) -> list[Graph]:
        logits = Value(name="logits", meaning="a number for each class; see `activation`", axes={0: "batch"})
        return [
            Graph(
                name="model",
                function=lambda images: (model(images),),
                example=(images_like(size),),
                inputs=(IMAGES,),
                outputs=(logits,),
            )
        ]

    class Stand(nn.Module):
        def __init__(self, runs: Mapping[str, Run]):
            super().__init__()
            self.run = runs["model"]

        def forward(self, images: Tensor) -> Tensor:
            """As `Classifier`."""
            return self.run(images)[0]
