"""COCO as people bring it, after public bug reports: through fetch and shard, each object on its drawn rectangle.

`../shared/field/README.md` says what is right for each folder; the same must hold through `score`.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools import mask as coco_mask

from contracts.errors import DataError
from contracts.records import Record
from pipeline.measuring.scorers import Inputs, coco_boxes, coco_masks
from pipeline.settings.params import load_params
from pipeline.shards.manifest import load_manifest
from pipeline.shards.reader import open_splits
from pipeline.stages.fetch import fetch
from pipeline.stages.shard import shard
from pipeline.system.project import Project

# pycocotools' decode predates numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

ROBOFLOW = {"images": "{split}", "instances": "{split}/_annotations.coco.json"}
ALL = {"train": 12, "val": 6}
FIXED = {
    "c06b-flat-polygon": {"polygon_nested": 18},
    "c07-no-bbox": {"box_from_mask": 18},
    "c08-stray-part-two-points": {"polygon_part_dropped": 6},
    "c15-numbers-as-text": {"number_from_text": 36},  # in the box and as the area
    "c17-image-id-as-text-flat-polygon": {"image_id_type": 18, "polygon_nested": 18},
}
USED = [
    "c00-control",
    "c01-annotation-ids-from-0",
    "c04-same-name-in-subfolders",
    "c04c-non-ascii-names",
    "c05-windows-backslashes",
    "c06e-ids-text",
    "c08e-empty-segmentations",
    "c11b-size-null",
    "c16-category-repeated",
    *FIXED,
]
SOURCES: dict[str, dict[str, Any]] = {
    "c05-windows-backslashes": {"images": "{split}", "instances": "{split}/result.json"}
}


def sharded(
    folder: Path, place: Path, source: dict[str, Any] | None = None, **config: Any
) -> tuple[dict[str, Any], dict[str, list[Record]]]:
    """Manifest and records by split of a data set that is read where it lies."""
    dataset = {"origin": "local", "input": str(folder), "sources": {"coco": source or {}}, **config}
    document = {"datasets": {"d": dataset}, "runs": {}, "cluster": {"engine": "local"}}
    (place / "params.yaml").write_text(yaml.safe_dump(document))
    project, params = Project(place), load_params(place)
    fetch(project, params, "d")
    shard(project, params, "d")
    manifest = load_manifest(project.shards("d"), "d")
    readers = open_splits(project.shards("d"), manifest)
    return manifest, {split: [reader.read(i) for i in range(len(reader))] for split, reader in readers.items()}


def drawn(record: Record) -> np.ndarray:
    """(H, W) bool: where the picture shows its white rectangle."""
    return np.asarray(Image.open(io.BytesIO(record.image)).convert("RGB")).min(2) > 200


def on_its_rectangle(record: Record) -> bool:
    """Whether the one box, and the mask if there is one, is where the rectangle was drawn; JPEG blurs the edge."""
    white = drawn(record)
    ys, xs = np.nonzero(white)
    (box,) = record.objects.boxes
    if np.abs(box - [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]).max() > 1:
        return False
    if not (counts := record.objects.masks[0]):
        return True
    mask = coco_mask.decode({"size": [record.height, record.width], "counts": counts.encode()}).astype(bool)
    return (mask & white).sum() / (mask | white).sum() > 0.85


def totals(manifest: dict[str, Any], what: str) -> Counter[str]:
    return sum((Counter(entry[what]) for entry in manifest["splits"].values()), Counter())


@pytest.mark.parametrize("name", USED)
def test_everything_is_used(field: Path, tmp_path: Path, name: str) -> None:
    manifest, records = sharded(field / name, tmp_path, SOURCES.get(name))
    assert manifest["classes"] == ["cup", "plate"]
    assert {split: len(found) for split, found in records.items()} == ALL
    assert not totals(manifest, "dropped")
    assert totals(manifest, "fixed") == FIXED.get(name, {})
    assert all(on_its_rectangle(record) for found in records.values() for record in found)
    has_masks = name != "c08e-empty-segmentations"
    assert totals(manifest, "totals")["num_masks"] == (18 if has_masks else 0)


@pytest.mark.parametrize("name", USED)
def test_the_scorer_takes_the_same_files(field: Path, tmp_path: Path, name: str) -> None:
    """Detections in plain COCO on the drawn boxes score 1; with masks, too, where the file says how large they are."""
    pattern = SOURCES.get(name, {}).get("instances", "annotations/instances_{split}2017.json")
    truth = field / name / pattern.format(split="val")
    _, records = sharded(field / name, tmp_path, SOURCES.get(name))
    found = [
        {
            "image_id": record.image_id,
            "category_id": int(record.objects.labels[0]),
            "bbox": [float(v) for v in (*box[:2], *(box[2:] - box[:2]))],
            "score": 0.5,
            "segmentation": {"size": [record.height, record.width], "counts": record.objects.masks[0]},
        }
        for record in records["val"]
        for box in record.objects.boxes
    ]
    (tmp_path / "found.json").write_text(json.dumps(found))
    inputs = Inputs(truth=truth, predictions=tmp_path / "found.json")
    assert coco_boxes.score(inputs).measurements[0].values["AP"] == pytest.approx(1)
    if name not in ("c08e-empty-segmentations", "c11b-size-null"):
        assert coco_masks.score(inputs).measurements[0].values["AP"] == pytest.approx(1)
    else:
        with pytest.raises(DataError, match=r"no empty one|need the size"):
            coco_masks.score(inputs)


def test_a_roboflow_export_takes_three_lines(field: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest, records = sharded(field / "c02-roboflow-export", tmp_path, ROBOFLOW, splits={"val": "valid"})
    assert manifest["classes"] == ["cup", "plate"]  # not their root, "tableware"
    assert "note: category 'tableware'" in capsys.readouterr().err
    assert {split: len(found) for split, found in records.items()} == {"train": 150, "val": 110, "test": 6}
    assert not totals(manifest, "dropped") and not totals(manifest, "fixed")
    assert all(on_its_rectangle(record) for found in records.values() for record in found)


def test_a_panoptic_file_is_named(field: Path, tmp_path: Path) -> None:
    folder = field / "c09-panoptic"
    with pytest.raises(DataError, match=r"(?s)panoptic_train2017\.json looks like a COCO panoptic file.*convert"):
        sharded(folder, tmp_path)
    with pytest.raises(DataError, match=r"(?s)this is a COCO panoptic file.*panoptic2detection"):
        sharded(folder, tmp_path, {"instances": "annotations/panoptic_{split}2017.json"})


@pytest.mark.parametrize("name", ["c12b-exif6-size-stored", "c12d-exif6-square"])
def test_boxes_on_turned_pictures(field: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    applied, records = sharded(field / name, tmp_path, exif="apply")
    assert not totals(applied, "dropped") and totals(applied, "fixed") == {"exif_rotated": 16}
    assert [on_its_rectangle(record) for record in records["train"]] == [True] * 12
    assert "EXIF" not in capsys.readouterr().err
    guessed, records = sharded(field / name, tmp_path)
    undecided = {"exif_undecided": 16} if "square" in name else {}
    assert totals(guessed, "fixed") == {"exif_orientation_dropped": 16, **undecided}
    assert not any(on_its_rectangle(record) for record in records["train"])
    told = capsys.readouterr().err
    assert "note: 16 pictures have an EXIF orientation" in told and "datasets.d.exif: apply" in told
    assert f"{len(undecided) * 16} of them have a size that cannot decide" in told
    sharded(field / name, tmp_path, exif="ignore")
    assert "EXIF" not in capsys.readouterr().err


EXPORTS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, tuple[int, int]]]] = {
    "roboflow_rbc": (ROBOFLOW, {"splits": {"val": "valid"}}, {"train": (24, 541), "val": (8, 189), "test": (6, 144)}),
    "roboflow_pens": (ROBOFLOW, {"splits": {"val": "valid"}}, {"train": (5, 5), "val": (2, 2), "test": (2, 2)}),
    "cvat_boxes": (
        {"images": "images", "instances": "annotations/instances_default.json"},
        {"split": {"val": 0.3}},
        {"train": (4, 4), "val": (2, 2)},
    ),
    "labelstudio_drape": (
        {"images": ".", "instances": "result.json"},
        {"split": {"val": 0.2}},
        {"train": (9, 9), "val": (2, 2)},
    ),
}


@pytest.mark.parametrize("name", EXPORTS)
def test_real_exports_of_annotation_tools(shared_dir: Path, tmp_path: Path, name: str) -> None:
    source, config, expected = EXPORTS[name]
    manifest, records = sharded(shared_dir / "data/coco_exports" / name, tmp_path, source, **config)
    found = {split: (len(kept), sum(len(r.objects) for r in kept)) for split, kept in records.items()}
    assert found == expected
    assert not totals(manifest, "dropped")
