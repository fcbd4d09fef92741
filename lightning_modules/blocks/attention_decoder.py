"""The decoder of Show, Attend and Tell (1502.03044): an LSTM that reads a word and one look at the image per step.

Shapes: B images, N rows (captions or hypotheses), T words, L places, D feature channels, H hidden units, E word
embedding, A attention channels, V words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_modules.blocks.attention import AdditiveAttention

Gate = Literal["channel", "scalar"]
# Attention (N, L) float32, its expected context (N, D) and the features (N, L, D) -> the context (N, D) that is read.
Look = Callable[[Tensor, Tensor, Tensor], Tensor]


class AttentionDecoder(nn.Module):
    """LSTM with attention, gate beta on the context (section 4.2.1) and deep output (eq. 7).

    All that does not depend on the previous step stands outside the time loop: the attention keys, the words' part
    of the LSTM gates, and, in training, the deep output layer with the product with the vocabulary.
    """

    def __init__(
        self,
        *,
        feature_channels: int,
        vocabulary_size: int,
        embedding: int,
        hidden: int,
        attention: int,
        gate: Gate,
        dropout: float,
    ):
        super().__init__()
        self.embed = nn.Embedding(vocabulary_size, embedding)
        self.attention = AdditiveAttention(feature_channels, attention)
        self.initial = nn.Linear(feature_channels, 2 * hidden)  # f_init,h and f_init,c
        self.word_gates = nn.Linear(embedding, 4 * hidden)
        self.context_gates = nn.Linear(feature_channels, 4 * hidden, bias=False)
        # One product with the previous hidden state: LSTM gates, attention query, gate beta.
        self.hidden_sizes = [4 * hidden, attention, 1 if gate == "scalar" else feature_channels]
        self.from_hidden = nn.Linear(hidden, sum(self.hidden_sizes))
        self.output_hidden = nn.Linear(hidden, embedding)
        self.output_context = nn.Linear(feature_channels, embedding, bias=False)
        self.vocabulary = nn.Linear(embedding, vocabulary_size)
        self.dropout = nn.Dropout(dropout)
        nn.init.uniform_(self.embed.weight, -0.1, 0.1)

    def start(self, features: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Memory (features (B, L, D), keys (B, L, A)) and state (h, c) (B, H) from the mean feature."""
        hidden, cell = torch.tanh(self.initial(features.mean(dim=1))).float().chunk(2, dim=-1)
        return (features, self.attention.keys(features)), (hidden, cell)

    def forward(
        self,
        memory: tuple[Tensor, ...],
        state: tuple[Tensor, ...],
        tokens: Tensor,
        looks: Sequence[Look] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Logits (N, T, V) and attention (N, T, L), both float32, for `tokens` (N, T).

        Args:
            looks: T functions, what is read of the image at each word; None: the expected context (soft attention).
        """
        words = self.dropout(self.embed(tokens))
        word_gates = self.word_gates(words)
        hiddens, contexts, weights = [], [], []
        for t, gates in enumerate(word_gates.unbind(dim=1)):
            state, context, weight = self._recur(memory, state, gates, None if looks is None else looks[t])
            hiddens.append(state[0])
            contexts.append(context)
            weights.append(weight)
        logits = self._output(words, torch.stack(hiddens, dim=1), torch.stack(contexts, dim=1))
        return logits, torch.stack(weights, dim=1)

    def step(
        self, memory: tuple[Tensor, ...], state: tuple[Tensor, ...], tokens: Tensor, look: Look | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
        """One word: logits (N, V) float32, the next state, attention (N, L) float32, from `tokens` (N,) int64."""
        words = self.dropout(self.embed(tokens))
        state, context, weight = self._recur(memory, state, self.word_gates(words), look)
        return self._output(words, state[0], context), state, weight

    def _recur(
        self, memory: tuple[Tensor, ...], state: tuple[Tensor, ...], word_gates: Tensor, look: Look | None = None
    ) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor]:
        """State (h, c), gated context (N, D) and attention (N, L) from the word's part of the gates (N, 4H)."""
        features, keys = memory
        hidden, cell = state
        hidden_gates, query, beta = self.from_hidden(hidden).split(self.hidden_sizes, dim=-1)
        context, weight = self.attention(query, keys, features)
        if look is not None:
            context = look(weight, context, features)
        context = torch.sigmoid(beta) * context
        gates = (word_gates + hidden_gates + self.context_gates(context)).float()
        in_gate, forget_gate, out_gate, candidate = gates.chunk(4, dim=-1)
        cell = torch.sigmoid(forget_gate) * cell + torch.sigmoid(in_gate) * torch.tanh(candidate)
        return (torch.sigmoid(out_gate) * torch.tanh(cell), cell), context, weight

    def _output(self, words: Tensor, hidden: Tensor, context: Tensor) -> Tensor:
        """Deep output: (..., E), (..., H), (..., D) -> logits (..., V). The tanh is the authors' code's."""
        deep = torch.tanh(words + self.output_hidden(self.dropout(hidden)) + self.output_context(context))
        return self.vocabulary(self.dropout(deep)).float()
