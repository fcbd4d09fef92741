"""`SequenceClassifier`: one graph, texts to logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.predicting.graphs._family import BaseFamily, Graph, Run, Size, Value, ones

TEXTS = (
    Value(
        name="tokens",
        meaning="tokens by their places in `vocabulary`, 0 behind a text's end",
        axes={0: "batch", 1: "tokens"},
    ),
    Value(name="lengths", meaning="tokens of each text, at least 1", axes={0: "batch"}),
)


class Family(BaseFamily):
    @staticmethod
    def graphs(model: Any, size: Size) -> list[Graph]:
        logits = Value(name="logits", meaning="a number for each class; see `activation`", axes={0: "batch"})
        return [
            Graph(
                name="model",
                function=lambda tokens, lengths: (model(tokens, lengths),),
                example=(ones(2, 4), torch.tensor([4, 2])),
                inputs=TEXTS,
                outputs=(logits,),
            )
        ]

    class Stand(nn.Module):
        def __init__(self, runs: Mapping[str, Run]):
            super().__init__()
            self.run = runs["model"]

        def forward(self, tokens: Tensor, lengths: Sequence[int]) -> Tensor:
            """As `SequenceClassifier`."""
            return self.run(tokens, torch.tensor(lengths))[0]

        def gates(self, tokens: Tensor, lengths: Sequence[int]) -> Tensor | None:
            """None: the graph gives the logits alone."""
            return None
