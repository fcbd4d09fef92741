"""What is measured of training records: sizes as shares of the longer side, each class weighing the same."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from contracts.annotations import Caption
from contracts.raw import ImagePart, Problem, RawObject, RawRecord
from pipeline.ingest import statistics
from pipeline.ingest.statistics import look


def box(category: str, x2: float, y2: float, **more: bool) -> RawObject:
    return RawObject(object_id="1", category=category, box=(0, 0, x2, y2), **more)


def record(key: str, image: Path | None = None, **more: object) -> RawRecord:
    return RawRecord(key=key, image_id=key, annotation_file="a", image=image, **more)  # type: ignore[arg-type]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.new("1", (400, 200)).save(tmp_path / "bilevel.png")  # one channel, one bit
    return tmp_path / "bilevel.png"


def test_sides_are_shares_of_the_longer_side_and_rare_classes_count_as_much(photo):
    many = [box("cell", 40, 40)] * 90
    rare = [box("platelet", 8, 8)] * 10 + [box("crowd", 400, 200, is_crowd=True)]
    found = look([record("a", photo, objects=[*many, *rare], width=1, height=1)], num_classes=2)
    assert found.objects is not None
    assert (found.objects.smallest, found.objects.smallest_side) == ("platelet", pytest.approx(0.02))
    assert found.objects.sides.low == pytest.approx(0.02), "a tenth of the objects, but half of the classes"
    assert found.objects.sides.high == pytest.approx(0.1)
    assert found.objects.most_per_image == 101


def test_shares_of_the_sides_become_pixels_first(photo):
    found = look([record("a", photo, objects=[box("a", 0.1, 0.1, is_relative=True)] * 5)], num_classes=1)
    assert found.objects is not None
    assert found.objects.sides.median == pytest.approx((40 * 20) ** 0.5 / 400)
    assert found.objects.ratios.median == pytest.approx(0.5)


def test_without_a_picture_the_annotation_says_how_large_it_is(tmp_path):
    lost = record("a", tmp_path / "lost.jpg", objects=[box("a", 10, 10)] * 5, width=100, height=50)
    unknown = record("b", objects=[box("a", 10, 10)])
    nothing = record("c", objects=[box("a", float("nan"), 1), box("a", 0, 5)], width=10, height=10)
    found = look([lost, unknown, nothing], num_classes=1)
    assert found.objects is not None and found.objects.sides.median == pytest.approx(0.1)
    assert found.missing == (str(tmp_path / "lost.jpg"),) and found.pictures is None


def test_sizes_are_those_of_the_files_also_inside_a_larger_one(photo, tmp_path):
    data = io.BytesIO()
    Image.new("RGB", (30, 60)).save(data, "JPEG")
    (tmp_path / "all.tar").write_bytes(b"x" * 512 + data.getvalue())
    part = ImagePart(offset=512, size=len(data.getvalue()))
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    found = look(
        [record("a", photo), record("b", tmp_path / "all.tar", image_part=part), record("c", tmp_path / "broken.jpg")],
        0,
    )
    assert found.pictures is not None and found.pictures.largest_megapixels == 0.08
    assert (found.pictures.short_px.low, found.pictures.long_px.high) == pytest.approx((38.5, 383), rel=0.01)
    assert found.missing == () and found.num_records == 3


def test_words_labels_and_records_are_counted_up_to_a_bound(monkeypatch):
    monkeypatch.setattr(statistics, "MOST_RECORDS", 3)
    caption = Caption(caption_id="1", text="a red bus")
    problem = Problem(reason="x", kind="record", file="f", item_id="1")
    found = look([problem, *(record(str(i), captions=(caption,), labels=(f"c{i}",)) for i in range(5))], 0)
    assert (found.num_records, found.is_all, found.num_classes) == (3, False, 3)
    assert found.words["captions"].median == 3 and found.num_texts == {"captions": 3}
    assert look([record("a")], 0).is_all
