"""`TextReader`: with attention two graphs, as a captioner; with CTC one, a picture to the logits of its columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.predicting.graphs._family import BaseFamily, Graph, Run, Size, Value, images_like
from pipeline.predicting.graphs.captioner import Family as Captioner
from pipeline.predicting.graphs.captioner import State
from pipeline.predicting.graphs.classifier import IMAGES
from pipeline.predicting.graphs.translator import decoded


class Family(BaseFamily):
    @staticmethod
    def graphs(model: Any, size: Size) -> list[Graph]:
        if not is_ctc(model):
            return Captioner.graphs(model, size)
        features = Value(name="features", meaning="of each column from left to right", axes={0: "batch"})
        meaning = "a number for each sign at each column; 0 is CTC's blank"

        def read(images: Tensor) -> tuple[Tensor, ...]:
            columns = model.encode(images)
            return columns, model.columns(columns)

        return [
            Graph(
                name="model",
                function=read,
                example=(images_like(size),),
                inputs=(IMAGES,),
                outputs=(features, Value(name="logits", meaning=meaning, axes={0: "batch"})),
            )
        ]

    class Stand(nn.Module):
        def __init__(self, runs: Mapping[str, Run]):
            super().__init__()
            self.whole = runs.get("model")
            self.writer = Captioner.Stand(runs) if self.whole is None else None
            self._features = self._logits = torch.empty(0)

        def encode(self, images: Tensor) -> Tensor:
            """As `TextReader`."""
            if self.writer is not None:
                return self.writer.encode(images)
            assert self.whole is not None
            self._features, self._logits = self.whole(images)
            return self._features

        def columns(self, features: Tensor) -> Tensor:
            """As `TextReader`, of the features that `encode` gave last: the same graph makes both."""
            assert features is self._features, "`columns` follows `encode`"
            return self._logits

        def start(self, features: Tensor) -> tuple[State, State]:
            """As `TextReader`."""
            assert self.writer is not None
            return self.writer.start(features)

        def decode(self, memory: State, state: State, tokens: Tensor) -> tuple[Tensor, Tensor]:
            """As `TextReader`, a step at a time."""
            return decoded(self.step, memory, state, tokens)

        def step(self, memory: State, state: State, tokens: Tensor) -> tuple[Tensor, State, Tensor]:
            """As `TextReader`."""
            assert self.writer is not None
            return self.writer.step(memory, state, tokens)


def is_ctc(model: Any) -> bool:
    """Whether it names a sign a column: such a one cannot begin to write."""
    try:
        with torch.no_grad():
            model.start(torch.zeros(1, 1, 1))
    except AttributeError:
        return True
    except (RuntimeError, TypeError):  # it has what writes, for other features
        return False
    return False
