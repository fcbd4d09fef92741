"""What MLflow's pages say of a run and of a registered version, in words (Markdown)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_DECISION = "\n\n**Decision:** "


def interval(document: Mapping[str, Any], name: str = "") -> str:
    """Of a metric, the task's own if it is not named: "0.71 to 0.83"; "" where there is none.

    Args:
        document: `evaluations/<run>/measured.json`.
    """
    found = {row["name"]: row.get("interval_95") for row in document.get("measured", ())}
    both = found.get(name or document["metric"])
    return "" if both is None else f"{_number(both[0])} to {_number(both[1])}"


def result(document: Mapping[str, Any]) -> str:
    """The task's metric with its interval, beside a constant predictor, and what it was measured on."""
    name, between = document["metric"], interval(document)
    constant = document.get("constant", {}).get(name)
    beside = [f"95 % interval {between}" if between else "", _constant(constant)]
    told = "; ".join(part for part in beside if part)
    counted = f"{document['num_samples']} samples of " if "num_samples" in document else ""
    data = f"{counted}split {document['split']} of {document['dataset']} (manifest {document['manifest_digest'][:16]})"
    value = "not finite" if document["value"] is None else _number(document["value"])
    return f"**{name} {value}**{f' ({told})' if told else ''} on {data}"


def table(document: Mapping[str, Any]) -> str:
    """Every metric of the document with its interval and the constant predictor's value; "" where there is none."""
    metrics, constant = document.get("metrics", {}), document.get("constant", {})
    rows = [
        f"| {name.replace('|', '/')} | {_number(value)} | {interval(document, name)} | {_number(constant.get(name))} |"
        for name, value in metrics.items()
    ]
    head = ["| metric | value | 95 % interval | constant predictor |", "| --- | ---: | --- | ---: |"]
    return "\n".join([*head, *rows]) if rows else ""


def run_note(document: Mapping[str, Any], before: str = "") -> str:
    """The description of a run that was measured; what `before`, its earlier one, says of a decision stays."""
    decision = before.partition(_DECISION)[2].partition("\n\n")[0]
    return _joined(document, decision)


def decided_note(document: Mapping[str, Any], decision: str) -> str:
    """The same with a decision."""
    return _joined(document, decision)


def _joined(document: Mapping[str, Any], decision: str) -> str:
    listed = table(document)
    return result(document) + (_DECISION + decision if decision else "") + (f"\n\n{listed}" if listed else "")


def _constant(value: float | None) -> str:
    return "" if value is None else f"a constant predictor: {_number(value)}"


def _number(value: float | None) -> str:
    return "" if value is None else "not finite" if not math.isfinite(value) else f"{value:.4g}"
