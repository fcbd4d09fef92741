"""A video file and a folder of frames to each of the three tasks on clips, by the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch

from contracts.records import DataSpec
from pipeline.training.checkpoints import build_module, save_best
from tests.clips import frame, write_clip
from tests.command import sightline

pytestmark = pytest.mark.filterwarnings("default")  # MLflow's own
TINY = {"backbone": "tiny", "features": 8, "hidden": 6}
PARTS = {
    "action": ("lrcn", {"num_frames": 4}),
    "frame_classification": ("lrcn", {}),
    "video_captioning": ("s2vt", {"num_frames": 4, "max_words": 5}),
}


def checkpoint(folder: Path, task: str) -> Path:
    model, settings = PARTS[task]
    run = {
        "name": "r", "dataset": "d", "task_name": task, "task": {"image_size": 24, **settings}, "model_name": model,
        "model": TINY, "train": {"optimizer": {}, "seed": 0},
    }  # fmt: skip
    words = [[word, 9] for word in ("a", "bar", "moves", "left")]
    data = DataSpec(dataset="d", classes=("MoveLeft", "MoveRight"), vocabulary={"captions": words})
    torch.manual_seed(0)
    save_best(folder / "r.ckpt", run=run, data=data, weights=build_module(run, data).state_dict(), info={})
    return folder / "r.ckpt"


@pytest.mark.parametrize("task", PARTS)
def test_a_video_and_a_folder_of_its_frames_are_answered_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, task: str
) -> None:
    checkpoint(tmp_path, task)
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "clip.avi", range(6), fps=5.0)
    for number in range(6):
        (tmp_path / "frames").mkdir(exist_ok=True)
        cv2.imwrite(f"frames/{number}.png", frame(number))
    assert sightline("predict", ["r.ckpt", "clip.avi", "frames", "--fps", "5", "--label", "m"]) == 0
    first, second = json.loads(capsys.readouterr().out)["predictions"]
    assert first["clip"] == "clip.avi" and Path(first["picture"]).is_file() and len(first["answers"]) == 1
    assert near(first["answers"], second["answers"])
    (answer,) = first["answers"]
    if task == "frame_classification":
        assert answer["frames"] == 6 and answer["segments"][0]["start_s"] == 0.0
        assert answer["segments"][-1]["end_s"] == pytest.approx(1.2), "six frames, five a second"
    elif task == "action":
        assert answer["class"] in ("MoveLeft", "MoveRight") and len(answer["over_time"]) == 10
    else:
        assert set(answer["caption"].split()) <= {"a", "bar", "moves", "left"}


def near(one: Any, other: Any) -> bool:
    """Equal but for what a JPEG loses."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(near(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(near, one, other))
    return one == pytest.approx(other, abs=0.02) if isinstance(one, float) else one == other
