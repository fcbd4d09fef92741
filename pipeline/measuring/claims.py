"""What a lecture or a paper claims, decided by what was measured here: the contract of a file of claims.

A file `claims/<chapter>.py` of a project holds `TITLE`, `INTRODUCTION` and `claims(results) -> list[Claim]`. It reads
the measured numbers of runs and draws; it trains nothing. A claim that the numbers do not bear out is shown like any
other: `holds` says how it went.
"""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from contracts.errors import DataError
from lightning_modules.reports._plots import Plot
from pipeline.measuring.comparison import PICTURES, TABLES
from pipeline.measuring.masks import Masks
from pipeline.settings.params import Params, load_params
from pipeline.system.project import Project, read_json

if TYPE_CHECKING:
    from torch import nn

    from contracts.records import Record
    from lightning_modules.base.module import TaskModule


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One number of one run ("": of none, but of the data): its 95 % bootstrap interval, and the constant predictor's
    number where it has one."""

    run: str
    name: str
    value: float
    low: float | None
    high: float | None
    constant: float | None


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of a claim's table: what was compared, its numbers (one a seed), and the control beside it."""

    what: str
    measured: Sequence[Measured]
    control: str = ""

    @property
    def value(self) -> float:
        """The median over seeds."""
        return median(number.value for number in self.measured)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """
    Attributes:
        name: of the claim, for links: `[a-z0-9-]+`.
        says: the claim in a sentence. slides: rows of the lecture it stands for, such as "S06".
        holds: whether the numbers bear it out. because: in a sentence with the deciding numbers.
        figure: of the same numbers. rows: the numbers themselves. note: what a reader should know beside them.
        pictures: below the figure, by what they show: files of `Results.picture`, or (H, W, 3) uint8 RGB.
    """

    name: str
    says: str
    slides: Sequence[str]
    holds: bool
    because: str
    figure: Plot | Masks
    rows: Sequence[Row] = ()
    note: str = ""
    pictures: Mapping[str, Path | np.ndarray] = field(default_factory=dict)


class Results:
    """The measured numbers of a project's runs, from `evaluations/<run>/measured.json`."""

    def __init__(self, project: Project):
        self._project = project
        self._documents: dict[str, dict[str, Any]] = {}

    def measured(self, run: str, name: str) -> Measured:
        """Raises:
        DataError: the run was not evaluated, or has no such number; lists those that it has.
        """
        document = self._document(run)
        found = next((entry for entry in document["measured"] if entry["name"] == name), None)
        if found is None or found["value"] is None:
            raise DataError(
                "no such number", value=name, where=str(self._project.measured(run)),
                allowed=", ".join(entry["name"] for entry in document["measured"]),
            )  # fmt: skip
        low, high = found["interval_95"] or (None, None)
        return Measured(
            run=run, name=name, value=found["value"], low=low, high=high,
            constant=document["constant"].get(name),
        )  # fmt: skip

    def row(self, what: str, runs: Sequence[str], name: str, control: str = "") -> Row:
        """The number `name` of runs that differ by their seed."""
        return Row(what=what, measured=[self.measured(run, name) for run in runs], control=control)

    def curve(self, run: str, name: str) -> list[tuple[int, float]]:
        """(step, value) of what training logged, such as "train/loss".

        Raises:
            DataError: the run was not evaluated, or logged no such number.
        """
        path = self._project.evaluation(run) / "run.json"
        curves = read_json(path, f"how run {run} was trained", f"`dvc repro evaluate@{run}`")["curves"]
        if name not in curves:
            raise DataError("no such curve", value=name, where=str(path), allowed=", ".join(sorted(curves)))
        return [(step, value) for step, value in curves[name]]

    def network(self, run: str) -> nn.Module:
        """The model of a run as it starts, with random weights: for what follows from its shapes alone.

        Raises:
            DataError: its data are not sharded yet.
        """
        from pipeline.training.checkpoints import build_module
        from pipeline.training.runs import load_run

        data = load_run(self._project, self._params, run)
        return build_module(data.run.to_dict(), data.spec).model

    def trained(self, run: str) -> TaskModule:
        """The task and the model of a run with the weights of its best checkpoint.

        Raises:
            DataError: it was not trained.
        """
        from pipeline.training.checkpoints import BEST, load_module

        return load_module(self._project.artifacts(run) / BEST)[0]

    def records(self, dataset: str, split: str = "val") -> Iterator[Record]:
        """The records of a data set's split as they are stored, in order: for what is measured without a run.

        Raises:
            DataError: it is not sharded yet, has no such split, or is damaged.
        """
        from pipeline.shards.manifest import load_manifest
        from pipeline.shards.reader import SplitReader

        folder = self._project.shards(dataset)
        reader = SplitReader(folder, load_manifest(folder, dataset), split)
        return (reader.read(position) for position in range(len(reader)))

    @cached_property
    def _params(self) -> Params:
        return load_params(self._project.root)

    def table(self, run: str, name: str) -> list[dict[str, str]]:
        """The rows of a plot of the run's report, as texts by column.

        Raises:
            DataError: the run was not evaluated, or its report has no such plot.
        """
        path = self._project.evaluation(run) / TABLES / f"{name}.csv"
        if not path.is_file():
            raise DataError(
                "no such table", value=name, where=str(path), fix=f"`dvc repro evaluate@{run}`, or another name"
            )
        with open(path, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def picture(self, run: str, name: str) -> Path:
        """A picture that the evaluation of a run drew: of a record, by its key, or of its report's gallery.

        Raises:
            DataError: the run was not evaluated, or drew no such picture.
        """
        path = self._project.evaluation(run) / PICTURES / f"{name}.webp"
        if not path.is_file():
            raise DataError("no such picture", value=name, where=str(path), fix=f"`dvc repro evaluate@{run}`")
        return path

    def _document(self, run: str) -> dict[str, Any]:
        if run not in self._documents:
            path = self._project.measured(run)
            self._documents[run] = read_json(path, f"what run {run} scored", f"`dvc repro evaluate@{run}`")
        return self._documents[run]


def chapters(folder: Path) -> list[ModuleType]:
    """The files of claims in `folder`, by name.

    Raises:
        DataError: there is none, or one lacks a part of the contract.
    """
    modules = []
    for path in sorted(folder.glob("[!_]*.py")):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        missing = [name for name in ("TITLE", "INTRODUCTION", "claims") if not hasattr(module, name)]
        if missing:
            raise DataError("a file of claims is not whole", value=f"no {', '.join(missing)}", where=str(path))
        modules.append(module)
    if not modules:
        raise DataError("there are no claims", where=str(folder), allowed="a file <chapter>.py")
    return modules
