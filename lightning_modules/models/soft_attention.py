"""Show, Attend and Tell: an LSTM that looks at one place of a CNN's feature grid per word (1502.03044, soft attention).

Shapes: B images, K captions (or hypotheses), T words, L = h * w locations, D feature channels, H hidden units,
E word embedding, A attention channels, V words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from contracts.ranges import COUNT, Range, check_ranges
from lightning_modules.base.families import CaptionerSpec
from lightning_modules.blocks.attention_decoder import AttentionDecoder, Gate
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
    gate: Gate = "channel"
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
    """A `Captioner` (`base/families.py`)."""

    spec_class: ClassVar[type] = CaptionerSpec

    def __init__(self, config: Config, spec: CaptionerSpec):
        super().__init__()
        self.normalise = PixelNorm()
        self.backbone = build_backbone(config.backbone, pretrained=config.pretrained, norm=config.norm)
        self.level = config.features
        channels = self.backbone.channels[config.features]
        self.decoder = AttentionDecoder(
            feature_channels=channels,
            vocabulary_size=spec.vocabulary_size,
            embedding=config.embedding_channels,
            hidden=config.hidden_channels,
            attention=config.attention_channels,
            gate=config.gate,
            dropout=config.dropout,
        )

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
