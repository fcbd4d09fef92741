"""The registered model as code: MLflow runs this file when it loads the model.

With `tracking.py` and `registry.py` the only files that import mlflow: models-from-code must do so. Weights are an
artifact read with `weights_only=True`, so nothing is unpickled and MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false holds.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

if TYPE_CHECKING:
    from pipeline.training.predictor import Predictor


class ServedModel(PythonModel):
    """Rows of the inputs of the task (`image`: bytes of a JPEG or PNG file; others: text) -> one JSON text a row, the
    list of the answers of its items."""

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
            given = {str(name): value for name, value in row.items() if isinstance(value, bytes | str)}  # else no value
            predictions = self.predictor.predict(self.predictor.record(given))
            answers.append(json.dumps(self.predictor.answers(predictions), ensure_ascii=False))
        return answers


set_model(ServedModel())
