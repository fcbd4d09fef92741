"""Sequence to sequence through one vector: an LSTM reads, its last state begins the LSTM that writes (1409.3215).

The paper's: 4 layers of 1,000 cells, 1,000 channels a word, the source reversed, all weights uniform in +-0.08, SGD
without momentum at 0.7, halved each half epoch after five, 7.5 epochs in batches of 128, gradients rescaled to a norm
of 5. Its size is `{layers: 4, embedding_channels: 1000, hidden_channels: 1000, reverse: true}`: 384
million weights with vocabularies of 160,000 and 80,000. The paper's cells are Graves' (with peepholes); that count
holds without them, and torch's cells have none.

Shapes: B sentences of S source tokens, N hypotheses, T target tokens, L layers, E word embedding, H hidden units,
V target words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from contracts.ranges import COUNT, Range, check_ranges
from lightning_modules.base.families import TranslatorSpec
from lightning_modules.blocks.language import RecurrentEncoder

_START = 0.08  # weights are uniform in +- this


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    Attributes:
        layers: L, of encoder and decoder. hidden_channels: H. embedding_channels: E, of both languages.
        reverse: the encoder reads the words from the last to the first, then `<eos>`; the target keeps its order.
        context: the vector is the decoder's first state (`init`, the paper's), or is also read at each step beside the
            word, s_t = g(y_{t-1}, s_{t-1}, c) with c the encoder's last output (1406.1078).
        start: the first weights: torch's, or the paper's.
        dropout: of word vectors and between layers (1409.2329); the paper has none.
    """

    layers: int = 1
    embedding_channels: int = 64
    hidden_channels: int = 128
    reverse: bool = False
    context: Literal["init", "every_step"] = "init"
    start: Literal["paper", "torch"] = "torch"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        counts = ("layers", "embedding_channels", "hidden_channels")
        check_ranges(self, dropout=Range(0, 1, open_high=True), **dict.fromkeys(counts, COUNT))


class Model(nn.Module):
    """A `Translator` (`base/families.py`) whose attention has no places: it never looks back."""

    spec_class: ClassVar[type] = TranslatorSpec

    def __init__(self, config: Config, spec: TranslatorSpec):
        super().__init__()
        embedding, hidden, layers = config.embedding_channels, config.hidden_channels, config.layers
        self.reverse, self.sees_context = config.reverse, config.context == "every_step"
        self.embed_source = nn.Embedding(spec.source_vocabulary_size, embedding)
        self.encoder = RecurrentEncoder(embedding, hidden, layers=layers, dropout=config.dropout)
        self.embed_target = nn.Embedding(spec.target_vocabulary_size, embedding)
        self.decoder = nn.LSTM(
            embedding + hidden * self.sees_context,
            hidden,
            num_layers=layers,
            batch_first=True,
            dropout=config.dropout if layers > 1 else 0.0,
        )
        self.vocabulary = nn.Linear(hidden, spec.target_vocabulary_size)
        self.dropout = nn.Dropout(config.dropout)
        if config.start == "paper":
            for parameter in self.parameters():
                nn.init.uniform_(parameter, -_START, _START)

    def encode(self, sources: Tensor, lengths: Sequence[int]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Memory (vector (B, H),) and state (hidden, cell), each (B, L, H), of (B, S) int64 and B lengths."""
        if self.reverse:
            sources = reversed_words(sources, lengths)
        _, (hidden, cell) = self.encoder(self.dropout(self.embed_source(sources)), lengths)
        return (hidden[:, -1],), (hidden, cell)

    def decode(self, memory: tuple[Tensor, ...], state: tuple[Tensor, ...], tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Teacher forcing: logits (B, T, V) float32 of the token after each of (B, T), and no attention (B, T, 0)."""
        logits, _ = self._run(memory, state, tokens)
        return logits, logits.new_zeros(*tokens.shape, 0)

    def step(
        self, memory: tuple[Tensor, ...], state: tuple[Tensor, ...], tokens: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
        """Logits (N, V) float32 of the token after (N,), the next state, and no attention (N, 0)."""
        logits, state = self._run(memory, state, tokens.unsqueeze(1))
        return logits[:, 0], state, logits.new_zeros(len(tokens), 0)

    def _run(
        self, memory: tuple[Tensor, ...], state: tuple[Tensor, ...], tokens: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        words = self.dropout(self.embed_target(tokens))
        if self.sees_context:
            (vector,) = memory
            words = torch.cat([words, vector.unsqueeze(1).expand(-1, tokens.shape[1], -1).to(words.dtype)], dim=-1)
        hidden, cell = (part.to(words.dtype).transpose(0, 1).contiguous() for part in state)  # torch's layout
        outputs, (hidden, cell) = self.decoder(words, (hidden, cell))
        return self.vocabulary(self.dropout(outputs)).float(), (hidden.transpose(0, 1), cell.transpose(0, 1))


def reversed_words(sources: Tensor, lengths: Sequence[int]) -> Tensor:
    """The words of each sentence from the last to the first: (B, S) int64 -> the same. `<eos>`, the last of its
    `lengths` tokens, and the padding behind it stay where they are."""
    ends = torch.tensor(lengths, device=sources.device).unsqueeze(1) - 1  # of `<eos>`
    places = torch.arange(sources.shape[1], device=sources.device).expand_as(sources)
    return sources.gather(1, torch.where(places < ends, ends - 1 - places, places))
