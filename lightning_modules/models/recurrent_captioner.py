"""CNN and RNN without attention: one vector an image, which enters the recurrent network once or at every word.

Karpathy & Fei-Fei (1412.2306): `h_t = f(W_hx x_t + W_hh h_{t-1} + b_h + 1(t=1) W_ih v)`, v the CNN's last layer but
one. The lecture writes `+ W_ih v` without the condition: every step. Show and Tell (1411.4555) and NeuralTalk2 read a
projection of v as the first input token, before `BEGIN`.

Known differences: f is tanh (the paper's Elman network has a ReLU); an LSTM's output is `o tanh(c)` (NeuralTalk and
Show and Tell as printed: `o c`). NeuralTalk2 with a frozen CNN never trained its projection of v; here W_ih always is.
Recipes: RMSprop 1e-3 (paper); Adam 4e-4 with beta_1 0.8, gradients cut at 0.1 (NeuralTalk2); beam 7, 2, 20.

Shapes: B images, K captions (or N hypotheses), T words, D image channels, H hidden units, E word embedding, V words;
G = H for an Elman cell, 4H for an LSTM.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from contracts.errors import ConfigError
from contracts.ranges import COUNT, Range, check_ranges
from lightning_modules.base.families import CaptionerSpec
from lightning_modules.blocks.backbones import Backbone, BackboneName, build_backbone, check_backbone
from lightning_modules.blocks.norms import NormName
from lightning_modules.blocks.pixels import PixelNorm
from lightning_modules.blocks.vgg import VGG16FC7

InjectName = Literal["first", "every", "token", "none"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    Attributes:
        features: the backbone level whose mean over places is v; `fc7` is VGG-16 cut before its last layer, for images
            of 224 px (`task: {image_size: 224}`).
        cell: the recurrent network.
        inject: where the image enters: `+ W_ih v` at the first word or at every word, as a token before the first word,
            or nowhere, which is a language model that has never seen an image.
        dropout: of what the words are read from, h.
    """

    backbone: BackboneName = "small"
    pretrained: bool = False
    norm: NormName = "batch"
    features: Literal["c4", "c5", "fc7"] = "c5"
    cell: Literal["elman", "lstm"] = "lstm"
    inject: InjectName = "first"
    embedding_channels: int = 128
    hidden_channels: int = 256
    dropout: float = 0.2

    def __post_init__(self) -> None:
        check_ranges(self, embedding_channels=COUNT, hidden_channels=COUNT, dropout=Range(0, 1, open_high=True))
        check_backbone(self.backbone, pretrained=self.pretrained, norm=self.norm)
        if self.features == "fc7" and self.backbone != "vgg16":
            raise ConfigError(
                "fc7 is a layer of VGG-16", value=self.backbone, where="backbone", allowed="vgg16",
                fix="set backbone: vgg16, or features: c5",
            )  # fmt: skip


class Model(nn.Module):
    """A `Captioner` (`base/families.py`) whose grid has one place, at which it always looks."""

    spec_class: ClassVar[type] = CaptionerSpec

    def __init__(self, config: Config, spec: CaptionerSpec):
        super().__init__()
        self.normalise = PixelNorm()
        backbone: Backbone | VGG16FC7
        if config.features == "fc7":
            backbone = VGG16FC7(pretrained=config.pretrained)
        else:
            backbone = build_backbone(config.backbone, pretrained=config.pretrained, norm=config.norm)
        self.backbone, self.level = backbone, config.features
        channels = backbone.channels[config.features]
        self.decoder = Decoder(config, image_channels=channels, vocabulary_size=spec.vocabulary_size)

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> v, a grid of one place (B, D, 1, 1)."""
        return self.backbone(self.normalise(images))[self.level].mean(dim=(2, 3), keepdim=True)

    def decode(self, features: Tensor, tokens: Tensor, caption_image: Tensor) -> tuple[Tensor, Tensor]:
        """Teacher forcing: logits (K, T, V) float32 of the word after each token, and ones (K, T, 1) float32.

        Args:
            features: (B, D, 1, 1) from `encode`.
            tokens: (K, T) int64, beginning with `BEGIN`.
            caption_image: (K,) int64, the image of each caption.
        """
        state = tuple(part.index_select(0, caption_image) for part in self.start(features)[1])
        return self.decoder(state, tokens), torch.ones(*tokens.shape, 1, device=tokens.device)

    def start(self, features: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Nothing that is constant for an image, and the state before `BEGIN`, a tuple of tensors with B rows."""
        return (), self.decoder.start(features.flatten(1))

    def step(
        self, memory: tuple[Tensor, ...], state: tuple[Tensor, ...], tokens: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
        """One word: logits (N, V) float32, the next state, ones (N, 1) float32, from `tokens` (N,) int64."""
        logits, state = self.decoder.step(state, tokens)
        return logits, state, torch.ones(len(tokens), 1, device=tokens.device)


class Decoder(nn.Module):
    """The recurrent network. Its state is (h, c, image) or (h, image): `image` (N, G) is what is still to be added to
    the next step's gates, W_ih v or zeros.

    Without the image's part an LSTM has 4H (E + H + 2) + V (E + H + 1) parameters: two biases, as torch's. The words'
    part of the gates and the product with the vocabulary stand outside the time loop, W_ih v is computed once.
    """

    def __init__(self, config: Config, *, image_channels: int, vocabulary_size: int):
        super().__init__()
        embedding, hidden = config.embedding_channels, config.hidden_channels
        self.inject, self.is_lstm = config.inject, config.cell == "lstm"
        gates = 4 * hidden if self.is_lstm else hidden
        self.num_gates, self.hidden_channels = gates, hidden
        self.embed = nn.Embedding(vocabulary_size, embedding)
        self.from_word = nn.Linear(embedding, gates)  # W_hx and a bias
        self.from_hidden = nn.Linear(hidden, gates)  # W_hh and a bias
        self.from_image: nn.Linear | None = None  # W_ih
        self.image_token: nn.Linear | None = None
        if config.inject in ("first", "every"):
            self.from_image = nn.Linear(image_channels, gates, bias=False)
        elif config.inject == "token":
            self.image_token = nn.Linear(image_channels, embedding)
        self.vocabulary = nn.Linear(hidden, vocabulary_size)
        self.dropout = nn.Dropout(config.dropout)
        nn.init.uniform_(self.embed.weight, -0.1, 0.1)
        for layer in (self.from_word, self.from_hidden):  # as torch's recurrent layers
            for parameter in layer.parameters():
                nn.init.uniform_(parameter, -(hidden**-0.5), hidden**-0.5)

    def start(self, image: Tensor) -> tuple[Tensor, ...]:
        """The state before `BEGIN` from v (B, D), in float32."""
        zeros = torch.zeros(len(image), self.hidden_channels, device=image.device)
        added = torch.zeros(len(image), self.num_gates, device=image.device)
        if self.from_image is not None:
            added = self.from_image(image).float()
        state = (zeros, zeros, added) if self.is_lstm else (zeros, added)
        if self.image_token is not None:
            state = self._recur(state, self.from_word(self.image_token(image)))
        return state

    def forward(self, state: tuple[Tensor, ...], tokens: Tensor) -> Tensor:
        """Logits (K, T, V) float32 for `tokens` (K, T)."""
        hiddens = []
        for gates in self.from_word(self.embed(tokens)).unbind(dim=1):
            state = self._recur(state, gates)
            hiddens.append(state[0])
        return self._output(torch.stack(hiddens, dim=1))

    def step(self, state: tuple[Tensor, ...], tokens: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Logits (N, V) float32 and the next state, from `tokens` (N,)."""
        state = self._recur(state, self.from_word(self.embed(tokens)))
        return self._output(state[0]), state

    def _recur(self, state: tuple[Tensor, ...], word_gates: Tensor) -> tuple[Tensor, ...]:
        """The next state from the word's part of the gates (N, G); an LSTM's are i, f, g, o, as torch's."""
        hidden, *cells, added = state
        gates = (word_gates + self.from_hidden(hidden)).float() + added
        left = added if self.inject == "every" else torch.zeros_like(added)
        if not self.is_lstm:
            return torch.tanh(gates), left
        in_gate, forget_gate, candidate, out_gate = gates.chunk(4, dim=-1)
        cell = torch.sigmoid(forget_gate) * cells[0] + torch.sigmoid(in_gate) * torch.tanh(candidate)
        return torch.sigmoid(out_gate) * torch.tanh(cell), cell, left

    def _output(self, hidden: Tensor) -> Tensor:
        return self.vocabulary(self.dropout(hidden)).float()
