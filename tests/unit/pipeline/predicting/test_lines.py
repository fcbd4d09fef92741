"""Answers as JSON lines: one an input, kept when the work ends early, and gone on with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.predicting import output
from tests.command import sightline


def written(path: str = "found.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_a_line_an_input_and_nothing_on_stdout(folder: Path, capsys: pytest.CaptureFixture) -> None:
    (folder / "bad.png").write_text("no image")
    assert sightline("predict", ["a_run", "red.png", "bad.png", "--json", "new/found.jsonl"]) == 1
    out, err = capsys.readouterr()
    first, second = written("new/found.jsonl")
    assert out == "" and "predict: 2 answers, 1 failed" in err
    assert first["model"] == "a_run" and len(first["weights"]) == 16 and first["answers"][0]["size"] == [20, 30]
    assert second["image"] == "bad.png" and second["error"]["kind"] == "DataError"
    assert sightline("predict", ["a_run", "red.png", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == first


def test_the_document_is_what_json_dumps_writes(capsys: pytest.CaptureFixture) -> None:
    entries = [{"image": "a\u2028b\n", "answers": [{"x": [1, 2]}]}, {"image": "ü", "answers": []}]
    for some in (entries, entries[:1], []):
        with output.document({"model": "m"}) as write:
            for entry in some:
                write(entry)
        out = capsys.readouterr().out
        assert out == json.dumps({"model": "m", "predictions": some}, indent=1, ensure_ascii=False) + "\n"


def test_a_name_that_is_no_utf8_is_written_and_found_again(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    about, name = {"model": "m", "weights": "w"}, "a\udcff.png"
    with output.lines(str(tmp_path / "x"), about) as write, output.document(about) as print_it:
        write({"image": name})
        print_it({"image": name})
    assert output.begun(str(tmp_path / "x"), about, resume=True).inputs == {(name, None)}
    assert json.loads(capsys.readouterr().out)["predictions"] == [{"image": name}]


def test_an_interrupted_document_is_closed_and_lines_are_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        yield from real(["red.png"], None, "image")
        raise KeyboardInterrupt

    from pipeline.predicting import predict

    real = predict.names
    monkeypatch.setattr(predict, "names", interrupted)
    assert sightline("predict", ["a_run", "red.png", "other", "--batch", "1"]) == 130
    assert [one["image"] for one in json.loads(capsys.readouterr().out)["predictions"]] == ["red.png"]
    assert sightline("predict", ["a_run", "red.png", "other", "--json", "found.jsonl", "--batch", "1"]) == 130
    assert [line["image"] for line in written()] == ["red.png"]
    monkeypatch.setattr(predict, "names", real)
    assert sightline("predict", ["a_run", "red.png", "other", "--json", "found.jsonl", "--resume"]) == 0
    assert [line["image"] for line in written()] == ["red.png", "other/red.png"]


def test_resume_leaves_out_what_is_done_and_keeps_its_pictures(
    folder: Path, sizes: list[int], capsys: pytest.CaptureFixture
) -> None:
    asked = ["a_run", "red.png", "other", "--json", "found.jsonl"]
    assert sightline("predict", [*asked[:2], *asked[3:]]) == 0
    cv2.imwrite("other/red.png", np.full((4, 4, 3), 90, np.uint8))
    with open("found.jsonl", "a") as file:
        file.write('{"model": "a_run", "weights": "cut in the mid')
    assert sightline("predict", asked) == 2
    assert "this file has lines already" in capsys.readouterr().err
    assert sightline("predict", [*asked, "--resume"]) == 0
    assert sizes == [1, 1] and "1 done before" in capsys.readouterr().err
    first, second = written()
    assert (first["picture"], second["picture"]) == ("predictions/red.a_run.png", "predictions/red.a_run-2.png")
    assert cv2.imread(first["picture"])[0, 0].tolist() == [0, 0, 200]
    assert sightline("predict", [*asked, "--resume"]) == 0 and len(written()) == 2


def test_what_failed_before_still_counts(folder: Path) -> None:
    (folder / "bad.png").write_text("no image")
    asked = ["a_run", "bad.png", "red.png", "--json", "found.jsonl"]
    assert sightline("predict", asked) == 1
    assert sightline("predict", [*asked, "--resume"]) == 1 and len(written()) == 2


def test_lines_of_another_model_or_of_something_else_are_left_alone(
    folder: Path, capsys: pytest.CaptureFixture
) -> None:
    assert sightline("predict", ["a_run", "red.png", "--json", "found.jsonl"]) == 0
    (folder / "artifacts" / "a_run" / "other.ckpt").write_text("other weights")
    for text, said in (
        (Path("found.jsonl").read_text().replace("a_run", "b"), "of another model, or of other weights"),
        (Path("found.jsonl").read_text().replace('"weights": "', '"weights": "0'), "of another model"),
        ("my notes\n", "no answer of `predict`"),
        ("[1]\n", "no answer of `predict`"),
    ):
        Path("found.jsonl").write_text(text)
        assert sightline("predict", ["a_run", "red.png", "--json", "found.jsonl", "--resume"]) == 2
        assert said in capsys.readouterr().err and Path("found.jsonl").read_text() == text
