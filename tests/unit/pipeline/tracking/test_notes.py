"""Descriptions: the metric with its interval, the data, the decision, and nothing lost when it is measured again."""

from __future__ import annotations

from typing import Any

from pipeline.tracking.notes import decided_note, interval, result, run_note

DOCUMENT: dict[str, Any] = {
    "metric": "overall",
    "value": 80.18423,
    "split": "val",
    "dataset": "coco",
    "num_samples": 240,
    "manifest_digest": "649002c27bb980c7a1c7",
    "metrics": {"overall": 80.18423, "perAnswerType/yes/no": 71.0},
    "constant": {"overall": 32.4},
    "measured": [
        {"name": "overall", "interval_95": [78.2, 82.31]},
        {"name": "perAnswerType/yes/no", "interval_95": None},
    ],
}


def test_the_result_says_metric_interval_and_data() -> None:
    assert result(DOCUMENT) == (
        "**overall 80.18** (95 % interval 78.2 to 82.31; a constant predictor: 32.4) on 240 samples of split val of "
        "coco (manifest 649002c27bb980c7)"
    )
    assert interval(DOCUMENT) == "78.2 to 82.31" and interval(DOCUMENT, "perAnswerType/yes/no") == ""
    bare = {name: DOCUMENT[name] for name in ("metric", "split", "dataset", "manifest_digest")} | {"value": None}
    assert result(bare).startswith("**overall not finite** on split val of coco")


def test_every_metric_stands_in_the_description() -> None:
    assert "| perAnswerType/yes/no | 71 |  |  |" in run_note(DOCUMENT)
    assert "| overall | 80.18 | 78.2 to 82.31 | 32.4 |" in run_note(DOCUMENT)


def test_a_decision_outlives_another_measurement() -> None:
    decided = decided_note(DOCUMENT, "champion: the first version fit to be champion")
    assert "**Decision:** champion: the first" in decided
    again = run_note(DOCUMENT | {"value": 81.0}, decided)
    assert again.startswith("**overall 81**") and again.count("champion: the first version fit to be champion") == 1
    assert again.count("| metric |") == 1
    assert "Decision" not in run_note(DOCUMENT, run_note(DOCUMENT))
