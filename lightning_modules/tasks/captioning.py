"""Image captioning: one image, several reference captions; measured by coco-caption's metrics.

Batch: `images` (B, 3, S, S) uint8; `tokens` (K, T) int64, `BEGIN` words `END`, padded with 0; `caption_image` (K,)
int64, the image of each caption; `counts`, predicted tokens and captions. B images, K captions of all images, T tokens,
L = h * w places of a feature grid, V words. The CNN runs once an image, however many captions it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contracts.ranges import AMOUNT, COUNT, SHARE, Range, check_ranges
from contracts.records import DataSpec, Record
from contracts.text import BEGIN, END, PAD, UNKNOWN, joined
from lightning_modules.augment.augment import Augment, AugmentConfig
from lightning_modules.augment.mirror import check_flip, draw_mirror, mirror_text
from lightning_modules.base.families import Captioner, CaptionerSpec
from lightning_modules.base.task import BaseTask, Batch, Example, Mean, Prediction, Truth
from lightning_modules.blocks.decoding import beam_search, repeat_rows
from lightning_modules.blocks.pixels import stack_images
from lightning_modules.metrics.caption_scores import CaptionScores
from lightning_modules.metrics.item_metric import ItemMetric

MAX_EVAL_CAPTIONS = 5  # COCO has five; the few images with more must not weigh more
_AUGMENT = AugmentConfig(scale=0.15, shift=0.06, rotate=8.0, saturation=0.1)  # nothing that changes what words say


@dataclass(frozen=True, kw_only=True)
class CaptioningConfig:
    """
    Attributes:
        image_size: images are resized to a square of this side, in pixels.
        captions_per_image: how many of an image's captions one training step uses, drawn anew each epoch.
        max_words: longer captions are cut in training; none longer is written.
        min_word_count: rarer words become `<unk>`.
        attention_weight: of the doubly stochastic term (1502.03044, eq. 14), a mean over places beside a mean over
            words. The paper's lambda stands before a sum over L places beside a sum over C words, so this is
            lambda * L / C: 0.1 is a lambda of 0.03 at 36 places and 11 words, and lambda 1 of 14 x 14 places is 18.
        beam_size: 1 is greedy search.
        length_power: hypotheses are compared by log p / length ** length_power.
        mirror: probability that an image is mirrored in training, "left" and "right" in its captions with it.
        augment: further changes in training; `horizontal_flip` is `mirror`'s matter here.
    """

    image_size: int = 96
    captions_per_image: int = 2
    max_words: int = 20
    min_word_count: int = 2
    attention_weight: float = 0.1
    beam_size: int = 3
    length_power: float = 1.0
    mirror: float = 0.5
    augment: AugmentConfig = _AUGMENT

    def __post_init__(self) -> None:
        counts = ("captions_per_image", "max_words", "min_word_count", "beam_size")
        amounts = {"attention_weight": AMOUNT, "length_power": AMOUNT}
        check_ranges(self, image_size=Range(32), mirror=SHARE, **amounts, **dict.fromkeys(counts, COUNT))
        check_flip(self.augment)


class Task(BaseTask):
    Config: ClassVar[type] = CaptioningConfig
    requires: ClassVar[tuple[str, ...]] = ("num_captions",)
    eval_requires: ClassVar[tuple[str, ...]] = ("num_captions",)
    texts: ClassVar[Mapping[str, str | None]] = {"captions": "words"}
    spec_class = CaptionerSpec
    metric: ClassVar[str] = "Bleu_4"
    config: CaptioningConfig

    def __init__(self, config: CaptioningConfig, data: DataSpec):
        super().__init__(config, data)
        self.vocabulary = self.read_vocabulary("captions", min_count=config.min_word_count)
        self._augment = Augment(config.augment, size=config.image_size)

    def spec(self) -> CaptionerSpec:
        return CaptionerSpec(vocabulary_size=len(self.vocabulary))

    # data

    def encode(self, record: Record, seed: int | None) -> Example:
        mirrored = draw_mirror(seed, self.config.mirror)
        image = self._augment(record.image, (record.height, record.width), seed=seed, mirror=mirrored).image
        captions = record.captions[:MAX_EVAL_CAPTIONS]
        if seed is not None:
            count = min(self.config.captions_per_image, len(record.captions))
            # Its own stream: the same number also seeds the augmentation.
            chosen = np.random.default_rng([seed, 1]).choice(len(record.captions), count, replace=False)
            captions = tuple(record.captions[i] for i in chosen)
        texts = [mirror_text(caption.text) if mirrored else caption.text for caption in captions]
        return {"image": image, "tokens": [self._tokens(text) for text in texts]}

    def _tokens(self, text: str) -> np.ndarray:
        ids = self.vocabulary.encode(text, max_length=self.config.max_words)
        return np.array([BEGIN, *ids, END], np.int64)

    def collate(self, examples: Sequence[Example]) -> Batch:
        sentences = [tokens for example in examples for tokens in example["tokens"]]
        padded = np.full((len(sentences), max((len(s) for s in sentences), default=2)), PAD, np.int64)
        for row, sentence in zip(padded, sentences, strict=True):
            row[: len(sentence)] = sentence
        counts = torch.tensor([len(example["tokens"]) for example in examples])
        return {
            "images": stack_images([example["image"] for example in examples]),
            "tokens": torch.from_numpy(padded),
            "caption_image": torch.repeat_interleave(counts),
            "counts": {
                "cross_entropy": sum(len(sentence) - 1 for sentence in sentences),  # all but `BEGIN` are predicted
                "attention": len(sentences),
            },
        }

    # learning

    def losses(self, model: nn.Module, batch: Batch) -> dict[str, Mean]:
        captioner = cast(Captioner, model)
        return self._losses(captioner, captioner.encode(batch["images"]), batch)

    def predict(self, model: nn.Module, batch: Batch) -> list[Prediction]:
        captioner = cast(Captioner, model)
        return self._predict(captioner, captioner.encode(batch["images"]))

    def evaluate_batch(self, model: nn.Module, batch: Batch) -> tuple[dict[str, Mean], list[Prediction]]:
        captioner = cast(Captioner, model)
        features = captioner.encode(batch["images"])  # once for both
        return self._losses(captioner, features, batch), self._predict(captioner, features)

    def _losses(self, model: Captioner, features: Tensor, batch: Batch) -> dict[str, Mean]:
        """`cross_entropy`: mean over tokens. `attention`: lambda * mean over captions and places of
        (1 - sum over words of alpha)^2; a mean over places, so lambda does not depend on the grid's size."""
        inputs, targets = batch["tokens"][:, :-1], batch["tokens"][:, 1:]
        logits, attention = model.decode(features, inputs, batch["caption_image"])
        with torch.autocast(logits.device.type, enabled=False):
            logits, counts = logits.float().flatten(0, 1), batch["counts"]
            cross_entropy = F.cross_entropy(logits, targets.flatten(), ignore_index=PAD, reduction="sum")
            is_word = (targets != PAD).unsqueeze(-1)
            seen = (attention.float() * is_word).sum(dim=1)  # (K, L)
            stochastic = self.config.attention_weight * (1 - seen).square().mean(dim=1).sum()
        return {
            "cross_entropy": Mean(cross_entropy, counts["cross_entropy"]),
            "attention": Mean(stochastic, counts["attention"]),
        }

    def _predict(self, model: Captioner, features: Tensor) -> list[Prediction]:
        beam = self.config.beam_size
        memory, state = model.start(features)
        memory = repeat_rows(memory, beam)
        decoded = beam_search(
            lambda tokens, state: model.step(memory, state, tokens),
            repeat_rows(state, beam),
            num_inputs=len(features),
            beam_size=beam,
            max_length=self.config.max_words + 1,
            begin=BEGIN,
            end=END,
            banned=(PAD, UNKNOWN, BEGIN),
            length_power=self.config.length_power,
        )
        height, width = features.shape[-2:]
        attention = decoded.kept.reshape(len(features), -1, height, width).cpu().numpy()
        predictions: list[Prediction] = []
        rows = zip(decoded.tokens.tolist(), decoded.log_probs.tolist(), attention, strict=True)
        for ids, log_prob, maps in rows:
            tokens = self.vocabulary.decode(ids)
            predictions.append(
                {
                    "caption": joined(tokens),
                    "words": tokens,
                    "log_prob": log_prob,
                    "attention": maps[: len(tokens)].astype(np.float16),
                }
            )
        return predictions

    # measuring

    def truths(self, record: Record) -> list[Truth]:
        return [{"captions": [caption.text for caption in record.captions]}]

    def metrics(self, *, thorough: bool = False) -> list[ItemMetric]:
        """On the official tokens, not the model's words. METEOR and SPICE, where they can be had, only if thorough."""
        return [CaptionScores(java=thorough)]

    def answer(self, prediction: Prediction) -> dict[str, Any]:
        return {"caption": prediction["caption"], "log_prob": prediction["log_prob"]}
