"""A project with trained runs whose model answers at once: what is tested is everything around it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from contracts.errors import DataError
from contracts.inputs import InputName
from contracts.records import Record
from lightning_modules.augment.images import decode_record
from lightning_modules.base.object_task import ObjectConfig
from pipeline.training import predictor
from pipeline.training.predictor import Predictor

SIZES: list[int] = []  # of the batches


class FakePredictor(Predictor):
    """A trained run that answers with the image's size and draws its mean color; its inputs are checked as any's."""

    def __init__(self, asks: bool):
        self.run = {"name": "a_run", "task_name": "vqa" if asks else "detection"}
        self.module: Any = torch.nn.Identity()
        self.module.task = SimpleNamespace(config=ObjectConfig() if not asks else None)

    @property
    def inputs(self) -> tuple[InputName, ...]:
        return ("image", "question") if self.run["task_name"] == "vqa" else ("image",)

    def predict_all(self, records: Sequence[Record]) -> list[list[dict[str, Any]]]:
        SIZES.append(len(records))
        if len(records) > 1 and any(record.width == 7 for record in records):
            raise DataError("an image of this width spoils its batch")
        return [[self._predicted(record)] for record in records]

    def _predicted(self, record: Record) -> dict[str, Any]:
        mean = decode_record(record).reshape(-1, 3).mean(0)
        return {"size": (record.height, record.width), "asked": [q.text for q in record.questions], "mean": mean}

    def answers(self, predictions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"size": list(p["size"]), "asked": p["asked"]} for p in predictions]

    def picture(self, record: Record, predictions: Sequence[dict[str, Any]]) -> np.ndarray:
        return np.broadcast_to(predictions[0]["mean"].astype(np.uint8), (8, 9, 3))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with two trained runs and one red image."""
    monkeypatch.chdir(tmp_path)
    for run in ("a_run", "asks"):
        (tmp_path / "artifacts" / run).mkdir(parents=True)
        (tmp_path / "artifacts" / run / "best.ckpt").touch()
        record = {"run_id": "1", "git_commit": "", "git_changed": [], "code": "0" * 64, "manifest_digest": "0" * 64}
        record["fingerprint"] = "0" * 64
        record["checkpoint_sha256"] = hashlib.sha256(b"").hexdigest()
        (tmp_path / "artifacts" / run / "run.json").write_text(json.dumps(record))
    red = np.zeros((20, 30, 3), np.uint8)
    red[..., 2] = 200  # OpenCV writes blue, green, red
    (tmp_path / "other").mkdir()
    for path in (tmp_path / "red.png", tmp_path / "other" / "red.png"):
        cv2.imwrite(str(path), red)
    monkeypatch.setattr(predictor, "load_predictor", lambda path: FakePredictor(path.parent.name == "asks"))
    return tmp_path


@pytest.fixture
def sizes(folder: Path) -> list[int]:
    """Of the batches that the model got."""
    SIZES.clear()
    return SIZES
