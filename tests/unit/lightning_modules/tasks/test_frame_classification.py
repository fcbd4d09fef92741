"""Classes of frames: what counts in the loss, long clips, mirrors, and what is told of a video."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from contracts.annotations import Segment
from contracts.errors import ConfigError
from contracts.records import DataSpec
from lightning_modules.augment.config import AugmentConfig
from lightning_modules.models.lrcn import Config, Model
from lightning_modules.reports.frame_classification import Report
from lightning_modules.tasks import frame_classification
from lightning_modules.tasks.frame_classification import FrameConfig, Task
from tests.clips import clip_record

DATA = DataSpec(dataset="d", classes=("MoveLeft", "MoveRight", "Wait"))


def task(**settings: Any) -> Task:
    plain = {"image_size": 24, "augment": AugmentConfig(brightness_contrast=0.0), "mirror": 0.0}
    return Task(FrameConfig(**{**plain, **settings}), DATA)


def segment(start: float, end: float, label: str) -> Segment:
    return Segment(start_s=start, end_s=end, label=label)


RECORDS = [
    clip_record("a", range(6), segments=(segment(0.0, 0.2, "MoveRight"), segment(0.3, 0.6, "Wait"))),
    clip_record("b", [3, 2], segments=(segment(0.0, 0.2, "MoveLeft"), segment(0.1, 0.2, "Wait"))),
]


def batch_of(t: Task) -> dict[str, Any]:
    return t.collate([t.encode(record, None) for record in RECORDS])


def test_frames_have_the_classes_of_their_time() -> None:
    batch = batch_of(task())
    assert batch["lengths"] == [6, 2] and batch["frames"].shape == (8, 3, 24, 24)
    assert batch["targets"].argmax(dim=2).tolist()[0][:2] == [1, 1] and batch["targets"][0, 2].tolist() == [0, 0, 0]
    assert batch["targets"][1].tolist() == [[1, 0, 0], [1, 0, 1]] + [[0, 0, 0]] * 4
    assert batch["counts"] == {"frames": 7}, "with softmax a frame without a class counts for nothing"
    assert batch_of(task(loss="sigmoid"))["counts"] == {"frames": 8}, "with sigmoid it does, and padding does not"


@pytest.mark.parametrize(("loss", "expected"), [("softmax", 7 * np.log(3)), ("sigmoid", 8 * 3 * np.log(2))])
def test_the_loss_is_a_mean_over_the_clips_own_frames(loss: str, expected: float) -> None:
    t = task(loss=loss)

    class Equal(torch.nn.Module):
        def encode(self, frames: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(frames), 1)

        def classify(self, features: torch.Tensor, lengths: list[int]) -> torch.Tensor:
            logits = torch.zeros(len(lengths), max(lengths), 3)
            logits[1, 2:] = 50.0 * torch.arange(3)  # padding that would cost much
            return logits

    (mean,) = t.losses(Equal(), batch_of(t)).values()
    assert float(mean.total) == pytest.approx(expected, rel=1e-5)


def test_training_sees_a_window_and_mirrors_labels() -> None:
    example = task(max_frames=3).encode(RECORDS[0], 5)
    assert example["frames"].shape[0] == len(example["targets"]) == len(example["times_s"]) == 3
    assert len(task(max_frames=3).encode(RECORDS[0], None)["frames"]) == 6, "validation reads all of it"
    mirrored = task(mirror=1.0).encode(RECORDS[1], 5)["targets"]
    assert mirrored.tolist() == [[0, 1, 0], [0, 1, 1]]


def test_long_videos_are_looked_at_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    t = task()
    torch.manual_seed(0)
    net = Model(Config(backbone="tiny", features=8, hidden=6), t.spec()).eval()
    whole = t.predict(net, batch_of(t))
    monkeypatch.setattr(frame_classification, "_FRAMES_AT_ONCE", 3)
    for one, other in zip(whole, t.predict(net, batch_of(t)), strict=True):
        np.testing.assert_allclose(one["probs"], other["probs"], atol=1e-6)
    alone = t.predict(net, t.collate([t.encode(clip_record("b", [3, 2]), None)]))[0]
    np.testing.assert_allclose(alone["probs"], whole[1]["probs"], atol=1e-6)
    assert "labels" not in alone and alone["times_s"].tolist() == [0.0, 0.1]


def test_the_answer_names_parts_of_the_clip() -> None:
    probs = np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8], [0.6, 0.1, 0.3]], np.float32)
    prediction = {"probs": probs, "times_s": np.array([0.0, 0.1, 0.2, 0.3])}
    answer = task().answer(prediction)
    assert json.dumps(answer) and answer["frames"] == 4
    assert [(s["start_s"], s["end_s"], s["class"], s["probability"]) for s in answer["segments"]] == [
        (0.0, 0.2, "MoveLeft", pytest.approx(0.65)), (0.2, 0.3, "Wait", pytest.approx(0.8)),
        (0.3, 0.4, "MoveLeft", pytest.approx(0.6)),
    ]  # fmt: skip
    several = task(loss="sigmoid").answer({**prediction, "probs": np.full((4, 3), [0.9, 0.2, 0.6], np.float32)})
    assert [(s["class"], s["end_s"]) for s in several["segments"]] == [("MoveLeft", 0.4), ("Wait", 0.4)]


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_scores_pictures_and_plots(loss: str) -> None:
    t = task(loss=loss)
    truths = {record.key: t.truths(record)[0] for record in RECORDS}
    perfect = {
        key: {"probs": truth["labels"].astype(np.float32), "times_s": np.arange(len(truth["labels"])) / 10}
        for key, truth in truths.items()
    }
    values = {name: value for m in t.measure(perfect, truths, thorough=True) for name, value in m.values.items()}
    assert values["mAP"] == values["frame_accuracy"] == values["AP/Wait"] == 1.0 and values["error/after 0"] == 0.0
    report = Report(t)
    constant = report.constant(truths)
    assert constant["b"]["probs"].shape == (2, 3) and constant["b"]["probs"][0].tolist() == pytest.approx(
        [2 / 8, 2 / 8, 4 / 8]
    )
    assert t.score(constant, truths)["frame_accuracy"] == pytest.approx(4 / 7)
    for known in (None, t.truths(RECORDS[0])):
        picture = report.picture(RECORDS[0], [perfect["a"]], known)
        assert picture.dtype == np.uint8 and picture.shape[1:] == (640, 3)
    plots = {plot.name: plot for plot in report.plots(perfect, truths)}
    assert plots["error_after_change"].rows[0] == (0, 0.0)
    assert all(len(row) == len(plot.columns) for plot in plots.values() for row in plot.rows)


def test_one_class_is_enough_for_sigmoid_alone() -> None:
    data = DataSpec(dataset="d", classes=("Run",))
    assert Task(FrameConfig(loss="sigmoid"), data).spec().num_classes == 1
    with pytest.raises(ConfigError, match="nothing to tell apart"):
        Task(FrameConfig(), data)
