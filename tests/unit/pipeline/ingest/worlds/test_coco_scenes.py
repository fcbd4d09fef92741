"""The generated COCO and VQA v2 files: official form, readable by pycocotools, equal bytes for equal settings."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from contracts.errors import ConfigError
from pipeline.ingest.worlds._output import SplitSizes
from pipeline.ingest.worlds.coco_scenes import CATEGORY_IDS, Config, generate, scene_of

CONFIG = Config(seed=3, num_records=SplitSizes(train=40, val=12))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coco_scenes")
    done: list[int] = []
    generate(folder, CONFIG, done.append)
    assert sum(done) == 52
    return folder


def _load(path: Path) -> Any:
    return json.loads(path.read_text())


def _files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_equal_settings_give_equal_bytes_and_more_images_leave_the_first_ones_alone(root: Path, tmp_path: Path) -> None:
    generate(tmp_path / "again", CONFIG, lambda _: None)
    assert _files(tmp_path / "again") == _files(root)
    generate(tmp_path / "fewer", Config(seed=3, num_records=SplitSizes(train=5, val=2)), lambda _: None)
    fewer = {name: data for name, data in _files(tmp_path / "fewer").items() if name.endswith(".jpg")}
    assert len(fewer) == 7 and fewer.items() <= _files(root).items()
    generate(tmp_path / "other", Config(seed=4, num_records=SplitSizes(train=5, val=2)), lambda _: None)
    assert not set(_files(tmp_path / "other").values()) & set(_files(root).values())


def test_files_of_the_official_layout(root: Path) -> None:
    names = {n for n in _files(root) if not n.endswith(".jpg")}
    assert names == {
        *(f"annotations/{kind}_{split}2017.json" for kind in ("instances", "captions") for split in ("train", "val")),
        *(f"vqa/v2_OpenEnded_mscoco_{split}2014_questions.json" for split in ("train", "val")),
        *(f"vqa/v2_mscoco_{split}2014_annotations.json" for split in ("train", "val")),
    }
    assert len(list((root / "train2017").iterdir())) == 40 and len(list((root / "val2017").iterdir())) == 12


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0.11 with numpy 2
def test_pycocotools_reads_it_and_decodes_the_drawn_masks(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco = COCO(str(root / "annotations/instances_train2017.json"))
    capsys.readouterr()
    assert {c["name"]: c["id"] for c in coco.loadCats(coco.getCatIds())} == CATEGORY_IDS
    num_crowds = 0
    for index, image_id in enumerate(sorted(coco.getImgIds())):
        scene, _, _ = scene_of(CONFIG, "train", index)
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=image_id))
        drawn = [(o.shape, o.mask) for o in scene.objects] + (
            [(scene.crowd.shape, scene.crowd.mask)] if scene.crowd else []
        )
        for (shape, mask), annotation in zip(drawn, annotations, strict=True):
            assert annotation["category_id"] == CATEGORY_IDS[shape]
            decoded = coco.annToMask(annotation).astype(bool)
            assert np.array_equal(decoded, mask)
            ys, xs = np.nonzero(mask)
            assert annotation["bbox"] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
            assert annotation["area"] == mask.sum()
            num_crowds += annotation["iscrowd"]
            assert isinstance(annotation["segmentation"], dict) == bool(annotation["iscrowd"])
    assert num_crowds > 0


def test_images_are_as_announced(root: Path) -> None:
    document = _load(root / "annotations/instances_val2017.json")
    assert {"info", "licenses", "images", "annotations", "categories"} == set(document)
    assert [a["id"] for a in document["annotations"]] == list(range(1, len(document["annotations"]) + 1))
    for entry in document["images"]:
        assert entry["file_name"] == f"{entry['id']:012d}.jpg"
        image = cv2.imread(str(root / "val2017" / entry["file_name"]))
        assert image is not None
        assert image.shape == (entry["height"], entry["width"], 3)
        scene, _, _ = scene_of(CONFIG, "val", entry["id"] - 500_001)
        assert np.abs(image[..., ::-1].astype(int) - scene.image).mean() < 8  # JPEG is lossy, not wrong


def test_captions(root: Path) -> None:
    images = {i["id"] for i in _load(root / "annotations/instances_val2017.json")["images"]}
    document = _load(root / "annotations/captions_val2017.json")
    counts = Counter(a["image_id"] for a in document["annotations"])
    assert set(counts) == images and set(counts.values()) == {5}
    assert len({a["id"] for a in document["annotations"]}) == 5 * len(images)


def test_questions_and_annotations_belong_together(root: Path) -> None:
    questions = _load(root / "vqa/v2_OpenEnded_mscoco_val2014_questions.json")
    annotations = _load(root / "vqa/v2_mscoco_val2014_annotations.json")
    official = {"info", "license", "data_type", "data_subtype"}
    assert set(questions) == official | {"task_type", "questions"}
    assert set(annotations) == official | {"annotations"}
    asked = {q["question_id"]: q for q in questions["questions"]}
    assert len(asked) == len(questions["questions"]) == len(annotations["annotations"])
    for a in annotations["annotations"]:
        assert asked[a["question_id"]]["image_id"] == a["image_id"] == a["question_id"] // 1000
        assert [x["answer_id"] for x in a["answers"]] == list(range(1, 11))
        assert {x["answer_confidence"] for x in a["answers"]} <= {"yes", "maybe", "no"}
        assert a["answer_type"] in ("yes/no", "number", "other")
        assert Counter(x["answer"] for x in a["answers"]).most_common(1)[0][0] == a["multiple_choice_answer"]


def test_other_sizes(tmp_path: Path) -> None:
    config = Config(image_size=80, max_objects=2, num_records=SplitSizes(train=6, val=1))
    generate(tmp_path, config, lambda _: None)
    document = _load(tmp_path / "annotations/instances_train2017.json")
    assert {max(i["height"], i["width"]) for i in document["images"]} == {80}
    assert max(Counter(a["image_id"] for a in document["annotations"] if not a["iscrowd"]).values()) <= 2


def test_impossible_settings_are_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="image_size"):
        Config(image_size=8)
