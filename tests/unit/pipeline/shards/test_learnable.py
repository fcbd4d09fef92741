"""Nothing left to learn is told before anything is trained on it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from contracts.errors import DataError
from pipeline.shards.bookkeeping import check_shared, unused_images
from pipeline.shards.learnable import check_labels, missing_masks

NONE: dict[str, int] = {}


def test_a_class_list_that_nothing_shows_is_refused() -> None:
    background = Counter({("pixel", 0): 99})
    with pytest.raises(DataError, match=r"(?s)no class of d has a single pixel.*cell.*a/x\.png.*cell: 255"):
        check_labels("d", ["cell"], background, {**NONE, "has_semantic": 3}, "a/x.png")
    with pytest.raises(DataError, match=r"(?s)no class of d has a single annotated object"):
        check_labels("d", ["cell"], Counter(), {**NONE, "num_objects": 3}, "a.json")
    with pytest.raises(DataError, match=r"(?s)no object, no label mask.*a\.json"):
        check_labels("d", ["cell"], Counter(), NONE, "a.json")


def test_what_is_missing_in_part_is_noted_with_its_file() -> None:
    labels = Counter({("object", 1): 5, ("pixel", 2): 7, ("pixel", 1): 7})
    totals = {**NONE, "num_objects": 5, "has_semantic": 2}
    (note,) = check_labels("d", ["cup", "plate"], labels, totals, "a.json")
    assert note.startswith("d: 1 of 2 classes have no annotated object in the training split: plate;")
    assert "a.json" in note
    assert check_labels("d", ["cup", "plate"], labels, {**NONE, "has_semantic": 2}, "a.json") == []
    (note,) = check_labels("d", ["cup"], Counter(), {**NONE, "num_captions": 2}, "a.json")
    assert "has no object" in note
    assert check_labels("d", [], Counter(), {**NONE, "num_captions": 2}, "a.json") == []


def test_class_names_equal_but_for_case() -> None:
    labels = Counter({("object", i): 1 for i in (1, 2, 3, 4)})
    (note,) = check_labels("d", ["Person", "cat", "person", "p erson"], labels, {**NONE, "num_objects": 4}, "a")
    assert "'Person' and 'person' and 'p erson' differ in capitals or blanks alone" in note


def test_images_without_a_mask_are_counted() -> None:
    def split(masks: int) -> dict:
        return {"totals": {**NONE, "has_semantic": masks}, "num_samples": 8}

    (note,) = missing_masks("d", {"train": split(5), "val": split(8), "test": split(0)})
    assert note.startswith("d, split train: 3 of 8 images have no label mask")


def test_pictures_that_two_splits_share_are_told_or_refused() -> None:
    images = {"train": np.array([1, 2, 3], np.uint64), "val": np.array([3, 4, 3], np.uint64)}
    splits = {split: {"image": digests} for split, digests in images.items()}
    (note,) = check_shared("d", splits, None)
    assert note.startswith("2 of 3 images of split 'val' of d are in split 'train' too, byte for byte")
    assert check_shared("d", splits, 2) == [note]
    with pytest.raises(DataError, match=r"(?s)2 of 3 images.*max_shared: 0"):
        check_shared("d", splits, 0)
    assert check_shared("d", {"train": splits["train"]}, 0) == []


def test_pictures_that_no_annotation_names_are_counted(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.PNG", "c.jpg", "c.json", "._a.jpg"):
        (tmp_path / name).touch()
    (note,) = unused_images("d", {tmp_path: 1, tmp_path / "gone": 3})
    assert note.startswith(f"d: 2 images in {tmp_path} are in no split")
    assert unused_images("d", {tmp_path: 3}) == []
