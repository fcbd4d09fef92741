"""Frame-level classification: the classes of each frame of a clip, told as the frames come (aligned many to many).

Batch: `frames` (F, 3, S, S) uint8, those of one clip after those of another; `lengths`, B numbers that add up to F;
`targets` (B, T, C) float32 0/1, all 0 where a frame has no class or none is known; `times_s`, B arrays (T,); `counts`,
frames that the loss is a mean over. B clips, T frames of the longest, C classes. Model: `FrameClassifier`.
Prediction: `probs` (T, C) float32, `times_s` (T,). Truth: `labels` (T, C) bool.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from contracts.errors import ConfigError
from contracts.inputs import InputName
from contracts.ranges import COUNT, SHARE, Range, check_ranges
from contracts.records import DataSpec, Record, end_s
from lightning_modules.augment.augment import Augment, AugmentConfig
from lightning_modules.augment.clips import window
from lightning_modules.augment.mirror import check_flip, draw_mirror
from lightning_modules.augment.mirror_motion import mirrored_classes
from lightning_modules.base.families import FrameClassifier, FrameClassifierSpec
from lightning_modules.base.task import BaseTask, Batch, Example, Mean, Prediction, Truth
from lightning_modules.blocks.frames import by_clip, is_frame, stack_clips
from lightning_modules.metrics.frame_level import FrameAccuracy, FrameMeanAP
from lightning_modules.metrics.item_metric import ItemMetric

_FRAMES_AT_ONCE = 512  # of a long video, in evaluation
_AUGMENT = AugmentConfig(scale=0.15, shift=0.06, saturation=0.1)


@dataclass(frozen=True, kw_only=True)
class FrameConfig:
    """
    Attributes:
        image_size: frames are resized to a square of this side, in pixels.
        max_frames: of a longer clip so many consecutive frames are trained on, from a place drawn anew each epoch;
            validation and prediction read all of it.
        loss: "softmax": a frame has one class (several share the target), and one without any counts for nothing;
            "sigmoid": any number of classes, each by itself, so that a frame without one counts as such.
        mirror: probability that a clip is mirrored in training, and its classes with it: "left" and "right",
            "clockwise" and "counterclockwise" in class names are exchanged where there is such a class.
        augment: further changes in training, of all frames of a clip alike; `horizontal_flip` is `mirror`'s matter.
    """

    image_size: int = 112
    max_frames: int = 64
    loss: Literal["softmax", "sigmoid"] = "softmax"
    mirror: float = 0.5
    augment: AugmentConfig = _AUGMENT

    def __post_init__(self) -> None:
        check_ranges(self, image_size=Range(16), max_frames=COUNT, mirror=SHARE)
        check_flip(self.augment)


class Task(BaseTask):
    """Scores: `mAP` per frame over classes, and `frame_accuracy`; beside them `AP/<class>` and `error/after n`, n
    frames after the classes changed."""

    Config: ClassVar[type] = FrameConfig
    requires: ClassVar[tuple[str, ...]] = ("num_frames", "num_frame_labels")
    eval_requires: ClassVar[tuple[str, ...]] = ("num_frames", "num_frame_labels")
    inputs: ClassVar[tuple[InputName, ...]] = ("clip",)
    spec_class = FrameClassifierSpec
    metric: ClassVar[str] = "mAP"
    config: FrameConfig

    def __init__(self, config: FrameConfig, data: DataSpec):
        super().__init__(config, data)
        if len(data.classes) < 2 - (config.loss == "sigmoid"):
            raise ConfigError(
                "there is nothing to tell apart", value=list(data.classes), where=f"classes of {data.dataset}",
                allowed="two classes or more, or one with loss: sigmoid",
                fix="choose a data set with segments or labels of frames, such as `video_segments` reads",
            )  # fmt: skip
        self._positions = {name: i for i, name in enumerate(data.classes)}
        self._mirrored = mirrored_classes(data.classes)
        self._augment = Augment(config.augment, size=config.image_size)

    def spec(self) -> FrameClassifierSpec:
        return FrameClassifierSpec(num_classes=len(self.data.classes))

    # records to tensors

    def labels(self, record: Record) -> np.ndarray:
        """(T, C) bool."""
        labels = np.zeros((len(record.frames), len(self.data.classes)), bool)
        for row, names in zip(labels, record.labels_by_frame(), strict=True):
            row[[self._positions[name] for name in names]] = True
        return labels

    def encode(self, record: Record, seed: int | None) -> Example:
        mirrored = draw_mirror(seed, self.config.mirror)
        count = len(record.frames)
        chosen = slice(0, count) if seed is None else window(count, self.config.max_frames, seed)
        clip = self._augment(
            record.frames[chosen], (record.height, record.width), seed=seed, mirror=mirrored
        ).image  # fmt: skip
        targets = self.labels(record)[chosen].astype(np.float32)
        if mirrored:
            before, targets = targets, np.zeros_like(targets)
            for place, other in enumerate(self._mirrored):
                targets[:, other] = np.maximum(targets[:, other], before[:, place])
        return {"frames": clip, "targets": targets, "times_s": np.array(record.times_s[chosen])}

    def collate(self, examples: Sequence[Example]) -> Batch:
        clips = [example["frames"] for example in examples]
        targets = pad_sequence([torch.from_numpy(example["targets"]) for example in examples], batch_first=True)
        lengths = [len(clip) for clip in clips]
        counted = int(targets.any(dim=2).sum()) if self.config.loss == "softmax" else sum(lengths)
        return {
            "frames": stack_clips(clips),
            "lengths": lengths,
            "targets": targets,
            "times_s": [example["times_s"] for example in examples],
            "counts": {"frames": counted},
        }

    # tensors to losses and predictions

    def losses(self, model: nn.Module, batch: Batch) -> dict[str, Mean]:
        return self._losses(self._logits(model, batch), batch)

    @torch.no_grad()
    def predict(self, model: nn.Module, batch: Batch) -> list[Prediction]:
        return self._predictions(self._logits(model, batch), batch)

    @torch.no_grad()
    def evaluate_batch(self, model: nn.Module, batch: Batch) -> tuple[dict[str, Mean], list[Prediction]]:
        logits = self._logits(model, batch)
        return self._losses(logits, batch), self._predictions(logits, batch)

    def _logits(self, model: nn.Module, batch: Batch) -> Tensor:
        """(B, T, C)."""
        classifier, frames = cast(FrameClassifier, model), batch["frames"]
        parts = [frames] if torch.is_grad_enabled() else frames.split(_FRAMES_AT_ONCE)
        features = torch.cat([classifier.encode(part) for part in parts])
        return classifier.classify(by_clip(features, batch["lengths"]), batch["lengths"])

    def _losses(self, logits: Tensor, batch: Batch) -> dict[str, Mean]:
        """`frames`: mean over frames, of the clips' own alone, of the cross-entropy, or of the classes' sum of binary
        ones."""
        targets = batch["targets"].float()
        with torch.autocast(logits.device.type, enabled=False):
            logits = logits.float()
            if self.config.loss == "softmax":
                wanted = targets / targets.sum(dim=2, keepdim=True).clamp(min=1)
                each = -(wanted * torch.log_softmax(logits, dim=2)).sum(dim=2)  # 0 where there is no class
            else:
                each = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(dim=2)
                each = each * is_frame(batch["lengths"], each.device)
            total = each.sum()
        return {"frames": Mean(total, batch["counts"]["frames"])}

    def _predictions(self, logits: Tensor, batch: Batch) -> list[Prediction]:
        logits = logits.float()
        probs = torch.softmax(logits, dim=2) if self.config.loss == "softmax" else torch.sigmoid(logits)
        rows = zip(probs.cpu().numpy(), batch["lengths"], batch["times_s"], strict=True)
        return [{"probs": row[:length].copy(), "times_s": times} for row, length, times in rows]

    # what a user sees

    def truths(self, record: Record) -> list[Truth]:
        return [{"labels": self.labels(record)}]

    def metrics(self, *, thorough: bool = False) -> list[ItemMetric]:
        return [FrameMeanAP(self.data.classes, each=thorough), FrameAccuracy(by_distance=thorough)]

    def found(self, probs: np.ndarray) -> np.ndarray:
        """(T, C) -> bool: the best class of each frame, or with "sigmoid" those that are more likely than not."""
        if self.config.loss == "sigmoid":
            return probs > 0.5
        best = np.zeros(probs.shape, bool)
        best[np.arange(len(probs)), probs.argmax(axis=1)] = True
        return best

    def answer(self, prediction: Prediction) -> dict[str, Any]:
        """The parts of the clip that show a class, by their start."""
        parts = sorted(self._parts(prediction), key=lambda part: (part["start_s"], part["class"]))
        return {"frames": len(prediction["probs"]), "segments": parts}

    def _parts(self, prediction: Prediction) -> Iterator[dict[str, Any]]:
        probs, times = prediction["probs"], [*prediction["times_s"].tolist()]
        edges = [*times, end_s(times)]
        for place, column in enumerate(self.found(probs).T):
            for there, run in groupby(range(len(column)), key=column.__getitem__):
                frames = list(run)
                if there:
                    yield {
                        "start_s": round(edges[frames[0]], 6),
                        "end_s": round(edges[frames[-1] + 1], 6),
                        "class": self.data.classes[place],
                        "probability": round(float(probs[frames, place].mean()), 6),
                    }
