"""Image captioning: one image, several reference captions; measured by coco-caption's metrics.

Batch: `images` (B, 3, S, S) uint8; `tokens` (K, T) int64, `BEGIN` words `END`, padded with 0; `caption_image` (K,)
int64, the image of each caption; `counts`, predicted tokens and captions; in training `draws` (K, T) float32 in [0, 1),
all random numbers of models that look at random. B images, K captions of all images, T tokens, L = h * w places of a
feature grid, V words. The CNN runs once an image, however many captions it has.
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
from lightning_modules.base.exploring import Explorer
from lightning_modules.base.families import Captioner, CaptionerSpec
from lightning_modules.base.task import BaseTask, Batch, Example, Mean, Prediction, Truth
from lightning_modules.blocks.decoding import Decoded, beam_search, repeat_rows, sample
from lightning_modules.blocks.pixels import stack_images
from lightning_modules.metrics.caption_looks import CaptionLookScores
from lightning_modules.metrics.caption_scores import CaptionScores
from lightning_modules.metrics.item_metric import ItemMetric
from lightning_modules.metrics.pointing import PointingScore

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
        temperature: above 0, captions are not searched for but drawn, each word in proportion to
            p ** (1 / temperature): the nearer to 0, the nearer to greedy search. The
            same images in the same batches get the same captions.
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
    temperature: float = 0.0
    mirror: float = 0.5
    augment: AugmentConfig = _AUGMENT

    def __post_init__(self) -> None:
        counts = ("captions_per_image", "max_words", "min_word_count", "beam_size")
        amounts = dict.fromkeys(("attention_weight", "length_power", "temperature"), AMOUNT)
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
        example: Example = {"image": image, "tokens": [self._tokens(text) for text in texts]}
        if seed is not None:
            size = (len(texts), 2 + self.config.max_words)
            example["draws"] = np.random.default_rng([seed, 2]).random(size, np.float32)
        return example

    def _tokens(self, text: str) -> np.ndarray:
        ids = self.vocabulary.encode(text, max_length=self.config.max_words)
        return np.array([BEGIN, *ids, END], np.int64)

    def collate(self, examples: Sequence[Example]) -> Batch:
        sentences = [tokens for example in examples for tokens in example["tokens"]]
        padded = np.full((len(sentences), max((len(s) for s in sentences), default=2)), PAD, np.int64)
        for row, sentence in zip(padded, sentences, strict=True):
            row[: len(sentence)] = sentence
        counts = torch.tensor([len(example["tokens"]) for example in examples])
        num_words = sum(len(sentence) - 1 for sentence in sentences)  # all but `BEGIN` are predicted
        draws = [example["draws"][:, : padded.shape[1]] for example in examples if "draws" in example]
        return {
            **({"draws": torch.from_numpy(np.concatenate(draws))} if draws else {}),
            "images": stack_images([example["image"] for example in examples]),
            "tokens": torch.from_numpy(padded),
            "caption_image": torch.repeat_interleave(counts),
            "counts": {
                "cross_entropy": num_words,
                "attention": len(sentences),
                "reinforce": num_words,
                "entropy": num_words,
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
        (1 - sum over words of alpha)^2; a mean over places, so lambda does not depend on the grid's size; 0 of one
        place, at which every word looks. Of an `Explorer` in training also `reinforce` and `entropy`, means over
        tokens as the first, so that all three are parts of one gradient."""
        inputs, targets = batch["tokens"][:, :-1], batch["tokens"][:, 1:]
        explored = None
        if isinstance(model, Explorer) and "draws" in batch:
            explored = model.explore(features, inputs, targets, batch["caption_image"], batch["draws"])
            logits, attention = explored.logits, explored.attention
        else:
            logits, attention = model.decode(features, inputs, batch["caption_image"])
        with torch.autocast(logits.device.type, enabled=False):
            logits, counts = logits.float().flatten(0, 1), batch["counts"]
            cross_entropy = F.cross_entropy(logits, targets.flatten(), ignore_index=PAD, reduction="sum")
            is_word = (targets != PAD).unsqueeze(-1)
            seen = (attention.float() * is_word).sum(dim=1)  # (K, L)
            weight = self.config.attention_weight if attention.shape[-1] > 1 else 0.0
            stochastic = weight * (1 - seen).square().mean(dim=1).sum()
        losses = {
            "cross_entropy": Mean(cross_entropy, counts["cross_entropy"]),
            "attention": Mean(stochastic, counts["attention"]),
        }
        if explored is not None:
            losses["reinforce"] = Mean(explored.reinforce.sum(), counts["reinforce"])
            losses["entropy"] = Mean(explored.entropy.sum(), counts["entropy"])
            num_images = 0 if batch.get("is_stand_in") else len(batch["images"])
            cast(Explorer, model).take_rewards(
                explored.rewards[explored.is_drawn] if num_images else explored.rewards[:0],
                num_images=num_images,
                num_step_images=batch.get("num_step_images", num_images),
            )
        return losses

    def _predict(self, model: Captioner, features: Tensor) -> list[Prediction]:
        decoded = self._write(model, features)
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
        for name in model.also_look if isinstance(model, Explorer) else ():
            with cast(Explorer, model).looking(name):
                texts = [self.vocabulary.text(ids) for ids in self._write(model, features).tokens.tolist()]
            for prediction, caption in zip(predictions, texts, strict=True):
                prediction.setdefault("looks", {})[name] = caption
        return predictions

    def _write(self, model: Captioner, features: Tensor) -> Decoded:
        """One caption an image, the best that is found or, at a temperature, one that is drawn."""
        beam = 1 if self.config.temperature else self.config.beam_size
        memory, state = model.start(features)
        memory, state = repeat_rows(memory, beam), repeat_rows(state, beam)
        settings: dict[str, Any] = {
            "num_inputs": len(features),
            "max_length": self.config.max_words + 1,
            "begin": BEGIN,
            "end": END,
            "banned": (PAD, UNKNOWN, BEGIN),
        }

        def step(tokens: Tensor, state: Any) -> tuple[Tensor, Any, Tensor]:
            return model.step(memory, state, tokens)

        if self.config.temperature:
            generator = torch.Generator().manual_seed(0)
            return sample(step, state, temperature=self.config.temperature, generator=generator, **settings)
        return beam_search(step, state, beam_size=beam, length_power=self.config.length_power, **settings)

    # measuring

    def truths(self, record: Record) -> list[Truth]:
        objects, height, width = record.objects, record.height, record.width
        kept = np.flatnonzero(~objects.is_crowd)
        return [
            {
                "captions": [caption.text for caption in record.captions],
                "object_names": [self.data.classes[objects.labels[i] - 1] for i in kept],
                "object_boxes": objects.boxes[kept] / np.array([width, height, width, height], np.float32),
                "object_masks": [objects.masks[i] for i in kept],
                "size": (height, width),
            }
        ]

    def metrics(self, *, thorough: bool = False) -> list[ItemMetric]:
        """On the official tokens, not the model's words. METEOR and SPICE, where they can be had, and where attention
        points, only if thorough."""
        scores = CaptionScores(java=thorough)
        return [scores, CaptionLookScores(), PointingScore()] if thorough else [scores]

    def answer(self, prediction: Prediction) -> dict[str, Any]:
        return {"caption": prediction["caption"], "log_prob": prediction["log_prob"]}
