"""Pascal VOC as people bring it, after public bug reports: everything used, or refused with the reason."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contracts.errors import DataError
from contracts.records import Record
from tests.command import sightline

Prepare = Callable
VOC = {"voc": {"folders": ["."]}}


def drawn(record: Record) -> tuple[int, ...]:
    """The white rectangle of a picture, half-open; JPEG blurs its edge."""
    ys, xs = np.nonzero(np.asarray(Image.open(io.BytesIO(record.image)).convert("RGB")).min(2) > 200)
    return xs.min(), ys.min(), xs.max() + 1, ys.max() + 1


def labels(record: Record) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(record.semantic_mask)))


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("v01-names-with-spaces", (8, 4)),
        ("v02-mac-resource-forks", (8, 4)),
        ("v03-labels-beside-images", (8, 4)),
        ("v04-difficult-unspecified", (8, 4)),
    ],
)
def test_every_picture_is_used_and_each_box_is_on_its_object(prepare: Prepare, name: str, sizes: tuple) -> None:
    found = prepare(name, VOC)
    assert tuple(len(found.records[split]) for split in ("train", "val")) == sizes
    assert not found.lost()
    for record in (r for split in found.records.values() for r in split):
        (box,) = record.objects.boxes
        np.testing.assert_allclose(box, drawn(record), atol=1)
        assert not record.objects.is_difficult.any()
        assert not record.objects.is_truncated.any()
    assert "note:" not in found.told


def test_class_names_that_differ_in_case_are_told(prepare: Prepare) -> None:
    found = prepare("v12-class-case", VOC)
    assert not found.lost()
    pairs = Counter(name.lower() for name in found.manifest["classes"])
    assert max(pairs.values()) == 2
    assert found.told.count("differ in capitals or blanks alone") == sum(count > 1 for count in pairs.values())


def test_the_scorer_takes_unspecified_for_not_difficult(field: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = field / "v04-difficult-unspecified"
    assert sightline("score", ["voc-boxes", "--truth", str(folder), "--predictions", str(folder / "preds")]) == 0
    per_class = json.loads(capsys.readouterr().out)["per_class"]
    assert per_class["cup"]["num_objects"] > 0


def test_cvat_colours_are_read_by_their_label_map(prepare: Prepare, field: Path) -> None:
    name = "v07-cvat-rgb-masks"
    found = prepare(name, VOC)
    assert found.manifest["classes"] == ["Cat", "Dog"]
    assert not found.lost()
    colors = {(0, 0, 0): 0, (48, 112, 32): 1, (176, 112, 32): 2}
    for record in (r for split in found.records.values() for r in split):
        stored = np.asarray(Image.open(field / name / f"SegmentationClass/{record.image_id}.png"))
        expected = np.array([[colors[tuple(pixel)] for pixel in row] for row in stored.tolist()])
        np.testing.assert_array_equal(labels(record), expected)


def test_masks_of_0_and_255_are_refused_or_explained(prepare: Prepare) -> None:
    name = "v08-binary-masks-255"
    with pytest.raises(DataError, match=r"(?s)no class of data has a single pixel.*lesion.*SegmentationClass.*255"):
        prepare(name, VOC)
    found = prepare(name, {"voc": {"folders": ["."], "mask_values": {"background": 0, "lesion": 255}}})
    shown = Counter(int(v) for record in found.records["train"] for v in np.unique(labels(record)))
    assert shown == {0: 8, 1: 8}


def test_a_flat_folder_is_named_and_read(prepare: Prepare) -> None:
    name = "v14-labelimg-flat-folder"
    with pytest.raises(DataError, match=r"(?s)Pascal VOC's XML outside its folders.*annotations: XML"):
        prepare(name, VOC)
    flat = {"voc": {"folders": ["."], "images": ".", "annotations": "."}}
    found = prepare(name, flat, split={"val": 0.25})
    records = [r for split in found.records.values() for r in split]
    assert len(records) == 12
    for record in records:
        np.testing.assert_allclose(record.objects.boxes[0], drawn(record), atol=1)
