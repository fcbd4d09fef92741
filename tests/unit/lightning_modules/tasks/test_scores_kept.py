"""Scores and intervals of every task on the tiny data sets, for predictions that a rule makes: numbers kept digit by
digit. They were computed once, by the code that packed all predictions of an image into one; a change of how
predictions are keyed, gathered or drawn again must not move them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from contracts.records import Record
from lightning_modules.augment.images import decode_semantic
from lightning_modules.base.task import BaseTask
from lightning_modules.metrics.bootstrap import intervals
from lightning_modules.metrics.measurement import values_of
from lightning_modules.reports._report import BaseReport
from pipeline.settings.params import load_params
from pipeline.shards.reader import SplitReader
from pipeline.training.checkpoints import build_task
from pipeline.training.reports import build_report
from pipeline.training.runs import load_run

GOLDEN = Path(__file__).with_name("scores.json")
RUNS = [("tiny_project", name) for name in ("captioning", "vqa", "segmentation", "detection", "instances")]
RUNS.append(("flags_project", "classification"))


def captions(task: BaseTask, records: list[Record]) -> dict[str, Any]:
    """The first caption of the image before."""
    texts = [record.captions[0].text for record in records[-1:] + records[:-1]]
    return {r.key: {"caption": t, "words": t.split()} for r, t in zip(records, texts, strict=True)}


def answers(task: Any, records: list[Record]) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {item.id: {"answer": task.answers[rng.integers(4)]} for r in records for item in task.items(r)}


def label_maps(task: BaseTask, records: list[Record]) -> dict[str, Any]:
    """The truth, three pixels to the right."""
    maps = {r.key: np.roll(np.where((m := decode_semantic(r.semantic_mask)) == 255, 0, m), 3, axis=1) for r in records}
    return {key: {"label_map": cv2.imencode(".png", m.astype(np.uint8))[1].tobytes()} for key, m in maps.items()}


def objects(task: Any, records: list[Record]) -> dict[str, Any]:
    """The true objects, boxes jittered, one label in four another, masks of the object before."""
    rng, out = np.random.default_rng(1), {}
    for record in records:
        o = record.objects
        labels = np.where(rng.random(len(o)) < 0.25, rng.integers(1, len(task.data.classes) + 1, len(o)), o.labels)
        order = rng.permutation(len(o))
        out[record.key] = {
            "boxes": np.clip(o.boxes + rng.normal(0, 2, o.boxes.shape), 0, 64).astype(np.float32)[order],
            "labels": labels[order],
            "scores": np.sort(rng.random(len(o)).astype(np.float32))[::-1],
            "size": (record.height, record.width),
            "masks": [o.masks[i] for i in order],
        }
    return out


def probabilities(task: Any, records: list[Record]) -> dict[str, Any]:
    rng = np.random.default_rng(2)
    return {r.key: {"probs": rng.dirichlet(np.ones(len(task.data.classes))).astype(np.float32)} for r in records}


RULES = {
    "captioning": captions,
    "vqa": answers,
    "segmentation": label_maps,
    "detection": objects,
    "instances": objects,
    "classification": probabilities,
}


def measured(task: BaseTask, report: BaseReport, records: list[Record], predictions: dict[str, Any]) -> dict[str, Any]:
    items = [item for record in records for item in task.items(record)]
    groups = {item.id: item.group for item in items}
    truths = dict(zip(groups, (truth for record in records for truth in task.truths(record)), strict=True))
    measurements = task.measure(predictions, truths, groups)
    constant = task.measure(report.constant(truths), truths, groups)
    return {
        "scores": task.score(predictions, truths),
        "intervals": intervals(measurements),
        "constant": values_of(constant),
        "constant_intervals": intervals(constant),
        "counted": [[m.num_items, m.unit] for m in measurements],
    }


@pytest.mark.parametrize(("project", "run"), RUNS)
def test_every_digit_is_kept(request, project, run):
    made = request.getfixturevalue(project)
    data = load_run(made, load_params(made.root), run)
    task = build_task(data.run.to_dict(), data.spec)
    report = build_report(data.run.to_dict(), task)
    reader = SplitReader(made.shards(data.run.dataset), data.manifest, "val")
    records = [reader.read(int(i)) for i in reader.select(task.eval_requires)]
    records.sort(key=lambda record: record.key)
    found = json.loads(json.dumps(measured(task, report, records, RULES[run](task, records))))
    kept = json.loads(GOLDEN.read_text())[run]
    assert found.keys() == kept.keys() and found["counted"] == kept["counted"]
    for name in found.keys() - {"counted"}:
        assert found[name].keys() == kept[name].keys()
        for metric, value in found[name].items():
            # Of a number's sixteen digits the last is the processor's: its exp and log.
            assert value == pytest.approx(kept[name][metric], rel=1e-13, abs=1e-15), (name, metric)
