"""A project's claims on one static page: statement, verdict, figure, numbers, and the command that makes them.

    sightline page

It reads `claims/*.py`, the quiz questions and errata beside them, and `evaluations/`, and writes `page.html`: one file
without links to any server, its figures inside it. Equal numbers give equal bytes.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from PIL import Image

from contracts.errors import DataError
from pipeline.measuring.charts import draw
from pipeline.measuring.claims import Claim, Measured, Results, Row, chapters
from pipeline.measuring.extras import Erratum, Question, errata, quiz
from pipeline.measuring.masks import Masks, draw_masks
from pipeline.measuring.templates import templates
from pipeline.system.disk import write_lines
from pipeline.system.project import Project

PAGE = "page.html"


def render(
    title: str,
    parts: Sequence[tuple[ModuleType, Sequence[Claim]]],
    questions: Sequence[Question] = (),
    mistakes: Sequence[Erratum] = (),
) -> str:
    """The page's HTML: each chapter with its claims, then quiz questions and errata."""
    environment = templates()
    environment.filters |= {
        "picture": _picture,
        "interval": _interval,
        "number": _number,
        "command": _command,
        "embedded": _embedded,
    }
    return environment.get_template("page.html").render(
        title=title, chapters=parts, quiz=questions, errata=mistakes,
        says={claim.name: claim.says for _, claims in parts for claim in claims},
    )  # fmt: skip


def _picture(claim: Claim) -> str:
    """The figure as a data URL of an SVG: what matplotlib calls alike in two figures stays apart."""
    with mpl.rc_context({"svg.hashsalt": claim.name}), io.BytesIO() as file:
        figure = draw_masks(claim.figure) if isinstance(claim.figure, Masks) else draw(claim.figure)
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None, "Creator": None})
        return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()


def _embedded(picture: Path | np.ndarray) -> str:
    """A WebP file, or an image (H, W, 3) without loss, as a data URL."""
    if isinstance(picture, Path):
        data = picture.read_bytes()
    else:
        with io.BytesIO() as file:
            Image.fromarray(picture).save(file, "WEBP", lossless=True)
            data = file.getvalue()
    return "data:image/webp;base64," + base64.b64encode(data).decode()


def _number(value: float) -> str:
    return f"{value:.3f}"


def _interval(measured: Measured) -> str:
    if measured.low is None or measured.high is None:
        return _number(measured.value)
    return f"{_number(measured.value)} ({_number(measured.low)} to {_number(measured.high)})"


def _command(rows: Sequence[Row]) -> str:
    """Of what is measured without a run when the page is written, that which writes it."""
    runs = dict.fromkeys(number.run for row in rows for number in row.measured if number.run)
    if runs:
        return "dvc repro " + " ".join(f"evaluate@{run}" for run in runs)
    return "sightline page" if rows else ""


def write_page(project: Project) -> list[Claim]:
    """Write `page.html` of a project; returns its claims.

    Raises:
        DataError: there are no claims, one needs a number that was not measured, two have one name, or a quiz question
            names none of them.
    """
    results, folder = Results(project), project.root / "claims"
    parts = [(module, module.claims(results)) for module in chapters(folder)]
    found = [claim for _, claims in parts for claim in claims]
    names = [claim.name for claim in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError("two claims have one name", value=", ".join(twice), where=str(folder))
    html = render(project.root.name, parts, quiz(folder, names), errata(folder, names))
    write_lines(project.root / PAGE, html.splitlines())
    return found
