"""Show, Attend and Tell: an LSTM that looks at one place of a CNN's feature grid per word (1502.03044, soft attention).

Shapes: B images, K captions (or hypotheses), T words, L = h * w locations, D feature channels, H hidden units,
E word embedding, A attention channels, V words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from contracts.ranges import COUNT, Range, check_ranges
from lightning_modules.base.families import CaptionerSpec
from lightning_modules.blocks.attention import AdditiveAttention
from lightning_modules.blocks.backbones import BackboneName, build_backbone, check_backbone
from lightning_modules.blocks.norms import NormName
from lightning_modules.blocks.pixels import PixelNorm


@dataclass(frozen=True, kw_only=True)
class Config:
    """`features` is the backbone level that is looked at: c4 has stride 16, c5 stride 32.

    `gate` is beta on the context (section 4.2.1): one number a word, as in the paper, or one for each channel, which
    many reimplementations have and which is our default.
    """

    backbone: BackboneName = "small"
    pretrained: bool = False
    norm: NormName = "batch"
    features: Literal["c4", "c5"] = "c4"
    embedding_channels: int = 128
    hidden_channels: int = 256
    attention_channels: int = 128
    gate: Literal["channel", "scalar"] = "channel"
    dropout: float = 0.2

    def __post_init__(self) -> None:
        check_ranges(
            self,
            embedding_channels=COUNT,
            hidden_channels=COUNT,
            attention_channels=COUNT,
            dropout=Range(0, 1, open_high=True),
        )
        check_backbone(self.backbone, pretrained=self.pretrained, norm=self.norm)


class Model(nn.Module):
    """A `Captioner` (`base/families.py`).

    All that does not depend on the previous step stands outside the time loop: the attention keys, the words' part
    of the LSTM gates, and, in training, the deep output layer with the product with the vocabulary.
    """

    spec_class: ClassVar[type] = CaptionerSpec

    def __init__(self, config: Config, spec: CaptionerSpec):
        super().__init__()
        self.normalise = PixelNorm()
        self.backbone = build_backbone(config.backbone, pretrained=config.pretrained, norm=config.norm)
        self.level = config.features
        channels = self.backbone.channels[config.features]
        self.decoder = Decoder(config, feature_channels=channels, vocabulary_size=spec.vocabulary_size)

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> feature grid (B, D, h, w)."""
        return self.backbone(self.normalise(images))[self.level]

    def decode(self, features: Tensor, tokens: Tensor, caption_image: Tensor) -> tuple[Tensor, Tensor]:
        """Teacher forcing: logits (K, T, V) float32 of the word after each token, and attention (K, T, L) float32.

        Args:
            features: (B, D, h, w) from `encode`.
            tokens: (K, T) int64, beginning with `BEGIN`.
            caption_image: (K,) int64, the image of each caption.
        """
        memory, state = self.start(features)
        memory = tuple(t.index_select(0, caption_image) for t in memory)
        state = tuple(t.index_select(0, caption_image) for t in state)
        return self.decoder(memory, state, tokens)

    def start(self, features: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """What is constant for an image and the state before `BEGIN`, each a tuple of tensors with B rows."""
        return self.decoder.start(features.flatten(2).transpose(1, 2))

    def step(
        self, memory: tuple[Tensor, ...], state: tuple[Tensor, ...], tokens: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
        """One word: logits (N, V) float32, the next state, attention (N, L) float32, from `tokens` (N,) int64."""
        return self.decoder.step(memory, state, tokens)


class Decoder(nn.Module):
    """LSTM with soft attention, gate beta on the context (section 4.2.1) and deep output (eq. 7)."""

    def __init__(self, config: Config, *, feature_channels: int, vocabulary_size: int):
        super().__init__()
        embedding, hidden, attention = config.embedding_channels, config.hidden_channels, config.attention_channels
        self.embed = nn.Embedding(vocabulary_size, embedding)
        self.attention = AdditiveAttention(feature_channels, attention)
        self.initial = nn.Linear(feature_channels, 2 * hidden)  # f_init,h and f_init,c
        self.word_gates = nn.Linear(embedding, 4 * hidden)
        self.context_gates = nn.Linear(feature_channels, 4 * hidden, bias=False)
        # One product with the previous hidden state: LSTM gates, attention query, gate beta.
        self.hidden_sizes = [4 * hidden, attention, 1 if config.gate == "scalar" else feature_channels]
        self.from_hidden = nn.Linear(hidden, sum(self.hidden_sizes))
        self.output_hidden = nn.Linear(hidden, embedding)
        self.output_context = nn.Linear(feature_channels, embedding, bias=False)
        self.vocabulary = nn.Linear(embedding, vocabulary_size)
        self.dropout = nn.Dropout(config.dropout)
        nn.init.uniform_(self.embed.weight, -0.1, 0.1)

    def start(self, features: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Memory (features (B, L, D), keys (B, L, A)) and state (h, c) (B, H) from the mean feature."""
        hidden, cell = torch.tanh(self.initial(features.mean(dim=1))).float().chunk(2, dim=-1)
        return (features, self.attention.keys(features)), (hidden, cell)

    def forward(self, memory: tuple[Tensor, ...], state: tuple[Tensor, ...], tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (K, T, V) and attention (K, T, L), both float32, for `tokens` (K, T)."""
        words = self.dropout(self.embed(tokens))
        word_gates = self.word_gates(words)
        hiddens, contexts, weights = [], [], []
        for gates in word_gates.unbind(dim=1):
            state, context, weight = self._recur(memory, state, gates)
            hiddens.append(state[0])
            contexts.append(context)
            weights.append(weight)
        logits = self._output(words, torch.stack(hiddens, dim=1), torch.stack(contexts, dim=1))
        return logits, torch.stack(weights, dim=1)

    def step(
        self, memory: tuple[Tensor, ...], state: tuple[Tensor, ...], tokens: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
        """See `Model.step`."""
        words = self.dropout(self.embed(tokens))
        state, context, weight = self._recur(memory, state, self.word_gates(words))
        return self._output(words, state[0], context), state, weight

    def _recur(
        self, memory: tuple[Tensor, ...], state: tuple[Tensor, ...], word_gates: Tensor
    ) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor]:
        """State (h, c), gated context (N, D) and attention (N, L) from the word's part of the gates (N, 4H)."""
        features, keys = memory
        hidden, cell = state
        hidden_gates, query, beta = self.from_hidden(hidden).split(self.hidden_sizes, dim=-1)
        context, weight = self.attention(query, keys, features)
        context = torch.sigmoid(beta) * context
        gates = (word_gates + hidden_gates + self.context_gates(context)).float()
        in_gate, forget_gate, out_gate, candidate = gates.chunk(4, dim=-1)
        cell = torch.sigmoid(forget_gate) * cell + torch.sigmoid(in_gate) * torch.tanh(candidate)
        return (torch.sigmoid(out_gate) * torch.tanh(cell), cell), context, weight

    def _output(self, words: Tensor, hidden: Tensor, context: Tensor) -> Tensor:
        """Deep output: (..., E), (..., H), (..., D) -> logits (..., V). The tanh is the authors' code's."""
        deep = torch.tanh(words + self.output_hidden(self.dropout(hidden)) + self.output_context(context))
        return self.vocabulary(self.dropout(deep)).float()
