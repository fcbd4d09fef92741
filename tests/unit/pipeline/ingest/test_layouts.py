"""Ways to read a folder are found from the names in it; `check` proposes them, and tells what is far too large."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.ingest import tree
from pipeline.ingest.folders import hints
from pipeline.ingest.layouts import LOOKED_FOR, layouts
from pipeline.ingest.tree import Tree
from pipeline.settings import discover
from pipeline.settings.params import Params
from pipeline.settings.parse import one_line

DRAWN = {"split": {"val": 0.1}}
XML = "<annotation><object><bndbox></bndbox></object></annotation>"


def coco(file_name: str, caption: bool = False) -> str:
    annotation = {"image_id": 1, **({"caption": "a"} if caption else {"bbox": [0, 0, 1, 1]})}
    return json.dumps({"images": [{"id": 1, "file_name": file_name}], "annotations": [annotation]})


VQA = json.dumps({"questions": [{"image_id": 9, "question_id": 1}]})
ANSWERS = json.dumps({"annotations": [{"image_id": 9, "question_id": 1}]})
_ENTRY = {"filename": "v7w_1.jpg", "split": "train", "qa_pairs": [{"qa_id": 1, "multiple_choices": ["a"]}]}
V7W = json.dumps({"images": [_ENTRY, {**_ENTRY, "split": "val"}]})
KARPATHY = json.dumps(
    {
        "images": [
            {"filepath": "val2014", "sentids": [0], "filename": "a.jpg", "imgid": i, "split": split, "sentences": []}
            for i, split in enumerate(("restval", "val"))
        ]
    }
)
LABELME = json.dumps({"shapes": [], "imagePath": "a.jpg"})


def fill(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith((".jpg", ".png")):
            Image.new("RGB", (64, 48)).save(path)
        else:
            path.write_text(text)
    return root


CASES: dict[str, tuple[str, dict[str, str], dict[str, Any], dict[str, Any]]] = {
    "roboflow": (
        "coco",
        {f"x/{s}/_annotations.coco.json": coco("a.jpg") for s in ("train", "valid")}
        | {f"x/{s}/a.jpg": "" for s in ("train", "valid")},
        {"images": "x/{split}", "instances": "x/{split}/_annotations.coco.json", "captions": ""},
        {"splits": {"val": "valid"}},
    ),
    "cvat": (
        "coco",
        {"annotations/instances_default.json": coco("sub/a.jpg"), "images/sub/a.jpg": ""},
        {"images": "images", "instances": "annotations/instances_default.json", "captions": ""},
        DRAWN,
    ),
    "coco with captions": (
        "coco",
        {f"notes/{kind}_{s}2017.json": coco(f"{s}.jpg", kind == "captions") for kind in ("instances", "captions")
         for s in ("train", "val")} | {f"images/{s}2017/{s}.jpg": "" for s in ("train", "val")},
        {"images": "images/{split}2017", "instances": "notes/instances_{split}2017.json",
         "captions": "notes/captions_{split}2017.json"},
        {},
    ),
    "vqa": (
        "vqa",
        {"q/questions_train.json": VQA, "q/answers_train.json": ANSWERS, "img/train/000000000009.jpg": ""},
        {"questions": "q/questions_{split}.json", "annotations": "q/answers_{split}.json",
         "images": "img/{split}/{image_id:012d}.jpg"},
        DRAWN,
    ),
    "visual7w": (
        "visual7w", {"text/telling.json": V7W, "photos/v7w_1.jpg": ""},
        {"questions": "text/telling.json", "images": "photos"}, {},
    ),
    "voc one deeper": (
        "voc",
        {"BCCD/JPEGImages/a.jpg": "", "BCCD/Annotations/a.xml": XML, "BCCD/ImageSets/Main/train.txt": "a",
         "BCCD/ImageSets/Main/valid.txt": "a"},
        {"folders": ["BCCD"], "val": "valid"},
        {},
    ),
    "voc without lists": ("voc", {"JPEGImages/a.jpg": "", "Annotations/a.xml": XML}, {"folders": ["."]}, DRAWN),
    "xml beside pictures": (
        "voc", {"all/a.png": "", "all/a.xml": XML},
        {"folders": ["."], "images": "all", "annotations": "all"}, DRAWN,
    ),
    "class folders": ("image_folder", {"photos/cat/a.jpg": "", "photos/dog/a.jpg": ""}, {"train": "photos"}, DRAWN),
    "folders in class folders": (
        "image_folder", {f"photos/{kind}/{year}/a.jpg": "" for kind in ("cat", "dog") for year in (2020, 2021)},
        {"train": "photos"}, DRAWN,
    ),
    "split class folders": (
        "image_folder",
        {f"d/{split}/{name}/a.jpg": "" for split in ("training", "validation") for name in ("cat", "dog")},
        {"train": "d/training", "val": "d/validation"},
        {},
    ),
    "karpathy": (
        "karpathy", {"k/dataset.json": KARPATHY, "pictures/val2014/a.jpg": ""},
        {"file": "k/dataset.json", "images": "pictures/{filepath}/{filename}"}, {},
    ),
    "labelme": ("labelme", {"shots/a.json": LABELME, "shots/a.jpg": ""}, {"train": "shots"}, DRAWN),
    "camvid": (
        "camvid", {f"roads/{name}/a.png": "" for name in ("train", "trainannot", "val", "valannot")},
        {"folder": "roads"}, {},
    ),
    "yolo": ("yolo", {"coco8.yaml": "names: [a]\ntrain: x\nval: y\n"}, {"data": "coco8.yaml"}, {}),
    "tars": ("webdataset", {"out/00000.tar": "", "out/00001.tar": ""}, {"tars": "out/*.tar"}, DRAWN),
    "labeled text": (
        "labeled_text", {"t/train.txt": "__label__a b", "t/dev.txt": "__label__a b"},
        {"files": "t/{split}.txt"}, {"splits": {"val": "dev"}},
    ),
    "parallel text": (
        "sentences",
        {f"raw/{s}.{end}": "a" for s in ("train", "dev", "test_2016", "test_2017") for end in ("cs.gz", "de.gz", "en")},
        {"files": "raw/{split}.{language}", "languages": {"source": "de", "target": "en"}},
        {"splits": {"val": "dev", "test": "test_2016"}},
    ),
    "parallel text of other languages": (
        "sentences", {f"{s}.{end}": "a" for s in ("train", "val") for end in ("fr", "ro")},
        {"files": "{split}.{language}", "languages": {"source": "fr", "target": "ro"}}, {},
    ),
    "words in lines": (
        "word_images",
        {"gt/train_gt.txt": "a.png word", "gt/valid_gt.txt": "b.png\tword", "train/a.png": "", "valid/b.png": ""},
        {"layout": "lines", "lists": "gt/{split}_gt.txt", "images": "{split}"}, {"splits": {"val": "valid"}},
    ),
    "words in tags": (
        "word_images",
        {"train.tags": "train/a.png A\n", "test.tags": "test/b.png B\n", "train/a.png": "", "test/b.png": ""},
        {"layout": "lines", "lists": "{split}.tags", "images": "."}, DRAWN,
    ),
    "words of mmocr": (
        "word_images",
        {"labels.json": json.dumps({"data_list": [{"img_path": "a.jpg", "instances": [{"text": "a"}]}]}),
         "imgs/a.jpg": ""},
        {"layout": "mmocr", "lists": "labels.json", "images": "imgs"}, DRAWN,
    ),
    "texts beside lines": (
        "word_images", {"lines/a.png": "", "lines/a.gt.txt": "a line"},
        {"layout": "beside", "lists": "", "images": "lines"}, DRAWN,
    ),
    "multithumos": (
        "video_segments",
        {"marks/Jump.txt": "video_test_0000004 0.20 1.10\n", "th/video_validation_0000051.mp4": "",
         "th/video_test_0000004.mp4": ""},
        {"videos": "th", "annotations": "marks", "names": "video_{split}_"},
        {"splits": {"train": "validation", "val": "test"}},
    ),
    "segments of videos without splits": (
        "video_segments", {"annotations/Jump.txt": "a1 0 25\n", "clips/a1.avi": ""},
        {"videos": "clips", "annotations": "annotations"}, DRAWN,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_layout_is_found_from_names(tmp_path, name):
    source, files, section, beside = CASES[name]
    found = [one for one in layouts(Tree(fill(tmp_path, files)), source) if one.sources[source]]
    assert (found[0].sources[source], found[0].beside) == (section, beside)


@pytest.mark.parametrize("name", CASES)
def test_check_proposes_what_lies_there(tmp_path, name):
    source, files, section, _ = CASES[name]
    if source == "webdataset":
        pytest.skip("which tars there are only its package can tell")
    told = hints(params(fill(tmp_path, files), source, {}), tmp_path)
    assert len(told) == 1 and "no train split" in told[0] and "what lies there would be read by" in told[0], told
    assert all(one_line({key: value})[1:-1] in told[0] for key, value in section.items())


@pytest.mark.parametrize("name", CASES)
def test_what_is_proposed_has_no_hints(tmp_path, name):
    source, files, section, beside = CASES[name]
    assert hints(params(fill(tmp_path, files), source, section, beside), tmp_path) == []


def params(folder: Path, source: str, section: dict[str, Any], beside: Any = None, **more: Any) -> Params:
    dataset = {"origin": "local", "input": str(folder), "sources": {source: section}, **(beside or {})}
    run = {"dataset": "d", "task": {"name": "detection"}, "model": {"name": "faster_rcnn"}}
    return Params({"datasets": {"d": dataset}, "runs": {"r": run}, **more})


def test_every_source_says_what_it_looks_for():
    assert LOOKED_FOR.keys() == set(discover.names("source"))


def test_lists_of_masks_are_taken_where_masks_are_wanted(tmp_path):
    lists = {f"ImageSets/{sets}/{split}.txt": "a" for sets in ("Main", "Segmentation") for split in ("train", "val")}
    made = Tree(fill(tmp_path, {"JPEGImages/a.jpg": "", **lists}))
    first = [next(one for one in layouts(made, "voc", with_masks=wanted) if one.sources["voc"]) for wanted in (0, 1)]
    assert [one.sources["voc"].get("image_sets") for one in first] == [None, "Segmentation"]


def test_a_folder_that_is_not_there_yet_is_a_hint(tmp_path):
    (tmp_path / "photos").mkdir()
    (told,) = hints(params(tmp_path / "photo", "voc", {}), tmp_path)
    assert told == f"datasets.d: no folder {tmp_path / 'photo'} yet; {tmp_path} holds photos"


def test_a_val_split_that_is_missing_is_told_alone(tmp_path):
    fill(tmp_path, {"train/cat/a.jpg": "", "train/dog/b.jpg": ""})
    (told,) = hints(params(tmp_path, "image_folder", {}), tmp_path)
    assert "no val split: val is not there" in told and "train split" not in told
    assert "split: {val: 0.1}" in told
    assert hints(params(tmp_path, "image_folder", {}, DRAWN), tmp_path) == []


@pytest.mark.parametrize(("short_side", "is_told"), [(None, True), (160, False), (900, True)])
def test_pictures_far_larger_than_they_are_learnt_are_told(tmp_path, short_side, is_told):
    fill(tmp_path, {"JPEGImages/a.jpg": "", "Annotations/a.xml": XML})
    Image.new("L", (1600, 1200)).save(tmp_path / "JPEGImages/a.jpg")
    (tmp_path / "JPEGImages/b.jpg").write_bytes(b"no picture")
    told = hints(params(tmp_path, "voc", {"folders": ["."]}, DRAWN, shards={"short_side": short_side}), tmp_path)
    assert bool(told) == is_told
    if is_told:
        size = "1600 x 1200" if short_side is None else "1200 x 900"
        assert f"stored as {size} and learnt at image_size 128" in told[0] and "shards.short_side: 160" in told[0]


def test_the_look_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(tree, "_NUM_FOLDERS", 4)
    monkeypatch.setattr(tree, "_NUM_NAMES", 10)
    for name in range(9):
        (tmp_path / f"d{name}").mkdir()
    fill(tmp_path / "d0", {f"{i:03}.txt": "x" for i in range(50)})
    made = Tree(tmp_path)
    assert len(made.folders) == 4 and len(made.folders["d0"].annotations) <= 10
    assert Tree(tmp_path, most_s=-1).folders.keys() <= {"."} and Tree(tmp_path, most_s=-1).files == []


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_passed_over(tmp_path):
    (tmp_path / "closed").mkdir(mode=0)
    assert Tree(tmp_path).folders["closed"].folders == []


def test_links_in_a_circle_end(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b").symlink_to(tmp_path, target_is_directory=True)
    assert len(Tree(tmp_path).folders) < 20


@pytest.mark.parametrize("value", [3, None, "local", {"origin": "local"}, {"origin": "local", "input": "x"}])
def test_hints_leave_mistakes_to_check(value, tmp_path):
    assert hints(Params({"datasets": {"d": value}, "runs": {"r": 3}}), tmp_path) == []
