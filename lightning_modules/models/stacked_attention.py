"""Stacked attention networks: a question looks at an image, and looks again with what it saw (1511.02274).

Hop k: `h = tanh(W_I v + W_Q u + b)`, `p = softmax(w_P h)`, `u <- u + sum p v`; the last u gives the answer. The score
`w_P h` is linear, as in the paper. The released code takes its tanh, so that no place of 14 x 14 can have more than
e^2 / (e^2 + 195) = 3.65 % of the weight; it also applies tanh to each branch before they are added and none after.

Shapes: B images, Q questions, T words, L = h * w places, D feature channels, H hidden units (the paper's d), K answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from contracts.ranges import AMOUNT, COUNT, Range, check_ranges
from lightning_modules.base.families import AnswererSpec
from lightning_modules.blocks.attention import AdditiveAttention
from lightning_modules.blocks.backbones import BackboneName, build_backbone, check_backbone
from lightning_modules.blocks.language import RecurrentEncoder
from lightning_modules.blocks.norms import NormName
from lightning_modules.blocks.pixels import PixelNorm


@dataclass(frozen=True, kw_only=True)
class Config:
    """The paper's is vgg16's c5 of 448 px, embedding 500, hidden 1024, attention 512, two hops, dropout 0.5.

    Attributes:
        features: the backbone level that is looked at.
        hops: looks at the image; 0 is the control, the mean over all places.
    """

    backbone: BackboneName = "small"
    pretrained: bool = False
    norm: NormName = "batch"
    features: Literal["c3", "c4", "c5"] = "c4"
    hops: int = 2
    embedding_channels: int = 128
    hidden_channels: int = 256
    attention_channels: int = 128
    dropout: float = 0.2

    def __post_init__(self) -> None:
        check_ranges(
            self,
            hops=AMOUNT,
            embedding_channels=COUNT,
            hidden_channels=COUNT,
            attention_channels=COUNT,
            dropout=Range(0, 1, open_high=True),
        )
        check_backbone(self.backbone, pretrained=self.pretrained, norm=self.norm)


class Hop(nn.Module):
    """One look: each has weights of its own."""

    def __init__(self, hidden: int, channels: int):
        super().__init__()
        self.query = nn.Linear(hidden, channels, bias=False)  # the keys have the bias of the sum
        self.attention = AdditiveAttention(hidden, channels)

    def forward(self, question: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """u (Q, H) and v (Q, L, H) -> the next u (Q, H) and weights (Q, L) float32."""
        seen, weights = self.attention(self.query(question), self.attention.keys(places), places)
        return question + seen, weights


class Model(nn.Module):
    """An `Answerer` (`base/families.py`) that also tells where it looked."""

    spec_class: ClassVar[type] = AnswererSpec

    def __init__(self, config: Config, spec: AnswererSpec):
        super().__init__()
        self.normalise = PixelNorm()
        self.backbone = build_backbone(config.backbone, pretrained=config.pretrained, norm=config.norm)
        self.level = config.features
        hidden = config.hidden_channels
        self.from_image = nn.Linear(self.backbone.channels[config.features], hidden)
        self.embed = nn.Embedding(spec.vocabulary_size, config.embedding_channels)
        self.question = RecurrentEncoder(config.embedding_channels, hidden)
        self.hops = nn.ModuleList([Hop(hidden, config.attention_channels) for _ in range(config.hops)])
        self.answer = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(hidden, spec.num_answers))

    def forward(self, images: Tensor, questions: Tensor, lengths: Sequence[int], question_image: Tensor) -> Tensor:
        """Answer logits (Q, K) float32; arguments as of `look`."""
        return self.look(images, questions, lengths, question_image)[0]

    def look(
        self, images: Tensor, questions: Tensor, lengths: Sequence[int], question_image: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Answer logits (Q, K), and where each hop looked (Q, hops, h, w), both float32.

        Args:
            images: (B, 3, H, W) uint8.
            questions: (Q, T) int64, padded at the end.
            lengths: words of each question, Q numbers.
            question_image: (Q,) int64, the image that each question is about.
        """
        grid = self.backbone(self.normalise(images))[self.level]
        height, width = grid.shape[-2:]
        places = torch.tanh(self.from_image(grid.flatten(2).transpose(1, 2))).index_select(0, question_image)
        _, (hidden, _) = self.question(self.embed(questions), lengths)
        state, looks = hidden[:, -1], []
        for hop in self.hops:
            state, weights = hop(state, places)
            looks.append(weights)
        if not looks:
            state = state + places.mean(dim=1)
        maps = torch.stack(looks, dim=1) if looks else places.new_zeros(len(places), 0, height * width).float()
        return self.answer(state).float(), maps.unflatten(2, (height, width))
