"""The generated world in the published layouts of COCO 2017 (instances, captions) and VQA v2 over the same images.

Layout under the root: `{train2017,val2017}/%012d.jpg`, `annotations/{instances,captions}_{train2017,val2017}.json`,
`vqa/v2_OpenEnded_mscoco_{train2014,val2014}_questions.json` and `vqa/v2_mscoco_{train2014,val2014}_annotations.json`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from contracts.ranges import check_ranges
from pipeline.ingest.worlds._language import Asked, ask, captions
from pipeline.ingest.worlds._output import (
    RANGES,
    SplitSizes,
    encode_jpeg,
    image_rng,
    mask_polygons,
    mask_run_lengths,
    write_json,
)
from pipeline.ingest.worlds._scenes import Scene, SceneStyle, draw_scene, mask_box

# with gaps, as in the real file: a reader must map ids to labels
CATEGORY_IDS = {"circle": 1, "cross": 2, "ring": 3, "square": 5, "star": 7, "triangle": 8}
_SUPERCATEGORIES = {"circle": "round", "ring": "round"}
_SPLITS = {"train": ("train2017", "train2014", 0, 100_000), "val": ("val2017", "val2014", 1, 500_000)}
_DATE = "2017-01-01 00:00:00"
_LICENSE = {"url": "https://creativecommons.org/publicdomain/zero/1.0/", "id": 1, "name": "CC0 1.0 (generated images)"}
_INFO = {
    "description": "Generated scenes in the layout of COCO 2017",
    "url": "",
    "version": "1.0",
    "year": 2017,
    "contributor": "Sightline",
    "date_created": "2017/01/01",
}
_VQA_INFO = _INFO | {"description": "Generated scenes in the layout of VQA v2.0", "date_created": _DATE}
_VQA_LICENSE = {"url": _LICENSE["url"], "name": _LICENSE["name"]}


@dataclass(frozen=True, kw_only=True)
class Config:
    """`image_size` is the longer side in pixels; images are square or an eighth narrower or lower."""

    seed: int = 1
    image_size: int = 128
    num_records: SplitSizes = field(default=SplitSizes(train=1600, val=240))
    jpeg_quality: int = 92
    max_objects: int = 4

    def __post_init__(self) -> None:
        check_ranges(self, **RANGES)


def generate(root: Path, config: Config, progress: Callable[[int], None]) -> None:
    """Write both splits under `root`.

    Args:
        progress: called with the number of images done since the last call.
    """
    for split in _SPLITS:
        _generate_split(root, split, getattr(config.num_records, split), config, progress)


def scene_of(config: Config, split: str, index: int) -> tuple[Scene, list[str], list[Asked]]:
    """The `index`-th scene of a split, its captions and its questions."""
    style = SceneStyle(
        image_size=config.image_size, max_objects=config.max_objects, min_visible=0.55, crowd_probability=0.08
    )
    rng = image_rng(config.seed, _SPLITS[split][2], index)
    scene = draw_scene(rng, style)
    return scene, captions(rng, scene), ask(rng, scene)


def _generate_split(root: Path, split: str, num_images: int, config: Config, progress: Callable[[int], None]) -> None:
    subset, vqa_subset, _, id_base = _SPLITS[split]
    folder = root / subset
    folder.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    instances: list[dict[str, Any]] = []
    sentences: list[dict[str, Any]] = []
    questions: list[dict[str, Any]] = []
    answers: list[dict[str, Any]] = []
    for index in range(num_images):
        image_id = id_base + index + 1
        scene, said, asked = scene_of(config, split, index)
        (folder / f"{image_id:012d}.jpg").write_bytes(encode_jpeg(scene.image, config.jpeg_quality))
        images.append(_image_entry(image_id, scene))
        instances += _instances(scene, image_id, len(instances) + 1)
        sentences += [
            {"image_id": image_id, "id": i, "caption": text} for i, text in enumerate(said, len(sentences) + 1)
        ]
        for k, one in enumerate(asked):
            question_id = image_id * 1000 + k
            questions.append({"image_id": image_id, "question": one.text, "question_id": question_id})
            answers.append(_vqa_annotation(one, image_id, question_id))
        progress(1)
    _write_coco(root, subset, images, instances, sentences)
    _write_vqa(root, vqa_subset, questions, answers)


def _image_entry(image_id: int, scene: Scene) -> dict[str, Any]:
    height, width = scene.image.shape[:2]
    return {
        "license": 1,
        "file_name": f"{image_id:012d}.jpg",
        "coco_url": "",
        "height": height,
        "width": width,
        "date_captured": _DATE,
        "flickr_url": "",
        "id": image_id,
    }


def _instances(scene: Scene, image_id: int, first_id: int) -> list[dict[str, Any]]:
    """Annotations of one image: objects with polygons, then the crowd (if any of it is visible) with run lengths."""
    found: list[tuple[str, np.ndarray, Any, int]] = [(o.shape, o.mask, mask_polygons(o.mask), 0) for o in scene.objects]
    if scene.crowd is not None and scene.crowd.mask.any():
        found.append((scene.crowd.shape, scene.crowd.mask, mask_run_lengths(scene.crowd.mask), 1))
    entries = []
    for annotation_id, (shape, mask, segmentation, is_crowd) in enumerate(found, first_id):
        x1, y1, x2, y2 = mask_box(mask)
        entries.append(
            {
                "segmentation": segmentation,
                "area": int(mask.sum()) if is_crowd else float(mask.sum()),
                "iscrowd": is_crowd,
                "image_id": image_id,
                "bbox": [x1, y1, x2 - x1, y2 - y1] if is_crowd else [float(v) for v in (x1, y1, x2 - x1, y2 - y1)],
                "category_id": CATEGORY_IDS[shape],
                "id": annotation_id,
            }
        )
    return entries


def _vqa_annotation(asked: Asked, image_id: int, question_id: int) -> dict[str, Any]:
    given = zip(asked.answers, asked.confidences, strict=True)
    return {
        "question_type": asked.question_type,
        "multiple_choice_answer": asked.answer,
        "answers": [
            {"answer": answer, "answer_confidence": confidence, "answer_id": i}
            for i, (answer, confidence) in enumerate(given, 1)
        ],
        "image_id": image_id,
        "answer_type": asked.answer_type,
        "question_id": question_id,
    }


def _write_coco(root: Path, subset: str, images: list, instances: list, sentences: list) -> None:
    head = {"info": _INFO, "licenses": [_LICENSE], "images": images}
    categories = [
        {"supercategory": _SUPERCATEGORIES.get(name, "angular"), "id": category_id, "name": name}
        for name, category_id in CATEGORY_IDS.items()
    ]
    folder = root / "annotations"
    write_json(folder / f"instances_{subset}.json", head | {"annotations": instances, "categories": categories})
    write_json(folder / f"captions_{subset}.json", head | {"annotations": sentences})


def _write_vqa(root: Path, subset: str, questions: list, answers: list) -> None:
    head = {"info": _VQA_INFO, "data_type": "mscoco", "data_subtype": subset, "license": _VQA_LICENSE}
    folder = root / "vqa"
    asked = head | {"task_type": "Open-Ended", "questions": questions}
    write_json(folder / f"v2_OpenEnded_mscoco_{subset}_questions.json", asked)
    write_json(folder / f"v2_mscoco_{subset}_annotations.json", head | {"annotations": answers})
