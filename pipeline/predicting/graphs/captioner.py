"""`Captioner`: two graphs, an image to what stays the same and the first state; a word and a state to the next ones.

Writing is a loop outside: greedy, or a beam search as the task's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.predicting.graphs._family import BaseFamily, Graph, Run, Size, Value, images_like, ones
from pipeline.predicting.graphs.classifier import IMAGES

State = tuple[Tensor, ...]


class Family(BaseFamily):
    @staticmethod
    def graphs(model: Any, size: Size) -> list[Graph]:
        images = images_like(size)

        def encode(images: Tensor) -> tuple[Tensor, ...]:
            features = model.encode(images)
            memory, state = model.start(features)
            return (features, *memory, *state)

        with torch.no_grad():
            memory, state = model.start(model.encode(images))
        features = Value(name="features", meaning="the image's places, (channels, rows, columns)", axes={0: "batch"})
        encoder = Graph(
            name="encoder",
            function=encode,
            example=(images,),
            inputs=(IMAGES,),
            outputs=(features, *values(memory, "memory", "batch"), *values(state, "state", "batch")),
        )
        return [encoder, step_graph(model, memory, state)]

    class Stand(nn.Module):
        def __init__(self, runs: Mapping[str, Run]):
            super().__init__()
            self.encoder, self.written = runs["encoder"], Steps(runs["step"])
            self._features = torch.empty(0)
            self._started: tuple[State, State] = (), ()

        def encode(self, images: Tensor) -> Tensor:
            """As `Captioner`."""
            self._features, *parts = self.encoder(images)
            memory = len(parts) - self.written.num_states
            self._started = tuple(parts[:memory]), tuple(parts[memory:])
            return self._features

        def start(self, features: Tensor) -> tuple[State, State]:
            """As `Captioner`, of the features that `encode` gave last: the same graph makes both."""
            assert features is self._features, "`start` follows `encode`"
            return self._started

        def step(self, memory: State, state: State, tokens: Tensor) -> tuple[Tensor, State, Tensor]:
            """As `Captioner`."""
            logits, state, more = self.written(memory, state, tokens)
            return logits, state, more[0]


class Steps:
    """The graph `step` called with tuples; `num_states` is read off its outputs."""

    def __init__(self, run: Any):
        self.run = run
        self.num_states = sum(name.startswith("next_state_") for name in run.output_names)

    def __call__(self, memory: State, state: State, tokens: Tensor) -> tuple[Tensor, State, list[Tensor]]:
        """Logits, the next state, and what else it gives."""
        logits, *parts = self.run(*memory, *state, tokens)
        return logits, tuple(parts[: self.num_states]), parts[self.num_states :]


def step_graph(model: Any, memory: State, state: State, has_attention: bool = True) -> Graph:
    """`model.step` as a graph.

    Args:
        memory, state: as `start` gives them, of two rows or more.
    """

    def step(*inputs: Tensor) -> tuple[Tensor, ...]:
        kept, states = inputs[: len(memory)], inputs[len(memory) : -1]
        logits, following, *attention = model.step(kept, states, inputs[-1])
        return (logits, *following, *attention)

    tokens = Value(name="tokens", meaning="the word before: its place in the vocabulary", axes={0: "rows"})
    attention = Value(name="attention", meaning="how much each place was looked at; sums to 1", axes={0: "rows"})
    logits = Value(name="logits", meaning="a number for each word of the vocabulary", axes={0: "rows"})
    return Graph(
        name="step",
        function=step,
        example=(*memory, *state, ones(len((*memory, *state)[0]))),
        inputs=(*values(memory, "memory", "rows"), *values(state, "state", "rows"), tokens),
        outputs=(logits, *values(state, "next_state", "rows"), *((attention,) if has_attention else ())),
    )


def values(parts: State, name: str, rows: str, axes: Mapping[int, str] | None = None) -> tuple[Value, ...]:
    """One of each tensor; `axes` beside the rows'."""
    meaning = {
        "memory": "given to every step as it is",
        "state": "before the first word, then what the last step gave",
        "next_state": "the state that the next step is given",
    }[name]
    named = ((i, {a: d for a, d in (axes or {}).items() if a < part.ndim}) for i, part in enumerate(parts))
    return tuple(Value(name=f"{name}_{i}", meaning=meaning, axes={0: rows, **more}) for i, more in named)
