"""Encoders of sequences: one output a step, or one vector for a sentence.

Shapes: N sequences (Q sentences), T steps of the longest one, C input channels, E word embedding, H hidden units,
S layers, R directions (1, or 2 with the backward one).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

Cell = Literal["elman", "lstm", "gru"]
_LAYERS: dict[Cell, Callable[..., nn.RNNBase]] = {"elman": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class RecurrentEncoder(nn.Module):
    """Vectors in order -> an output for each step, and the state after the last one, by torch's fused layers.

    Sequences are packed, so padding changes nothing: each row is what it would be alone, in both directions.

    Attributes:
        out_channels: R * H.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        *,
        layers: int = 1,
        cell: Cell = "lstm",
        bidirectional: bool = False,
        dropout: float = 0.0,
    ):
        """`dropout` is between layers only (1409.2329): one layer has none."""
        super().__init__()
        between = dropout if layers > 1 else 0.0  # torch warns of dropout that has no place
        self.rnn = _LAYERS[cell](
            channels, hidden, num_layers=layers, batch_first=True, bidirectional=bidirectional, dropout=between
        )
        self.out_channels = hidden * (2 if bidirectional else 1)

    def forward(self, steps: Tensor, lengths: Sequence[int]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(N, T, C) and N lengths, all at least 1 -> outputs (N, T, RH), 0 behind a sequence's end, and the state.

        The state is `(hidden,)`, for an LSTM `(hidden, cell)`, each (N, S, RH), rows first as decoders have theirs.
        Channels [:H] are the forward direction's after the last step, [H:] the backward one's after the first.

        Packing wants the lengths on the CPU. Numbers stay there, while a tensor of the batch would travel to the GPU
        and make each step wait until it is back.
        """
        # The fused kernel is far faster than a masked loop.
        packed = pack_padded_sequence(steps, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
        packed_outputs, last = self.rnn(packed)
        outputs, _ = pad_packed_sequence(packed_outputs, batch_first=True, total_length=steps.shape[1])
        state = last if isinstance(last, tuple) else (last,)
        return outputs, tuple(self._rows_first(part) for part in state)

    def _rows_first(self, part: Tensor) -> Tensor:
        """(S * R, N, H), torch's layout, layer by layer -> (N, S, RH)."""
        layers, rows = self.rnn.num_layers, part.shape[1]
        return part.view(layers, -1, rows, part.shape[2]).permute(2, 0, 1, 3).reshape(rows, layers, self.out_channels)


class LSTMEncoder(nn.Module):
    """Words -> one vector: last hidden and cell state of every LSTM layer side by side ("deeper LSTM Q", 1505.00468).

    `out_channels` is 2 * S * H.
    """

    def __init__(self, vocabulary_size: int, *, embedding: int, hidden: int, layers: int, dropout: float):
        super().__init__()
        self.embed = nn.Embedding(vocabulary_size, embedding)
        self.dropout = nn.Dropout(dropout)
        self.lstm = RecurrentEncoder(embedding, hidden, layers=layers)
        self.out_channels = 2 * layers * hidden

    def forward(self, tokens: Tensor, lengths: Sequence[int]) -> Tensor:
        """(Q, T) int64 and Q lengths, all at least 1 -> (Q, 2SH)."""
        words = self.dropout(torch.tanh(self.embed(tokens)))
        _, (hidden, cell) = self.lstm(words, lengths)  # each (Q, S, H)
        return torch.cat([hidden, cell], dim=1).flatten(1)
