"""What the registry asks of a model beyond its score."""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.predicting import conditions
from pipeline.predicting.conditions import LATENCY, REPEATS, WARM, latency_ms, unmet
from pipeline.training.predictor import load_predictor
from tests.local_training import make_checkpoint

IMAGE = cv2.imencode(".png", np.zeros((40, 60, 3), np.uint8))[1].tobytes()

NOWHERE = {"shards": Path("nowhere"), "split": "val"}  # what is not asked for reads nothing


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("conditions") / "best.ckpt"
    make_checkpoint(path, 0)
    return path


def test_a_model_that_takes_too_long_is_told_with_both_numbers(checkpoint: Path) -> None:
    inputs = {"image": IMAGE}
    assert unmet(checkpoint, inputs, {}, **NOWHERE) == ""
    assert unmet(checkpoint, inputs, {LATENCY: 1e6}, **NOWHERE) == ""
    told = unmet(checkpoint, inputs, {LATENCY: 1e-3}, **NOWHERE)
    assert told.startswith("one prediction takes ") and told.endswith("and registry.max_latency_ms is 0.001")


def test_the_median_of_the_predictions_after_the_first_counts(checkpoint: Path, monkeypatch) -> None:
    predictor = load_predictor(checkpoint)
    clock, calls = [0.0], [0]

    def predict(record: object) -> list[object]:
        calls[0] += 1
        clock[0] += 5.0 if calls[0] <= WARM or calls[0] == WARM + 7 else 0.002
        return []

    monkeypatch.setattr(predictor, "predict", predict)
    monkeypatch.setattr(conditions.time, "perf_counter", lambda: clock[0])
    assert latency_ms(predictor, {"image": IMAGE}) == pytest.approx(2.0)
    assert calls[0] == WARM + REPEATS and time.perf_counter() == clock[0]
