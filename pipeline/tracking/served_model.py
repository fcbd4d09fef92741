"""The registered model as code: MLflow runs this file when it loads the model.

With `tracking.py` and `registry.py` the only files that import mlflow: models-from-code must do so. Weights are an
artifact read with `weights_only=True`, so nothing is unpickled and MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false holds.
"""

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

if TYPE_CHECKING:
    from contracts.inputs import Given
    from pipeline.training.predictor import Predictor


class ServedModel(PythonModel):
    """Rows of the inputs of the task -> one JSON text a row, the list of the answers of its items.

    `image` is the bytes of a JPEG or PNG file; `clip` a list of them, one a frame, and `times_s` beside it their
    seconds from the clip's start (25 frames a second where it is absent); the others are texts. In JSON bytes are
    base64.
    """

    predictor: "Predictor"

    def load_context(self, context: PythonModelContext) -> None:
        from pipeline.training.predictor import (
            load_predictor,  # shipped beside this file; not importable when it is logged
        )

        self.predictor = load_predictor(Path(context.artifacts["checkpoint"]))

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[str]:
        """Raises:
        ConfigError: a row lacks an input, or has one that this model does not take.
        DataError: an image cannot be decoded.
        """
        answers = []
        for row in model_input.to_dict("records"):
            predictions = self.predictor.predict(self.predictor.record(_given(row)))
            answers.append(json.dumps(self.predictor.answers(predictions), ensure_ascii=False))
        return answers


def _given(row: dict[Any, Any]) -> "dict[str, Given]":
    """The inputs of a row; what it has no value for is not among them."""
    from contracts.inputs import Clip  # as above

    given: dict[str, Given] = {str(name): value for name, value in row.items() if isinstance(value, bytes | str)}
    frames, times = row.get("clip"), row.get("times_s")
    if frames is not None and not isinstance(frames, float | bytes | str):  # a float is pandas' NaN
        data = [_bytes(frame) for frame in frames]
        given["clip"] = Clip.even(data)
        if times is not None and not isinstance(times, float):
            given["clip"] = Clip(frames=tuple(data), times_s=tuple(map(float, times)))
    return given


def _bytes(frame: bytes | str) -> bytes:
    """A frame's file. MLflow decodes the base64 of JSON in columns of bytes, not in columns of lists of bytes; no image
    file is made of base64's letters alone."""
    try:
        return base64.b64decode(frame, validate=True)
    except ValueError:
        return frame if isinstance(frame, bytes) else frame.encode()


set_model(ServedModel())
