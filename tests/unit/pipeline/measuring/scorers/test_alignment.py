"""`sightline score alignment`: published alignments, what words are counted from, and files that do not go together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.command import sightline


def arguments(truth: Path, found: Path, *more: str) -> list[str]:
    return ["alignment", "--truth", str(truth), "--predictions", str(found), *more]


@pytest.mark.parametrize(
    ("name", "aer", "precision", "recall", "pairs"),
    [("enfr", 0.0407, 0.9627, 0.9542, 447), ("roen", 0.2075, None, None, 248)],
)
def test_equals_what_is_published(shared_dir, capsys, name, aer, precision, recall, pairs) -> None:
    """awesome-align's own links: 4.1 and 20.7 %."""
    folder = shared_dir / "data/align_enfr_roen/examples"
    files = folder / f"{name}.gold", folder / f"{name}.awesome-align.out"
    assert sightline("score", arguments(*files, "--first-word", "1,0")) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["AER"] == pytest.approx(aer, abs=5e-5) and document["num_items"] == pairs
    if precision is not None:
        assert document["alignment_precision"] == pytest.approx(precision, abs=5e-5)
        assert document["alignment_recall"] == pytest.approx(recall, abs=5e-5)
    assert document["AER_within_1"] < document["AER"]
    assert sightline("score", arguments(*files)) == 0
    assert json.loads(capsys.readouterr().out)["AER"] > 0.4, "both from 0: a good aligner looks like a bad one"


def write(folder: Path, truth: str, found: str) -> tuple[Path, Path]:
    for name, text in (("truth", truth), ("found", found)):
        (folder / name).write_text(text)
    return folder / "truth", folder / "found"


def test_the_example_with_its_interval(tmp_path, capsys) -> None:
    files = write(tmp_path, "1-1 2-2 3p3\n", "1-1 2-2 3-2\n")
    assert sightline("score", arguments(*files, "--bootstrap", "10")) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["AER"] == pytest.approx(0.2) and document["intervals"]["AER"] == pytest.approx([0.2, 0.2])
    assert sightline("score", arguments(*write(tmp_path, "1-1 2-2 3?3\n", "1-1 2-2 3?2\n"))) == 0
    assert json.loads(capsys.readouterr().out)["AER"] == pytest.approx(0.2), "what a system calls possible it has found"


@pytest.mark.parametrize(
    ("truth", "found", "more", "said"),
    [
        ("0-0\n", "0-0\n", ("--first-word", "1,0"), ["no link of two words: '0-0'", "truth, line 1", "counted from 1"]),
        ("0-0\n", "0-0 1:1\n", (), ["no link of two words: '1:1'", "found, line 1"]),
        ("0-0\n", "0-0\n1-1\n", (), ["different numbers of lines", "2 in"]),
        ("0-0\n", "0-0\n", ("--first-word", "1"), ["--first-word", "of the truth and of the predictions"]),
    ],
)
def test_what_cannot_be_scored_is_told(tmp_path, capsys, truth, found, more, said) -> None:
    assert sightline("score", arguments(*write(tmp_path, truth, found), *more)) == 2
    err = capsys.readouterr().err
    assert all(text in err for text in said), err


def test_first_word_is_of_alignments_alone(tmp_path, capsys) -> None:
    files = write(tmp_path, "a\n", "a\n")
    assert sightline("score", ["translation", *arguments(*files, "--first-word", "1,0")[1:]]) == 2
    assert "--first-word does not go with this task" in capsys.readouterr().err
