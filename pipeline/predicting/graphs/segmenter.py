"""`Segmenter`: one graph, images to logits of every pixel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from pipeline.predicting.graphs._family import BaseFamily, Graph, Run, Size, Value, images_like
from pipeline.predicting.graphs.classifier import IMAGES


class Family(BaseFamily):
    @staticmethod
    def graphs(model: Any, size: Size) -> list[Graph]:
        meaning = "a number for each class, background being 0, at each pixel; the largest is the pixel's class"
        return [
            Graph(
                name="model",
                function=lambda images: (model(images),),
                example=(images_like(size),),
                inputs=(IMAGES,),
                outputs=(Value(name="logits", meaning=meaning, axes={0: "batch"}),),
            )
        ]

    class Stand(nn.Module):
        def __init__(self, runs: Mapping[str, Run]):
            super().__init__()
            self.run = runs["model"]

        def forward(self, images: Tensor) -> Tensor:
            """As `Segmenter`."""
            return self.run(images)[0]
