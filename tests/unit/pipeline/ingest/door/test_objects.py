"""The door's rules for boxes, masks and texts, one bad annotation each."""

from __future__ import annotations

import io
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from contracts.raw import RawObject, RawRecord
from contracts.records import Caption, Question, Record
from pipeline.ingest.door import RULES, Admission, admit

# pycocotools' decode, which only these tests call, predates numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

HEIGHT, WIDTH = 20, 30
CLASSES = ("cat", "dog")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def thing(box: tuple = (2.0, 3.0, 10.0, 12.0), object_id: str = "7", category: str = "dog", **fields: Any) -> RawObject:
    return RawObject(object_id=object_id, category=category, box=box, **fields)


def admitted(image: Path, *objects: RawObject, **fields: Any) -> Admission:
    raw = RawRecord(
        key="a",
        image_id=1,
        image=image,
        annotation_file="a.json",
        width=WIDTH,
        height=HEIGHT,
        objects=objects,
        **fields,
    )
    return admit(raw, CLASSES)


def only_problem(admission: Admission, kind: str = "object") -> str:
    """The reason for which one item was dropped while the record stayed."""
    assert admission.record is not None
    (problem,) = admission.problems
    assert (problem.kind, problem.file, problem.key) == (kind, "a.json", "a")
    assert problem.reason in RULES
    return problem.reason


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ((math.nan, 0, 5, 5), "box_not_finite"),
        ((0, 0, math.inf, 5), "box_not_finite"),
        ((9, 3, 2, 12), "negative_box"),
        ((2, 12, 9, 3), "negative_box"),
        ((5, 5, 5, 9), "zero_area_box"),
        ((5, 5, 9, 5), "zero_area_box"),
        ((1.0, 1.0, 1.0 + 1e-9, 9.0), "zero_area_box"),  # no width in float32
        ((30, 0, 40, 10), "box_outside"),
        ((-9, -9, 0, 0), "box_outside"),
    ],
)
def test_bad_boxes(image: Path, box: tuple, reason: str) -> None:
    admission = admitted(image, thing(box), thing(object_id="8"))
    assert only_problem(admission) == reason
    assert admission.problems[0].item_id == "7"
    assert admission.record is not None
    assert admission.record.objects.ids == ["8"]


def test_boxes_partly_outside_are_clipped(image: Path) -> None:
    admission = admitted(image, thing((-5, -5, 1e300, 7.5)), thing())
    assert admission.record is not None
    assert admission.problems == []
    assert admission.record.objects.boxes.tolist() == [[0, 0, 30, 7.5], [2, 3, 10, 12]]
    assert admission.record.objects.boxes.dtype == np.float32
    assert admission.fixes == {"box_clipped": 1}


def test_classes_become_labels(image: Path) -> None:
    admission = admitted(image, thing(category="cat"), thing(category="#91"), thing(category=""), thing())
    assert admission.record is not None
    assert admission.record.objects.labels.tolist() == [1, 2]
    assert [p.reason for p in admission.problems] == ["unknown_class", "unknown_class"]


def test_areas(image: Path) -> None:
    square = [[2.0, 3.0, 8.0, 3.0, 8.0, 9.0, 2.0, 9.0]]
    areas = [12.5, math.nan, -1.0, 0.0, None]
    admission = admitted(image, *(thing(segmentation=square, area=a) for a in areas), thing(area=None))
    assert admission.record is not None
    assert admission.record.objects.areas.tolist() == [12.5, 36, 36, 36, 36, 72]
    assert admission.fixes == {"area_replaced": 3}


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ([[1, 2, 3, 4, 5]], "polygon_odd_coordinates"),
        ([[1, 2, 3, 4, 5, math.nan]], "polygon_not_finite"),
        ([[1, 2, 3, 4, 5, None]], "polygon_not_finite"),
        ([[1, 2, 3, 4, 5, "six"]], "polygon_not_finite"),
        ([[1, 2, 3, 4, 5, 1e9]], "polygon_far_outside"),
        ([[-31, 2, 3, 4, 5, 6]], "polygon_far_outside"),
        ([1, 2, 3, 4, 5, {}], "polygon_not_finite"),
        ("abc", "bad_segmentation"),
        ({"size": [], "counts": [600]}, "rle_size_mismatch"),
        ({"size": [WIDTH, HEIGHT], "counts": [600]}, "rle_size_mismatch"),
        ({"size": [HEIGHT, WIDTH], "counts": [599]}, "rle_bad_sum"),
        ({"size": [HEIGHT, WIDTH], "counts": []}, "rle_bad_sum"),
        ({"size": [HEIGHT, WIDTH], "counts": [700, -100]}, "rle_negative_run"),
        ({"size": [HEIGHT, WIDTH], "counts": [600.0]}, "rle_bad_counts"),
        ({"size": [HEIGHT, WIDTH], "counts": None}, "rle_bad_counts"),
        ({"size": [HEIGHT, WIDTH], "counts": "\x00\x01"}, "rle_bad_counts"),
        ({"size": [HEIGHT, WIDTH], "counts": "é"}, "rle_bad_counts"),
        ({"size": [HEIGHT, WIDTH], "counts": "oooooooooooooo"}, "rle_bad_counts"),  # one run without end
        ({"size": [HEIGHT, WIDTH], "counts": "o"}, "rle_bad_counts"),  # ends inside a run
        ({"size": [HEIGHT, WIDTH], "counts": ""}, "rle_bad_sum"),
        ({"size": [HEIGHT, WIDTH], "counts": "O"}, "rle_negative_run"),  # -1
        ({"size": [HEIGHT, WIDTH], "counts": "ooooo0"}, "rle_bad_sum"),  # a run of 2^25
    ],
)
def test_bad_segmentations(image: Path, segmentation: Any, reason: str) -> None:
    assert only_problem(admitted(image, thing(segmentation=segmentation))) == reason


def decoded(record: Record | None, i: int = 0) -> np.ndarray:
    assert record is not None
    rle = {"size": [record.height, record.width], "counts": record.objects.masks[i].encode()}
    return coco_mask.decode(rle).astype(bool)


def test_polygons_and_both_run_length_codes_give_one_mask(image: Path) -> None:
    square = np.zeros((HEIGHT, WIDTH), bool)
    square[3:9, 2:8] = True
    compressed = coco_mask.encode(np.asfortranarray(square, np.uint8))["counts"].decode()
    runs = [2 * HEIGHT + 3, *[6, 14] * 5, 6, HEIGHT * WIDTH - 2 * HEIGHT - 3 - 6 * 6 - 14 * 5]
    variants = [
        [[2.0, 3.0, 8.0, 3.0, 8.0, 9.0, 2.0, 9.0]],
        {"size": [HEIGHT, WIDTH], "counts": runs},
        {"size": [HEIGHT, WIDTH], "counts": compressed},
    ]
    admission = admitted(image, *(thing(segmentation=s, is_crowd=True) for s in variants))
    assert admission.problems == []
    assert admission.record is not None
    assert admission.record.objects.masks == [compressed] * 3
    assert np.array_equal(decoded(admission.record), square)


def test_random_masks_pass_unchanged(image: Path) -> None:
    rng = np.random.default_rng(0)
    for density in (0.01, 0.5, 0.99, 1.0):
        pixels = rng.random((HEIGHT, WIDTH)) <= density
        counts = coco_mask.encode(np.asfortranarray(pixels, np.uint8))["counts"].decode()
        box = (0.0, 0.0, float(WIDTH), float(HEIGHT))
        admission = admitted(image, thing(box, segmentation={"size": [HEIGHT, WIDTH], "counts": counts}))
        assert admission.problems == []
        assert np.array_equal(decoded(admission.record), pixels)
        assert admission.record is not None
        assert admission.record.objects.areas[0] == pixels.sum()


SQUARE = [2.0, 3.0, 8.0, 3.0, 8.0, 9.0, 2.0, 9.0]


@pytest.mark.parametrize(
    "stray", [[5, 5], [1, 2, 3, 4], [], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5, math.nan], [1, 2, 3, 4, 5, 1e9], None, 7]
)
def test_a_bad_part_goes_and_the_good_ones_stay(image: Path, stray: Any) -> None:
    admission = admitted(image, thing(segmentation=[SQUARE, stray]), thing(segmentation=[SQUARE]))
    assert admission.record is not None and admission.problems == []
    first, second = admission.record.objects.masks
    assert first == second != ""
    assert admission.fixes == {"polygon_part_dropped": 1}


@pytest.mark.parametrize(
    ("segmentation", "fixes"),
    [
        ([], {}),
        ([[]], {}),
        (None, {}),
        ([[5, 5]], {"empty_mask_dropped": 1}),
        ([[1, 2, 3, 4]], {"empty_mask_dropped": 1}),  # pycocotools would read it as a box
        ([5, 5, 6, 6], {"polygon_nested": 1, "empty_mask_dropped": 1}),
    ],
)
def test_no_polygon_is_a_box_without_a_mask(image: Path, segmentation: Any, fixes: dict[str, int]) -> None:
    admission = admitted(image, thing(segmentation=segmentation))
    assert admission.record is not None and admission.problems == []
    assert admission.record.objects.masks == [""]
    assert admission.fixes == fixes


@pytest.mark.parametrize(
    ("segmentation", "fixes"),
    [
        (SQUARE, {"polygon_nested": 1}),
        ([[str(v) for v in SQUARE]], {"number_from_text": 1}),
        ({"size": None, "counts": [43, *[6, 14] * 5, 6, 451]}, {}),
    ],
)
def test_other_ways_to_write_one_mask(image: Path, segmentation: Any, fixes: dict[str, int]) -> None:
    admission = admitted(image, thing(segmentation=segmentation), thing(segmentation=[SQUARE]))
    assert admission.record is not None and admission.problems == []
    assert admission.record.objects.masks[0] == admission.record.objects.masks[1] != ""
    assert admission.fixes == fixes


@pytest.mark.parametrize("box", [(math.nan,) * 4, (0, 0, 0, 0)])
def test_an_object_without_a_box_gets_that_of_its_mask(image: Path, tmp_path: Path, box: tuple) -> None:
    slanted = [2.25, 3.0, 8.5, 3.0, 8.0, 9.75]
    rle = {"size": [HEIGHT, WIDTH], "counts": [43, *[6, 14] * 5, 6, 451]}
    admission = admitted(image, thing(box, segmentation=[slanted, [1, 1]]), thing(box, segmentation=rle))
    assert admission.record is not None and admission.problems == []
    assert admission.record.objects.boxes.tolist() == [[2.25, 3, 8.5, 9.75], [2, 3, 8, 9]]
    assert admission.fixes == {"box_from_mask": 2, "polygon_part_dropped": 1}
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    ids[3:9, 2:8] = 1
    admission = admitted(image, thing(box), instance_mask=png(tmp_path / "i.png", ids))
    assert admission.record is not None
    assert admission.record.objects.boxes.tolist() == [[2, 3, 8, 9]]
    for nothing in ([], [[1, 2, 3, 4]]):
        assert only_problem(admitted(image, thing(box, segmentation=nothing))) in ("box_not_finite", "zero_area_box")


def test_a_mask_elsewhere_than_its_box(image: Path) -> None:
    far = [[20.0, 14.0, 28.0, 14.0, 28.0, 19.0]]
    assert only_problem(admitted(image, thing(segmentation=far))) == "mask_outside_box"


def test_a_mask_without_pixels_leaves_the_box(image: Path) -> None:
    point = [[5.0, 5.0, 5.0, 5.0, 5.0, 5.0]]
    empty = {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}
    admission = admitted(image, thing(segmentation=point), thing(segmentation=empty), thing(segmentation=[]), thing())
    assert admission.record is not None
    assert admission.record.objects.masks == [""] * 4
    assert admission.fixes == {"empty_mask_dropped": 2}


def png(path: Path, ids: np.ndarray, mode: str = "P") -> Path:
    picture = Image.fromarray(ids.astype(np.uint8))
    if mode == "P":
        picture.putpalette([i % 256 for i in range(768)])
    picture.save(path)
    return path


def test_instance_masks_belong_to_objects_by_position(image: Path, tmp_path: Path) -> None:
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    ids[3:9, 2:8], ids[5:10, 12:18], ids[0, 0], ids[2, 2:8] = 1, 3, 9, 255
    objects = (thing(object_id="1"), thing((5, 5, 5, 5), "2"), thing((12, 5, 18, 10), "3"), thing(object_id="4"))
    admission = admitted(image, *objects, instance_mask=png(tmp_path / "i.png", ids))
    assert admission.record is not None
    assert admission.record.objects.ids == ["1", "3", "4"]
    assert np.array_equal(decoded(admission.record, 0), ids == 1)
    assert np.array_equal(decoded(admission.record, 1), ids == 3)
    assert admission.record.objects.masks[2] == ""
    assert admission.fixes == {"empty_mask_dropped": 1}
    assert [(p.reason, p.item_id) for p in admission.problems] == [
        ("zero_area_box", "2"),
        ("instance_without_object", "9"),
    ]


def labels_of(admission: Admission) -> np.ndarray:
    assert admission.record is not None
    assert admission.problems == []
    out = Image.open(io.BytesIO(admission.record.semantic_mask))
    assert out.mode == "L"
    return np.asarray(out)


@pytest.mark.parametrize("mode", ["P", "L"])
def test_label_masks(image: Path, tmp_path: Path, mode: str) -> None:
    ids = np.random.default_rng(0).choice([0, 1, 2, 255], (HEIGHT, WIDTH))
    path = png(tmp_path / "m.png", ids, mode)
    assert np.array_equal(labels_of(admitted(image, semantic_mask=path)), ids)
    first, second = (admitted(image, semantic_mask=path).record for _ in range(2))
    assert first is not None
    assert second is not None
    assert first.semantic_mask == second.semantic_mask


def test_a_label_map_is_applied(image: Path, tmp_path: Path) -> None:
    ids = np.random.default_rng(0).choice([0, 1, 11], (HEIGHT, WIDTH))
    admission = admitted(image, semantic_mask=png(tmp_path / "m.png", ids), label_map={0: 1, 1: 2, 11: 255})
    expected = np.select([ids == 0, ids == 1], [1, 2], 255)
    assert np.array_equal(labels_of(admission), expected)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_masks_of_few_bits_are_not_stretched(image: Path, tmp_path: Path, bits: int) -> None:
    ids = np.random.default_rng(0).integers(0, 2, (HEIGHT, WIDTH))
    (tmp_path / "m.png").write_bytes(_grey_png(ids, bits))
    assert np.array_equal(labels_of(admitted(image, semantic_mask=tmp_path / "m.png")), ids)


def _grey_png(ids: np.ndarray, bits: int) -> bytes:
    """Pillow writes no 2- and 4-bit grey."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    per_byte = 8 // bits
    padded = np.pad(ids, ((0, 0), (0, -ids.shape[1] % per_byte))).reshape(len(ids), -1, per_byte)
    packed = (padded << (np.arange(per_byte)[::-1] * bits)).sum(2).astype(np.uint8)
    rows = b"".join(b"\0" + row.tobytes() for row in packed)
    header = struct.pack(">IIBBBBB", ids.shape[1], ids.shape[0], bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_bad_label_masks_refuse_the_record(image: Path, tmp_path: Path) -> None:
    zeros = np.zeros((HEIGHT, WIDTH))
    deep = tmp_path / "deep.png"
    Image.fromarray(np.full((HEIGHT, WIDTH), 300, np.uint16)).save(deep)
    colours = tmp_path / "colours.png"
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(colours)
    broken = tmp_path / "broken.png"
    broken.write_bytes(png(tmp_path / "whole.png", zeros).read_bytes()[:50])
    cases = {
        "missing_mask": tmp_path / "none.png",
        "mask_unknown_label": png(tmp_path / "three.png", zeros + 3),
        "mask_size_mismatch": png(tmp_path / "small.png", zeros[1:]),
        "mask_not_indexed": colours,
        "broken_mask": broken,
    }
    for reason, path in [*cases.items(), ("mask_unknown_label", deep)]:
        admission = admitted(image, thing(), semantic_mask=path)
        assert admission.record is None
        assert [(p.reason, p.kind, p.file) for p in admission.problems] == [(reason, "record", str(path))]
    unmapped = admitted(image, semantic_mask=png(tmp_path / "one.png", zeros + 1), label_map={0: 1})
    assert [p.reason for p in unmapped.problems] == ["mask_unknown_label"]


def test_captions(image: Path) -> None:
    texts = ["a dog", " two\ndogs \t run\x00 ", "", " \n\x07", "lone \ud800 half", "naïve café 👩‍🚀"]
    captions = tuple(Caption(caption_id=i, text=text) for i, text in enumerate(texts, start=1))
    admission = admitted(image, captions=captions)
    assert admission.record is not None
    kept = {c.caption_id: c.text for c in admission.record.captions}
    assert kept == {1: "a dog", 2: "two dogs run", 5: "lone half", 6: "naïve café 👩‍🚀"}
    assert [(p.reason, p.kind, p.item_id) for p in admission.problems] == [
        ("empty_caption", "caption", "3"),
        ("empty_caption", "caption", "4"),
    ]
    assert admission.fixes == {"caption_normalised": 2}
    assert Record.from_parts(admission.record.annotation_json(), b"", "png").captions == admission.record.captions


def test_questions(image: Path) -> None:
    questions = (
        Question(question_id=1, text="What is it?", answers=("a dog",) * 10, multiple_choice_answer="a dog"),
        Question(question_id=2, text=" What\nis it? ", answers=(" a  dog",) * 3, multiple_choice_answer="a dog"),
        Question(question_id=3, text="\t"),
        Question(question_id=4, text="Unlabelled?"),
    )
    admission = admitted(image, questions=questions)
    assert only_problem(admission, "question") == "empty_question"
    assert admission.record is not None
    assert admission.record.questions[0] == questions[0]
    assert admission.record.questions[1].text == "What is it?"
    assert admission.record.questions[1].answers == ("a dog",) * 3
    assert admission.fixes == {"question_normalised": 1, "answer_normalised": 1, "answers_not_ten": 1}


def test_an_image_without_annotations_is_a_record(image: Path) -> None:
    admission = admitted(image)
    assert admission.record is not None
    assert len(admission.record.objects) == 0
    assert admission.record.objects.boxes.shape == (0, 4)
