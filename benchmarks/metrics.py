"""Official metrics on splits of the published sizes, beside the official code where it runs here."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import warnings
from pathlib import Path

import numpy as np

from benchmarks import Figure, timed
from lightning_modules.metrics.bootstrap import intervals
from lightning_modules.metrics.captions import CaptionMetrics
from lightning_modules.metrics.ptb_tokenizer import tokenize_all
from lightning_modules.metrics.segmentation import measure_segmentation
from lightning_modules.metrics.vqa_accuracy import Answered, measure_vqa
from pipeline.measuring.scorers import Inputs, coco_boxes

NUM_IMAGES, NUM_DETECTIONS, NUM_OBJECTS, NUM_CATEGORIES = 5000, 100, 36_000, 80
NUM_CAPTIONED, NUM_REFERENCES = 40_000, 5
NUM_QUESTIONS = 200_000


def measure() -> list[Figure]:
    return [*_coco(), *_captions(), *_vqa(), *_segmentation()]


def _coco() -> list[Figure]:
    size = f"{NUM_IMAGES:,} images x {NUM_DETECTIONS} boxes, {NUM_OBJECTS:,} objects"
    with tempfile.TemporaryDirectory() as folder:
        truth, found = _write_coco(Path(folder))
        ours, scores = timed(lambda: coco_boxes.score(Inputs(truth=truth, predictions=found)), repeats=2)
        official, stats = timed(lambda: _pycocotools(truth, found))
    difference = float(np.abs(np.array(list(scores.measurements[0].values.values())) - stats).max())
    return [
        Figure(
            what=f"COCO AP of {size}, parsing and checks included",
            value=ours,
            beside=f"pycocotools (numbers differ by at most {difference:.0e})",
            other=official,
            goal="< 4 s",
        )
    ]


def _write_coco(folder: Path) -> tuple[Path, Path]:
    """Objects, half of them found (moved a little), the rest of the detections anywhere."""
    rng = np.random.default_rng(0)
    boxes = np.concatenate(
        [rng.uniform(0, 500, (NUM_OBJECTS, 2)), rng.uniform(8, 140, (NUM_OBJECTS, 2))], axis=1
    ).round(2)
    images, categories = rng.integers(1, NUM_IMAGES + 1, NUM_OBJECTS), rng.integers(1, NUM_CATEGORIES + 1, NUM_OBJECTS)
    annotations = [
        {"id": i, "image_id": int(images[i]), "category_id": int(categories[i]), "bbox": boxes[i].tolist(),
         "area": float(boxes[i, 2] * boxes[i, 3]), "iscrowd": int(i % 100 == 0)}
        for i in range(NUM_OBJECTS)
    ]  # fmt: skip
    total = NUM_IMAGES * NUM_DETECTIONS
    found_boxes = np.concatenate([rng.uniform(0, 500, (total, 2)), rng.uniform(8, 140, (total, 2))], axis=1).round(2)
    found_images = np.repeat(np.arange(1, NUM_IMAGES + 1), NUM_DETECTIONS)
    found_categories = rng.integers(1, NUM_CATEGORIES + 1, total)
    scores = rng.uniform(0, 0.6, total)
    free = {
        image: list(range((image - 1) * NUM_DETECTIONS, image * NUM_DETECTIONS)) for image in range(1, NUM_IMAGES + 1)
    }
    for i in range(0, NUM_OBJECTS, 2):
        row = free[int(images[i])].pop()
        found_boxes[row] = (boxes[i] + rng.normal(0, 3, 4)).clip(1).round(2)
        found_categories[row], scores[row] = categories[i], rng.uniform(0.3, 1)
    results = [
        {"image_id": int(image), "category_id": int(category), "bbox": box, "score": round(float(score), 5)}
        for image, category, box, score in zip(
            found_images, found_categories, found_boxes.tolist(), scores, strict=True
        )
    ]
    document = {
        "images": [{"id": i, "height": 640, "width": 640} for i in range(1, NUM_IMAGES + 1)],
        "categories": [{"id": c, "name": str(c)} for c in range(1, NUM_CATEGORIES + 1)],
        "annotations": [{**a, "id": a["id"] + 1} for a in annotations],
    }
    paths = folder / "truth.json", folder / "found.json"
    for path, content in zip(paths, (document, results), strict=True):
        path.write_text(json.dumps(content))
    return paths


def _pycocotools(truth: Path, found: Path) -> np.ndarray:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        coco = COCO(str(truth))
        evaluation = COCOeval(coco, coco.loadRes(str(found)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def _captions() -> list[Figure]:
    rng = np.random.default_rng(0)
    words = np.array(["".join(rng.choice(list("etaoinshrdlu"), rng.integers(2, 9))) for _ in range(8000)])
    frequency = 1 / np.arange(1, len(words) + 1)
    drawn = rng.choice(len(words), (NUM_CAPTIONED * (NUM_REFERENCES + 1), 11), p=frequency / frequency.sum())
    lengths = rng.integers(7, 12, len(drawn))
    ends = np.array([".", "", " .", ", too.", "!"])[rng.choice(5, len(drawn), p=[0.5, 0.35, 0.1, 0.04, 0.01])]
    texts = [
        " ".join(words[row[:length]]).capitalize() + end for row, length, end in zip(drawn, lengths, ends, strict=True)
    ]

    def score() -> None:
        tokens = tokenize_all(texts)
        references = [tokens[i * NUM_REFERENCES : (i + 1) * NUM_REFERENCES] for i in range(NUM_CAPTIONED)]
        measured = CaptionMetrics(references).measure(tokens[NUM_CAPTIONED * NUM_REFERENCES :])
        results.append(measured)

    results: list = []
    seconds, _ = timed(score)
    drawn_again, _ = timed(lambda: intervals(results[-1:]))
    size = f"{NUM_CAPTIONED:,} captions, {NUM_REFERENCES} references each"
    return [
        Figure(what=f"tokens, BLEU, ROUGE-L, CIDEr-D of {size}", value=seconds, goal="< 30 s"),
        Figure(what=f"1,000 resamples of {size}", value=drawn_again),
    ]


def _vqa() -> list[Figure]:
    rng = np.random.default_rng(0)
    answers = np.array(["yes", "no", "2", "two", "a dog", "red.", "on the table", "blue and white", "none", "left"])
    drawn = answers[rng.integers(0, 10, (NUM_QUESTIONS, 11)) % rng.integers(1, 11, (NUM_QUESTIONS, 1))].tolist()
    items = [
        Answered(answer=row[0], annotations=row[1:], answer_type="other", question_type=str(i % 65))
        for i, row in enumerate(drawn)
    ]
    seconds, measured = timed(lambda: measure_vqa(items, [i // 5 for i in range(len(items))]))
    drawn_again, _ = timed(lambda: intervals([measured]))
    return [
        Figure(what=f"VQA accuracy of {NUM_QUESTIONS:,} questions", value=seconds),
        Figure(what=f"1,000 resamples of {NUM_QUESTIONS // 5:,} images with these", value=drawn_again),
    ]


def _segmentation() -> list[Figure]:
    matrices = np.random.default_rng(0).integers(0, 1000, (1449, 21, 21))
    seconds, _ = timed(lambda: intervals([measure_segmentation(matrices)]))
    return [Figure(what="1,000 resamples of 1,449 confusion matrices of 21 classes", value=seconds)]
