"""A trained model for single inputs: what `pipeline.predicting.predict` and the registered model run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning.utilities import move_data_to_device

from contracts.errors import DataError
from contracts.inputs import Clip, Given, InputName, check_inputs, text_parts
from contracts.raw import Problem, RawRecord
from contracts.records import Record
from lightning_modules.base.module import TaskModule
from lightning_modules.base.task import Prediction
from pipeline.ingest.door import RULES, upright_image
from pipeline.ingest.door.choices import clean_questions
from pipeline.ingest.door.images import jpeg_of
from pipeline.ingest.door.pixels import MAX_FRAMES
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

    def record(self, given: Mapping[str, Given]) -> Record:
        """The inputs, by name, as a record without annotations: an image as the bytes of its file, a `Clip`, texts as
        they are.

        Raises:
            ConfigError: an input is missing, or this model does not take it.
            DataError: the image or a frame cannot be decoded, or frames and times are no clip.
        """
        check_inputs(given, self.inputs, f"run {self.run['name']} ({self.run['task_name']})")
        parts = text_parts(given)
        if isinstance(image := given.get("image"), bytes):
            clean = upright_image(image)
            parts |= {"width": clean.width, "height": clean.height, "image": clean.data, "image_format": clean.format}
        if isinstance(clip := given.get("clip"), Clip):
            parts |= clip_parts(clip)
        return Record(key="input", image_id=0, **{**parts, **_candidates(parts)})

    def predict(self, record: Record) -> list[Prediction]:
        """One prediction for each of the record's items."""
        return self.predict_all([record])[0]

    def predict_all(self, records: Sequence[Record]) -> list[list[Prediction]]:
        """As `predict`, of each of the records, in one batch, on the device that the module was moved to."""
        task = self.module.task
        batch = task.collate([task.encode(record, None) for record in records])
        batch["keys"] = [record.key for record in records]
        batch = move_data_to_device(batch, self.module.device)
        with torch.inference_mode():
            predictions = iter(task.predict(self.module.model, batch))
        return [list(islice(predictions, len(task.items(record)))) for record in records]

    def answers(self, predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
        """JSON values, one a prediction."""
        return [self.module.task.answer(prediction) for prediction in predictions]

    def picture(self, record: Record, predictions: Sequence[Prediction]) -> np.ndarray:
        """(h, w, 3) uint8 RGB drawing of the predictions."""
        return build_report(self.run, self.module.task).picture(record, predictions, None)


def _candidates(parts: Mapping[str, Any]) -> dict[str, Any]:
    """A question with candidates as the door lets it in: boxes clipped to the image, no two candidates alike.

    Raises:
        DataError: they cannot be told apart, or a box is none or outside.
    """
    questions = parts.get("questions", ())
    if not any(question.candidates or question.candidate_boxes for question in questions):
        return {}
    problems: list[Problem] = []
    raw = RawRecord(key="input", image_id=0, annotation_file="", questions=questions)
    clean = clean_questions(raw, (parts.get("height", 0), parts.get("width", 0)), problems, Counter())
    if problems:
        what = RULES[problems[0].reason]
        raise DataError("these candidates cannot be chosen from", value=problems[0].detail, allowed=what)
    if any(max(len(q.candidates), len(q.candidate_boxes)) < 2 for q in clean):
        raise DataError(
            "there is nothing to choose from", value="one candidate", allowed="two or more, a | between them"
        )
    return {"questions": clean}


def clip_parts(clip: Clip) -> dict[str, Any]:
    """A clip as fields of a record, frames as JPEGs as the door stores them.

    Raises:
        DataError: a frame cannot be decoded, frames of several sizes, too many, or times that do not ascend.
    """
    times = np.asarray(clip.times_s, np.float64)
    if len(clip.frames) > MAX_FRAMES:
        raise DataError("a clip has too many frames", value=len(clip.frames), allowed=f"at most {MAX_FRAMES}")
    if len(times) != len(clip.frames) or not np.isfinite(times).all() or (np.diff(times, prepend=-1e-9) <= 0).any():
        raise DataError(
            "the times of a clip do not fit its frames", value=f"{len(times)} times of {len(clip.frames)} frames",
            allowed="a time in seconds for each frame, from 0 on, ascending",
        )  # fmt: skip
    frames, sizes = [], []
    for data in clip.frames:
        clean = upright_image(data)
        frames.append(clean.data if clean.format == "jpg" else jpeg_of(clean.data, []))
        sizes.append((clean.width, clean.height))
        if sizes[-1] != sizes[0]:
            raise DataError(
                "the frames of a clip differ in size", value=f"{sizes[-1]} after {sizes[0]}",
                where=f"frame {len(frames)}", allowed="one width and height",
            )  # fmt: skip
    return {"width": sizes[0][0], "height": sizes[0][1], "frames": tuple(frames), "times_s": tuple(times.tolist())}


def load_predictor(checkpoint: Path) -> Predictor:
    """A predictor from a best checkpoint."""
    module, document = load_module(checkpoint)
    return Predictor(module, document["run"])
