"""The LabelMe source: shapes, groups, images that are elsewhere or inside, and files that are none."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.errors import DataError
from contracts.raw import Problem, RawRecord
from pipeline.ingest.sources import labelme
from tests.formats import box_error, drawn, put, through_door

HERE = labelme.Config(train=".", val="", test="")
BOX = (10.0, 8.0, 30.0, 28.0)


def shape(
    label: str = "cat", kind: str | None = "polygon", *points: tuple[float, float], **more: Any
) -> dict[str, Any]:
    return {"label": label, "points": [list(p) for p in points], "shape_type": kind, "flags": {}, **more}


def rectangle(label: str = "cat", box: tuple = BOX, **more: Any) -> dict[str, Any]:
    return shape(label, "rectangle", box[:2], box[2:], **more)


def add(root: Path, name: str, *shapes: Any, image: bytes | None = None, **more: Any) -> Path:
    """`<name>.json` and, beside it, `<name>.jpg` with the rectangle BOX."""
    put(root / f"{name}.jpg", image or drawn([BOX]))
    document = {
        "version": "5.4.1", "flags": {}, "shapes": list(shapes), "imagePath": f"{Path(name).name}.jpg",
        "imageData": None, "imageHeight": 48, "imageWidth": 64,
    }  # fmt: skip
    return put(root / f"{name}.json", json.dumps(document | more))


def read(root: Path, config: labelme.Config = HERE) -> tuple[list[RawRecord], list[Problem]]:
    items = list(labelme.read(root, "train", config))
    return [i for i in items if isinstance(i, RawRecord)], [i for i in items if isinstance(i, Problem)]


def test_shapes_with_an_area_become_objects(tmp_path: Path) -> None:
    add(
        tmp_path, "a", rectangle(box=(30, 28, 10, 8)),  # drawn from right to left
        shape("dog", "polygon", (0, 0), (20, 0), (20, 10)), shape("dog", None, (0, 0), (20, 0), (20, 10)),
        shape("dog", "circle", (20, 20), (20, 30)),
    )  # fmt: skip
    read = through_door(labelme, tmp_path, HERE)
    assert read.problems == [] and read.classes == ("cat", "dog")
    (record,) = read.records["train"]
    assert record.objects.labels.tolist() == [1, 2, 2, 2]
    assert [bool(mask) for mask in record.objects.masks] == [False, True, True, True]
    np.testing.assert_allclose(record.objects.boxes, [BOX, (0, 0, 20, 10), (0, 0, 20, 10), (10, 10, 30, 30)])
    assert record.objects.areas[3] == pytest.approx(math.pi * 100, rel=0.03)
    assert box_error(record) <= 1


def test_a_group_is_one_object_and_a_bad_part_costs_only_itself(tmp_path: Path) -> None:
    file = add(
        tmp_path, "a", rectangle(group_id=1, box=(0, 0, 10, 10)), rectangle(),
        shape("cat", "polygon", (20, 20), (30, 20), (30, 30), group_id=1), shape("cat", "polygon", (9, 9), group_id=1),
        rectangle("dog", group_id=1), rectangle("dog", box=(40, 30, 60, 40), group_id=1),
    )  # fmt: skip
    (record,), problems = read(tmp_path)
    assert [(o.category, o.box, o.object_id) for o in record.objects] == [
        ("cat", (0, 0, 30, 30), "shapes[0]"), ("cat", BOX, "shapes[1]"), ("dog", (10, 8, 60, 40), "shapes[4]"),
    ]  # fmt: skip
    assert record.objects[0].segmentation == [[0, 0, 10, 0, 10, 10, 0, 10], [20, 20, 30, 20, 30, 30]]
    assert record.objects[1].segmentation is record.objects[2].segmentation is None
    assert [(p.reason, p.file, p.item_id, p.key) for p in problems] == [
        ("bad_shape", str(file), "shapes[3]", record.key)
    ]


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (shape("cat", "point", (1, 1)), "shape_without_area"),
        (shape("cat", "line", (1, 1), (5, 5)), "shape_without_area"),
        (shape("cat", "linestrip", (1, 1), (5, 5), (9, 1)), "shape_without_area"),
        (shape("cat", "points", (1, 1)), "shape_without_area"),
        (shape("cat", "mask", (1, 1), (5, 5), mask="iVBORw0KGgo="), "shape_without_area"),
        (shape("cat", "polygon", (1, 1), (5, 5)), "bad_shape"),
        (shape("cat", "rectangle", (1, 1)), "bad_shape"),
        (shape("cat", "circle", (1, 1), (5, 5), (9, 9)), "bad_shape"),
        ({**shape("cat"), "points": [[1, "2"], [3, 4], [5, 6]]}, "bad_shape"),
        ({**shape("cat"), "points": [[1, 2, 3], [3, 4, 5], [5, 6, 7]]}, "bad_shape"),
        ({**shape("cat"), "points": None}, "bad_shape"),
        ({**rectangle(), "label": None}, "bad_shape"),
        ("cat", "bad_shape"),
    ],
)
def test_other_shapes_are_told_and_counted(tmp_path: Path, item: Any, reason: str) -> None:
    file = add(tmp_path, "a", rectangle(), item)
    (record,), problems = read(tmp_path)
    assert [(p.reason, p.file, p.item_id) for p in problems] == [(reason, str(file), "shapes[1]")]
    assert len(record.objects) == 1


def test_the_image_is_the_named_one_or_one_of_that_name_or_inside(tmp_path: Path) -> None:
    data = drawn([BOX], kind="PNG")
    text = base64.b64encode(data).decode()
    add(tmp_path, "json/named", rectangle(), imagePath="..\\images\\x.jpg")
    put(tmp_path / "images/x.jpg", drawn([BOX], colour=90))
    add(tmp_path, "json/beside", rectangle(), imagePath="C:\\photos\\other.jpg")
    for name in ("inside", "wrapped"):
        add(tmp_path, f"json/{name}", rectangle('a "imageData": "b'), imagePath="gone.jpg", imageData=text)
        (tmp_path / f"json/{name}.jpg").unlink()
    escaped = (tmp_path / "json/wrapped.json").read_text()
    wrapped = "\\n".join(text[i : i + 76] for i in range(0, len(text), 76)).replace("/", "\\/")
    put(tmp_path / "json/wrapped.json", escaped.replace(text, wrapped))
    (tmp_path / "json/nowhere.jpg").unlink(missing_ok=True)
    add(tmp_path, "json/nowhere", rectangle(), imagePath="../../../etc/gone.jpg")
    (tmp_path / "json/nowhere.jpg").unlink()
    read = through_door(labelme, tmp_path, HERE)
    assert [(p.reason, p.item_id) for p in read.problems] == [("missing_image", "json/nowhere.json")]
    records = {str(record.image_id): record for record in read.records["train"]}
    assert len(records) == 4 and max(map(box_error, records.values())) <= 1
    assert records["json/named.json"].image == (tmp_path / "images/x.jpg").read_bytes()
    assert records["json/beside.json"].image == (tmp_path / "json/beside.jpg").read_bytes()
    assert records["json/inside.json"].image == records["json/wrapped.json"].image == data


def test_broken_base64_is_refused(tmp_path: Path) -> None:
    for name, data in (("a", "abc"), ("b", "AAAA")):
        add(tmp_path, name, rectangle(), imageData=data).with_suffix(".jpg").unlink()
    assert through_door(labelme, tmp_path, HERE).reasons == {"not_an_image": 2}


def test_files_that_are_not_labelmes_are_named(tmp_path: Path) -> None:
    add(tmp_path, "a", rectangle())
    for name, text in (("b", "{"), ("c", "[1]"), ("d", '{"images": []}'), ("e", '{"shapes": {}}'), ("f", "[" * 9999)):
        put(tmp_path / f"{name}.json", text)
    put(tmp_path / "._a.json", "a resource fork")
    records, problems = read(tmp_path)
    assert [r.image.name for r in records] == ["a.jpg"]
    assert [(p.reason, p.item_id) for p in problems] == [("not_labelme", f"{name}.json") for name in "bcdef"]


def test_splits_and_classes(tmp_path: Path) -> None:
    add(tmp_path, "one", rectangle("dog"))
    add(tmp_path, "more/two", rectangle("cat"))
    add(tmp_path, "val/three", rectangle("__ignore__"), rectangle("bird"))
    config = labelme.Config(train=".")
    assert labelme.splits(tmp_path, config) == ("train", "val")
    assert labelme.classes(tmp_path, config) == ("bird", "cat", "dog")
    assert sorted(r.image.name for r in read(tmp_path, config)[0]) == ["one.jpg", "two.jpg"]
    put(tmp_path / "labels.txt", "__ignore__\n_background_\ndog\ncat\n")
    assert labelme.classes(tmp_path, config) == ("dog", "cat")
    assert labelme.classes(tmp_path, labelme.Config(classes=("x",))) == ("x",)
    with pytest.raises(DataError, match="names a class"):
        labelme.classes(tmp_path / "none", config)


def test_images_that_were_not_annotated_are_told(tmp_path: Path) -> None:
    add(tmp_path, "a", rectangle())
    assert labelme.notes(tmp_path, HERE) == []
    image = put(tmp_path / "deep/b.jpg", drawn())
    assert labelme.notes(tmp_path, HERE) == [
        f"1 images of train have no LabelMe JSON and are not read, such as {image}"
    ]


def test_size_is_compared_with_the_image(tmp_path: Path) -> None:
    add(tmp_path, "a", rectangle(), imageWidth=None, imageHeight=None)
    add(tmp_path, "b", rectangle(), imageWidth=640, imageHeight=480)
    read = through_door(labelme, tmp_path, HERE)
    assert read.reasons == {"size_mismatch": 1} and len(read.records["train"]) == 1
