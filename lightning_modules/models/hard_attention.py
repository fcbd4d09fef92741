"""Show, Attend and Tell with hard attention: at each word one place is read, drawn by its weight (1502.03044, 4.1).

The lower bound `sum_s p(s|a) log p(y|s,a)` is maximised by REINFORCE (Williams, 1992), with the paper's three remedies
for its variance: a moving-average baseline, an entropy term, and the expected context in place of the draw in half of
the captions. With reward r = log p(y|s) and baseline b the gradient of a caption is (4.1, last equation)

    grad log p(y|s) + lambda_r (r - b) sum_t grad log alpha_t[s_t] + lambda_e sum_t grad H(alpha_t)

which is unbiased at lambda_r = 1, lambda_e = 0. Differences to the authors' code (arctic-captions), each towards the
paper: the reward is the caption's sum of log-likelihoods, not their mean over time; the coin is tossed for each
caption, not once a batch; all three terms are divided by the same count, words, so that their ratio does not depend on
the batch size. All random numbers come with the batch, drawn from (seed, epoch, record): the same at any world size.

Shapes: B images, K captions, T words, L = h * w places, D feature channels, V words of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from contracts.errors import ConfigError
from contracts.ranges import AMOUNT, COUNT, SHARE, Range, check_ranges
from contracts.text import PAD
from lightning_modules.base.exploring import Explored, LookName
from lightning_modules.base.families import CaptionerSpec
from lightning_modules.blocks.attention_decoder import AttentionDecoder, Gate, Look
from lightning_modules.blocks.backbones import BackboneName, build_backbone, check_backbone
from lightning_modules.blocks.hard_looks import RewardBaseline, draw_places, entropies, log_of, pick
from lightning_modules.blocks.norms import NormName
from lightning_modules.blocks.pixels import PixelNorm


@dataclass(frozen=True, kw_only=True)
class Config:
    """What soft attention has, under the same names, so that a run can start from the weights of one.

    Attributes:
        features: the backbone level that is looked at: c4 has stride 16, c5 stride 32.
        gate: beta on the context, see `soft_attention`.
        reinforce_weight: lambda_r. 1 is the estimator without a bias; the authors' code has 0.1 of a mean over words.
        entropy_weight: lambda_e.
        soft_probability: how many captions read the expected context in training.
        look: what validation and prediction read: the expected context, as the authors' test code, or the place of the
            largest weight. Never a draw.
        also_look: further ways to be measured by, under names such as `Bleu_4/sample`.
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
    reinforce_weight: float = 0.1
    entropy_weight: float = 0.002
    soft_probability: float = 0.5
    look: Literal["expected", "argmax"] = "expected"
    also_look: tuple[LookName, ...] = ()

    def __post_init__(self) -> None:
        counts = ("embedding_channels", "hidden_channels", "attention_channels")
        amounts = {"reinforce_weight": AMOUNT, "entropy_weight": AMOUNT}
        check_ranges(
            self,
            dropout=Range(0, 1, open_high=True),
            soft_probability=SHARE,
            **amounts,
            **dict.fromkeys(counts, COUNT),
        )
        if len({self.look, *self.also_look}) != 1 + len(self.also_look):
            raise ConfigError(
                "a way to look is named twice", value=[self.look, *self.also_look], where="also_look",
                allowed="those of expected, argmax, sample that `look` is not, each once",
            )  # fmt: skip
        check_backbone(self.backbone, pretrained=self.pretrained, norm=self.norm)


class Model(nn.Module):
    """A `Captioner` and an `Explorer`. `explore` is for training alone; all else looks as `look` says."""

    spec_class: ClassVar[type] = CaptionerSpec

    def __init__(self, config: Config, spec: CaptionerSpec):
        super().__init__()
        self.normalise = PixelNorm()
        self.backbone = build_backbone(config.backbone, pretrained=config.pretrained, norm=config.norm)
        self.level = config.features
        self.decoder = AttentionDecoder(
            feature_channels=self.backbone.channels[config.features],
            vocabulary_size=spec.vocabulary_size,
            embedding=config.embedding_channels,
            hidden=config.hidden_channels,
            attention=config.attention_channels,
            gate=config.gate,
            dropout=config.dropout,
        )
        self.baseline = RewardBaseline()
        self.reinforce_weight, self.entropy_weight = config.reinforce_weight, config.entropy_weight
        self.soft_probability = config.soft_probability
        self.also_look = config.also_look
        self._name: LookName = config.look
        self._generator: torch.Generator | None = None  # while places are drawn: no copy of a model can hold one

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> feature grid (B, D, h, w)."""
        return self.backbone(self.normalise(images))[self.level]

    def start(self, features: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """What is constant for an image and the state before `BEGIN`, each a tuple of tensors with B rows."""
        return self.decoder.start(features.flatten(2).transpose(1, 2))

    def step(
        self, memory: tuple[Tensor, ...], state: tuple[Tensor, ...], tokens: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
        """One word: logits (N, V) float32, the next state, attention (N, L) float32, from `tokens` (N,) int64."""
        return self.decoder.step(memory, state, tokens, self._look())

    def decode(self, features: Tensor, tokens: Tensor, caption_image: Tensor) -> tuple[Tensor, Tensor]:
        """Teacher forcing: logits (K, T, V) float32 of the word after each token, and attention (K, T, L) float32."""
        memory, state = self._started(features, caption_image)
        look = self._look()
        return self.decoder(memory, state, tokens, None if look is None else [look] * tokens.shape[1])

    def explore(
        self, features: Tensor, tokens: Tensor, targets: Tensor, caption_image: Tensor, draws: Tensor
    ) -> Explored:
        """See `Explorer`."""
        memory, state = self._started(features, caption_image)
        is_drawn = draws[:, 0] >= self.soft_probability
        places: list[Tensor] = []

        def drawing(uniform: Tensor) -> Look:
            def look(weights: Tensor, expected: Tensor, grid: Tensor) -> Tensor:
                places.append(draw_places(weights.detach(), uniform))
                return torch.where(is_drawn.unsqueeze(1), pick(grid, places[-1]), expected)

            return look

        looks = [drawing(uniform) for uniform in draws[:, 1 : 1 + tokens.shape[1]].unbind(dim=1)]
        logits, attention = self.decoder(memory, state, tokens, looks)
        return self.surrogate(logits, attention, targets, torch.stack(places, dim=1), is_drawn)

    def surrogate(
        self, logits: Tensor, attention: Tensor, targets: Tensor, places: Tensor, is_drawn: Tensor
    ) -> Explored:
        """What the places (K, T) add to the loss of captions (K, T) with these logits (K, T, V); padding adds nothing.

        The gradient of a draw's probability goes through log alpha alone: reward and baseline are constants.
        """
        is_word = targets != PAD
        with torch.autocast(logits.device.type, enabled=False):
            likelihoods = torch.log_softmax(logits.float(), dim=-1).gather(2, targets.unsqueeze(2)).squeeze(2)
            rewards = (likelihoods.detach() * is_word).sum(dim=1)
            log_alphas = (log_of(attention.gather(2, places.unsqueeze(2)).squeeze(2)) * is_word).sum(dim=1)
            advantages = (rewards - self.baseline.value.to(rewards.dtype)) * is_drawn
            return Explored(
                logits=logits,
                attention=attention,
                reinforce=-self.reinforce_weight * advantages * log_alphas,
                entropy=-self.entropy_weight * (entropies(attention) * is_word).sum(dim=1),
                rewards=rewards,
                is_drawn=is_drawn,
            )

    def take_rewards(self, rewards: Tensor, *, num_images: int, num_step_images: int) -> None:
        """See `Explorer`."""
        self.baseline.add(rewards, num_images=num_images, num_step_images=num_step_images)

    @contextmanager
    def looking(self, name: LookName) -> Iterator[None]:
        """See `Explorer`."""
        before, self._name = self._name, name
        self._generator = torch.Generator().manual_seed(0)
        try:
            yield
        finally:
            self._name, self._generator = before, None

    def _started(self, features: Tensor, caption_image: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        memory, state = self.start(features)
        return (
            tuple(t.index_select(0, caption_image) for t in memory),
            tuple(t.index_select(0, caption_image) for t in state),
        )

    def _look(self) -> Look | None:
        if self._name == "expected":
            return None
        return _most if self._name == "argmax" else self._drawn

    def _drawn(self, weights: Tensor, expected: Tensor, features: Tensor) -> Tensor:
        uniform = torch.rand(len(weights), generator=self._generator, dtype=torch.float64)
        return pick(features, draw_places(weights, uniform.to(weights.device)))


def _most(weights: Tensor, expected: Tensor, features: Tensor) -> Tensor:
    return pick(features, weights.argmax(dim=1))
