"""`sightline predict --track`, by the command, on a drawn video; the detector is trained on nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from contracts.records import DataSpec
from pipeline.predicting.following import drawn
from pipeline.training.checkpoints import build_module, save_best
from tests.command import sightline

pytestmark = pytest.mark.filterwarnings("default")  # MLflow's own
FRAMES, FPS = 12, 10.0


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of a detector, of a segmenter, and a video of a square that moves."""
    for name, task, model in (("det", "detection", "faster_rcnn"), ("seg", "segmentation", "fcn")):
        run = {
            "name": name, "dataset": "d", "task_name": task, "task": {"image_size": 64}, "model_name": model,
            "model": {}, "train": {"optimizer": {}, "seed": 0},
        }  # fmt: skip
        data = DataSpec(dataset="d", classes=("square", "disc"))
        torch.manual_seed(0)
        weights = build_module(run, data).state_dict()
        save_best(tmp_path / f"{name}.ckpt", run=run, data=data, weights=weights, info={})
    writer = cv2.VideoWriter(str(tmp_path / "film.avi"), cv2.VideoWriter.fourcc(*"MJPG"), FPS, (96, 64))
    for number in range(FRAMES):
        picture = np.zeros((64, 96, 3), np.uint8)
        picture[20:40, 4 * number : 4 * number + 20] = (0, 0, 255)
        writer.write(picture)
    writer.release()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def predicted(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    assert sightline("predict", ["det.ckpt", "film.avi", "--label", "m", "--score", "0.2", *arguments]) == 0
    return json.loads(capsys.readouterr().out)["predictions"]


def test_objects_have_numbers_and_the_video_is_drawn_anew(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = predicted(capsys, "--track")
    assert [entry["frame"] for entry in entries] == list(range(FRAMES))
    numbers = [[found["track"] for found in entry["answers"][0]["objects"]] for entry in entries]
    assert all(numbers) and all(len(set(of_frame)) == len(of_frame) for of_frame in numbers)
    assert set(numbers[0]) & set(numbers[-1]), "the corners of an unchanging picture stay what they are"
    assert {entry["picture"] for entry in entries} == {"predictions/film.m.mp4"}
    capture = cv2.VideoCapture("predictions/film.m.mp4")
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(FPS)
    shapes = []
    while (read := capture.read())[0]:
        shapes.append(read[1].shape)
    assert shapes == [(64, 96, 3)] * FRAMES


def test_films_of_one_name_are_kept_apart_and_an_image_of_a_list_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "b").mkdir()
    (folder / "b/film.avi").write_bytes((folder / "film.avi").read_bytes())
    entries = predicted(capsys, "b/film.avi", "film.avi", "film.avi", "--track", "--every", "6")
    assert [entry["frame"] for entry in entries] == [0, 6] * 4
    names = [Path(entry["picture"]).name for entry in entries[::2]]
    assert names == ["film.m.mp4", "film.m-2.mp4", "film.m-3.mp4", "film.m-4.mp4"]
    assert all((folder / "predictions" / name).is_file() for name in names)
    cv2.imwrite("photo.png", np.zeros((64, 64, 3), np.uint8))
    Path("list").write_text("photo.png\n")
    assert sightline("predict", ["det.ckpt", "--list", "list", "--track", "--label", "m"]) == 1
    (entry,) = json.loads(capsys.readouterr().out)["predictions"]
    assert "no video" in entry["error"]["message"] and "answers" not in entry


def test_each_third_frame_and_no_pictures(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = predicted(capsys, "--track", "--every", "3", "--no-pictures")
    assert [entry["frame"] for entry in entries] == [0, 3, 6, 9] and "picture" not in entries[0]
    assert not (folder / "predictions").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("seg.ckpt", "film.avi", "--track"), "only objects can be followed"),
        (("det.ckpt", "photo.png", "--track"), "no video to follow objects through"),
        (("det.ckpt", "film.avi", "--track", "--json", "a.jsonl", "--resume"), "a track is not gone on with"),
        (("det.ckpt", "film.avi", "--track", "--cluster"), "this does not go with --cluster: '--track'"),
    ],
)
def test_what_does_not_go_together(folder: Path, capsys: pytest.CaptureFixture[str], arguments, said) -> None:
    cv2.imwrite("photo.png", np.zeros((64, 64, 3), np.uint8))
    assert sightline("predict", arguments) == 2
    assert said in capsys.readouterr().err


def test_a_track_has_its_own_color() -> None:
    objects = [{"label": "disc", "track": i, "box": [20 * i, 40, 20 * i + 8, 60]} for i in range(1, 5)]
    picture = drawn(np.zeros((80, 120, 3), np.uint8), objects)
    assert len({tuple(picture[60, 20 * i + 4]) for i in range(1, 5)} | {(0, 0, 0)}) == 5
