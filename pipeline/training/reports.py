"""A run's report, found by the name of its task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_modules.base.task import BaseTask
from lightning_modules.reports._report import BaseReport
from pipeline.settings import discover


def build_report(run: Mapping[str, Any], task: BaseTask) -> BaseReport[Any]:
    """The report of a resolved run (`Run.to_dict()`) on its task."""
    report: BaseReport[Any] = discover.load("report", run["task_name"], where="task_name").Report(task)
    return report
