"""The main job on real photographs: raw files -> shards -> training -> evaluation, for every kind of source."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_modules.augment.images import image_size
from pipeline.settings.params import load_params
from pipeline.shards.reader import SplitReader
from pipeline.stages.evaluate import evaluate
from pipeline.stages.fetch import fetch
from pipeline.stages.shard import shard
from pipeline.stages.train import train
from pipeline.stages.vocab import vocab
from pipeline.system.project import Project
from pipeline.training.checkpoints import build_task
from pipeline.training.runs import load_run

pytestmark = pytest.mark.filterwarnings("default")

CLASSIFY = {
    "task": {"name": "classification", "image_size": 64},
    "model": {"name": "image_classifier"},
    "train": {"optimizer": {"lr": 2e-3}},
}
CASES: dict[str, dict[str, Any]] = {
    "captioning": {
        "input": "coco_real",
        "sources": {"coco": {"images": "images/{split}2017"}},
        "run": {"task": {"name": "captioning", "image_size": 64}, "model": {"name": "soft_attention"}},
        "samples": (80, 244),
    },
    "classification": {
        "input": "flowers5",
        "sources": {"image_folder": {"train": "flowers"}},
        "dataset": {"split": {"val": 0.2}},
        "run": CLASSIFY,
        "samples": (400, 100),
    },
    "classification of sizes": {
        "input": "dog_cat",
        "sources": {"image_folder": {"train": "Train_Data"}},
        "dataset": {"split": {"val": 0.2}},
        "run": CLASSIFY,
        "samples": (112, 28),
    },
    "detection": {
        "input": "bccd",
        "sources": {"voc": {"folders": ["BCCD"]}},
        "run": {"task": {"name": "detection", "image_size": 96}, "model": {"name": "faster_rcnn"}},
        "samples": (205, 87),
        "dropped": {"object": {"zero_area_box": 1}},
    },
    "segmentation": {
        "input": "camvid",
        "sources": {"camvid": {}},
        "run": {"task": {"name": "segmentation", "image_size": 64}, "model": {"name": "fcn"}},
        "samples": (74, 21),
    },
}


def make_project(folder: Path, data: Path, case: dict[str, Any]) -> Project:
    document = {
        "datasets": {
            "real": {
                "origin": "local",
                "input": str(data),
                "sources": case["sources"],
                "max_quarantined": 0.2,
                **case.get("dataset", {}),
            }
        },
        "runs": {name: {"dataset": "real", **run} for name, run in _runs(case).items()},
        "train": {"max_epochs": 1, "batch_size": 16, "eval_batch_size": 16, "num_pictures": 2},
        "shards": {"samples": 64, **case.get("shards", {})},
        "cluster": {"engine": "local"},
        "tracking": {"system_metrics": False},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(document))
    return Project(folder)


def _runs(case: dict[str, Any]) -> dict[str, Any]:
    return case["runs"] if "runs" in case else {"job": case["run"]}


def run_job(project: Project) -> tuple[dict[str, Any], dict[str, Any]]:
    """All stages but registration; the manifest and the metrics."""
    params = load_params(project.root)
    for stage in (fetch, shard, vocab):
        stage(project, params, "real")
    train(project, params, "job")
    evaluate(project, params, "job")
    manifest = json.loads((project.shards("real") / "manifest.json").read_text())
    return manifest, json.loads(project.measured("job").read_text())


def check_outputs(project: Project, manifest: dict[str, Any], metrics: dict[str, Any]) -> None:
    assert metrics["value"] is not None
    lines = project.predictions("job").read_text().splitlines()
    assert len(lines) == metrics["num_items"] >= metrics["num_samples"]
    assert list((project.plots("job") / "pictures").glob("*.png"))
    for split in manifest["splits"].values():
        lost = sum(split["dropped"].get("record", {}).values())
        assert split["num_source"] == split["num_samples"] + lost, "source samples = sharded + quarantined"


@pytest.mark.parametrize("name", sorted(CASES))
def test_job_runs_on_real_data(name, shared_dir, tmp_path):
    case = CASES[name]
    project = make_project(tmp_path / "project", shared_dir / "data" / case["input"], case)
    manifest, metrics = run_job(project)
    check_outputs(project, manifest, metrics)
    if name != "captioning":
        assert manifest["splits"]["train"]["dropped"].get("record", {}) == {}
    if "samples" in case:
        used = manifest["splits"]["val"]["num_samples"] if name != "captioning" else metrics["num_samples"]
        assert used == case["samples"][1]
    if "dropped" in case:
        both = [split["dropped"].get("object", {}) for split in manifest["splits"].values()]
        assert sum(part.get("zero_area_box", 0) for part in both) == 2


DETECT = {"task": {"name": "detection", "image_size": 64}}
SEGMENT = {"task": {"name": "segmentation", "image_size": 32}}
SMALL_GRID = {"conv_channels": [32], "hidden": 64}
OTHERS: dict[str, dict[str, Any]] = {
    "bccd": {  # `detection` reads all of them
        "dataset": {"follow_links": True},
        "sources": {"voc": {"folders": ["BCCD"], "test": ""}},
        "samples": 24,
        "runs": {
            "ssd": {**DETECT, "model": {"name": "ssd"}},
            "retinanet": {**DETECT, "model": {"name": "retinanet", "num_convs": 1}},
            "yolo": {**DETECT, "model": {"name": "yolo", **SMALL_GRID}},
            "grid_boxes": {**DETECT, "model": {"name": "grid_boxes", **SMALL_GRID}},
            "one_map": {
                **DETECT,
                "model": {"name": "faster_rcnn", "levels": ["c4"], "pyramid": False, "pooling": "max"},
            },
        },
    },
    "camvid": {  # `segmentation` reads all of them
        "dataset": {"follow_links": True},
        "sources": CASES["segmentation"]["sources"],
        "samples": 8,
        "runs": {name: {**SEGMENT, "model": {"name": name}} for name in ("deconvnet", "full_resolution")},
    },
}


def _few_of_bccd(data: Path, folder: Path) -> None:
    """The first 24 photographs of each list."""
    known, few = data / "BCCD", folder / "BCCD"
    (few / "ImageSets" / "Main").mkdir(parents=True)
    for name in ("Annotations", "JPEGImages"):
        (few / name).symlink_to(known / name, target_is_directory=True)
    for split in ("train", "val"):
        lines = (known / "ImageSets" / "Main" / f"{split}.txt").read_text().split()
        (few / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(lines[:24]) + "\n")


def _few_of_camvid(data: Path, folder: Path) -> None:
    """The first 8 photographs of each folder."""
    for part in (data / "CamVid").iterdir():
        if part.is_dir():
            (folder / "CamVid" / part.name).mkdir(parents=True)
            for path in sorted(part.glob("*.png"))[:8]:
                (folder / "CamVid" / part.name / path.name).symlink_to(path)


@pytest.mark.parametrize("name", OTHERS)
def test_other_models_run_on_real_photographs(name, shared_dir, tmp_path):
    case = OTHERS[name]
    {"bccd": _few_of_bccd, "camvid": _few_of_camvid}[name](shared_dir / "data" / name, tmp_path / name)
    project = make_project(tmp_path / "project", tmp_path / name, case)
    params = load_params(project.root)
    for stage in (fetch, shard, vocab):
        stage(project, params, "real")
    for run in case["runs"]:
        train(project, params, run)
        evaluate(project, params, run)
        metrics = json.loads(project.measured(run).read_text())
        assert metrics["value"] is not None and metrics["num_samples"] == case["samples"], run


def test_masks_of_real_photographs(shared_dir, tmp_path):
    """Thirty photographs for each split: measuring all of them takes a minute. `captioning` reads the others.

    The shards store fewer pixels than the photographs have; boxes and masks stay those of the originals.
    """
    source, data = shared_dir / "data" / "coco_real", tmp_path / "instances"
    (data / "annotations").mkdir(parents=True)
    known = json.loads((source / "annotations" / "instances_train2017.json").read_text())
    for split, images in {"train": known["images"][:30], "val": known["images"][30:60]}.items():
        kept = {image["id"] for image in images}
        annotations = [one for one in known["annotations"] if one["image_id"] in kept]
        part = known | {"images": images, "annotations": annotations}
        (data / f"{split}2017").symlink_to(source / "images" / "train2017", target_is_directory=True)
        (data / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(part))
    case = {
        "dataset": {"follow_links": True},
        "sources": {"coco": {}},
        "run": {"task": {"name": "instances"}, "model": {"name": "mask_rcnn"}},
        "shards": {"short_side": 160},
    }
    project = make_project(tmp_path / "project", data, case)
    manifest, metrics = run_job(project)
    check_outputs(project, manifest, metrics)
    assert manifest["splits"]["train"]["dropped"].get("record", {}) == {}
    assert metrics["num_samples"] == 30
    assert manifest["shrink"] == {"short_side": 160, "quality": 90}
    assert manifest["splits"]["val"]["fixed"]["image_shrunk"] == 30
    record = SplitReader(project.shards("real"), manifest, "val").read(0)
    assert min(image_size(record.image)) == 160 < min(record.height, record.width)


def test_questions_of_real_photographs(shared_dir, tmp_path):
    """VQA v2's file covers the training photographs only; every other one of them serves as validation here."""
    source, data = shared_dir / "data" / "coco_real", tmp_path / "vqa"
    (data / "vqa").mkdir(parents=True)
    for split in ("train", "val"):
        (data / f"{split}2017").symlink_to(source / "images" / "train2017", target_is_directory=True)
        for what, name in {
            "questions": "OpenEnded_mscoco_{}2014_questions",
            "annotations": "mscoco_{}2014_annotations",
        }.items():
            known = json.loads((source / "vqa" / f"v2_{name.format('train')}.json").read_text())
            images = sorted({one["image_id"] for one in known[what]})[split == "val" :: 2]
            part = known | {what: [one for one in known[what] if one["image_id"] in images]}
            (data / "vqa" / f"v2_{name.format(split)}.json").write_text(json.dumps(part))
    run = {"task": {"name": "vqa"}, "model": {"name": "lstm_vqa"}}
    case = {"dataset": {"follow_links": True}, "sources": {"vqa": {}}, "run": run}
    project = make_project(tmp_path / "project", data, case)
    manifest, metrics = run_job(project)
    check_outputs(project, manifest, metrics)
    assert metrics["num_samples"] == 47
    assert manifest["splits"]["train"]["totals"]["num_questions"] == 70


def test_palette_masks_of_voc(shared_dir, tmp_path):
    """Three VOC photographs with SegmentationClass and SegmentationObject PNGs, and no ImageSets."""
    source = shared_dir / "data/labelme_voc/instance_segmentation/data_dataset_voc"
    data = tmp_path / "voc" / "VOCdevkit" / "VOC2012"
    shutil.copytree(source, data)
    lists = data / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2011_000003\n2011_000006\n")
    (lists / "val.txt").write_text("2011_000025\n")
    case = {
        "sources": {"voc": {"image_sets": "Segmentation"}},
        "run": {"task": {"name": "segmentation"}, "model": {"name": "fcn"}},
    }
    project = make_project(tmp_path / "project", tmp_path / "voc", case)
    manifest, metrics = run_job(project)
    check_outputs(project, manifest, metrics)
    assert [split["totals"]["has_semantic"] for split in manifest["splits"].values()] == [2, 1]
    assert "person" in manifest["classes"]


def test_classes_of_voc_photographs(shared_dir, tmp_path):
    """Eight photographs of VOC 2007, some of whose classes show difficult objects alone: labels are the devkit's."""
    folder = shared_dir / "data" / "voc2007_proposals"
    case = {
        "sources": {"voc": {"folders": ["VOCdevkit/VOC2007"], "train": "test", "test": ""}},
        "dataset": {"split": {"val": 0.5}},
        "run": {
            "task": {"name": "multilabel_classification", "image_size": 64},
            "model": {"name": "image_classifier"},
            "train": {"max_epochs": 2, "batch_size": 2},
        },
    }
    project = make_project(tmp_path / "project", folder, case)
    manifest, metrics = run_job(project)
    check_outputs(project, manifest, metrics)
    assert 0 < metrics["value"] <= 1 and metrics["metric"] == "mAP_2010"
    data = load_run(project, load_params(project.root), "job")
    task = build_task(data.run.to_dict(), data.spec)
    labels = {}
    for split in manifest["splits"]:
        reader = SplitReader(project.shards("real"), manifest, split)
        for record in map(reader.read, range(len(reader))):
            labels[str(record.image_id)] = dict(zip(manifest["classes"], task.labels(record).tolist(), strict=True))
    official: dict[str, dict[str, int]] = {}
    for path in (folder / "VOCdevkit/VOC2007/ImageSets/Main").glob("*_test.txt"):
        for image, label in map(str.split, path.read_text().splitlines()):
            official.setdefault(image, {})[path.stem.removesuffix("_test")] = int(label)
    assert labels == official and {v for row in official.values() for v in row.values()} == {1, 0, -1}


@pytest.mark.parametrize("whose", ["searched", "published"])
def test_proposals_of_real_photographs(whose, shared_dir, tmp_path):
    """VOC photographs with their XML: the shard stage searches, or joins Fast R-CNN's own boxes of two of them, and a
    Fast R-CNN looks at those."""
    folder = shared_dir / "data" / "voc2007_proposals"
    data = tmp_path / "voc" / "VOCdevkit" / "VOC2007"
    shutil.copytree(folder / "VOCdevkit" / "VOC2007", data)
    shutil.copytree(folder / "data", tmp_path / "voc" / "data")
    lists = data / "ImageSets" / "Main"
    keys = (lists / "test.txt").read_text().split()
    shutil.rmtree(lists)
    lists.mkdir()
    searched = whose == "searched"
    splits = {"train": keys[:6], "val": keys[6:]} if searched else {"train": ["000004"], "val": ["001551"]}
    for split, some in splits.items():
        (lists / f"{split}.txt").write_text("\n".join(some))
    search = {"mode": "single", "width": 200, "min_side": 12}
    boxes = {"layout": "files", "boxes": "data/demo/{image}_boxes.mat", "only": ["train", "val"]}
    case = {
        "sources": {"voc": {"folders": ["VOCdevkit/VOC2007"]}, **({} if searched else {"proposals": boxes})},
        "dataset": {"proposals": search} if searched else {},
        "run": {
            "task": {"name": "region_detection", "search": search},
            "model": {"name": "fast_rcnn", "head_channels": 64},
            "train": {"max_epochs": 2, "batch_size": 2 if searched else 1},
        },
    }
    project = make_project(tmp_path / "project", tmp_path / "voc", case)
    manifest, metrics = run_job(project)
    check_outputs(project, manifest, metrics)
    assert metrics["num_samples"] == len(splits["val"])
    found = []
    for split in ("train", "val"):
        reader = SplitReader(project.shards("real"), manifest, split)
        for record in map(reader.read, range(len(reader))):
            boxes, limits = record.proposals.boxes, [record.width, record.height] * 2
            assert (boxes >= 0).all() and (boxes <= limits).all()
            assert (boxes[:, 2:].max(axis=0) > 200).all(), "in pixels of the photograph, not of what was searched"
            found.append(len(boxes))
    assert all(20 < number <= 2000 for number in found) if searched else found == [2888, 2057]
