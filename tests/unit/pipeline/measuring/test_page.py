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


def test_quiz_questions_lead_to_the_figure_that_answers_them(project):
    write_page(project)
    assert 'id="quiz"' not in (project.root / PAGE).read_text(), "only where there are any"
    (project.root / "claims/quiz.yaml").write_text(
        "- {asks: 'Cats < dogs?', answer: 'C: no.', claim: told, slides: [S1]}\n"
    )
    write_page(project)
    text = (project.root / PAGE).read_text()
    assert "<dt>Cats &lt; dogs? <small>S1</small></dt>" in text
    assert '<dd>C: no. Figure: <a href="#told">Cats are told from dogs</a></dd>' in text
    assert text.count("Quiz: Cats &lt; dogs?") == 1, "at the figure, too"
    (project.root / "claims/quiz.yaml").write_text("- {asks: a, answer: b, claim: tolt}\n")
    with pytest.raises(DataError, match=r"no such claim.*'tolt'(?s:.*)told"):
        write_page(project)


def test_errata_stand_on_the_page(project):
    path = project.root / "claims/errata.yaml"
    path.write_text("- {shown: Dogs meow., right: Cats do., slides: [S1, S2], claim: all}\n- {shown: a, right: b}\n")
    write_page(project)
    text = (project.root / PAGE).read_text()
    assert "<tr><td>S1, S2</td><td>Dogs meow.</td><td>Cats do." in text and '<a href="#all">Figure</a>' in text
    assert '<a href="#errata">' in text
    for wrong in ("- {shown: a}\n", "shown: a\n", "- {shown: a, right: b, wrong: c}\n", "- [\n"):
        path.write_text(wrong)
        with pytest.raises(DataError, match="not a list of such entries"):
            write_page(project)


def test_two_claims_of_one_name_are_told(project):
    (project.root / "claims/more.py").write_text(CHAPTER)
    with pytest.raises(DataError, match=r"two claims have one name.*all, told"):
        write_page(project)


def test_a_plots_table_is_read_as_it_was_written(project):
    folder = project.evaluation("cat_a") / "tables"
    folder.mkdir()
    (folder / "p.csv").write_text("gate,open\nforget,0.5\n")
    assert Results(project).table("cat_a", "p") == [{"gate": "forget", "open": "0.5"}]
    with pytest.raises(DataError, match="no such table"):
        Results(project).table("cat_a", "q")
