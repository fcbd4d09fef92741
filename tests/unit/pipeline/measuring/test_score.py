"""`sightline score`: one document on stdout, errors that say what to do, intervals."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_modules.metrics.measurement import Measurement
from pipeline.measuring import score
from pipeline.measuring.scorers import Inputs, Scores
from pipeline.settings import discover
from tests.command import sightline

TASKS = ["captions", "coco-boxes", "coco-masks", "segmentation", "text-recognition", "translation"]
TASKS += ["visual7w", "voc-boxes", "vqa"]
ROOT = Path(score.__file__).parents[2]


@pytest.fixture
def lines(tmp_path: Path) -> list[str]:
    """Arguments that score two lines of text, one of them wrong."""
    (tmp_path / "truth.txt").write_text("one\ntwo\n")
    (tmp_path / "found.txt").write_text("one\ntvvo\n")
    return ["--truth", str(tmp_path / "truth.txt"), "--predictions", str(tmp_path / "found.txt")]


@pytest.fixture
def scorer(monkeypatch: pytest.MonkeyPatch):
    """Makes `text-recognition` return given scores."""

    def install(**scores) -> None:
        module = SimpleNamespace(score=lambda inputs: print("a library's chatter") or Scores(**scores))
        monkeypatch.setattr(discover, "load", lambda kind, name, where: module)

    return install


def test_every_task_is_there() -> None:
    assert set(TASKS) <= set(score.tasks())


def test_one_document_on_stdout_and_in_the_file(lines, tmp_path, capsys) -> None:
    out = tmp_path / "new" / "folder" / "scores.json"
    assert sightline("score", ["text-recognition", *lines, "--out", str(out)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["CER"] == pytest.approx(2 / 6)
    assert document["word_accuracy"] == 0.5
    assert (document["num_items"], document["unit"]) == (2, "texts")
    assert document["variant"].startswith("NFC") and "rapidfuzz" in document["source"]
    assert "intervals" not in document
    assert json.loads(out.read_text()) == document
    assert [path.name for path in out.parent.iterdir()] == ["scores.json"]  # no temporary file is left


def test_intervals_hold_the_value_and_are_the_same_each_time(lines, capsys) -> None:
    assert sightline("score", ["text-recognition", *lines, "--bootstrap", "50"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert set(first["intervals"]) == {"CER", "WER", "word_accuracy", "1-NED"}
    for name, (low, high) in first["intervals"].items():
        assert low <= first[name] <= high
    assert first["intervals"]["word_accuracy"] == [0.0, 1.0]
    assert sightline("score", ["text-recognition", *lines, "--bootstrap", "50"]) == 0
    assert json.loads(capsys.readouterr().out) == first


def test_the_document_of_several_measurements(scorer, lines, capsys) -> None:
    first = Measurement(
        values={"overall": 50.0, "perType/yes/no": 1.0, "perType/other": math.nan},
        variant="official",
        source="ours",
        num_items=4,
        unit="questions",
    )
    second = Measurement(
        values={"B": 2.0},
        variant="official",
        source="theirs",
        num_items=4,
        not_computed={"METEOR": "no Java", "SPICE": "no models"},
    )
    scorer(measurements=[first, second], details={"per_class": {"cat": {"AP": math.nan}}}, notes=["look here"])
    assert sightline("score", ["text-recognition", *lines]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {
        "overall": 50.0,
        "perType": {"yes/no": 1.0, "other": None},
        "B": 2.0,
        "per_class": {"cat": {"AP": None}},
        "METEOR": "not computed: no Java",
        "SPICE": "not computed: no models",
        "num_items": 4,
        "unit": "questions",
        "variant": "official",
        "source": "overall, perType/yes/no, perType/other: ours; B: theirs",
    }
    assert "note: look here" in err and "a library's chatter" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nosuch"], ["ConfigError: unknown task: 'nosuch'", *TASKS]),
        (["text-recognitoin"], ["did you mean 'text-recognition'?"]),
        (["coco_boxes"], ["did you mean 'coco-boxes'?"]),
        (["vqa"], ["ConfigError: the question file is missing", "--questions"]),
        (["text-recognition", "--questions", "q.json"], ["takes no question file: 'q.json'", "vqa"]),
        (["text-recognition", "--iou", "0.5"], ["--iou does not go with this task", "voc-boxes"]),
        (["vqa", "--num-classes", "3", "--questions", "q.json"], ["--num-classes does not go", "segmentation"]),
        (["voc-boxes", "--iou", "1.5"], ["no IoU: 1.5", "at most 1"]),
        (["segmentation", "--ignore-index", "256"], ["no label: 256", "0 to 255, or none"]),
        (["segmentation", "--num-classes", "0"], ["no number of classes: 0"]),
        (["segmentation", "--class-names", "a,a"], ["no list of classes", "no two alike"]),
        (["segmentation", "--class-names", "a,b", "--num-classes", "3"], ["another number of names", "3, as"]),
        (["text-recognition", "--no-java"], ["needs no Java", "captions"]),
        (["text-recognition", "--bootstrap", "-3"], ["negative number of resamples: -3"]),
        (["text-recognition", "--out", "."], ["this is a folder", "--out"]),
        (["text-recognition", "--out", "truth.txt/below.json"], ["DataError: the document cannot be written"]),
    ],
)
def test_a_users_error_is_told_and_ends_with_2(lines, tmp_path, monkeypatch, capsys, arguments, said) -> None:
    monkeypatch.chdir(tmp_path)
    assert sightline("score", [*arguments, *lines]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert all(text in err for text in said), err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nosuch"], "unknown task: 'nosuch'"),
        (["vqa", "--predictions", "p"], "ConfigError: --truth is missing"),
        (["vqa", "--truth", "t"], "ConfigError: --predictions is missing"),
    ],
)
def test_an_incomplete_command_ends_with_2(arguments, said, capsys) -> None:
    assert sightline("score", arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and said in err


@pytest.mark.parametrize("arguments", [[], ["captions", "--bootstrap", "x"]])
def test_a_command_that_cannot_be_parsed_ends_with_2(arguments, capsys) -> None:
    assert sightline("score", arguments) == 2
    assert capsys.readouterr().out == ""


def test_the_real_command(lines, tmp_path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "error", "-m", "pipeline.cli", "score", "text-recognition", *arguments]
        environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    fine = run(*lines)
    assert (fine.returncode, fine.stderr) == (0, "")
    assert json.loads(fine.stdout)["num_items"] == 2
    (tmp_path / "truth.txt").write_bytes(b"one\n\xff\n")
    broken = run(*lines)
    assert (broken.returncode, broken.stdout) == (2, "")
    assert broken.stderr.startswith("DataError: this file is not UTF-8 text")
    assert f"{tmp_path / 'truth.txt'}, line 2" in broken.stderr
    assert "Traceback" not in broken.stderr


def test_scoring_starts_without_torch() -> None:
    code = "import sys, pipeline.measuring.score; print({'torch', 'mlflow', 'ray', 'hotcoco'} & {*sys.modules})"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert out.strip() == "set()"


@settings(max_examples=50)
@given(
    st.recursive(
        st.none() | st.floats() | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    )
)
def test_any_details_become_strict_json(value) -> None:
    measurement = Measurement(values={"m": math.inf}, variant="v", source="s", num_items=1)
    module = SimpleNamespace(score=lambda inputs: Scores(measurements=[measurement], details={"d": value}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(discover, "load", lambda kind, name, where: module)
        document = score.score("any", Inputs(truth=Path("t"), predictions=Path("p")))
    text = json.dumps(document, allow_nan=False)  # raises on NaN
    assert json.loads(text)["m"] is None


def test_numbers_of_resampled_metrics_are_plain(scorer, lines, capsys) -> None:
    measurement = Measurement(
        values={"m": 0.5},
        variant="v",
        source="s",
        num_items=3,
        resample=lambda weights: {"m": (weights @ np.array([0, 0.5, 1])) / 3},
    )
    scorer(measurements=[measurement])
    assert sightline("score", ["text-recognition", *lines, "--bootstrap", "200"]) == 0
    low, high = json.loads(capsys.readouterr().out)["intervals"]["m"]
    assert 0 <= low < 0.5 < high <= 1
