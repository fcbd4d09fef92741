"""What `sightline predict` finds to predict for, and in which order."""

from __future__ import annotations

import io
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from pipeline.predicting.given import names, read
from tests.command import sightline


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in (
        "p/b.JPG",
        "p/a.png",
        "p/deep/c.webp",
        "p/notes.txt",
        "p/.hidden.png",
        "p/z.mp4",
        "q/1.avi",
        "x[1].png",
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"")
    Path("p/deep/up").symlink_to("..")  # a way round in circles
    return tmp_path


def test_folders_hold_images_at_any_depth_in_order(photos: Path) -> None:
    assert list(names(["p"], None, "image")) == ["p/a.png", "p/b.JPG", "p/deep/c.webp"]
    assert list(names(["p/z.mp4", "p/*.png", "x[1].png"], None, "image")) == ["p/z.mp4", "p/a.png", "x[1].png"]
    assert list(names(["**/*.avi", "p/*.[wJ]*"], None, "image")) == ["q/1.avi", "p/b.JPG"]
    assert list(names(["p/deep/up/deep"], None, "image"))[:1] == ["p/deep/up/deep/c.webp"]


def test_a_folder_of_frames_is_a_clip_and_one_of_videos_holds_clips(photos: Path) -> None:
    assert list(names(["p", "q", "."], None, "clip")) == ["p", "q/1.avi", "."]
    Path("x[1].png").unlink()
    assert list(names(["."], None, "clip")) == ["p", "q/1.avi"]


def test_a_list_may_still_be_written_by_another_program(photos: Path) -> None:
    os.mkfifo("list")
    found = names([], "list", "image")
    with ThreadPoolExecutor() as pool:
        reading = pool.submit(lambda: next(found))
        with open("list", "w") as file:
            print("0.png", file=file, flush=True)
            assert reading.result(timeout=10) == "0.png"
    assert list(found) == []


def video(path: Path, num_frames: int) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 4.0, (32, 16))
    for number in range(num_frames):
        writer.write(np.full((16, 32, 3), 20 * number, np.uint8))
    writer.release()


def test_of_a_video_every_nth_frame_is_an_image(folder: Path, capsys: pytest.CaptureFixture) -> None:
    video(folder / "film.avi", 7)
    assert sightline("predict", ["a_run", "film.avi", "--every", "3"]) == 0
    found = json.loads(capsys.readouterr().out)["predictions"]
    assert [(one["image"], one["frame"], one["time_s"]) for one in found] == [
        ("film.avi", 0, 0.0), ("film.avi", 3, 0.75), ("film.avi", 6, 1.5),
    ]  # fmt: skip
    assert [one["picture"] for one in found][1] == "predictions/film-000003.a_run.png"
    levels = [int(cv2.imread(one["picture"])[0, 0, 0]) for one in found]
    assert levels == pytest.approx([0, 60, 120], abs=4), "the frame itself"
    assert sightline("predict", ["a_run", "film.avi"]) == 0
    assert len(json.loads(capsys.readouterr().out)["predictions"]) == 7


def test_a_video_that_is_none_is_an_entry(folder: Path, capsys: pytest.CaptureFixture) -> None:
    (folder / "film.mp4").write_text("no video")
    assert sightline("predict", ["a_run", "film.mp4", "other"]) == 1
    first, second = json.loads(capsys.readouterr().out)["predictions"]
    assert "no frames can be read" in first["error"]["message"] and second["image"] == "other/red.png"


def test_frames_that_are_done_are_not_turned_into_pixels(folder: Path) -> None:
    video(folder / "film.avi", 4)
    items = read("film.avi", "image", fps=None, every=1, skipped=lambda name, frame: frame in (0, 2))
    assert [item.frame for item in items] == [1, 3]


def test_standard_input_is_an_image_or_a_list(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO((folder / "red.png").read_bytes())))
    assert sightline("predict", ["a_run", "-"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["predictions"]
    assert (found["image"], found["picture"]) == ("-", "predictions/stdin.a_run.png")
    (folder / "list").write_bytes(b"\xef\xbb\xbfred.png\r\n\nother\n")
    with open("list") as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert sightline("predict", ["a_run", "--list", "-"]) == 0
    assert [one["image"] for one in json.loads(capsys.readouterr().out)["predictions"]] == ["red.png", "other/red.png"]


def test_a_folder_without_images_is_told(folder: Path, capsys: pytest.CaptureFixture) -> None:
    (folder / "empty").mkdir()
    assert sightline("predict", ["a_run", "empty", "red.png"]) == 1
    first, second = json.loads(capsys.readouterr().out)["predictions"]
    assert "this folder has no images: 'empty'" in first["error"]["message"] and "answers" in second
