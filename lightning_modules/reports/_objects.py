"""What the reports of detection and instance segmentation have in common. Predictions and truths: `ObjectTask`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from contracts.records import Record
from lightning_modules.augment.images import decode_record
from lightning_modules.base.object_task import ObjectTask
from lightning_modules.base.task import Prediction, Truth
from lightning_modules.drawing.shapes import draw_objects, panels
from lightning_modules.metrics.objects import IouType, object_confusion
from lightning_modules.ops.masks import decode_masks, encode_masks, fill_boxes
from lightning_modules.reports import _plots
from lightning_modules.reports._plots import Plot
from lightning_modules.reports._report import BaseReport


class ObjectReport(BaseReport[ObjectTask]):
    def picture(self, record: Record, predictions: Sequence[Prediction], truths: Sequence[Truth] | None) -> np.ndarray:
        (prediction,) = predictions
        task, image = self.task, decode_record(record)
        shown = np.flatnonzero(prediction["scores"] >= task.config.picture_score)
        texts = [f"{task.class_name(prediction['labels'][i])} {prediction['scores'][i]:.2f}" for i in shown]
        drawn = [self._draw(image, prediction, shown, texts)]
        titles = [f"predicted (score >= {task.config.picture_score:g})"]
        if truths is not None:
            (truth,) = truths
            texts = [task.class_name(label) + _flags(truth, i) for i, label in enumerate(truth["labels"])]
            drawn.append(self._draw(image, truth, np.arange(len(texts)), texts))
            titles.append("truth")
        return panels(drawn, titles)

    def _draw(self, image: np.ndarray, objects: Mapping[str, Any], shown: np.ndarray, texts: list[str]) -> np.ndarray:
        masks = None
        if self.task.with_masks:
            counts = [objects["masks"][i] for i in shown]
            masks = np.zeros((len(counts), *image.shape[:2]), np.uint8)
            has_mask = [i for i, text in enumerate(counts) if text]
            masks[has_mask] = decode_masks([counts[i] for i in has_mask], image.shape[:2])
        return draw_objects(image, objects["boxes"][shown], objects["labels"][shown], texts, masks)

    def constant(self, truths: Mapping[str, Truth]) -> dict[str, Prediction]:
        """On every image, for each class the mean box (as fractions of the size) with the class's share of all
        objects as score."""
        boxes = [t["boxes"] / np.array([*t["size"][::-1]] * 2, np.float32) for t in truths.values()]
        all_boxes = np.concatenate(boxes or [np.zeros((0, 4), np.float32)])
        all_labels = np.concatenate([t["labels"] for t in truths.values()] or [np.zeros(0, np.int64)])
        counts = np.bincount(all_labels, minlength=len(self.task.data.classes) + 1)
        labels = np.argsort(-counts, kind="stable")
        labels = labels[counts[labels] > 0]
        means = np.array([all_boxes[all_labels == label].mean(axis=0) for label in labels], np.float32).reshape(-1, 4)
        scores = (counts[labels] / max(1, counts.sum())).astype(np.float32)
        return {key: self._constant_one(means, labels, scores, truth["size"]) for key, truth in truths.items()}

    def _constant_one(
        self, means: np.ndarray, labels: np.ndarray, scores: np.ndarray, size: tuple[int, int]
    ) -> Prediction:
        boxes = means * np.array([size[1], size[0]] * 2, np.float32)
        prediction: Prediction = {"boxes": boxes, "labels": labels, "scores": scores, "size": size}
        if self.task.with_masks:
            prediction["masks"] = encode_masks(fill_boxes(boxes, size))
        return prediction

    def confusion(self, predictions: Mapping[str, Prediction], truths: Mapping[str, Truth], iou_type: IouType) -> Plot:
        """Objects by true and predicted class, of the detections that are drawn."""
        score, classes = self.task.config.picture_score, self.task.data.classes
        matrix = object_confusion(predictions, truths, len(classes), iou_type, min_score=score)
        title = f"{'masks' if iou_type == 'segm' else 'boxes'}, IoU 0.5, score >= {score:g}"
        return _plots.confusion_of_matrix("confusion", ("background", *classes), matrix, title=title)


def errors(name: str, gains: Mapping[str, float]) -> Plot:
    """TIDE's kinds of errors (`CocoEvaluation.errors`), as what AP50 would gain without them."""
    meanings = {
        "Cls": "wrong class", "Loc": "poor place", "Both": "class and place", "Dupe": "found twice",
        "Bkg": "nothing there", "Miss": "missed", "FP": "all false positives", "FN": "all not found",
    }  # fmt: skip
    rows = [(meanings[kind], kind, gain) for kind, gain in gains.items()]
    title = "What AP50 would gain if one kind of error were mended (TIDE)"
    return _plots.bar(name, ("error", "kind", "ap50_gain"), rows, title=title)


def _flags(truth: Truth, index: int) -> str:
    return " (crowd)" * bool(truth["is_crowd"][index]) + " (difficult)" * bool(truth["is_difficult"][index])
