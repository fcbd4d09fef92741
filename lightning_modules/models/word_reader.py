"""Reads a word in a picture: rectify, columns by a CNN, both directions by LSTMs, then a decoder (1904.01906).

The paper's four stages with its names: TPS or none; VGG or ResNet; BiLSTM or none; CTC or attention, which the task
chooses. Its best is TPS-ResNet-BiLSTM-Attn ("TRBA"), `rectify: true, features: resnet, channels: 256` on pictures of
32 x 100 px: 49,555,182 weights with 38 tokens; CRNN (1507.05717) is `features: vgg` with CTC. Trained there with
Adadelta (rate 1, rho 0.95), gradients cut at a norm of 5, 300,000 batches of 192 synthetic words, no dropout.

As in its code pictures are grey, in -1..1; weights start from Kaiming's normal distribution, biases at 0; the attention
decoder reads the token before as a one-hot vector, and its first state is 0. One start token pads there, too; here
padding is a token of its own.

Shapes: B pictures (B, 3, H, W), T columns, D features of a column, N rows, S tokens, C units, V tokens that there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contracts.errors import ConfigError
from contracts.ranges import AMOUNT, COUNT, Range, check_ranges
from lightning_modules.base.families import TextReaderSpec
from lightning_modules.blocks.attention import AdditiveAttention
from lightning_modules.blocks.line_features import LineFeatures, line_features
from lightning_modules.blocks.rectify import ThinPlateSpline

State = tuple[Tensor, ...]
_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601, as pictures are read as grey


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    Attributes:
        rectify: bend the picture so that the text stands on a straight line.
        num_points: along the text's edges, half of them on each, which say how it is bent.
        features: the CNN; `small` is ours, for a CPU.
        layers: of BiLSTM, each with a projection behind it; 0: none.
        channels: C, units of each direction, of the projections, of attention and decoder.
        dropout: of what the decoder reads; the paper has none.
    """

    rectify: bool = False
    num_points: int = 20
    features: LineFeatures = "small"
    layers: int = 2
    channels: int = 96
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_ranges(self, num_points=Range(4, 100), channels=COUNT, dropout=Range(0, 1, open_high=True), layers=AMOUNT)
        if self.num_points % 2:
            raise ConfigError("half of the points lie on each edge", value=self.num_points, where="num_points",
                              allowed="an even number")  # fmt: skip


class Model(nn.Module):
    """A `TextReader` (`base/families.py`)."""

    spec_class: ClassVar[type] = TextReaderSpec

    def __init__(self, config: Config, spec: TextReaderSpec):
        super().__init__()
        points = config.num_points
        self.rectify = ThinPlateSpline(1, spec.image_size, num_points=points) if config.rectify else None
        self.features, channels = line_features(config.features)
        layers = []
        for _ in range(config.layers):
            layers.append(_BothDirections(channels, config.channels))
            channels = config.channels
        self.sequence = nn.Sequential(*layers)
        self.dropout = nn.Dropout(config.dropout)
        self.vocabulary_size = spec.vocabulary_size
        if spec.alignment == "ctc":
            self.label = nn.Linear(channels, spec.vocabulary_size)
        else:
            self.attention = AdditiveAttention(channels, config.channels)
            self.query = nn.Linear(config.channels, config.channels, bias=False)
            self.cell = nn.LSTMCell(channels + spec.vocabulary_size, config.channels)
            self.vocabulary = nn.Linear(config.channels, spec.vocabulary_size)
        self._start()

    @torch.no_grad()
    def _start(self) -> None:
        for name, parameter in self.named_parameters():
            if name.endswith("bias") or "bias_" in name:
                nn.init.zeros_(parameter)
            elif parameter.dim() > 1:
                nn.init.kaiming_normal_(parameter)
        if self.rectify is not None:
            self.rectify.restart()

    def encode(self, images: Tensor) -> Tensor:
        weights = torch.tensor(_GREY, device=images.device).view(1, 3, 1, 1)
        grey = (images.float() * weights).sum(dim=1, keepdim=True) / 127.5 - 1
        if self.rectify is not None:
            grey = self.rectify(grey)
        columns = self.features(grey).mean(dim=2).transpose(1, 2)  # one row is left of a picture 32 high
        return self.dropout(self.sequence(columns))  # type: ignore[no-any-return]

    def columns(self, features: Tensor) -> Tensor:
        return self.label(features).float()  # type: ignore[no-any-return]

    def start(self, features: Tensor) -> tuple[State, State]:
        zeros = features.new_zeros(len(features), self.cell.hidden_size, dtype=torch.float32)
        return (features, self.attention.keys(features)), (zeros, zeros)

    def decode(self, memory: State, state: State, tokens: Tensor) -> tuple[Tensor, Tensor]:
        hiddens, weights = [], []
        for token in tokens.unbind(dim=1):
            state, weight = self._recur(memory, state, token)
            hiddens.append(state[0])
            weights.append(weight)
        return self.vocabulary(torch.stack(hiddens, dim=1)).float(), torch.stack(weights, dim=1)

    def step(self, memory: State, state: State, tokens: Tensor) -> tuple[Tensor, State, Tensor]:
        state, weight = self._recur(memory, state, tokens)
        return self.vocabulary(state[0]).float(), state, weight

    def _recur(self, memory: State, state: State, tokens: Tensor) -> tuple[State, Tensor]:
        """State (h, c) and attention (N, T) from the tokens before, (N,)."""
        features, keys = memory
        context, weight = self.attention(self.query(state[0]).to(keys.dtype), keys, features)
        before = F.one_hot(tokens, self.vocabulary_size).to(context.dtype)
        hidden, cell = self.cell(torch.cat([context, before], dim=1), (state[0].to(context.dtype), state[1]))
        return (hidden.float(), cell.float()), weight


class _BothDirections(nn.Module):
    """(B, T, D) -> (B, T, C): an LSTM in each direction, then a projection of both."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.rnn = nn.LSTM(channels, hidden, batch_first=True, bidirectional=True)
        self.project = nn.Linear(2 * hidden, hidden)

    def forward(self, steps: Tensor) -> Tensor:
        return self.project(self.rnn(steps)[0])  # type: ignore[no-any-return]
