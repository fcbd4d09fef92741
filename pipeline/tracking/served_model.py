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
    """Rows of `image` (bytes of a JPEG or PNG file) and `question` (text, for VQA) -> one JSON text a row."""

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
        DataError: a row's image cannot be decoded, or its question is missing.
        """
        from contracts.errors import DataError

        answers = []
        for row in model_input.to_dict("records"):
            question = row.get("question")
            if self.predictor.takes_question and not isinstance(question, str):
                raise DataError("this model answers questions: the column 'question' is missing or empty")
            prediction = self.predictor.predict(row["image"], question if isinstance(question, str) else None)
            answers.append(json.dumps(self.predictor.answer(prediction), ensure_ascii=False))
        return answers


set_model(ServedModel())
