"""dataset_coco.json as it is published, and what a file of that kind may have wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import DataError
from contracts.raw import Problem, RawRecord
from pipeline.ingest.sources import karpathy
from pipeline.ingest.sources.karpathy import Config


def image(imgid: int, cocoid: int, split: str, texts: list[str], folder: str = "val2014") -> dict[str, Any]:
    sentences = [
        {"tokens": text.lower().rstrip(".").split(), "raw": text, "imgid": imgid, "sentid": 10 * imgid + i}
        for i, text in enumerate(texts)
    ]
    return {
        "filepath": folder, "sentids": [s["sentid"] for s in sentences],
        "filename": f"COCO_{folder}_{cocoid:012d}.jpg", "imgid": imgid, "split": split, "sentences": sentences,
        "cocoid": cocoid,
    }  # fmt: skip


IMAGES = [
    image(0, 391895, "test", ["A man with a red helmet.", "A man riding a bike."]),
    image(1, 522418, "restval", ["A woman cutting a cake."]),
    image(2, 184613, "val", ["A child holding an umbrella."]),
    image(3, 3, "train", ["Two Dogs play."], "train2014"),  # its imgid and cocoid are equal, by chance
]


def write(folder: Path, images: list[Any], name: str = "dataset_coco.json") -> Path:
    (folder / name).write_text(json.dumps({"images": images, "dataset": "coco"}))
    return folder


def read(root: Path, split: str, config: Config | None = None) -> tuple[list[RawRecord], list[Problem]]:
    items = list(karpathy.read(root, split, config or Config()))
    return [i for i in items if isinstance(i, RawRecord)], [i for i in items if isinstance(i, Problem)]


def test_the_published_layout(tmp_path):
    root = write(tmp_path, IMAGES)
    assert karpathy.splits(root, Config()) == ("train", "val", "test")
    assert karpathy.classes(root, Config()) == () == karpathy.notes(root, Config())
    (test,), problems = read(root, "test")
    assert not problems
    assert test.image_id == 391895, "cocoid, which official scoring knows; imgid is 0"
    assert test.image == root / "val2014/COCO_val2014_000000391895.jpg"
    assert [(c.caption_id, c.text) for c in test.captions] == [
        (0, "A man with a red helmet."),
        (1, "A man riding a bike."),
    ], "raw, with capitals and full stop"


def test_restval_counts_as_train_unless_told_otherwise(tmp_path):
    root = write(tmp_path, IMAGES)
    records, _ = read(root, "train")
    assert [r.image_id for r in records] == [3, 522418], "in the order of keys"
    assert [r.key for r in records] == sorted(r.key for r in records)
    without = Config(restval=False)
    assert [r.image_id for r in read(root, "train", without)[0]] == [3]
    assert karpathy.notes(root, without) == (
        "dataset_coco.json: 1 images of split 'restval' are not read; `splits` and `restval` say which are",
    )
    assert not karpathy.notes(root, Config(restval=False, splits={"val": ("val", "restval")}))


def test_flickrs_files_have_no_folder_and_no_cocoid(tmp_path):
    one = {k: v for k, v in IMAGES[3].items() if k not in ("cocoid", "filepath")} | {"filename": "1000268201.jpg"}
    root = write(tmp_path, [one], "dataset_flickr8k.json")
    config = Config(file="dataset_flickr8k.json", images="Flicker8k_Dataset/{filename}")
    (record,), problems = read(root, "train", config)
    assert not problems and record.image_id == 3
    assert record.image == root / "Flicker8k_Dataset/1000268201.jpg"
    (record,), _ = read(root, "train", Config(file="dataset_flickr8k.json"))
    assert record.image == root / "1000268201.jpg"


def test_the_key_is_the_one_that_coco_gives_the_image(tmp_path):
    """So that another source of the same pictures can be joined."""
    from pipeline.ingest.sources._files import record_key

    (record,), _ = read(write(tmp_path, IMAGES), "val")
    assert record.key == record_key("val2014/COCO_val2014_000000184613.jpg")


WRONG = {
    "not_an_object": 7,
    "bad_image_id": IMAGES[3] | {"cocoid": [], "imgid": 3},
    "bad_image_entry": IMAGES[3] | {"filename": None},
    "bad_image_entry, no split": {k: v for k, v in IMAGES[3].items() if k != "split"},
    "unsafe_path": IMAGES[3] | {"filename": "../../x.jpg"},
    "duplicate_key": IMAGES[3],
}


@pytest.mark.parametrize("reason", WRONG)
def test_a_bad_image_is_told_and_left_out(tmp_path, reason):
    records, problems = read(write(tmp_path, [*IMAGES, WRONG[reason]]), "train")
    assert [r.image_id for r in records] == [3, 522418]
    assert [(p.reason, p.kind) for p in problems] == [(reason.partition(",")[0], "record")]
    for split in ("val", "test"):
        assert read(tmp_path, split)[1] == [], "told once"


def test_a_bad_sentence_is_told_and_the_others_stay(tmp_path):
    sentences = [
        {"raw": "Good.", "sentid": 1, "imgid": 3},
        {"raw": None, "sentid": 2, "imgid": 3},
        {"raw": "Of another image.", "sentid": 3, "imgid": 522418},  # the number of the image by imgid, not cocoid
        {"raw": "Again.", "sentid": 1, "imgid": 3},
        "a text alone",
        {"raw": "Without a number.", "imgid": 3},
    ]
    (record,), problems = read(write(tmp_path, [IMAGES[3] | {"sentences": sentences}]), "train")
    assert [c.text for c in record.captions] == ["Good.", "Without a number."]
    assert record.fixes == ("annotation_id_made",)
    assert [p.reason for p in problems] == ["bad_caption", "unknown_image", "duplicate_annotation_id", "not_an_object"]
    assert {p.kind for p in problems} == {"caption"} and {p.key for p in problems} == {record.key}


def test_a_file_of_another_kind_is_refused(tmp_path):
    root = write(tmp_path, [{"id": 1, "file_name": "a.jpg"}])
    with pytest.raises(DataError, match="no images with a split"):
        karpathy.splits(root, Config())
    assert karpathy.splits(tmp_path, Config(file="absent.json")) == ()
