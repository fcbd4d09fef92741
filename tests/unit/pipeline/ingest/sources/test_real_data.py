"""Every source over real published files, through the door: exact counts, all of SOURCE.md accounted for."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from contracts.raw import Problem
from contracts.records import Record
from pipeline.ingest.door import admit
from pipeline.ingest.sources import OpenSource, camvid, coco, joined_classes, joined_splits, read_joined, voc, vqa


def run(root: Path, *parts: tuple[ModuleType, Any]) -> tuple[dict[str, list[Record]], Counter[str], Counter[str]]:
    """Records by split, problems by reason, fixes by rule."""
    opened = [OpenSource(name=m.__name__, module=m, root=root, config=c) for m, c in parts]  # type: ignore[arg-type]
    classes = joined_classes(opened)
    records: dict[str, list[Record]] = {split: [] for split in joined_splits(opened)}
    problems: Counter[str] = Counter()
    fixes: Counter[str] = Counter()
    for split, kept in records.items():
        for item in read_joined(opened, split):
            if isinstance(item, Problem):
                problems[item.reason] += 1
                continue
            admission = admit(item, classes)
            problems.update(problem.reason for problem in admission.problems)
            fixes += admission.fixes
            if admission.record is not None:
                kept.append(admission.record)
    return records, problems, fixes


def count(records: list[Record]) -> dict[str, int]:
    return {
        "images": len(records),
        "objects": sum(len(r.objects) for r in records),
        "masks": sum(bool(mask) for r in records for mask in r.objects.masks),
        "crowds": sum(int(r.objects.is_crowd.sum()) for r in records),
        "captions": sum(len(r.captions) for r in records),
        "questions": sum(len(r.questions) for r in records),
    }


def test_coco(shared_dir: Path) -> None:
    records, problems, fixes = run(
        shared_dir / "data/coco_real",
        (coco, coco.Config(images="images/{split}2017")),
        (vqa, vqa.Config(images="images/{split}2017/{image_id:012d}.jpg")),
    )
    assert not problems
    assert fixes.keys() == {"caption_normalised"}
    train, val = count(records["train"]), count(records["val"])
    assert train == {"images": 150, "objects": 1276, "masks": 1276, "crowds": 14, "captions": 400, "questions": 148}
    assert val == {"images": 244, "objects": 1762, "masks": 1762, "crowds": 21, "captions": 1221, "questions": 0}
    assert all(len(q.answers) == 10 for r in records["train"] for q in r.questions)
    for record in records["train"][:20]:
        folder = shared_dir / "data/coco_real/images/train2017"
        assert record.image == (folder / f"{record.image_id:012d}.jpg").read_bytes()


def test_bccd_has_exactly_two_boxes_without_area(shared_dir: Path) -> None:
    root = shared_dir / "data/bccd"
    records, problems, _ = run(root, (voc, voc.Config(folders=("BCCD",))))
    assert problems == {"zero_area_box": 2}
    assert {split: len(found) for split, found in records.items()} == {"train": 205, "val": 87, "test": 72}
    labels = Counter(int(label) for found in records.values() for r in found for label in r.objects.labels)
    names = voc.classes(root, voc.Config(folders=("BCCD",)))
    by_name = {names[label - 1]: number for label, number in labels.items()}
    assert by_name == {"RBC": 4155 - 2, "WBC": 372, "Platelets": 361}


def test_labelme_masks_keep_their_labels(shared_dir: Path) -> None:
    for kind in ("semantic_segmentation", "instance_segmentation"):
        root = shared_dir / "data/labelme_voc" / kind
        records, problems, fixes = run(root, (voc, voc.Config(folders=("data_dataset_voc",))))
        assert not problems
        assert not fixes
        assert len(records["train"]) == 3
        ignored = 0
        for record in records["train"]:
            source = np.asarray(Image.open(root / f"data_dataset_voc/SegmentationClass/{record.image_id}.png"))
            assert np.array_equal(_labels(record), source)
            ignored += int((source == 255).sum())
        assert ignored > 0


def test_labelme_boxes_and_coco(shared_dir: Path) -> None:
    root = shared_dir / "data/labelme_voc"
    records, problems, _ = run(root / "bbox_detection", (voc, voc.Config(folders=("data_dataset_voc",))))
    assert not problems
    assert count(records["train"])["objects"] == 9
    config = coco.Config(images=".", instances="annotations.json", captions="", only=("train",))
    records, problems, _ = run(root / "instance_segmentation/data_dataset_coco", (coco, config))
    assert not problems  # labelme counts annotations from 0
    assert count(records["train"])["masks"] == 12


def test_camvid(shared_dir: Path) -> None:
    records, problems, fixes = run(shared_dir / "data/camvid", (camvid, camvid.Config()))
    assert not problems
    assert not fixes
    assert {split: len(found) for split, found in records.items()} == {"train": 74, "val": 21, "test": 30}
    seen = {int(v) for r in records["val"] for v in np.unique(_labels(r))}
    assert seen <= {*range(1, 12), 255}
    assert {4, 9, 255} <= seen  # road, car, void


def _labels(record: Record) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(record.semantic_mask)))
