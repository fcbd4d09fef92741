"""Claims and their numbers on one page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from contracts.errors import DataError
from pipeline.measuring.claims import Results, chapters
from pipeline.measuring.page import PAGE, write_page
from pipeline.system.project import Project

CHAPTER = """
from lightning_modules.reports._plots import Plot
from pipeline.measuring.claims import Claim

TITLE = "Cats & dogs"
INTRODUCTION = "Which is which?"


def claims(results):
    row = results.row("cats", ["cat_a", "cat_b", "cat_c"], "top1", "a coin: 0.5")
    figure = Plot(name="p", kind="bar", columns=("x", "y"), rows=[("cat", row.value)], x="x", y="y", title="Cats")
    said = {"says": "Cats are told from dogs", "slides": ["S1"], "because": "So it is.", "figure": figure}
    return [Claim(name="told", holds=row.value > 0.7, rows=[row], **said),
            Claim(name="all", holds=row.value > 0.9, **said | {"says": "All of them"})]
"""


def score(project: Path, run: str, value: float, interval: list[float] | None) -> None:
    document = {
        "measured": [
            {"name": "top1", "value": value, "interval_95": interval, "num_items": 10, "unit": "images"},
            {"name": "nothing", "value": None, "interval_95": None, "num_items": 0, "unit": "images"},
        ],
        "constant": {"top1": 0.5},
    }
    path = Project(project).measured(run)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(document))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims/pets.py").write_text(CHAPTER)
    (tmp_path / "claims/_shared.py").write_text("raise SystemExit")
    for run, value in (("cat_a", 0.9), ("cat_b", 0.8), ("cat_c", 0.6)):
        score(tmp_path, run, value, [value - 0.05, value + 0.05] if run != "cat_c" else None)
    return Project(tmp_path)


def test_the_page_has_each_claim_its_figure_numbers_control_and_command(project):
    claims = write_page(project)
    assert [(claim.name, claim.holds) for claim in claims] == [("told", True), ("all", False)]
    text = (project.root / PAGE).read_text()
    assert "Cats &amp; dogs" in text, "texts are no HTML"
    assert "<td>0.800</td>" in text, "the median of three seeds"
    assert "0.900 (0.850 to 0.950)<br>0.800 (0.750 to 0.850)<br>0.600</td>" in text
    assert "a coin: 0.5" in text and "<td>0.500</td>" in text
    assert "dvc repro evaluate@cat_a evaluate@cat_b evaluate@cat_c" in text
    assert text.count("Borne out.") == 1 and text.count("Not borne out.") == 1
    assert text.count("data:image/svg+xml;base64,") == 2
    assert "http" not in text, "no server is asked for anything"


def test_equal_numbers_are_equal_bytes(project):
    write_page(project)
    first = (project.root / PAGE).read_bytes()
    write_page(project)
    assert (project.root / PAGE).read_bytes() == first


def test_what_was_not_measured_is_told(project):
    results = Results(project)
    with pytest.raises(DataError, match=r"no such number.*'top2'(?s:.*)top1, nothing"):
        results.measured("cat_a", "top2")
    with pytest.raises(DataError, match="no such number"):
        results.measured("cat_a", "nothing")
    with pytest.raises(DataError, match=r"run cat_d(?s:.*)dvc repro evaluate@cat_d"):
        results.measured("cat_d", "top1")


def test_claims_that_are_none_are_told(tmp_path):
    with pytest.raises(DataError, match="there are no claims"):
        chapters(tmp_path)
    (tmp_path / "x.py").write_text("TITLE = 'x'")
    with pytest.raises(DataError, match="no INTRODUCTION, claims"):
        chapters(tmp_path)


def test_a_claim_can_read_a_table_of_a_run(project):
    folder = project.evaluation("cat_a") / "tables"
    folder.mkdir()
    (folder / "heat.csv").write_text("row,weight\n1 la,0.5\n")
    results = Results(project)
    assert results.table("cat_a", "heat") == [{"row": "1 la", "weight": "0.5"}]
    with pytest.raises(DataError, match="evaluate@cat_b"):
        results.table("cat_b", "heat")
