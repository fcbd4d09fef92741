"""A photo with a question and candidates, from the command line and from a served model's row."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from contracts.records import DataSpec
from pipeline.training.checkpoints import build_module, save_best
from tests.command import sightline

pytestmark = pytest.mark.filterwarnings("default")  # MLflow's own

WORDS = [[word, 9] for word in ("what", "which", "red", "green", "dark")]
MODELS = {
    "telling": ("visual7w_lstm", {"context_channels": 8, "attention_channels": 8}),
    "pointing": ("region_pointer", {}),
}


def checkpoint(folder: Path, task: str, monkeypatch: pytest.MonkeyPatch) -> str:
    name, more = MODELS[task]
    plain = {"task_name": task, "task": {"image_size": 32}, "model_name": name}
    plain["model"] = {"embedding_channels": 8, "hidden_channels": 8, **more}
    run = {"name": task, "dataset": "d", **plain, "train": {"optimizer": {}, "seed": 0}}
    data = DataSpec(dataset="d", classes=(), vocabulary={f"{task}_questions": WORDS})
    module = build_module(run, data)
    save_best(folder / "r.ckpt", run=run, data=data, weights=module.state_dict(), info={})
    cv2.imwrite(str(folder / "photo.jpg"), np.full((40, 60, 3), 90, np.uint8))
    monkeypatch.chdir(folder)
    return "r.ckpt"


def predicted(capsys: pytest.CaptureFixture, *arguments: str) -> dict[str, Any]:
    assert sightline("predict", list(arguments)) == 0
    (found,) = json.loads(capsys.readouterr().out)["predictions"]
    return found


def refused(capsys: pytest.CaptureFixture, *arguments: str, code: int = 2) -> str:
    """2: what the command line says cannot be; 1: it does not fit this image."""
    assert sightline("predict", list(arguments)) == code
    return capsys.readouterr().err


def test_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    model = checkpoint(tmp_path, "telling", monkeypatch)
    asked = [model, "photo.jpg", "--question", "What is it?"]
    found = predicted(capsys, *asked, "--candidates", "red | dark green |green")
    (answer,) = found["answers"]
    assert {c["answer"] for c in answer["candidates"]} == {"red", "dark green", "green"}
    scores = [c["score"] for c in answer["candidates"]]
    assert scores == sorted(scores, reverse=True)
    assert cv2.imread(found["picture"]).shape[1] == 420
    assert "candidates are missing" in refused(capsys, *asked)
    assert "takes no boxes" in refused(capsys, *asked, "--candidates", "a|b", "--boxes", "1,2,3,4")
    assert "nothing to choose from" in refused(capsys, *asked, "--candidates", "red", code=1)
    assert "two equal candidates" in refused(capsys, *asked, "--candidates", "red | red", code=1)


def test_boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    model = checkpoint(tmp_path, "pointing", monkeypatch)
    asked = [model, "photo.jpg", "--question", "Which is red?"]
    found = predicted(capsys, *asked, "--boxes", "-1,0,20,20 | 30,10,80,40")
    (answer,) = found["answers"]
    assert {c["answer"] for c in answer["candidates"]} == {"0", "1"}, "boxes are counted"
    assert cv2.imread(found["picture"]) is not None
    assert "a box is four numbers" in refused(capsys, *asked, "--boxes", "1,2,3")
    assert "wholly outside the image" in refused(capsys, *asked, "--boxes", "0,0,5,5 | 200,0,220,9", code=1)


def test_a_served_model_takes_them_as_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.tracking.registry import columns_of
    from pipeline.tracking.served_model import ServedModel

    model = checkpoint(tmp_path, "telling", monkeypatch)
    assert [column.type.name for name in ("candidates", "boxes") for column in columns_of(name)] == ["string"] * 2
    served, context = ServedModel(), SimpleNamespace(artifacts={"checkpoint": model})
    served.load_context(context)  # type: ignore[arg-type]
    row = {"image": (tmp_path / "photo.jpg").read_bytes(), "question": "What?", "candidates": "red | green"}
    (answer,) = json.loads(served.predict(context, pd.DataFrame([row]))[0])  # type: ignore[arg-type]
    assert len(answer["candidates"]) == 2
