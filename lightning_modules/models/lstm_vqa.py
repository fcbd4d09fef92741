"""Visual question answering: "deeper LSTM Q + norm I" (1505.00468).

Shapes: B images, Q questions, T words, D feature channels of h x w places, F fused channels, K answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contracts.ranges import COUNT, Range, check_ranges
from lightning_modules.base.families import AnswererSpec
from lightning_modules.blocks.attention import AdditiveAttention
from lightning_modules.blocks.backbones import BackboneName, build_backbone, check_backbone
from lightning_modules.blocks.language import LSTMEncoder
from lightning_modules.blocks.norms import NormName, own_norm
from lightning_modules.blocks.pixels import PixelNorm


@dataclass(frozen=True, kw_only=True)
class Config:
    """`features` is the backbone level that is pooled.

    `pool` "mean" is the paper's one vector an image; "attention" weighs the places by the question first.
    """

    backbone: BackboneName = "small"
    pretrained: bool = False
    norm: NormName = "batch"
    features: Literal["c4", "c5"] = "c4"
    pool: Literal["mean", "attention"] = "mean"
    embedding_channels: int = 128
    hidden_channels: int = 256
    num_layers: int = 2
    fused_channels: int = 512
    dropout: float = 0.2

    def __post_init__(self) -> None:
        check_ranges(
            self,
            embedding_channels=COUNT,
            hidden_channels=COUNT,
            num_layers=COUNT,
            fused_channels=COUNT,
            dropout=Range(0, 1, open_high=True),
        )
        check_backbone(self.backbone, pretrained=self.pretrained, norm=self.norm)


class Model(nn.Module):
    """Image and question each become a vector of F channels; their product goes through an MLP to the answers."""

    spec_class: ClassVar[type] = AnswererSpec

    def __init__(self, config: Config, spec: AnswererSpec):
        super().__init__()
        self.normalise = PixelNorm()
        self.backbone = build_backbone(config.backbone, pretrained=config.pretrained, norm=config.norm)
        self.level = config.features
        channels = self.backbone.channels[config.features]
        self.question = LSTMEncoder(
            spec.vocabulary_size,
            embedding=config.embedding_channels,
            hidden=config.hidden_channels,
            layers=config.num_layers,
            dropout=config.dropout,
        )
        fused = config.fused_channels
        # Both sides are centred before they meet. Features after a ReLU are all positive: without this their common
        # mean makes up most of every unit vector and training stalls for long on what images have in common.
        self.center = own_norm(config.norm, channels)
        self.from_image = nn.Linear(channels, fused)
        self.from_question = nn.Sequential(nn.Linear(self.question.out_channels, fused), nn.LayerNorm(fused))
        self.attention: AdditiveAttention | None = None
        if config.pool == "attention":
            self.attention = AdditiveAttention(channels, fused)
        self.answer = nn.Sequential(
            nn.Dropout(config.dropout),
            nn.Linear(fused, fused),
            nn.Tanh(),
            nn.Dropout(config.dropout),
            nn.Linear(fused, spec.num_answers),
        )

    def forward(self, images: Tensor, questions: Tensor, lengths: Sequence[int], question_image: Tensor) -> Tensor:
        """Answer logits (Q, K) float32.

        Args:
            images: (B, 3, H, W) uint8.
            questions: (Q, T) int64, padded at the end.
            lengths: words of each question, Q numbers.
            question_image: (Q,) int64, the image that each question is about.
        """
        grid = self.backbone(self.normalise(images))[self.level]
        features = self.center(grid).flatten(2).transpose(1, 2)  # (B, hw, D)
        question = torch.tanh(self.from_question(self.question(questions, lengths)))  # (Q, F)
        if self.attention is None:
            pooled = features.mean(dim=1).index_select(0, question_image)
        else:
            keys = self.attention.keys(features).index_select(0, question_image)
            pooled, _ = self.attention(question, keys, features.index_select(0, question_image))
        # "norm I": unit length; times sqrt(D), which leaves channels at unit scale for the projection's default init.
        pooled = F.normalize(pooled.float(), dim=-1) * pooled.shape[-1] ** 0.5
        image = torch.tanh(self.from_image(pooled))
        return self.answer(image * question).float()
