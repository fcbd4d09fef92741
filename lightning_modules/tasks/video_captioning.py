"""Video captioning: one clip, several reference captions; measured by coco-caption's metrics.

Batch: `frames` (F, 3, S, S) uint8, those of one clip after those of another; `lengths`, B numbers that add up to F;
`tokens` (N, L) int64, `BEGIN` words `END`, padded with 0; `caption_clip` (N,) int64, the clip of each caption;
`counts`, predicted tokens. B clips, N captions of all clips, L tokens. Model: `ClipCaptioner`.
Prediction: `caption`, `words`, `log_prob`. Truth: `captions`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from contracts.inputs import InputName
from contracts.ranges import AMOUNT, COUNT, SHARE, Range, check_ranges
from contracts.records import DataSpec, Record
from contracts.text import BEGIN, END, PAD, UNKNOWN, joined
from lightning_modules.augment.augment import Augment, AugmentConfig
from lightning_modules.augment.clips import choose_frames, shuffled
from lightning_modules.augment.mirror import check_flip, draw_mirror
from lightning_modules.augment.mirror_motion import mirror_motion
from lightning_modules.base.families import ClipCaptioner, ClipCaptionerSpec
from lightning_modules.base.task import BaseTask, Batch, Example, Mean, Prediction, Truth
from lightning_modules.blocks.decoding import beam_search, repeat_rows
from lightning_modules.blocks.frames import by_clip, stack_clips
from lightning_modules.metrics.caption_order import ThenOrder
from lightning_modules.metrics.caption_scores import CaptionScores
from lightning_modules.metrics.item_metric import ItemMetric

_AUGMENT = AugmentConfig(scale=0.15, shift=0.06, saturation=0.1)  # nothing that changes what words say


@dataclass(frozen=True, kw_only=True)
class VideoCaptioningConfig:
    """
    Attributes:
        image_size: frames are resized to a square of this side, in pixels.
        num_frames: of a longer clip so many are looked at, one of each of as many equal stretches.
        order: "shuffled" takes the order of the frames away, a control.
        captions_per_clip: how many of a clip's captions one training step uses, drawn anew each epoch.
        max_words: longer captions are cut in training; none longer is written.
        min_word_count: rarer words become `<unk>`.
        beam_size: 1 is greedy search, as in 1505.00487.
        length_power: hypotheses are compared by log p / length ** length_power.
        mirror: probability that a clip is mirrored in training, "left" and "right", "clockwise" and "counterclockwise"
            in its captions with it.
        augment: further changes in training, of all frames of a clip alike; `horizontal_flip` is `mirror`'s matter.
    """

    image_size: int = 112
    num_frames: int = 32
    order: Literal["time", "shuffled"] = "time"
    captions_per_clip: int = 2
    max_words: int = 20
    min_word_count: int = 2
    beam_size: int = 3
    length_power: float = 1.0
    mirror: float = 0.5
    augment: AugmentConfig = _AUGMENT

    def __post_init__(self) -> None:
        counts = ("num_frames", "captions_per_clip", "max_words", "min_word_count", "beam_size")
        check_ranges(
            self, image_size=Range(16), mirror=SHARE, length_power=AMOUNT, **dict.fromkeys(counts, COUNT)
        )  # fmt: skip
        check_flip(self.augment)


class Task(BaseTask):
    """Scores: `Bleu_1` to `Bleu_4`, `ROUGE_L`, `CIDEr`; beside them `then_order`, and METEOR and SPICE where they can
    be had."""

    Config: ClassVar[type] = VideoCaptioningConfig
    requires: ClassVar[tuple[str, ...]] = ("num_frames", "num_captions")
    eval_requires: ClassVar[tuple[str, ...]] = ("num_frames", "num_captions")
    inputs: ClassVar[tuple[InputName, ...]] = ("clip",)
    texts: ClassVar[Mapping[str, str | None]] = {"captions": "words"}
    spec_class = ClipCaptionerSpec
    metric: ClassVar[str] = "CIDEr"
    config: VideoCaptioningConfig

    def __init__(self, config: VideoCaptioningConfig, data: DataSpec):
        super().__init__(config, data)
        self.vocabulary = self.read_vocabulary("captions", min_count=config.min_word_count)
        self._augment = Augment(config.augment, size=config.image_size)

    def spec(self) -> ClipCaptionerSpec:
        return ClipCaptionerSpec(vocabulary_size=len(self.vocabulary))

    # data

    def places(self, record: Record, seed: int | None) -> np.ndarray:
        """Of the frames that are looked at, in that order: (n,) int64."""
        places = choose_frames(len(record.frames), self.config.num_frames, seed)
        return places if self.config.order == "time" else shuffled(places, record.key, seed)

    def encode(self, record: Record, seed: int | None) -> Example:
        mirrored = draw_mirror(seed, self.config.mirror)
        frames = [record.frames[i] for i in self.places(record, seed)]
        clip = self._augment(frames, (record.height, record.width), seed=seed, mirror=mirrored).image
        captions = record.captions
        if seed is not None:
            count = min(self.config.captions_per_clip, len(captions))
            # Its own stream: the same number also seeds the augmentation.
            chosen = np.random.default_rng([seed, 1]).choice(len(captions), count, replace=False)
            captions = tuple(captions[i] for i in chosen)
        texts = [mirror_motion(caption.text) if mirrored else caption.text for caption in captions]
        return {"frames": clip, "tokens": [self._tokens(text) for text in texts]}

    def _tokens(self, text: str) -> Tensor:
        ids = self.vocabulary.encode(text, max_length=self.config.max_words)
        return torch.tensor([BEGIN, *ids, END], dtype=torch.int64)

    def collate(self, examples: Sequence[Example]) -> Batch:
        clips = [example["frames"] for example in examples]
        sentences = [tokens for example in examples for tokens in example["tokens"]]
        empty = torch.zeros(0, 2, dtype=torch.int64)
        return {
            "frames": stack_clips(clips),
            "lengths": [len(clip) for clip in clips],
            "tokens": pad_sequence(sentences, batch_first=True, padding_value=PAD) if sentences else empty,
            "caption_clip": torch.repeat_interleave(torch.tensor([len(example["tokens"]) for example in examples])),
            "counts": {"cross_entropy": sum(len(s) - 1 for s in sentences)},  # all but `BEGIN` are predicted
        }

    # learning

    def losses(self, model: nn.Module, batch: Batch) -> dict[str, Mean]:
        return self._losses(cast(ClipCaptioner, model), self._features(model, batch), batch)

    def predict(self, model: nn.Module, batch: Batch) -> list[Prediction]:
        return self._predict(cast(ClipCaptioner, model), self._features(model, batch), batch["lengths"])

    def evaluate_batch(self, model: nn.Module, batch: Batch) -> tuple[dict[str, Mean], list[Prediction]]:
        captioner, features = cast(ClipCaptioner, model), self._features(model, batch)  # once for both
        return self._losses(captioner, features, batch), self._predict(captioner, features, batch["lengths"])

    def _features(self, model: nn.Module, batch: Batch) -> Tensor:
        return by_clip(cast(ClipCaptioner, model).encode(batch["frames"]), batch["lengths"])

    def _losses(self, model: ClipCaptioner, features: Tensor, batch: Batch) -> dict[str, Mean]:
        """`cross_entropy`: mean over tokens."""
        inputs, targets = batch["tokens"][:, :-1], batch["tokens"][:, 1:]
        logits = model.decode(features, batch["lengths"], inputs, batch["caption_clip"])
        with torch.autocast(logits.device.type, enabled=False):
            total = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=PAD, reduction="sum")
        return {"cross_entropy": Mean(total, batch["counts"]["cross_entropy"])}

    @torch.no_grad()
    def _predict(self, model: ClipCaptioner, features: Tensor, lengths: Sequence[int]) -> list[Prediction]:
        beam = self.config.beam_size
        memory, state = model.start(features, lengths)
        memory = repeat_rows(memory, beam)

        def step(tokens: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, Any, Tensor]:
            logits, following = model.step(memory, state, tokens)
            return logits, following, tokens  # nothing to keep of a step

        decoded = beam_search(
            step,
            repeat_rows(state, beam),
            num_inputs=len(features),
            beam_size=beam,
            max_length=self.config.max_words + 1,
            begin=BEGIN,
            end=END,
            banned=(PAD, UNKNOWN, BEGIN),
            length_power=self.config.length_power,
        )
        predictions = []
        for ids, log_prob in zip(decoded.tokens.tolist(), decoded.log_probs.tolist(), strict=True):
            tokens = self.vocabulary.decode(ids)[: self.config.max_words]  # one that did not end has a word more
            predictions.append({"caption": joined(tokens), "words": tokens, "log_prob": log_prob})
        return predictions

    # measuring

    def truths(self, record: Record) -> list[Truth]:
        return [{"captions": [caption.text for caption in record.captions]}]

    def metrics(self, *, thorough: bool = False) -> list[ItemMetric]:
        """On the official tokens, not the model's words. METEOR and SPICE, where they can be had, only if thorough."""
        return [CaptionScores(java=thorough), *([ThenOrder()] if thorough else [])]

    def answer(self, prediction: Prediction) -> dict[str, Any]:
        return {"caption": prediction["caption"], "log_prob": prediction["log_prob"]}
