"""Every official metric with items whose numbers are known: golden folders where there are some, else hand-made."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lightning_modules.metrics.alignment import AlignmentScores
from lightning_modules.metrics.caption_scores import CaptionScores
from lightning_modules.metrics.coco_map import STAT_NAMES
from lightning_modules.metrics.item_metric import ItemMetric
from lightning_modules.metrics.mean_ap import CocoMeanAP, VOCMeanAP
from lightning_modules.metrics.multilabel import MultilabelMeanAP
from lightning_modules.metrics.proposal_recall import ProposalRecall
from lightning_modules.metrics.question_accuracy import Visual7WAccuracy, VQAAccuracy
from lightning_modules.metrics.segmentation_scores import SegmentationScores
from lightning_modules.metrics.text_scores import RecognitionScores, TranslationScores
from lightning_modules.metrics.top_accuracy import TopAccuracy
from lightning_modules.metrics.translation_scores import TokenPerplexity, TranslationByLength
from pipeline.ingest.door.masks import segmentation_to_counts
from tests.golden_coco import BOX, SEGM

Items = list[dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """`expected` are official numbers, or some of them, to `within`."""

    metric: type[ItemMetric]
    arguments: dict[str, Any]
    predictions: Items
    truths: Items
    expected: dict[str, float]
    within: float = 1e-9

    def build(self, **settings: Any) -> Any:
        return self.metric(**self.arguments, **settings)


def cases(shared: Path) -> dict[str, Case]:
    """By name."""
    makers: dict[str, Callable[[Path], Case]] = {
        "coco_boxes": lambda golden: coco(golden, "bbox"),
        "coco_masks": lambda golden: coco(golden, "segm"),
        "voc": voc, "captions": captions, "vqa": vqa, "visual7w": visual7w, "segmentation": segmentation,
        "translation": translation, "recognition": recognition, "classes": classes, "videos": videos,
        "proposals": proposals, "alignment": alignment, "by_length": by_length, "perplexity": perplexity,
        "multilabel": multilabel,
    }  # fmt: skip
    return {name: maker(shared / "golden") for name, maker in makers.items()}


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def coco(golden: Path, iou_type: str) -> Case:
    folder = golden / "coco_bbox_segm_val2014_100"
    document = read(folder / "instances_val2014_100.json")
    results = read(folder / f"instances_val2014_fake{iou_type}100_results.json")
    names = [c["name"] for c in sorted(document["categories"], key=lambda c: c["id"])]
    labels = {c["id"]: names.index(c["name"]) + 1 for c in document["categories"]}

    def columns(rows: list[Any], height: int, width: int) -> dict[str, Any]:
        boxes = np.array([row.get("bbox", [0, 0, 1, 1]) for row in rows], np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        out = {"boxes": boxes, "labels": np.array([labels[row["category_id"]] for row in rows], np.int64)}
        if iou_type == "segm":
            out["masks"] = [segmentation_to_counts(r["segmentation"], height, width, Counter()) for r in rows]
        return out

    predictions, truths = [], []
    for image in document["images"]:
        height, width = image["height"], image["width"]
        found = [row for row in results if row["image_id"] == image["id"]]
        real = [row for row in document["annotations"] if row["image_id"] == image["id"]]
        scores = np.array([row["score"] for row in found])
        predictions.append({"id": image["id"], "scores": scores, **columns(found, height, width)})
        truths.append({
            "id": image["id"], "size": (height, width), "areas": np.array([row["area"] for row in real]),
            "is_crowd": np.array([row["iscrowd"] for row in real], bool), **columns(real, height, width),
        })  # fmt: skip
    expected = dict(zip(STAT_NAMES, BOX if iou_type == "bbox" else SEGM, strict=True))
    return Case(CocoMeanAP, {"class_names": names, "iou_type": iou_type}, predictions, truths, expected)


def voc(golden: Path) -> Case:
    folder = golden / "official/voc"
    case, results = read(folder / "synth.json"), read(folder / "expected.json")["results"]
    of_set = {r["class"]: r for r in results if r["set"] == "synth" and r["iou"] == 0.5}
    names, to_edges = sorted(of_set), np.array([0, 0, 1, 1])
    predictions, truths = [], []
    for image in case["images"]:
        found = [row[1:] for row in case["dt"] if row[0] == image]
        real = [row[1:] for row in case["gt"] if row[0] == image]
        predictions.append({
            "id": image, "labels": np.array([names.index(row[0]) + 1 for row in found], np.int64),
            "scores": np.array([row[1] for row in found]),
            "boxes": np.array([row[2:6] for row in found], np.float64).reshape(-1, 4) + to_edges,
        })  # fmt: skip
        truths.append({
            "id": image, "labels": np.array([names.index(row[0]) + 1 for row in real], np.int64),
            "boxes": np.array([row[1:5] for row in real], np.float64).reshape(-1, 4) + to_edges,
            "is_difficult": np.array([row[5] for row in real], bool),
        })  # fmt: skip
    official = {"mAP_2007": "ap_11point_voc2007", "mAP_2010": "ap_allpoint_voc2010"}
    present = [row for row in of_set.values() if row["ap_allpoint_voc2010"] is not None]
    expected = {name: float(np.mean([row[key] for row in present])) for name, key in official.items()}
    return Case(VOCMeanAP, {"class_names": names}, predictions, truths, expected, 1e-12)


def captions(golden: Path) -> Case:
    folder = golden / "official/captions"
    texts: dict[int, list[str]] = {}
    for annotation in read(folder / "captions_val2014_1000_gt.json")["annotations"]:
        texts.setdefault(annotation["image_id"], []).append(annotation["caption"])
    given = {r["image_id"]: r["caption"] for r in read(folder / "captions_val2014_fakecap_results.json")}
    ids = read(folder / "per_image_fakecap.json")["ids"]
    expected = read(folder / "expected.json")["recomputed"]["fakecap"]
    names = ("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr")
    predictions = [{"id": i, "caption": given[i]} for i in ids]
    truths = [{"id": i, "captions": texts[i]} for i in ids]
    return Case(CaptionScores, {}, predictions, truths, {name: expected[name] for name in names}, 1e-12)


def vqa(golden: Path) -> Case:
    document = read(golden / "official/vqa/golden_vqa.json")
    expected = document["expected"]
    nested = {f"{kind}/{k}": v for kind in ("perAnswerType", "perQuestionType") for k, v in expected[kind].items()}
    predictions = [{"id": item["question_id"], "answer": item["answer"]} for item in document["items"]]
    truths = [
        {"id": item["question_id"], "group": item["question_id"] // 3, "answers": item["answers"],
         "answer_type": item["answer_type"], "question_type": item["question_type"]}
        for item in document["items"]
    ]  # fmt: skip
    return Case(VQAAccuracy, {}, predictions, truths, {"overall": expected["overall"], **nested})


def visual7w(golden: Path) -> Case:
    document = read(golden / "official/v7w/golden_visual7w.json")
    chosen = [{"id": r["qa_id"], "answer": r["candidates"][0]["answer"]} for r in document["results"]]
    pairs = {pair["qa_id"]: pair for pair in document["pairs"]}
    truths = [
        {"id": p["id"], "answer": pairs[p["id"]]["answer"], "question_type": pairs[p["id"]]["type"]} for p in chosen
    ]
    return Case(Visual7WAccuracy, {}, chosen, truths, {})


def segmentation(golden: Path) -> Case:
    case, expected = (read(golden / "official/seg" / name) for name in ("seg.json", "expected.json"))
    predictions, truths = [], []
    for image, maps in case["images"].items():
        truths.append({"id": image, "label_map": np.array(maps["gt"], np.uint8)})
        predictions.append({"id": image, "label_map": np.array(next(maps[n] for n in maps if n != "gt"), np.uint8)})
    numbers = {
        "mean_iou": expected["miou_percent"] / 100,
        "pixel_accuracy": expected["pixel_accuracy"],
        "mean_class_accuracy": expected["mean_class_accuracy"],
    }
    return Case(SegmentationScores, {"num_classes": 5}, predictions, truths, numbers, 1e-12)


def translation(golden: Path) -> Case:
    folder, system = golden / "bleu_wmt17_en_de", "newstest2017.uedin-nmt.4722.en-de"
    expected = read(folder / "expected.json")[system]
    files = (folder / f"systems/{system}.txt", folder / "newstest2017-ref.de")
    given, wanted = (f.read_bytes().decode().removesuffix("\n").split("\n") for f in files)
    predictions = [{"id": i, "text": line} for i, line in enumerate(given)]
    truths = [{"id": i, "references": [line]} for i, line in enumerate(wanted)]
    numbers = {"BLEU": expected["BLEU_13a_cased"], "chrF2": expected["chrF2"]}
    return Case(TranslationScores, {}, predictions, truths, numbers, 1e-10)


def recognition(golden: Path) -> Case:
    pairs = [("hello", "hallo"), ("a  b", "a b"), ("abc", ""), ("é", "e\u0301"), ("one two", "one two")]
    return Case(
        RecognitionScores, {},
        [{"id": f"line{i}", "text": read} for i, (_, read) in enumerate(pairs)],
        [{"id": f"line{i}", "text": wanted} for i, (wanted, _) in enumerate(pairs)],
        {"CER": (1 + 1 + 3) / 20, "WER": 2 / 7, "word_accuracy": 2 / 5, "1-NED": 1 - (0.2 + 0.25 + 1) / 5}, 1e-12,
    )  # fmt: skip


def classes(golden: Path) -> Case:
    rows = [
        ([0.1, 0.7, 0.2, 0, 0, 0], 1),
        ([0.5, 0.5, 0, 0, 0, 0], 1),
        ([1, 2, 3, 4, 5, 6], 0),
        ([9, 0, 0, 0, 0, 0], 0),
    ]
    return Case(TopAccuracy, {}, *_scored(rows, list(range(4))), {"top1": 2 / 4, "top5": 3 / 4})


def videos(golden: Path) -> Case:
    rows = [([0, 9, 1], 1), ([5, 0, 1], 1), ([2, 0, 1], 0), ([1, 0, 2], 0)]
    expected = {"clip_top1": 2 / 4, "video_top1": 1.0, "clip_top5": 1.0, "video_top5": 1.0}
    return Case(TopAccuracy, {"videos": True}, *_scored(rows, ["a", "a", "b", "b"]), expected)


def _scored(rows: list[Any], groups: list[Any]) -> tuple[Items, Items]:
    predictions = [{"id": i, "scores": np.array(scores, np.float32)} for i, (scores, _) in enumerate(rows)]
    return predictions, [{"id": i, "label": row[1], "group": groups[i]} for i, row in enumerate(rows)]


def proposals(golden: Path) -> Case:
    objects = {"a": [[0, 0, 10, 10], [20, 0, 30, 10]], "b": [[0, 0, 10, 10]], "c": []}
    found = {"a": [[0, 0, 10, 10], [20, 0, 30, 8]], "b": [[50, 50, 60, 60], [0, 0, 10, 10]], "c": [[0, 0, 5, 5]]}
    predictions = [{"id": key, "boxes": np.array(boxes, np.float32)} for key, boxes in found.items()]
    truths = [
        {"id": key, "boxes": np.array(boxes, np.float32).reshape(-1, 4), "labels": np.arange(len(boxes))}
        for key, boxes in objects.items()
    ]
    expected = {"recall_50@1": 1 / 3, "recall_50@2": 1.0, "recall_70@2": 1.0, "AR@2": (1 + 0.6 + 1) / 3, "MABO@1": 0.25}
    return Case(ProposalRecall, {"counts": (1, 2)}, predictions, truths, expected, 1e-6)


def alignment(golden: Path) -> Case:
    """Both pairs together: |A & S| 3, |A & P| 3 of |A| 5, |S| 4."""
    rows = {"a": ([(1, 1), (2, 2), (3, 2)], [(1, 1), (2, 2)], [(3, 3)]), "b": ([(0, 0), (1, 0)], [(0, 0), (2, 1)], [])}
    predictions = [{"id": key, "links": np.array(found)} for key, (found, _, _) in rows.items()]
    truths = [
        {"id": key, "links": np.array(sure), "possible_links": np.array(possible).reshape(-1, 2)}
        for key, (_, sure, possible) in rows.items()
    ]
    return Case(AlignmentScores, {}, predictions, truths, {"AER": 1 - 6 / 9, "alignment_recall": 3 / 4})


def by_length(golden: Path) -> Case:
    texts = [("a b c d", 4), ("q w e r t", 7), ("a b c d e f", 9)]
    predictions = [{"id": i, "text": text} for i, (text, _) in enumerate(texts)]
    truths = [{"id": i, "references": [text], "length": length} for i, (text, length) in enumerate(texts)]
    expected = {"BLEU/length 1-5": 100.0, "BLEU/length over 5": 100.0}
    return Case(TranslationByLength, {"bins": (5,)}, predictions, truths, expected)


def perplexity(golden: Path) -> Case:
    predictions = [{"id": i, "nll": np.log(2.0) * count, "num_tokens": count} for i, count in enumerate((3, 9))]
    return Case(TokenPerplexity, {}, predictions, [{"id": 0}, {"id": 1}], {"perplexity": 2.0})


def multilabel(golden: Path) -> Case:
    """Of `cat`, two right ones, the second behind a wrong one, and above all what counts for nothing; of `dog`, the
    right one in a tie of two; `cow` is nowhere."""
    rows = {
        "a": ([0.9, 0.5, 0.1], [1, -1, -1]), "b": ([0.8, 0.5, 0.1], [-1, 1, -1]), "c": ([0.7, 0.1, 0.9], [1, -1, -1]),
        "d": ([1.0, 0.9, 0.1], [0, 0, -1]),
    }  # fmt: skip
    predictions = [{"id": key, "probs": np.array(probs, np.float32)} for key, (probs, _) in rows.items()]
    truths = [{"id": key, "labels": np.array(labels, np.int8)} for key, (_, labels) in rows.items()]
    cat, dog = (1 / 2 + 1 / 2 * 2 / 3, (6 * 1 + 5 * 2 / 3) / 11), (1 / 2, 1 / 2)
    expected = {"mAP_2010": (cat[0] + dog[0]) / 2, "mAP_2007": (cat[1] + dog[1]) / 2, "AP/cat": cat[0], "AP/dog": 1 / 2}
    return Case(MultilabelMeanAP, {"class_names": ["cat", "dog", "cow"], "each": True}, predictions, truths, expected)
