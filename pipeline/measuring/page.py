"""A project's claims on one static page: statement, verdict, figure, numbers, and the command that makes them.

    sightline page

It reads `claims/*.py` and `evaluations/*/measured.json` and writes `page.html`: one file without links to any server,
its figures inside it. Equal numbers give equal bytes.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG

from pipeline.measuring.charts import draw
from pipeline.measuring.claims import Claim, Measured, Results, Row, chapters
from pipeline.measuring.templates import templates
from pipeline.system.disk import write_lines
from pipeline.system.project import Project

PAGE = "page.html"


def render(title: str, parts: Sequence[tuple[ModuleType, Sequence[Claim]]]) -> str:
    """The page's HTML, of each chapter with its claims."""
    environment = templates()
    environment.filters |= {
        "picture": _picture,
        "interval": _interval,
        "number": _number,
        "command": _command,
        "embedded": _embedded,
    }
    return environment.get_template("page.html").render(title=title, chapters=parts)


def _picture(claim: Claim) -> str:
    """The figure as a data URL of an SVG: what matplotlib calls alike in two figures stays apart."""
    with mpl.rc_context({"svg.hashsalt": claim.name}), io.BytesIO() as file:
        FigureCanvasSVG(draw(claim.figure)).print_svg(file, metadata={"Date": None, "Creator": None})
        return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()


def _embedded(path: Path) -> str:
    """A WebP file as a data URL."""
    return "data:image/webp;base64," + base64.b64encode(path.read_bytes()).decode()


def _number(value: float) -> str:
    return f"{value:.3f}"


def _interval(measured: Measured) -> str:
    if measured.low is None or measured.high is None:
        return _number(measured.value)
    return f"{_number(measured.value)} ({_number(measured.low)} to {_number(measured.high)})"


def _command(rows: Sequence[Row]) -> str:
    runs = dict.fromkeys(number.run for row in rows for number in row.measured)
    return "dvc repro " + " ".join(f"evaluate@{run}" for run in runs) if runs else ""


def write_page(project: Project) -> list[Claim]:
    """Write `page.html` of a project; returns its claims.

    Raises:
        DataError: there are no claims, or one needs a number that was not measured.
    """
    results = Results(project)
    parts = [(module, module.claims(results)) for module in chapters(project.root / "claims")]
    write_lines(project.root / PAGE, render(project.root.name, parts).splitlines())
    return [claim for _, claims in parts for claim in claims]
