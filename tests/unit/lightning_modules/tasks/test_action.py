"""Action prediction: what is looked at, what each step weighs, and what is said before the clip has ended."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from contracts.errors import ConfigError
from contracts.records import DataSpec, Record
from lightning_modules.augment.config import AugmentConfig
from lightning_modules.models.lrcn import Config, Model
from lightning_modules.reports.action import Report
from lightning_modules.tasks.action import SHARES, ActionConfig, Task
from tests.clips import clip_record

DATA = DataSpec(dataset="d", classes=("MoveLeft", "MoveRight", "Wait"))
PLAIN = {"image_size": 24, "augment": AugmentConfig(brightness_contrast=0.0)}


def task(**settings: Any) -> Task:
    return Task(ActionConfig(**{**PLAIN, **settings}), DATA)


def model(task: Task, **settings: Any) -> Model:
    torch.manual_seed(0)
    return Model(Config(backbone="tiny", features=8, hidden=6, **settings), task.spec()).eval()


RECORDS = [
    clip_record("a", [0, 1, 2, 3, 4, 5], labels=("MoveRight",)),
    clip_record("b", [5, 4, 3], labels=("MoveLeft",)),
    clip_record("c", [2], labels=("Wait",), group="b"),
]


def columns(clip: np.ndarray) -> list[int]:
    """The value of each frame (`tests/clips.py`)."""
    return [int(frame[12, :, 0].astype(int).argmax()) // 3 for frame in clip]


def test_clips_of_any_length_become_one_row_of_frames() -> None:
    t = task(mirror=0.0)
    batch = t.collate([t.encode(record, None) for record in RECORDS])
    assert batch["frames"].shape == (10, 3, 24, 24) and batch["lengths"] == [6, 3, 1]
    assert batch["labels"].tolist() == [1, 0, 2]
    assert columns(batch["frames"].permute(0, 2, 3, 1).numpy()) == [0, 1, 2, 3, 4, 5, 5, 4, 3, 2]
    assert "labels" not in t.collate([t.encode(clip_record("d", [1, 2]), None)]), "a clip alone can be asked"


def test_what_is_looked_at() -> None:
    (record,) = RECORDS[:1]
    assert columns(task(num_frames=3).encode(record, None)["frames"]) == [1, 3, 5]
    assert columns(task(observed=0.5).encode(record, None)["frames"]) == [0, 1, 2]
    assert columns(task(observed=0.01).encode(record, None)["frames"]) == [0], "never nothing"
    mixed = columns(task(order="shuffled").encode(record, None)["frames"])
    assert sorted(mixed) == [0, 1, 2, 3, 4, 5] and mixed != sorted(mixed)


def test_a_mirrored_clip_is_of_the_mirrored_class() -> None:
    t = task(mirror=1.0)
    example = t.encode(RECORDS[0], 3)
    assert example["label"] == 0 and columns(example["frames"]) == [7, 6, 5, 4, 3, 2], "to the right was to the left"
    assert t.encode(RECORDS[2], 3)["label"] == 2 and t.encode(RECORDS[0], None)["label"] == 1
    with pytest.raises(ConfigError, match="mirror"):
        ActionConfig(augment=AugmentConfig(horizontal_flip=0.5))


@pytest.mark.parametrize(
    ("average", "weights"),
    [("even", [1 / 3, 1 / 3, 1 / 3]), ("linear", [1 / 6, 2 / 6, 3 / 6]), ("last", [0, 0, 1])],
)
def test_steps_weigh_in_loss_and_answer(average: str, weights: list[float]) -> None:
    """By hand: probabilities 0.2, 0.5, 0.8 of the true class at three steps, padding of a shorter clip beside it."""
    t = task(average=average)
    probs = torch.tensor([[0.2, 0.5, 0.8], [0.5, 0.9, 0.9]])
    steps = torch.stack([probs, 1 - probs, torch.full_like(probs, 1e-9)], dim=2).log()

    class Steps(torch.nn.Module):
        def encode(self, frames: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(frames), 1)

        def classify(self, features: torch.Tensor, lengths: list[int]) -> torch.Tensor:
            return steps[:, : max(lengths)]

    batch = {"frames": torch.zeros(4, 3, 8, 8), "lengths": [3, 1], "labels": torch.tensor([0, 0])}
    (loss,) = t.losses(Steps(), batch).values()
    expected = -np.log([0.2, 0.5, 0.8]) @ weights - np.log(0.5)
    assert loss.total.item() == pytest.approx(expected, abs=1e-5) and loss.count == 2, (
        "what stands behind an end is none"
    )
    first, second = t.predict(Steps(), batch)
    assert first["probs"][0] == pytest.approx(np.dot([0.2, 0.5, 0.8], weights), abs=1e-6)
    assert second["probs"][0] == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("settings", [{}, {"bidirectional": True}, {"mode": "pool"}])
def test_what_is_said_early_is_what_would_be_said_if_the_clip_ended_there(settings: dict) -> None:
    t = task()
    net = model(t, **settings)
    batch = t.collate([t.encode(record, None) for record in RECORDS])
    predictions = t.predict(net, batch)
    assert all(p["observed"].shape == (10, 3) and np.array_equal(p["probs"], p["observed"][-1]) for p in predictions)
    for share, seen in ((0.1, 1), (0.5, 3), (0.6, 4)):
        early = task(observed=share)
        (alone,) = early.predict(net, early.collate([early.encode(RECORDS[0], None)]))
        assert len(early.places(RECORDS[0], None)) == seen
        np.testing.assert_allclose(predictions[0]["observed"][SHARES.index(share)], alone["probs"], atol=1e-6)
    losses, same = t.evaluate_batch(net, batch)
    expected = t.losses(net, batch)["cross_entropy"].total.detach()
    torch.testing.assert_close(losses["cross_entropy"].total, expected)
    np.testing.assert_allclose(same[1]["observed"], predictions[1]["observed"], atol=1e-6)


def test_scores_over_time_answers_and_pictures() -> None:
    t = task()
    early, late = [0.2, 0.7, 0.1], [0.9, 0.05, 0.05]
    observed = np.array([early] * 4 + [late] * 6, np.float32)
    predictions = {key: {"observed": observed, "probs": observed[-1]} for key in "abc"}
    truths = {record.key: t.truths(record)[0] for record in RECORDS}
    measured = {
        name: m
        for m in t.measure(predictions, truths, {"a": "a", "b": "b", "c": "b"}, thorough=True)
        for name in m.values
    }
    values = {name: m.values[name] for name, m in measured.items()}
    assert values["top1"] == values["top1/observed 1"] == values["top1/observed 0.5"] == pytest.approx(1 / 3)
    assert values["top1/observed 0.1"] == pytest.approx(1 / 3) and len(values) == 12
    over_time = measured["top1/observed 0.4"]
    assert over_time.num_clusters == 2 and over_time.resample is not None, "drawn again by groups"
    assert over_time.resample(np.array([[2.0, 0.0]]))["top1/observed 0.4"].tolist() == [1.0]
    assert "top1/observed 1" not in t.score(predictions, truths), "only where it is asked for"
    answer = t.answer(predictions["a"])
    assert answer["class"] == "MoveLeft" and json.dumps(answer)
    assert [one["class"] for one in answer["over_time"]] == ["MoveRight"] * 4 + ["MoveLeft"] * 6
    report = Report(t)
    assert report.constant(truths)["a"]["probs"].tolist() == pytest.approx([1 / 3] * 3)
    for known in (None, t.truths(RECORDS[0])):
        picture = report.picture(RECORDS[0], [predictions["a"]], known)
        assert picture.dtype == np.uint8 and picture.shape[1:] == (560, 3)
    plots = {plot.name: plot for plot in report.plots(predictions, truths)}
    assert plots["accuracy_over_time"].rows[0] == (0.1, pytest.approx(1 / 3, abs=1e-5))
    assert all(len(row) == len(plot.columns) for plot in plots.values() for row in plot.rows)


def test_a_clip_without_one_class_is_told() -> None:
    t = task()
    assert t.requires == ("num_frames", "num_labels") and t.inputs == ("clip",)
    with pytest.raises(ConfigError, match="nothing to tell apart"):
        Task(ActionConfig(), DataSpec(dataset="d", classes=("one",)))
    record: Record = clip_record("d", [1], labels=("Wait", "MoveLeft"))
    with pytest.raises(Exception, match="has one label"):
        t.label(record)
