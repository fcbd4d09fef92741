"""`sightline report`: runs side by side on one static page, without a server and without a network.

Runs of the same task on the same split form a group. Of each run the page has the numbers with their intervals, cost,
learning curves, tables, pictures and settings, and the metric on the resamples: so the paired difference of any two is
computed where it is looked at. Equal input gives equal bytes.
"""

from __future__ import annotations

import base64
import csv
import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from contracts.errors import DataError
from lightning_modules.metrics.bootstrap import percentile_intervals
from pipeline.measuring.comparison import MEASURED, PICTURES, RESAMPLES, RUN, SAME, TABLES
from pipeline.measuring.sources import EVALUATIONS, Source, find
from pipeline.measuring.templates import templates
from pipeline.system.disk import write_lines
from pipeline.system.project import Project

PAGE = "report.html"
CONSTANT = "constant predictor"
MAX_DRAWN = 2500  # metrics of runs whose resamples the page holds: 14 MB; beyond that, those of the task's metric
MAX_PICTURE_BYTES = 16_000_000  # of one group: the first pictures of all runs, as far as this goes
MAX_SERIES_POINTS = 60  # of each line of a table


def write_report(project: Project, names: Sequence[str], out: Path, *, experiments: bool = False) -> list[str]:
    """Write the page of some runs, or of all; returns what it calls them.

    Args:
        names: as of `sources.find`.

    Raises:
        ConfigError: an unknown run. DataError: one that was not evaluated, or damaged files.
    """
    sources = find(project, names, experiments=experiments)
    write_lines(out, render(project.root.name, gather(sources)).splitlines())
    return [source.label for source in sources]


def render(title: str, groups: Sequence[Mapping[str, Any]]) -> str:
    """The page's HTML. Texts of runs stand in its data alone, which a script shows as text."""
    data = orjson.dumps({"groups": groups}).decode().replace("<", "\\u003c")
    return templates().get_template("report.html").render(title=title, data=data)


def gather(sources: Sequence[Source]) -> list[dict[str, Any]]:
    """The runs' data by group, in the order of the first run of each; in a group the best run comes first."""
    groups: dict[tuple[Any, ...], list[tuple[Source, dict[str, Any]]]] = {}
    for source in sources:
        measured = _document(source, MEASURED)
        groups.setdefault(tuple(measured[name] for name in SAME), []).append((source, measured))
    return [_group(members) for members in groups.values()]


def _document(source: Source, name: str) -> dict[str, Any]:
    path = f"{EVALUATIONS}/{source.run}/{name}"
    where, fix = f"{source.files.place}: {path}", f"`dvc repro --force evaluate@{source.run}`"
    data = source.files.read(path)
    if data is None:
        raise DataError("what was measured is not there", where=where, fix=fix)
    try:
        document = orjson.loads(data)
        return {**document}
    except (orjson.JSONDecodeError, TypeError) as error:
        raise DataError("what was measured is damaged", value=str(error), where=where, fix=fix) from None


def _group(members: Sequence[tuple[Source, dict[str, Any]]]) -> dict[str, Any]:
    first = members[0][1]
    sign = 1 if first["metric_mode"] == "max" else -1
    ordered = sorted(members, key=lambda member: (member[1]["value"] is None, -sign * (member[1]["value"] or 0)))
    names = [first["metric"], *(entry["name"] for entry in first["measured"] if entry["name"] != first["metric"])]
    drawn = names if len(names) * len(members) <= MAX_DRAWN else names[:1]
    runs = [_run(source, measured, drawn) for source, measured in ordered]
    _share_pictures(runs, [source for source, _ in ordered])
    variants = {entry["name"]: entry["variant"] for entry in first["measured"]}
    return {
        **{name: first[name] for name in ("task", "dataset", "split", "metric", "num_samples", "num_items")},
        "mode": first["metric_mode"],
        "variants": variants,
        "metrics": names,
        "all_drawn": len(drawn) == len(names),
        "runs": [*runs, _constant(ordered[0][0], first, drawn)],
    }


def _run(source: Source, measured: Mapping[str, Any], drawn: Sequence[str]) -> dict[str, Any]:
    told = _document(source, RUN)
    registered = source.files.read(f"registry/{source.run}.json")
    return {
        "name": source.label,
        "constant": False,
        "values": {
            entry["name"]: [entry["value"], *(entry["interval_95"] or (None, None))] for entry in measured["measured"]
        },
        "losses": measured["losses"],
        "drawn": _drawn(source, "run", drawn),
        "cost": told["cost"],
        "curves": told["curves"],
        "settings": {name: value for name, value in told["settings"].items() if name != "name"},
        "tables": [_table(source, table) for table in told["tables"]],
        "registered": None if registered is None else _decision(registered),
    }


def _constant(source: Source, measured: Mapping[str, Any], drawn: Sequence[str]) -> dict[str, Any]:
    """The best predictor that ignores the input, as a run: the same for all of a group."""
    values = _resamples(source, "constant", drawn)
    intervals = percentile_intervals(values)
    return {
        "name": CONSTANT,
        "constant": True,
        "values": {
            name: [value, *intervals.get(name, (None, None))]
            for name, value in measured["constant"].items()
        },
        "losses": {}, "drawn": {name: _encoded(v) for name, v in values.items()}, "cost": {}, "curves": {},
        "settings": {}, "tables": [], "registered": None, "pictures": {},
    }  # fmt: skip


def _decision(data: bytes) -> dict[str, Any]:
    document = orjson.loads(data)
    return {name: document.get(name) for name in ("decision", "reason", "version")}


def _resamples(source: Source, kind: str, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Metric -> (B,) float32; those without an interval are left out."""
    path = f"{EVALUATIONS}/{source.run}/{RESAMPLES}"
    data = source.files.read(path)
    try:
        with np.load(io.BytesIO(data or b"")) as arrays:
            found = {name: arrays[f"{kind}/{name}"] for name in names if f"{kind}/{name}" in arrays}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            "the resamples are damaged", value=str(error), where=f"{source.files.place}: {path}",
            fix=f"`dvc repro --force evaluate@{source.run}`",
        ) from None  # fmt: skip
    return {name: values for name, values in found.items() if np.isfinite(values).any()}


def _drawn(source: Source, kind: str, names: Sequence[str]) -> dict[str, str]:
    return {name: _encoded(values) for name, values in _resamples(source, kind, names).items()}


def _encoded(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype="<f4").tobytes()).decode()


def _table(source: Source, table: Mapping[str, Any]) -> dict[str, Any]:
    """A plot's rows, numbers as numbers; long lines keep `MAX_SERIES_POINTS` of their points."""
    text = (source.files.read(f"{EVALUATIONS}/{source.run}/{TABLES}/{table['name']}.csv") or b"").decode()
    columns, *rows = csv.reader(io.StringIO(text)) if text else [[]]
    of_kind = {"bar": (table["y"],), "curve": (table["x"], table["y"]), "heat": ("weight", "marked")}
    numbers = of_kind.get(table["kind"], ("count",))
    numeric = {columns.index(name) for name in numbers if name in columns}
    plain = [[_number(cell) if i in numeric else cell for i, cell in enumerate(row)] for row in rows]
    if table["kind"] == "curve":
        at = columns.index(table["series"]) if table["series"] in columns else None
        lines: dict[str, list[list[Any]]] = {}
        for row in plain:
            lines.setdefault("" if at is None else str(row[at]), []).append(row)
        plain = [row for line in lines.values() for row in _fewer(line)]
    return {**table, "columns": columns, "rows": plain}


def _fewer(rows: list[list[Any]]) -> list[list[Any]]:
    every = -(-len(rows) // MAX_SERIES_POINTS) or 1
    return [row for i, row in enumerate(rows) if i % every == 0 or i == len(rows) - 1]


def _number(cell: str) -> float | None:
    return float(f"{float(cell):.5g}") if cell else None


def _share_pictures(runs: Sequence[dict[str, Any]], sources: Sequence[Source]) -> None:
    """Give each run its pictures: the first one of all, the second of all, ... as far as the page may grow."""
    listed = [source.files.below(f"{EVALUATIONS}/{source.run}/{PICTURES}") for source in sources]
    for run in runs:
        run["pictures"] = {}
    room = MAX_PICTURE_BYTES
    for number in range(max(map(len, listed), default=0)):
        found = [
            (run, paths[number].rpartition("/")[2].removesuffix(".webp"), source.files.read(paths[number]) or b"")
            for run, source, paths in zip(runs, sources, listed, strict=True)
            if number < len(paths)
        ]
        room -= sum(len(data) for *_, data in found)
        if room < 0 and number:
            return
        for run, key, data in found:
            run["pictures"][key] = f"data:image/webp;base64,{base64.b64encode(data).decode()}"
