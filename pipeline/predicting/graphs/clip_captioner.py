"""`ClipCaptioner`: three graphs, frames to features, the features of clips to the first state, and a word and a state
to the next ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.predicting.graphs._family import BaseFamily, Graph, Run, Size
from pipeline.predicting.graphs.captioner import State, Steps, step_graph, values
from pipeline.predicting.graphs.frame_classifier import CLIPS, clips_like, frame_encoder


class Family(BaseFamily):
    @staticmethod
    def graphs(model: Any, size: Size) -> list[Graph]:
        encoder, features = frame_encoder(model, size)
        clips = clips_like(features)

        def begin(clips: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
            memory, state = model.start(clips, lengths)
            return (*memory, *state)

        with torch.no_grad():
            memory, state = model.start(*clips)
        start = Graph(
            name="start",
            function=begin,
            example=clips,
            inputs=CLIPS,
            outputs=(*values(memory, "memory", "batch"), *values(state, "state", "batch")),
        )
        return [encoder, start, step_graph(model, memory, state, has_attention=False)]

    @staticmethod
    def reason(model: Any) -> str | None:
        if getattr(model.decoder, "mode", None) == "mean_pool":
            return "its mean is over as many frames as the longest clip has, a number that an input's values say"
        return None

    class Stand(nn.Module):
        def __init__(self, runs: Mapping[str, Run]):
            super().__init__()
            self.encoder, self.begin, self.written = runs["encoder"], runs["start"], Steps(runs["step"])

        def encode(self, frames: Tensor) -> Tensor:
            """As `ClipCaptioner`."""
            return self.encoder(frames)[0]

        def start(self, features: Tensor, lengths: Sequence[int]) -> tuple[State, State]:
            """As `ClipCaptioner`."""
            parts = self.begin(features, torch.tensor(lengths))
            memory = len(parts) - self.written.num_states
            return tuple(parts[:memory]), tuple(parts[memory:])

        def step(self, memory: State, state: State, tokens: Tensor) -> tuple[Tensor, State]:
            """As `ClipCaptioner`."""
            logits, state, _ = self.written(memory, state, tokens)
            return logits, state
