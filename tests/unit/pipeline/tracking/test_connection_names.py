"""Names that come from data, as MLflow's own check takes them."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric_name

from pipeline.tracking.connection import MAX_KEY, metric_name, mlflow_name


def test_names_keep_what_mlflow_takes() -> None:
    assert mlflow_name("eval/perQuestionType/what is") == "eval/perQuestionType/what is"
    assert mlflow_name("eval/perQuestionType/welche größe") == "eval/perQuestionType/welche größe"
    assert mlflow_name("eval/perQuestionType/") == "eval/perQuestionType/_"
    assert mlflow_name("eval/a//../c++ (red)\n") == "eval/a/_/__/c__ _red__"


def test_a_metrics_own_name_makes_no_path() -> None:
    assert metric_name("val/perAnswerType/yes/no") == "val/perAnswerType/yes or no"
    assert metric_name("val/perAnswerType/other") == "val/perAnswerType/other"
    assert (metric_name("val/AP"), metric_name("epoch"), metric_name("a/../b")) == ("val/AP", "epoch", "a/__/b")


@example("//.00///", 21)
@given(st.text(max_size=20) | st.text("./a", max_size=9), st.integers(1, 300))
def test_every_name_passes(text: str, times: int) -> None:
    name = mlflow_name(f"eval/{text * times}")
    assert 0 < len(name) <= MAX_KEY
    _validate_metric_name(name)
    _validate_metric_name(mlflow_name(text or "x"))
