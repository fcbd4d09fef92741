"""The COCO source on good, lying and broken files."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import ConfigError, DataError
from contracts.raw import Problem, RawRecord
from contracts.records import Caption
from pipeline.ingest.door import RULES
from pipeline.ingest.sources import coco
from pipeline.ingest.sources._files import Unread, record_key

Item = RawRecord | Problem


def image(number: Any, **changes: Any) -> dict[str, Any]:
    name = f"{number:012d}.jpg" if isinstance(number, int) else f"{number}.jpg"
    return {"id": number, "file_name": name, "width": 40, "height": 30, **changes}


def instance(number: Any, image_id: Any = 1, **changes: Any) -> dict[str, Any]:
    known = {"category_id": 18, "bbox": [1.5, 2, 10, 20], "area": 90.5, "iscrowd": 0, "segmentation": []}
    return {"id": number, "image_id": image_id, **known, **changes}


CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}, {"id": 90, "name": "toothbrush"}]


def write(root: Path, kind: str = "instances", split: str = "train", **lists: Any) -> Path:
    path = root / f"annotations/{kind}_{split}2017.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"info": {}, "images": [image(1)], "annotations": []}
    if kind == "instances":
        document["categories"] = CATEGORIES
    path.write_text(json.dumps({**document, **lists}))
    return path


def read(root: Path, split: str = "train", **config: Any) -> tuple[list[RawRecord], list[Problem]]:
    items = list(coco.read(root, split, coco.Config(**config)))
    problems = [item for item in items if isinstance(item, Problem)]
    assert {problem.reason for problem in problems} <= RULES.keys()
    return [item for item in items if isinstance(item, RawRecord)], problems


def reasons(problems: list[Problem]) -> list[tuple[str, str, str]]:
    return [(p.reason, p.kind, p.item_id) for p in problems]


def test_instances_and_captions_are_joined_on_the_image(tmp_path: Path) -> None:
    polygon = [[1.0, 2.0, 3.0, 2.0, 3.0, 9.5]]
    crowd = {"size": [30, 40], "counts": [1200]}
    write(
        tmp_path,
        images=[image(25), image(9), image(7)],
        annotations=[
            instance(5, 25, segmentation=polygon),
            instance(4, 9, category_id=3, iscrowd=1, segmentation=crowd),
            instance(6, 25, category_id=77, area=None),
        ],
    )
    write(
        tmp_path,
        "captions",
        images=[image(25), image(8)],
        annotations=[{"id": 11, "image_id": 25, "caption": "a dog "}, {"id": 10, "image_id": 25, "caption": "dogs"}],
    )
    records, problems = read(tmp_path)
    assert problems == []
    assert [(r.key, r.image_id) for r in records] == [(f"train2017-{i:012d}", i) for i in (7, 8, 9, 25)]
    last = records[3]
    assert last.image == tmp_path / "train2017/000000000025.jpg"
    assert (last.width, last.height) == (40, 30)
    assert last.captions == (Caption(caption_id=11, text="a dog "), Caption(caption_id=10, text="dogs"))
    dog, unknown = last.objects
    assert (dog.object_id, dog.category, dog.box, dog.area) == ("5", "dog", (1.5, 2, 11.5, 22), 90.5)
    assert dog.segmentation == polygon
    assert not dog.is_crowd
    assert (unknown.category, unknown.area) == ("#77", None)
    assert records[2].objects[0].is_crowd
    assert records[2].objects[0].segmentation == crowd
    assert records[0].objects == records[1].objects == ()


def test_classes_follow_ascending_category_ids(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, split="val", categories=[*CATEGORIES[::-1], {"id": 0, "name": "_background_"}])
    assert coco.classes(tmp_path, coco.Config()) == ("car", "dog", "toothbrush")
    write(tmp_path, split="val", categories=CATEGORIES[:2])
    with pytest.raises(DataError, match="different categories"):
        coco.classes(tmp_path, coco.Config())


@pytest.mark.parametrize(
    "categories",
    [
        [],
        [{"id": 1}],
        [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}],
        [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}],
        [{"id": "", "name": "a"}],
        ["a"],
    ],
)
def test_unusable_categories_stop(tmp_path: Path, categories: list) -> None:
    write(tmp_path, categories=categories)
    with pytest.raises(DataError):
        coco.classes(tmp_path, coco.Config())


def test_splits_need_one_of_the_two_files(tmp_path: Path) -> None:
    write(tmp_path, "captions", "val")
    assert coco.splits(tmp_path, coco.Config()) == ("val",)
    assert coco.classes(tmp_path, coco.Config()) == ()
    write(tmp_path)
    assert coco.splits(tmp_path, coco.Config()) == ("train", "val")
    assert coco.splits(tmp_path, coco.Config(only=("train",))) == ("train",)
    assert len(read(tmp_path, "val")[0]) == 1


def test_lying_annotations_are_problems_and_the_rest_is_read(tmp_path: Path) -> None:
    bad: dict[str, list[dict[str, Any]]] = {
        "unknown_image": [
            instance(20, 99),
            instance(21, None),
            instance(22, [1]),
            instance(23, "x"),
            instance(24, True),
        ],
        "bad_box": [
            instance(30, bbox=[1, 2, 3]),
            instance(31, bbox=None),
            instance(32, bbox=[1, 2, 3, "4 px"]),
            instance(33, bbox={}),
        ],
    }
    flat = [item for items in bad.values() for item in items]
    write(tmp_path, annotations=[*flat, "text", instance(1), instance(2, 1.0), instance(1, bbox=[0, 0, 1, 1])])
    (record,), problems = read(tmp_path)
    assert [o.object_id for o in record.objects] == ["1", "2"]
    assert record.objects[0].box == (1.5, 2, 11.5, 22)  # the first of two with one id counts
    expected = [(reason, "object", str(item["id"])) for reason, items in bad.items() for item in items]
    expected += [("not_an_object", "object", f"annotations[{len(flat)}]"), ("duplicate_annotation_id", "object", "1")]
    assert reasons(problems) == expected
    assert {p.file for p in problems} == {str(tmp_path / "annotations/instances_train2017.json")}


def test_nan_and_infinity_reach_the_door(tmp_path: Path) -> None:
    path = write(tmp_path, annotations=[instance(1, bbox=[math.nan, 0, -math.inf, 4]), instance(2, area=math.nan)])
    assert "NaN" in path.read_text()
    (record,), problems = read(tmp_path)
    assert problems == []
    first, second = record.objects
    assert math.isnan(first.box[0])
    assert first.box[1] == 0
    assert math.isnan(first.box[2])
    assert second.box == (1.5, 2, 11.5, 22)


def test_bad_images_are_problems(tmp_path: Path) -> None:
    bad = [
        ("bad_image_id", image(1, id=None)),
        ("bad_image_id", image(1, id=True)),
        ("bad_image_id", image(1, id=[1])),
        ("bad_image_entry", image(2, file_name=None)),
        ("bad_image_entry", image(2, width="40 px")),
        ("bad_image_entry", image(2, height=-1)),
        ("unsafe_path", image(2, file_name="../../etc/passwd")),
        ("unsafe_path", image(2, file_name="/etc/passwd")),
        ("unsafe_path", image(2, file_name="a\0.jpg")),
        ("duplicate_image_id", image(3)),
    ]
    write(tmp_path, images=[image(3), *(entry for _, entry in bad), 5, image(4, file_name="./000000000003.jpg")])
    records, problems = read(tmp_path)
    assert [r.image_id for r in records] == [3]
    assert [p.reason for p in problems] == [*(reason for reason, _ in bad), "not_an_object", "duplicate_key"]
    assert {p.kind for p in problems} == {"record"}


def test_two_files_must_agree_on_an_image(tmp_path: Path) -> None:
    write(tmp_path, images=[image(1), image(2), image(3, width=0, height=0)])
    write(tmp_path, "captions", images=[image(1, width=41), image(2, file_name="b.jpg"), image(3)])
    records, problems = read(tmp_path)
    assert [(r.image_id, r.width) for r in records] == [(3, 40)]
    assert [(p.reason, p.item_id) for p in problems] == [
        ("conflicting_image_entry", "1"),
        ("conflicting_image_entry", "2"),
    ]


def test_ids_of_every_kind_are_ids(tmp_path: Path) -> None:
    """0, texts, numbers as text; one that is none is made from the place."""
    ids = [0, "a0-5f3c", "7", 7, None, -3, 1.5]
    write(
        tmp_path,
        images=[image(1), image("2")],
        annotations=[instance(i, "1" if n % 2 else 1.0) for n, i in enumerate(ids)] + [instance(8, 2)],
        categories=[{"id": "10", "name": "plate"}, {"id": "9", "name": "cup"}],
    )
    records, problems = read(tmp_path)
    assert problems == []
    first, second = sorted(records, key=lambda record: str(record.image_id))
    made = [f"annotations[{i}]" for i in (4, 5, 6)]
    assert [o.object_id for o in first.objects] == ["0", "a0-5f3c", "7", "7", *made]
    assert sorted(first.fixes) == ["annotation_id_made"] * 3 + ["image_id_type"] * 3
    assert second.fixes == ("image_id_type",)
    assert coco.classes(tmp_path, coco.Config()) == ("cup", "plate")  # 9 goes before "10"
    assert len(second.objects) == 1


def test_category_ids_may_be_text_on_either_side(tmp_path: Path) -> None:
    things = [instance(1, category_id="18"), instance(2, category_id=3.0), instance(3, category_id="x")]
    write(tmp_path, annotations=things, categories=[{"id": 18, "name": "dog"}, {"id": "3", "name": "car"}])
    (record,), problems = read(tmp_path)
    assert problems == []
    assert [o.category for o in record.objects] == ["dog", "car", "#x"]


def test_numbers_as_text_missing_boxes_and_sizes_are_read(tmp_path: Path) -> None:
    polygon = [[1, 2, 9, 2, 9, 8]]
    things = [
        instance(1, bbox=[1, "2.0", "10", 20], area="90.5", iscrowd="1"),
        instance(2, bbox=None, segmentation=polygon),
        instance(3, bbox=[], segmentation=polygon),
        instance(4, bbox=[]),
    ]
    write(tmp_path, images=[image(1, width=None, height=None)], annotations=things)
    (record,), problems = read(tmp_path)
    assert reasons(problems) == [("bad_box", "object", "4")]
    text, missing, empty = record.objects
    assert (text.box, text.area, text.is_crowd) == ((1, 2, 11, 22), 90.5, True)
    assert all(math.isnan(v) for v in (*missing.box, *empty.box))
    assert (record.width, record.height) == (0, 0)
    assert record.fixes == ("number_from_text", "number_from_text")
    write(tmp_path, images=[image(1, width="40", height=30.0)])
    assert (read(tmp_path)[0][0].width, read(tmp_path)[0][0].height) == (40, 30)


def test_a_category_once_a_region_is_one_category(tmp_path: Path) -> None:
    write(tmp_path, categories=[*CATEGORIES, *CATEGORIES])
    assert coco.classes(tmp_path, coco.Config()) == ("car", "dog", "toothbrush")
    write(tmp_path, categories=[*CATEGORIES, {"id": 18, "name": "wolf"}])
    with pytest.raises(DataError, match=r"one id: \['dog', 'wolf'\]"):
        coco.classes(tmp_path, coco.Config())


def test_a_root_category_is_no_class_unless_it_owns_something(tmp_path: Path) -> None:
    grouped = [{"id": 0, "name": "root", "supercategory": "none"}]
    grouped += [{"id": i, "name": name, "supercategory": "root"} for i, name in ((1, "cup"), (2, "plate"))]
    write(tmp_path, categories=grouped, annotations=[instance(1, category_id=2)])
    assert coco.classes(tmp_path, coco.Config()) == ("cup", "plate")
    (note,) = coco.notes(tmp_path, coco.Config())
    assert "'root'" in note and "no class" in note
    write(tmp_path, split="val", categories=grouped, annotations=[instance(1, category_id=0)])
    assert coco.classes(tmp_path, coco.Config()) == ("root", "cup", "plate")
    assert coco.notes(tmp_path, coco.Config()) == ()
    write(tmp_path, split="val", categories=CATEGORIES)
    write(tmp_path, categories=CATEGORIES)
    assert coco.notes(tmp_path, coco.Config()) == ()


def test_a_panoptic_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path, annotations=[{"image_id": 1, "file_name": "1.png", "segments_info": []}])
    with pytest.raises(DataError, match=r"(?s)panoptic.*annotations\[0\].*instances: one annotation an object"):
        read(tmp_path)


def test_windows_paths(tmp_path: Path) -> None:
    write(tmp_path, images=[image(1, file_name="a\\b.jpg"), image(2, file_name="..\\b.jpg")])
    (record,), problems = read(tmp_path)
    assert record.image == tmp_path / "train2017/a/b.jpg"
    assert [p.reason for p in problems] == ["unsafe_path"]


def test_bad_captions(tmp_path: Path) -> None:
    captions = [{"id": i, "image_id": 1, "caption": text} for i, text in enumerate([None, 5, "x"], start=1)]
    write(tmp_path, "captions", annotations=captions)
    (record,), problems = read(tmp_path)
    assert [c.text for c in record.captions] == ["x"]
    assert reasons(problems) == [("bad_caption", "caption", "1"), ("bad_caption", "caption", "2")]


def test_text_ids_and_zero_image_ids_are_accepted(tmp_path: Path) -> None:
    ids = (0, "Street.View 1")
    write(tmp_path, images=[image(i) for i in ids], annotations=[instance(n, i) for n, i in enumerate(ids, start=1)])
    records, problems = read(tmp_path)
    assert problems == []
    keys = {r.image_id: r.key for r in records}
    assert keys == {0: "train2017-000000000000", "Street.View 1": record_key("train2017/Street.View 1.jpg")}
    assert all(len(r.objects) == 1 for r in records)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "not json",
        '{"images": []}',
        '{"images": [{"id": 1',
        '{"images": [{"id": 1}]} trailing',
        '{"images": [\xff]}',
        '{"images": [{"id": 9223372036854775808}]}',
    ],
)
def test_broken_files_stop_with_file_and_place(tmp_path: Path, text: str) -> None:
    path = write(tmp_path)
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"instances_train2017\.json"):
        read(tmp_path)


def test_a_file_that_ends_early_names_the_byte(tmp_path: Path) -> None:
    path = write(tmp_path, images=[image(i) for i in range(1, 3000)])
    path.write_bytes(path.read_bytes()[:150_000])
    with pytest.raises(DataError, match=r"before byte 150000 of 150000"):
        read(tmp_path)


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(read(tmp_path)[0]) == 1


def test_configuration_mistakes() -> None:
    with pytest.raises(ConfigError, match="images"):
        coco.Config(images="{year}/x")
    with pytest.raises(ConfigError, match=r"no path has \{split\}"):
        coco.Config(instances="annotations.json", captions="", splits={"val": "valid"})
    with pytest.raises(ConfigError, match="folders"):
        coco.Config(folders=("a", "a"))


def test_memory_does_not_grow_with_annotations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No annotation stays alive as Python objects: at most one image's are there when a record is given out."""
    monkeypatch.setattr(coco, "RawObject", Counted)
    images = [image(i) for i in range(1, 301)]
    write(tmp_path, images=images, annotations=[instance(i, i % 300 + 1) for i in range(1, 3001)])
    stream: Iterator[Item] = coco.read(tmp_path, "train", coco.Config())
    most = 0
    for item in stream:
        assert isinstance(item, RawRecord)
        assert len(item.objects) == 10
        most = max(most, Counted.alive)
    assert most <= 20


class Counted:
    """Stands in for RawObject and counts its living instances."""

    alive = 0

    def __init__(self, **_: Any):
        Counted.alive += 1

    def __del__(self) -> None:
        Counted.alive -= 1


def test_annotations_travel_as_they_lie_and_are_made_by_who_reads_them(tmp_path: Path) -> None:
    """The one process that reads a source feeds all that write shards: it must not make and pickle for them."""
    write(tmp_path, annotations=[instance(5), instance(7, category_id=99)])
    write(tmp_path, "captions", annotations=[{"id": 3, "image_id": 1, "caption": "a dog"}])
    (record,), problems = read(tmp_path)
    (again,) = pickle.loads(pickle.dumps([record]))
    for one in (record, again):
        assert isinstance(one.objects, Unread) and isinstance(one.captions, Unread)
        assert "_made" not in vars(one.objects) and "_made" not in vars(one.captions)
        assert len(one.objects) == 2 and len(one.captions) == 1
        assert "_made" not in vars(one.objects), "to be counted is no reason either"
    assert not problems and again == record
    assert [(o.object_id, o.category) for o in again.objects] == [("5", "dog"), ("7", "#99")]
    assert again.captions == (Caption(caption_id=3, text="a dog"),) and again.objects[:1] == (record.objects[0],)
    assert pickle.loads(pickle.dumps(again)).objects == record.objects, "also what was looked at"
