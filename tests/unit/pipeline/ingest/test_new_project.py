"""`sightline init`: a project outside the repository that runs as it stands, and what is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from contracts.errors import DataError
from pipeline.ingest.new_project import write_project
from pipeline.ingest.worlds import motion, question_scenes, words
from pipeline.ingest.worlds._output import SplitSizes
from pipeline.settings import discover
from pipeline.settings.check import write_code
from pipeline.settings.params import read_params
from pipeline.system.project import Project, read_json
from tests.command import sightline


@pytest.fixture
def init(tiny_project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.setenv("SIGHTLINE_WITHOUT_OUTLINES", "1")  # tasks that are only looked at would stay so in this process

    def run(data: str, task: str, *more: str, folder: Path = tmp_path / "new") -> int:
        return sightline("init", [str(folder), "--data", str(tiny_project.root / data), "--task", task, *more])

    return run


def run(folder: Path, root: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "SIGHTLINE_WITHOUT_OUTLINES"}
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *arguments],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_new_project_runs_as_it_stands(init, tmp_path, root):
    assert init("data/raw/voc", "detection") == 0
    folder = tmp_path / "new"
    assert run(folder, root, "check") == "params.yaml: 1 data sets, 1 runs, no mistakes\n", "nor hints"
    told = run(folder, root, "repro", "vocab@data")
    assert "] shard data\n" in told and "vocab data: no texts" in told
    assert len(list((folder / "data/shards/data").glob("*.tar"))) >= 2
    again = run(folder, root, "repro", "vocab@data")
    assert "1 stages ran, 3 were up to date" in again, "check alone looks for changes"
    for path in (folder / "dvc.yaml", folder / "params.yaml", folder / ".dvc/config"):
        assert str(root) not in path.read_text(), "nothing in a project names the place of the code"
    assert not (folder / ".git").exists() and (folder / "dvc.lock").is_file()


def test_changed_code_runs_its_stages_again(init, tmp_path, code, monkeypatch):
    """Through the digests that `check` writes: those of the stage alone whose code it is."""
    assert init("data/raw/voc", "segmentation") == 0
    params = read_params(tmp_path / "new")
    monkeypatch.chdir(tmp_path / "new")

    def digests() -> dict[str, str]:
        write_code(params, tmp_path / "new/data/code", code)
        files = (tmp_path / "new/data/code").rglob("*.json")
        names = {path: path.stem if path.parent.name == "code" else path.parent.name for path in files}
        return {name: read_json(path, "", "")["sha256"] for path, name in names.items()}

    before = digests()
    assert before.keys() == {"fetch", "shard", "vocab", "train", "evaluate", "register", "report"}
    (code / "pipeline/measuring/charts.py").write_text("# another colour\n")
    after = digests()
    assert {stage for stage in before if before[stage] != after[stage]} == {"evaluate", "register", "report"}


def _texts(folder: Path) -> None:
    for split in ("train", "val"):
        (folder / f"{split}.txt").write_text("__label__sky the clouds are in the\n__label__sea ships are on the\n")


def _sentences(folder: Path) -> None:
    for split in ("train", "val"):
        for language in ("cs", "de", "en"):
            (folder / f"{split}.{language}").write_text(f"{language} {split} one.\n{language} {split} two.\n")


def _world(module: Any, **settings: Any) -> Callable[[Path], None]:
    config = module.Config(num_records=SplitSizes(train=16, val=8), image_size=64, **settings)
    return lambda folder: module.generate(folder, config, lambda done: None)


_SUITING = {
    "captioning": "data/raw/coco",
    "instances": "data/raw/coco",
    "vqa": "data/raw/coco",
    "text_classification": _texts,
    "translation": _sentences,
    "action": _world(motion, shows="actions"),
    "frame_classification": _world(motion, shows="stories"),
    "video_captioning": _world(motion, shows="stories"),
    "text_recognition": lambda folder: words.generate(
        folder, words.Config(num_records=SplitSizes(train=16, val=8)), lambda done: None
    ),
    "telling": _world(question_scenes),
    "pointing": _world(question_scenes),
}


@pytest.mark.parametrize("task", discover.names("task"))
def test_every_task_gets_a_project_from_data_that_suits_it(init, tmp_path, task, flags_project):
    data = flags_project.root / "flags" if task == "classification" else _SUITING.get(task, "data/raw/voc")
    if callable(data):
        (tmp_path / "own").mkdir()
        data(tmp_path / "own")
        data = tmp_path / "own"
    assert init(str(data), task) == 0
    asked = {
        "text_classification": '--text "..."',
        "vqa": 'photo.jpg --question "..."',
        "translation": '--source "..."',
        "telling": 'photo.jpg --question "..." --candidates "... | ..."',
        "pointing": 'photo.jpg --question "..." --boxes "x1,y1,x2,y2 | ..."',
        **dict.fromkeys(("action", "frame_classification", "video_captioning"), "video.mp4"),
    }.get(task, "photo.jpg")
    assert f" {asked}\n" in (tmp_path / "new/README.md").read_text()
    params = yaml.safe_load((tmp_path / "new/params.yaml").read_text())
    assert [run["task"]["name"] for run in params["runs"].values()] == [task]
    if task == "region_detection":  # searched for once, and in a new picture in the same way
        (run,) = params["runs"].values()
        assert run["task"]["search"] == params["datasets"]["data"]["proposals"] != {"mode": "fast"}, "of 64 px"
    if task in ("telling", "pointing"):  # both files lie there
        assert params["datasets"]["data"]["sources"]["visual7w"]["questions"] == f"dataset_v7w_{task}.json"


@pytest.mark.parametrize(
    ("data", "task", "more", "said"),
    [
        ("data/raw/voc", "detektion", (), ["unknown task: 'detektion'", "did you mean 'detection'?"]),
        ("data/raw/voc", "detection", ("--source", "cocoo"), ["unknown source: 'cocoo'", "did you mean 'coco'?"]),
        ("data/raw/nothing", "detection", (), ["DataError: no such folder", "--data"]),
        ("data/raw/voc", "captioning", (), ["not what captioning learns from", "as voc it has no captions"]),
        (
            "data/vocab", "detection", (),
            ["no source reads this folder", "yolo: a data.yaml", "2 files with .json, such as coco.json"],
        ),
        ("data/raw/voc", "detection", ("--source", "yolo"), ["no source reads this folder", "Pascal VOC's folders"]),
    ],
)  # fmt: skip
def test_what_cannot_become_a_project_is_told_and_writes_nothing(init, tmp_path, capsys, data, task, more, said):
    assert init(data, task, *more) == 2
    err = capsys.readouterr().err
    assert all(text in err for text in said), err
    assert not (tmp_path / "new").exists()


def test_a_store_cannot_be_looked_into(tmp_path):
    with pytest.raises(DataError, match="then set datasets: input to the url"):
        write_project(tmp_path / "new", Path("s3://shop/raw"), "detection", None)


def test_a_folder_with_something_in_it_is_left_alone(init, tmp_path, capsys):
    (tmp_path / "new").mkdir()
    (tmp_path / "new/mine").write_text("x")
    assert init("data/raw/voc", "detection") == 2
    assert "this folder is not empty" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["mine"]


def test_a_val_split_is_drawn_where_there_is_none(init, tmp_path, tiny_project, capsys):
    shutil.copytree(tiny_project.root / "data/raw/voc", tmp_path / "one")
    for path in (tmp_path / "one").rglob("ImageSets/*/val.txt"):
        path.unlink()
    assert init(str(tmp_path / "one"), "detection") == 0, capsys.readouterr().err
    text = (tmp_path / "new/params.yaml").read_text()
    assert "split: {val: 0.2}" in text and "# a fifth of train, since there is no val split" in text


def test_every_setting_that_the_data_chose_says_why(init, tmp_path, capsys):
    assert init("data/raw/coco", "captioning") == 0
    assert "40 training records" in capsys.readouterr().out
    lines = (tmp_path / "new/params.yaml").read_text().splitlines()
    for key in ("image_size", "max_words", "augment", "backbone", "batch_size", "max_epochs", "samples"):
        place = next(i for i, line in enumerate(lines) if line.strip().startswith(f"{key}:"))
        assert "  # " in lines[place] or lines[place - 1].strip().startswith("# "), lines[place]
    assert "image_size: 64 " in "\n".join(lines), "the pictures have no more"


def test_masks_of_values_that_nothing_names_get_names(init, tmp_path):
    data = tmp_path / "rocks"
    for number in range(10):
        for folder, pixels in (("JPEGImages", 7), ("SegmentationClass", number % 3)):
            (data / folder).mkdir(parents=True, exist_ok=True)
            suffix = "jpg" if folder == "JPEGImages" else "png"
            Image.fromarray(np.full((40, 40), pixels, np.uint8)).save(data / folder / f"{number}.{suffix}")
    assert init(str(data), "segmentation") == 0
    text = (tmp_path / "new/params.yaml").read_text()
    assert "mask_values: {background: 0, class_1: 1, class_2: 2}" in text and "put your names in place" in text


def test_annotations_without_their_pictures_are_told(init, tmp_path, tiny_project, capsys):
    shutil.copytree(tiny_project.root / "data/raw/voc", tmp_path / "bare")
    for path in (tmp_path / "bare").rglob("*.jpg"):
        path.unlink()
    assert init(str(tmp_path / "bare"), "detection") == 2
    assert "image where its files name them, such as" in capsys.readouterr().err
