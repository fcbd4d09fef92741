"""Sentence encoders.

Shapes: Q sentences, T words of the longest one, E word embedding, H hidden units, S LSTM layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence


class LSTMEncoder(nn.Module):
    """Words -> one vector: last hidden and cell state of every LSTM layer side by side ("deeper LSTM Q", 1505.00468).

    Sentences are packed, so padding changes nothing; `out_channels` is 2 * S * H.
    """

    def __init__(self, vocabulary_size: int, *, embedding: int, hidden: int, layers: int, dropout: float):
        super().__init__()
        self.embed = nn.Embedding(vocabulary_size, embedding)
        self.dropout = nn.Dropout(dropout)
        self.lstm = nn.LSTM(embedding, hidden, num_layers=layers, batch_first=True)
        self.out_channels = 2 * layers * hidden

    def forward(self, tokens: Tensor, lengths: Sequence[int]) -> Tensor:
        """(Q, T) int64 and Q lengths, all at least 1 -> (Q, 2SH).

        Packing wants the lengths on the CPU. Numbers stay there, while a tensor of the batch would travel to the GPU
        and make each step wait until it is back.
        """
        words = self.dropout(torch.tanh(self.embed(tokens)))
        # The fused kernel is far faster than a masked loop.
        packed = pack_padded_sequence(words, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
        _, (hidden, cell) = self.lstm(packed)  # each (S, Q, H)
        return torch.cat([hidden, cell], dim=0).transpose(0, 1).flatten(1)
