"""Names that come from data, as MLflow's own check takes them."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric_name

from pipeline.tracking.connection import MAX_KEY, mlflow_name


def test_names_keep_what_mlflow_takes() -> None:
    assert mlflow_name("eval/perQuestionType/what is") == "eval/perQuestionType/what is"
    assert mlflow_name("eval/perQuestionType/welche größe") == "eval/perQuestionType/welche größe"
    assert mlflow_name("eval/perQuestionType/") == "eval/perQuestionType/_"
    assert mlflow_name("eval/a//../c++ (red)\n") == "eval/a/_/__/c__ _red__"


@example("//.00///", 21)
@given(st.text(max_size=20) | st.text("./a", max_size=9), st.integers(1, 300))
def test_every_name_passes(text: str, times: int) -> None:
    name = mlflow_name(f"eval/{text * times}")
    assert 0 < len(name) <= MAX_KEY
    _validate_metric_name(name)
    _validate_metric_name(mlflow_name(text or "x"))
