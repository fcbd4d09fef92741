"""Real clips from their files through the door to an answer of each task: what a user's first minute is."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from contracts.raw import RawRecord
from contracts.records import DataSpec, Record
from lightning_modules.base.task import BaseTask
from lightning_modules.models import lrcn, s2vt
from lightning_modules.tasks import action, frame_classification, video_captioning
from lightning_modules.texts.captions import Text
from pipeline.ingest.door import DoorConfig, Shrink, admit
from pipeline.ingest.sources import (
    OpenSource,
    frame_folders,
    joined_classes,
    read_joined,
    video_captions,
    video_segments,
)

SMALL = {"backbone": "tiny", "features": 8, "hidden": 6}


def records(root: Path, module: ModuleType, count: int, **config: Any) -> tuple[list[Record], tuple[str, ...]]:
    opened = [OpenSource(name="s", module=module, root=root, config=module.Config(**config))]  # type: ignore[arg-type]
    classes, found = joined_classes(opened), []
    for raw in islice(read_joined(opened, "train"), count):
        assert isinstance(raw, RawRecord)
        admission = admit(raw, classes, DoorConfig(root=root, shrink=Shrink(short_side=48, quality=90)))
        assert admission.record is not None, admission.problems
        found.append(admission.record)
    return found, classes


def answered(task: BaseTask, module: ModuleType, records: list[Record]) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    model = module.Model(module.Config(**SMALL), task.spec())
    losses = task.losses(model.train(), task.collate([task.encode(record, 1) for record in records]))
    sum(loss.total for loss in losses.values()).backward()  # type: ignore[union-attr]
    with torch.inference_mode():
        predictions = task.predict(model.eval(), task.collate([task.encode(record, None) for record in records]))
    scores = task.score(
        dict(zip("abcdefgh", predictions, strict=False)),
        dict(zip("abcdefgh", (task.truths(r)[0] for r in records), strict=False)),
    )
    assert task.metric in scores
    return [task.answer(prediction) for prediction in predictions]


def test_actions_of_frame_folders(shared_dir: Path) -> None:
    root = shared_dir / "data/video_frames_demo/demo_dataset"
    found, classes = records(root, frame_folders, 4, lists="annotations.txt", span="range", every=2)
    assert classes == ("0", "1") and {len(record.frames) for record in found} <= {8, 9}
    task = action.Task(action.ActionConfig(image_size=48), DataSpec(dataset="d", classes=classes))
    assert {answer["class"] for answer in answered(task, lrcn, found)} <= {"0", "1"}


def test_classes_of_frames_of_grid(shared_dir: Path) -> None:
    found, classes = records(
        shared_dir / "data/video_grid/data", video_segments, 2, videos="s1", annotations="alignments",
        layout="video_files", suffix=".align", unit_s=0.00004, skip=("sil", "sp"), every=5,
    )  # fmt: skip
    assert all(len(record.frames) == 15 and len(record.segments) == 6 for record in found)
    assert found[0].times_s[:2] == pytest.approx((0.0, 0.2))
    task = frame_classification.Task(
        frame_classification.FrameConfig(image_size=48), DataSpec(dataset="d", classes=classes)
    )
    assert [answer["frames"] for answer in answered(task, lrcn, found)] == [15, 15]


def test_captions_of_panda(shared_dir: Path) -> None:
    """Files of 23.98 to 60 frames a second give the same rate of frames."""
    found, _ = records(shared_dir / "data/video_captions_panda", video_captions, 3, fps=2.0)
    for record in found:
        assert (record.width, record.height, len(record.captions)) == (640, 360, 1)
        steps = [b - a for a, b in zip(record.times_s, record.times_s[1:], strict=False)]
        assert steps == pytest.approx([0.5] * len(steps), abs=0.05)
    counted = Text()
    for record in found:
        counted.add(record)
    data = DataSpec(dataset="d", classes=(), vocabulary={"captions": [list(one) for one in counted.counted()]})
    settings = {"image_size": 48, "num_frames": 6, "max_words": 4, "min_word_count": 1}
    task = video_captioning.Task(video_captioning.VideoCaptioningConfig(**settings), data)  # type: ignore[arg-type]
    assert all(answer["caption"] for answer in answered(task, s2vt, found))
