"""The YOLO source: layouts that Ultralytics, Roboflow and people write, and lines that are none."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contracts.errors import DataError
from pipeline.ingest.door.masks import counts_area_and_box
from pipeline.ingest.sources import yolo
from tests.formats import box_error, drawn, put, through_door

BOX = (16.0, 12.0, 48.0, 36.0)  # of 64 x 48: centre a half, sides a half
LINE = "0 0.5 0.5 0.5 0.5\n"


def add(root: Path, image: str, labels: str | None, name: str = "") -> None:
    put(root / image, drawn([BOX]))
    if labels is not None:
        put(root / (name or image.replace("images/", "labels/").rsplit(".", 1)[0] + ".txt"), labels)


def test_boxes_and_polygons_of_all_splits(tmp_path: Path) -> None:
    put(
        tmp_path / "data.yaml",
        "path: ../datasets/mine\ntrain: images/train\nval: images/val\ntest:\nnc: 2\nnames: [pen, no]\n",
    )
    add(tmp_path, "images/train/a.jpg", LINE + "1 0.25 0.25 0.75 0.25 0.75 0.75\n\n")
    add(tmp_path, "images/train/deep/c.d.jpg", LINE)
    add(tmp_path, "images/train/b.png", None)  # nothing on it
    add(tmp_path, "images/val/e.JPG", "1 0.5 0.5 0.5 0.5", "labels/val/e.txt")
    put(tmp_path / "images/train/._a.jpg", b"a resource fork")
    read = through_door(yolo, tmp_path)
    assert read.problems == []
    assert read.classes == ("pen", "no"), "YAML 1.1 reads `no` as false"
    assert {split: [len(r.objects) for r in found] for split, found in read.records.items()} == {
        "train": [2, 0, 1],
        "val": [1],
    }
    first, last = read.records["train"][0], read.records["train"][2]
    assert first.objects.boxes.tolist() == [list(BOX), [16, 12, 48, 36]]
    assert first.objects.labels.tolist() == [1, 2]
    assert [bool(mask) for mask in first.objects.masks] == [False, True]
    area, extent = counts_area_and_box(first.objects.masks[1], 48, 64)
    assert 300 < area < 470, "the triangle has half of the box's 768 pixels"
    np.testing.assert_allclose(extent, BOX, atol=1)
    assert box_error(last) <= 1
    assert read.records["val"][0].objects.labels.tolist() == [2]


@pytest.mark.parametrize(
    ("text", "train"),
    [
        ("train: ../train/images\nval: ../valid/images\nnames: {0: pen}\n", "train/images/a.jpg"),  # Roboflow
        ("path: mine\ntrain: images\nval: [images]\nnames: {'0': pen}\n", "mine/images/a.jpg"),
        ("path: /home/me/mine\ntrain: ./photos\nval: photos\nnc: 1\n", "photos/a.jpg"),  # no folder `images`: beside
        ("train: lists/train.txt\nval: lists/train.txt\nnames: [pen]\n", "images/a.jpg"),
    ],
)
def test_layouts(tmp_path: Path, text: str, train: str) -> None:
    put(tmp_path / "set/data.yaml", text)
    put(tmp_path / "set/lists/train.txt", "../images/a.jpg\n\nimages/a.jpg\n/etc/a.jpg\n../..\n")
    add(tmp_path / "set", train, LINE)
    add(tmp_path / "set", "valid/images/b.jpg", LINE)
    records, *problems = _read(tmp_path)
    assert [record.image.name for record in records] == ["a.jpg"]
    assert [len(record.objects) for record in records] == [1]
    outside = [("unsafe_path", "4", "line 4: /etc/a.jpg"), ("unsafe_path", "5", "line 5: ../..")]
    assert [(p.reason, p.item_id, p.detail) for p in problems] == (outside if ".txt" in text else [])


def _read(root: Path) -> list:
    items = list(yolo.read(root, "train", yolo.Config(data="set/data.yaml")))
    problems = [item for item in items if hasattr(item, "reason")]
    return [[item for item in items if not hasattr(item, "reason")], *problems]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0 0.5 0.5 0.5", "4 columns"),
        ("0 0.5 0.5 0.5 0.5 0.99", "6 columns"),  # a confidence
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "8 columns"),
        ("pen 0.5 0.5 0.5 0.5", "not all are numbers"),
        ("0,0.5,0.5,0.5,0.5", "not all are numbers"),
        ("0.5 0.5 0.5 0.5 0.5", "no whole number"),
        ("-1 0.5 0.5 0.5 0.5", "no whole number"),
        ("0 32 24 32 24", "not shares"),  # pixels
        ("0 nan 0.5 0.5 0.5", "not shares"),
        ("\xff\xfe0", "not all are numbers"),
    ],
)
def test_a_bad_line_is_told_with_file_and_line(tmp_path: Path, line: str, said: str) -> None:
    put(tmp_path / "data.yaml", "train: images\nval: images\nnames: [pen]\n")
    add(tmp_path, "images/a.jpg", None)
    file = put(tmp_path / "labels/a.txt", LINE.encode() + b"\n" + line.encode("latin-1") + b"\n" + LINE.encode())
    *problems, record = yolo.read(tmp_path, "train", yolo.Config())
    assert [(p.reason, p.file, p.item_id) for p in problems] == [("bad_label_line", str(file), "3")]
    assert problems[0].detail.startswith("line 3: ") and said in problems[0].detail
    assert [item.object_id for item in record.objects] == ["1", "4"], "the others stay"


def test_an_unlisted_class_is_refused_by_the_door_with_its_line(tmp_path: Path) -> None:
    put(tmp_path / "data.yaml", "train: images\nval: images\nnames: [pen]\n")
    add(tmp_path, "images/a.jpg", LINE + "7 0.5 0.5 0.5 0.5\n")
    (problem, *_) = through_door(yolo, tmp_path).problems
    assert (problem.reason, problem.file, problem.item_id) == ("unknown_class", str(tmp_path / "labels/a.txt"), "2")


def test_a_turned_photo_has_its_boxes_on_the_picture_that_people_see(tmp_path: Path) -> None:
    put(tmp_path / "data.yaml", "train: images\nval: images\nnames: [pen]\n")
    upright = Image.open(io.BytesIO(drawn([(4, 6, 20, 50)], size=(48, 64))))
    stored, exif = upright.transpose(Image.Transpose.ROTATE_90), Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    (tmp_path / "images").mkdir()
    stored.save(tmp_path / "images/a.jpg", exif=exif, quality=95)
    put(tmp_path / "labels/a.txt", f"0 {12 / 48} {28 / 64} {16 / 48} {44 / 64}")
    (record, *_) = through_door(yolo, tmp_path).records["train"]
    assert (record.width, record.height) == (48, 64)
    np.testing.assert_allclose(record.objects.boxes, [[4, 6, 20, 50]], atol=1e-4)
    assert box_error(record) <= 2


def test_poses_keep_their_boxes(tmp_path: Path) -> None:
    put(tmp_path / "data.yaml", "train: images\nval: images\nnames: [pen]\nkpt_shape: [2, 3]\n")
    add(tmp_path, "images/a.jpg", "0 0.5 0.5 0.5 0.5 0.3 0.3 2 0.6 0.6 1\n")
    (record, *_) = through_door(yolo, tmp_path).records["train"]
    assert record.objects.boxes.tolist() == [list(BOX)] and record.objects.masks == [""]


def test_an_image_that_is_none_is_refused_at_the_door(tmp_path: Path) -> None:
    put(tmp_path / "data.yaml", "train: images\nval: images\nnames: [pen]\n")
    add(tmp_path, "images/a.jpg", LINE)
    put(tmp_path / "images/b.jpg", b"no image")
    put(tmp_path / "labels/b.txt", LINE)
    assert through_door(yolo, tmp_path).reasons == {"not_an_image": 2}  # of train and of val


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "no YAML of splits"),
        ("train: [images", "broken YAML"),
        ("- train", "no mapping"),
        ("train: images\nval: images\n", "no `names`"),
        ("train: images\nval: images\nnames: {one: pen}\n", "number and a name"),
        ("train: images\nval: images\nnames: [pen, pen]\n", "name of its own"),
        ("train: nowhere\nval: images\nnames: [pen]\n", "no folder or list"),
        ("train: ../../images\nval: images\nnames: [pen]\n", "no folder or list"),
    ],
)
def test_yamls_that_say_nothing(tmp_path: Path, text: str | None, said: str) -> None:
    add(tmp_path, "set/images/a.jpg", LINE, "set/labels/a.txt")
    put(tmp_path / "images/a.jpg", drawn())
    put(tmp_path / "set/other.yaml", "")
    if text is not None:
        put(tmp_path / "set/data.yaml", text)
    with pytest.raises(DataError, match=said):
        through_door(yolo, tmp_path / "set")


def test_labels_that_are_nowhere_are_noticed(tmp_path: Path) -> None:
    put(tmp_path / "data.yaml", "train: photos\nval: photos\nnames: [pen]\n")
    add(tmp_path, "photos/a.jpg", LINE, "labels/a.txt")
    with pytest.raises(DataError, match="has a label file") as error:
        through_door(yolo, tmp_path)
    assert str(tmp_path / "photos/a.txt") in str(error.value)


def test_a_test_split_that_is_not_there_is_none(tmp_path: Path) -> None:
    put(tmp_path / "data.yaml", "train: images\nval: images\ntest: test-dev.txt\nnames: [pen]\n")
    assert yolo.splits(tmp_path, yolo.Config()) == ("train", "val")


def test_images_without_labels_and_labels_without_images_are_told(tmp_path: Path) -> None:
    put(tmp_path / "data.yaml", "train: images/train\nval: images/val\nnames: [pen]\n")
    for name in ("train/a", "train/b", "val/c"):
        add(tmp_path, f"images/{name}.jpg", None if name == "train/b" else LINE)
    assert yolo.notes(tmp_path, yolo.Config()) == ["1 of 2 images of train have no label file: they show no object"]
    lost = put(tmp_path / "labels/val/d.txt", LINE)
    put(tmp_path / "labels/train/classes.txt", "pen")
    assert yolo.notes(tmp_path, yolo.Config())[1:] == [f"1 label files of val have no image, such as {lost}"]
