"""`Translator`: two graphs, a sentence to what stays the same and a first state; a word and a state to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.blocks.language import RecurrentEncoder
from pipeline.predicting.graphs._family import BaseFamily, Graph, Run, Size, Value, ones
from pipeline.predicting.graphs._parts import OnnxRecurrentEncoder
from pipeline.predicting.graphs.captioner import State, Steps, step_graph, values

_WORDS = {1: "words"}  # what is the same for a sentence has a row a word
SOURCES = (
    Value(
        name="sources",
        meaning="words by their places in `source_vocabulary`, <eos> last, 0 behind it",
        axes={0: "batch", 1: "words"},
    ),
    Value(name="lengths", meaning="words of each sentence, <eos> counted", axes={0: "batch"}),
)


class Family(BaseFamily):
    @staticmethod
    def graphs(model: Any, size: Size) -> list[Graph]:
        sources, lengths = ones(2, 5), torch.tensor([5, 3])

        def encode(sources: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
            memory, state = model.encode(sources, lengths)
            return (*memory, *state)

        memory, state = shapes_of(model, sources, lengths)
        by_word = tuple(part.ndim > 1 and part.shape[1] == sources.shape[1] for part in memory)
        named = tuple(
            replace(value, axes={0: "batch", **(_WORDS if has_words else {})})
            for value, has_words in zip(values(memory, "memory", "batch"), by_word, strict=True)
        )
        step = step_graph(model, memory, state)
        kept = tuple(
            replace(value, axes={0: "rows", **(_WORDS if has_words else {})})
            for value, has_words in zip(step.inputs[: len(memory)], by_word, strict=True)
        )
        encoder = Graph(
            name="encoder",
            function=encode,
            example=(sources, lengths),
            inputs=SOURCES,
            outputs=(*named, *values(state, "state", "batch")),
        )
        return [encoder, replace(step, inputs=(*kept, *step.inputs[len(memory) :]))]

    @staticmethod
    def reason(model: Any) -> str | None:
        if not isinstance(model.encoder, OnnxRecurrentEncoder | RecurrentEncoder):
            return "its encoder is a loop over the words of a sentence, whose length an exported graph would fix"
        return None

    class Stand(nn.Module):
        def __init__(self, runs: Mapping[str, Run]):
            super().__init__()
            self.encoder, self.written = runs["encoder"], Steps(runs["step"])

        def encode(self, sources: Tensor, lengths: Sequence[int]) -> tuple[State, State]:
            """As `Translator`."""
            parts = self.encoder(sources, torch.tensor(lengths))
            memory = len(parts) - self.written.num_states
            return tuple(parts[:memory]), tuple(parts[memory:])

        def decode(self, memory: State, state: State, tokens: Tensor) -> tuple[Tensor, Tensor]:
            """As `Translator`, a step at a time."""
            return decoded(self.step, memory, state, tokens)

        def step(self, memory: State, state: State, tokens: Tensor) -> tuple[Tensor, State, Tensor]:
            """As `Translator`."""
            logits, state, more = self.written(memory, state, tokens)
            return logits, state, more[0]


def decoded(step: Any, memory: State, state: State, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and attention after each of `tokens` (B, T)."""
    logits, attention = [], []
    for t in range(tokens.shape[1]):
        one, state, weights = step(memory, state, tokens[:, t])
        logits.append(one)
        attention.append(weights)
    return torch.stack(logits, dim=1), torch.stack(attention, dim=1)


def shapes_of(model: Any, sources: Tensor, lengths: Tensor) -> tuple[State, State]:
    """Memory and state in the shapes of `encode`, without meaning: its recurrent parts run in a graph alone."""
    with torch.no_grad(), torch.device("cpu"):
        return model.encode(sources, lengths)  # type: ignore[no-any-return]
