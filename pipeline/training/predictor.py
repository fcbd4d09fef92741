"""A trained model for single images: what `pipeline.predicting.predict` and the registered model run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from contracts.records import Question, Record
from lightning_modules.base.module import TaskModule
from lightning_modules.base.task import Prediction
from pipeline.ingest.door import upright_image
from pipeline.training.checkpoints import load_module
from pipeline.training.reports import build_report


@dataclass
class Predictor:
    """A trained model for single images, without data set, Ray or MLflow."""

    module: TaskModule
    run: dict[str, Any]

    @property
    def takes_question(self) -> bool:
        return "num_questions" in self.module.task.requires

    def predict(self, image: bytes, question: str | None = None) -> Prediction:
        """Predict for one encoded image.

        Raises:
            DataError: the bytes are no image that can be decoded.
        """
        record = _record(image, question)
        task = self.module.task
        batch = task.collate([task.encode(record, None)])
        batch["keys"] = [record.key]
        with torch.inference_mode():
            (prediction,) = task.predict(self.module.model, batch)
            return prediction

    def answer(self, prediction: Prediction) -> dict[str, Any]:
        return self.module.task.answer(prediction)

    def picture(self, image: bytes, prediction: Prediction) -> Any:
        """(h, w, 3) uint8 RGB drawing of the prediction."""
        return build_report(self.run, self.module.task).picture(_record(image), [prediction], None)


def _record(image: bytes, question: str | None = None) -> Record:
    clean = upright_image(image)
    return Record(
        key="image",
        image_id=0,
        width=clean.width,
        height=clean.height,
        image=clean.data,
        image_format=clean.format,
        questions=(Question(question_id=0, text=question),) if question is not None else (),
    )


def load_predictor(checkpoint: Path) -> Predictor:
    """A predictor from a best checkpoint."""
    module, document = load_module(checkpoint)
    return Predictor(module, document["run"])
