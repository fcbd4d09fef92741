"""A trained model for single inputs: what `pipeline.predicting.predict` and the registered model run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from contracts.inputs import InputName, check_inputs, text_parts
from contracts.records import Record
from lightning_modules.base.module import TaskModule
from lightning_modules.base.task import Prediction
from pipeline.ingest.door import upright_image
from pipeline.training.checkpoints import load_module
from pipeline.training.reports import build_report


@dataclass
class Predictor:
    """A trained model for single inputs, without data set, Ray or MLflow."""

    module: TaskModule
    run: dict[str, Any]

    @property
    def inputs(self) -> tuple[InputName, ...]:
        """What it is asked with (`BaseTask.inputs`)."""
        return self.module.task.inputs

    def record(self, given: Mapping[str, bytes | str]) -> Record:
        """The inputs, by name, as a record without annotations: an image as the bytes of its file, texts as they are.

        Raises:
            ConfigError: an input is missing, or this model does not take it.
            DataError: the image cannot be decoded.
        """
        check_inputs(given, self.inputs, f"run {self.run['name']} ({self.run['task_name']})")
        parts = text_parts(given)
        if isinstance(image := given.get("image"), bytes):
            clean = upright_image(image)
            parts |= {"width": clean.width, "height": clean.height, "image": clean.data, "image_format": clean.format}
        return Record(key="input", image_id=0, **parts)

    def predict(self, record: Record) -> list[Prediction]:
        """One prediction for each of the record's items."""
        task = self.module.task
        batch = task.collate([task.encode(record, None)])
        batch["keys"] = [record.key]
        with torch.inference_mode():
            return task.predict(self.module.model, batch)

    def answers(self, predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
        """JSON values, one a prediction."""
        return [self.module.task.answer(prediction) for prediction in predictions]

    def picture(self, record: Record, predictions: Sequence[Prediction]) -> np.ndarray:
        """(h, w, 3) uint8 RGB drawing of the predictions."""
        return build_report(self.run, self.module.task).picture(record, predictions, None)


def load_predictor(checkpoint: Path) -> Predictor:
    """A predictor from a best checkpoint."""
    module, document = load_module(checkpoint)
    return Predictor(module, document["run"])
