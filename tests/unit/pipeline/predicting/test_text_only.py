"""A task without an image, in files of its own: from a checkpoint to an answer, a picture and a served model."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import pandas as pd
import pytest
import yaml

from contracts.errors import ConfigError
from tests.command import sightline
from tests.own_task import own_checkpoint

pytestmark = pytest.mark.filterwarnings("default")  # MLflow's own

TASK = """
from dataclasses import dataclass
import torch
from lightning_modules.base.families import ClassifierSpec
from lightning_modules.base.task import BaseTask, Item

class Task(BaseTask):
    @dataclass(frozen=True, kw_only=True)
    class Config:
        pass

    inputs, spec_class, metric = ("source",), ClassifierSpec, "right"

    def spec(self):
        return ClassifierSpec(num_classes=2)

    def encode(self, record, seed):
        return {"words": record.sentence("source").text.split()}

    def items(self, record):
        count = len(self.encode(record, None)["words"])
        return [Item(f"{record.key}/{i}", record.key, record.group) for i in range(count)]

    def collate(self, examples):
        return {"words": [word for example in examples for word in example["words"]]}

    def predict(self, model, batch):
        lengths = torch.tensor([[float(len(word))] for word in batch["words"]])
        return [{"word": w, "length": round(v)} for w, v in zip(batch["words"], model(lengths).flatten().tolist())]

    def answer(self, prediction):
        return prediction

    def losses(self, model, batch): ...
    def truths(self, record): ...
    def metrics(self, *, thorough=False): ...
"""
REPORT = """
from lightning_modules.drawing import text as draw
from lightning_modules.reports._report import BaseReport

class Report(BaseReport):
    def constant(self, truths): ...

    def picture(self, record, predictions, truths):
        return draw.text_block([(f"{p['word']}: {p['length']}", draw.BLACK) for p in predictions], 200)
"""


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return own_checkpoint(tmp_path, monkeypatch, "wordlength", task=TASK, report=REPORT)


WORDS = [{"word": "ein", "length": 3}, {"word": "langer", "length": 6}]


def test_a_sentence_is_answered_word_by_word_and_drawn(checkpoint: Path, capsys: pytest.CaptureFixture) -> None:
    assert sightline("predict", [str(checkpoint), "--source", "ein langer", "--label", "mine"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["predictions"]
    assert found == {"source": "ein langer", "answers": WORDS, "picture": "predictions/source.mine.png"}
    picture = cv2.imread(found["picture"])
    assert picture.shape[1] == 200 and picture.min() < 100
    assert sightline("predict", [str(checkpoint)]) == 2
    assert "a source is missing" in capsys.readouterr().err
    cv2.imwrite("a.png", picture)
    assert sightline("predict", [str(checkpoint), "a.png", "--source", "x"]) == 2
    assert "this model takes no image" in capsys.readouterr().err


def test_the_served_model_has_the_tasks_inputs_as_columns(checkpoint: Path, tmp_path: Path) -> None:
    from pipeline.tracking.registry import save_model
    from pipeline.tracking.served_model import ServedModel

    save_model(checkpoint, tmp_path / "model")
    signature = yaml.safe_load((tmp_path / "model" / "MLmodel").read_text())["signature"]
    assert json.loads(signature["inputs"]) == [{"type": "string", "name": "source", "required": True}]
    served = ServedModel()
    context = SimpleNamespace(artifacts={"checkpoint": str(checkpoint)})
    served.load_context(context)
    rows = served.predict(context, pd.DataFrame([{"source": "ein langer"}, {"source": "ein"}]))
    assert [json.loads(row) for row in rows] == [WORDS, WORDS[:1]]
    with pytest.raises(ConfigError, match="a source is missing"):
        served.predict(context, pd.DataFrame([{"source": None}]))
    with pytest.raises(ConfigError, match="takes no question"):
        served.predict(context, pd.DataFrame([{"source": "x", "question": "y"}]))
