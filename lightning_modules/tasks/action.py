"""Action prediction: one class of a clip, told while its frames come in.

Batch: `frames` (F, 3, S, S) uint8, those of one clip after those of another; `lengths`, B numbers that add up to F;
`labels` (B,) int64, 0..C-1, absent in prediction. B clips, C classes. Model: `FrameClassifier`.
Prediction: `observed` (10, C) float32, the probabilities after 10 %, 20 % .. 100 % of the frames; `probs` (C,), the
last of these. Truth: `label`, 0..C-1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contracts.ranges import COUNT, SHARE, Range, check_ranges
from contracts.records import DataSpec, Record
from lightning_modules.augment.augment import Augment, AugmentConfig
from lightning_modules.augment.clips import choose_frames, shuffled
from lightning_modules.augment.mirror import check_flip, draw_mirror
from lightning_modules.augment.mirror_motion import mirrored_classes
from lightning_modules.base.class_task import ClassTask
from lightning_modules.base.families import FrameClassifier, FrameClassifierSpec
from lightning_modules.base.task import Batch, Example, Mean, Prediction, Truth
from lightning_modules.blocks.frames import by_clip, stack_clips
from lightning_modules.metrics.clip_scores import AccuracyByObserved
from lightning_modules.metrics.item_metric import ItemMetric
from lightning_modules.metrics.top_accuracy import TopAccuracy

SHARES = tuple(i / 10 for i in range(1, 11))  # of a clip that is seen
_NUM_TOP = 5
_AUGMENT = AugmentConfig(scale=0.15, shift=0.06, saturation=0.1)


@dataclass(frozen=True, kw_only=True)
class ActionConfig:
    """
    Attributes:
        image_size: frames are resized to a square of this side, in pixels.
        num_frames: of a longer clip so many are looked at, one of each of as many equal stretches.
        observed: share of the clip, from its start, that may be seen at all, in training and after it.
        order: "shuffled" takes the order of the frames away, a control.
        average: which steps count, in the loss and in the answer: "even", all alike (1411.4389); "linear", the t-th
            t times (1503.08909); "last", the last one alone.
        label_smoothing: share of the target that is spread over all classes (1512.00567).
        mirror: probability that a clip is mirrored in training, and its class with it: "left" and "right", "clockwise"
            and "counterclockwise" in class names are exchanged where there is such a class.
        augment: further changes in training, of all frames of a clip alike; `horizontal_flip` is `mirror`'s matter.
    """

    image_size: int = 112
    num_frames: int = 16
    observed: float = 1.0
    order: Literal["time", "shuffled"] = "time"
    average: Literal["even", "linear", "last"] = "even"
    label_smoothing: float = 0.0
    mirror: float = 0.5
    augment: AugmentConfig = _AUGMENT

    def __post_init__(self) -> None:
        check_ranges(
            self, image_size=Range(16), num_frames=COUNT, observed=Range(0, 1, open_low=True), mirror=SHARE,
            label_smoothing=Range(0, 1, open_high=True),
        )  # fmt: skip
        check_flip(self.augment)


class Task(ClassTask):
    """Scores: `top1` and `top5`; beside them `top1/observed 0.3`, after the first 30 % of the frames."""

    Config = ActionConfig
    spec_class = FrameClassifierSpec
    requires = ("num_frames", "num_labels")
    eval_requires = ("num_frames", "num_labels")
    inputs = ("clip",)
    a_record = "a clip"
    sources = "labeled clips, such as `ucf101` and `frame_folders` read"
    config: ActionConfig

    def __init__(self, config: ActionConfig, data: DataSpec):
        super().__init__(config, data)
        self.label_smoothing = config.label_smoothing
        self._mirrored = mirrored_classes(data.classes)
        self._augment = Augment(config.augment, size=config.image_size)

    def spec(self) -> FrameClassifierSpec:
        return FrameClassifierSpec(num_classes=len(self.data.classes))

    # records to tensors

    def places(self, record: Record, seed: int | None) -> np.ndarray:
        """Of the frames that are looked at, in that order: (n,) int64."""
        seen = math.ceil(self.config.observed * len(record.frames) - 1e-9)
        places = choose_frames(seen, self.config.num_frames, seed)
        return places if self.config.order == "time" else shuffled(places, record.key, seed)

    def encode(self, record: Record, seed: int | None) -> Example:
        mirrored = draw_mirror(seed, self.config.mirror)
        frames = [record.frames[i] for i in self.places(record, seed)]
        clip = self._augment(frames, (record.height, record.width), seed=seed, mirror=mirrored).image
        example = {"frames": clip, **self.labeled(record)}
        if mirrored and "label" in example:
            example["label"] = self._mirrored[example["label"]]
        return example

    def collate(self, examples: Sequence[Example]) -> Batch:
        clips = [example["frames"] for example in examples]
        return {"frames": stack_clips(clips), "lengths": [len(clip) for clip in clips], **self.labels(examples)}

    # tensors to losses and predictions

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        """Logarithms of the averaged probabilities, (B, C)."""
        return self._averaged(self._steps(model, batch), batch["lengths"]).clamp(min=1e-12).log()

    def losses(self, model: nn.Module, batch: Batch) -> dict[str, Mean]:
        return {"cross_entropy": self._clip_loss(self._steps(model, batch), batch)}

    @torch.no_grad()
    def predict(self, model: nn.Module, batch: Batch) -> list[Prediction]:
        return self._observed(model, self._features(model, batch), batch["lengths"])[1]

    @torch.no_grad()
    def evaluate_batch(self, model: nn.Module, batch: Batch) -> tuple[dict[str, Mean], list[Prediction]]:
        features = self._features(model, batch)  # once for both
        steps, predictions = self._observed(model, features, batch["lengths"])
        return {"cross_entropy": self._clip_loss(steps, batch)}, predictions

    def _features(self, model: nn.Module, batch: Batch) -> Tensor:
        return by_clip(cast(FrameClassifier, model).encode(batch["frames"]), batch["lengths"])

    def _steps(self, model: nn.Module, batch: Batch) -> Tensor:
        """Logits (B, T, C)."""
        return cast(FrameClassifier, model).classify(self._features(model, batch), batch["lengths"])

    def _observed(self, model: nn.Module, features: Tensor, lengths: Sequence[int]) -> tuple[Tensor, list[Prediction]]:
        """The logits of all frames, and what is predicted after each share of them: as if the clip ended there, so that
        a model which looks ahead cannot."""
        classifier, probs = cast(FrameClassifier, model), []
        steps = features
        for share in SHARES:
            seen = [max(1, math.ceil(share * length - 1e-9)) for length in lengths]
            steps = classifier.classify(features[:, : max(seen)], seen)
            probs.append(self._averaged(steps, seen))
        observed = torch.stack(probs, dim=1).cpu().numpy()
        return steps, [{"observed": one, "probs": one[-1]} for one in observed]

    def _weights(self, lengths: Sequence[int], device: torch.device) -> Tensor:
        """(B, T) float32: of each step in its clip, with the sum 1; 0 behind a clip's end."""
        weights = torch.zeros(len(lengths), max(lengths))
        for row, length in zip(weights, lengths, strict=True):
            if self.config.average == "last":
                row[length - 1] = 1.0
            else:
                row[:length] = 1.0 if self.config.average == "even" else torch.arange(1, length + 1)
        return (weights / weights.sum(dim=1, keepdim=True)).to(device)

    def _averaged(self, steps: Tensor, lengths: Sequence[int]) -> Tensor:
        """Logits (B, T, C) -> probabilities (B, C), the weighted mean of those of all steps."""
        weights = self._weights(lengths, steps.device).unsqueeze(-1)
        return (torch.softmax(steps.float(), dim=-1) * weights).sum(dim=1)

    def _clip_loss(self, steps: Tensor, batch: Batch) -> Mean:
        """A clip's loss is the weighted mean over its steps: long clips count as short ones do."""
        labels = batch["labels"].unsqueeze(1).expand(steps.shape[:2])
        with torch.autocast(steps.device.type, enabled=False):
            each = F.cross_entropy(
                steps.float().transpose(1, 2), labels, label_smoothing=self.label_smoothing, reduction="none"
            )
            total = (each * self._weights(batch["lengths"], steps.device)).sum()
        return Mean(total, len(steps))

    # what a user sees

    def metrics(self, *, thorough: bool = False) -> list[ItemMetric]:
        return [TopAccuracy(), *([AccuracyByObserved(SHARES)] if thorough else [])]

    def measurable(self, prediction: Prediction, truth: Truth) -> tuple[Prediction, Truth]:
        return {"scores": prediction["probs"], "observed": prediction["observed"]}, truth

    def top(self, probs: np.ndarray) -> list[tuple[str, float]]:
        """Names and probabilities of the best classes, the best first; of equal ones the first in the class list."""
        best = np.argsort(-probs, kind="stable")[:_NUM_TOP]
        return [(self.data.classes[i], float(probs[i])) for i in best]

    def answer(self, prediction: Prediction) -> dict[str, Any]:
        """The best classes of the whole clip, and the best one after each tenth of it."""
        top = self.top(prediction["probs"])
        told = [(share, *self.top(probs)[0]) for share, probs in zip(SHARES, prediction["observed"], strict=True)]
        return {
            "class": top[0][0],
            "top": [{"class": name, "probability": round(p, 6)} for name, p in top],
            "over_time": [{"observed": share, "class": name, "probability": round(p, 6)} for share, name, p in told],
        }
