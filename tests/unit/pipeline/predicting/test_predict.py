"""`sightline predict`: the document, the picture, and errors that say what to do."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from lightning_modules.base.object_task import ObjectConfig
from pipeline.predicting import predict
from pipeline.predicting.batches import load
from tests.command import sightline


def test_one_document_and_a_picture_for_each_image(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert sightline("predict", ["a_run", "red.png", "other/red.png"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["model"], document["task"]) == ("a_run", "detection")
    assert [item["answers"][0]["size"] for item in document["predictions"]] == [[20, 30]] * 2
    pictures = [item["picture"] for item in document["predictions"]]
    assert pictures == ["predictions/red.a_run.png", "predictions/red.a_run-2.png"]
    assert cv2.imread(pictures[0])[0, 0].tolist() == [0, 0, 200]


def test_a_question_reaches_the_model(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert sightline("predict", ["asks", "red.png", "--question", "what colour?", "--out", "here/below"]) == 0
    (item,) = json.loads(capsys.readouterr().out)["predictions"]
    assert (item["question"], item["answers"][0]["asked"]) == ("what colour?", ["what colour?"])
    assert (folder / item["picture"]).is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nosuch", "red.png"], ["no such trained run: 'nosuch'", "a_run, asks"]),
        (["../a_run", "red.png"], ["no such trained run"]),
        (["a_run", "nosuch.png"], ["no such image file: 'nosuch.png'"]),
        (["a_run", "no/*.png"], ["no file matches this pattern: 'no/*.png'"]),
        (["a_run", "-", "--list", "-"], ["standard input can be read once"]),
        (["a_run", "red.png", "--resume"], ["no file to go on with", "--json FILE --resume"]),
        (["a_run", "--list", "nosuch.txt"], ["the list cannot be read", "--list nosuch.txt"]),
        (["asks", "red.png", "--question", "why?", "--score", "0.5"], ["not chosen by a score", "run a_run (vqa)"]),
        (["a_run", "red.png", "--cluster", "--json", "x"], ["does not go with --cluster: '--json'"]),
        (["a_run", "--cluster"], ["tars are missing"]),
        (["asks", "red.png"], ["a question is missing", "--question"]),
        (["asks", "red.png", "--question", " "], ["a question is missing"]),
        (["a_run", "red.png", "--question", "why?"], ["takes no question: 'why?'"]),
        (["a_run", "red.png", "--fps", "3"], ["takes no clip: '--fps 3'"]),
        (["asks", "--question", "why?"], ["an image is missing", "run a_run (vqa)", "image and question"]),
        (["asks", "red.png", "--question", "why?", "--source", "ja"], ["takes no source: 'ja'"]),
    ],
)
def test_a_users_error_is_told_and_ends_with_2(
    folder: Path, capsys: pytest.CaptureFixture, arguments: list[str], said: list[str]
) -> None:
    assert sightline("predict", arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert all(text in err for text in said), err


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        (
            "best.ckpt",
            b"x",
            [
                "not the one that training wrote",
                "best.ckpt",
                "sightline heal --yes artifacts/a_run`",
                "dvc repro",
            ],
        ),
        ("run.json", None, ["the record of the training is not there", "run.json", "sightline heal --yes"]),
        ("run.json", b'{"run_id": "1", "gi', ["the record of the training is damaged", "run.json", "EOF"]),
        ("run.json", b"[]", ["the record of the training is damaged"]),
        ("run.json", b"\xff\xfe", ["the record of the training is damaged"]),
    ],
)
def test_weights_that_training_did_not_write_are_not_used(
    folder: Path, capsys: pytest.CaptureFixture, file: str, content: bytes | None, said: list[str]
) -> None:
    victim = folder / "artifacts" / "a_run" / file
    victim.unlink() if content is None else victim.write_bytes(content)
    assert sightline("predict", ["a_run", "red.png"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and not (folder / "predictions").exists()
    assert all(text in err for text in said), err
    # A file that is named is the user's own choice.
    assert sightline("predict", ["artifacts/a_run/best.ckpt", "red.png"]) == 0


def test_mlflow_and_torch_are_not_imported_for_an_error(folder: Path) -> None:
    """A wrong name is told at once, not after seconds of imports."""
    code = (
        "import sys; from pipeline.cli import app\n"
        "try: app(['predict', 'nosuch', 'red.png'])\n"
        "except SystemExit as end:\n"
        " sys.exit(10 * end.code + sum(name in sys.modules for name in ('mlflow', 'torch')))"
    )
    source = Path(predict.__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env={"PYTHONPATH": str(source)}, capture_output=True, check=False
    )
    assert result.returncode == 20, result.stderr


def test_a_registered_model_predicts_with_the_code_it_ships(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    from pipeline.tracking import connection
    from pipeline.tracking import mlflow_run as tracking

    def fetch(uri: str, client: Any, target: Path, *, trust: bool) -> Path:
        assert not trust
        code = target / "model" / "code" / "pipeline"
        code.mkdir(parents=True)
        (code / "__init__.py").touch()
        (code / "cli.py").write_text("import sys\nprint('shipped', *sys.argv[3:])\nsys.exit(7)\n")
        (target / "model" / "artifacts").mkdir()
        (target / "model" / "artifacts" / "best.ckpt").touch()
        return target / "model"

    monkeypatch.setattr(connection, "connect", lambda config, root: None)
    monkeypatch.setattr(tracking, "fetch_signed", fetch)
    for given in ("models:/m@champion", "m@champion"):
        assert sightline("predict", [given, "red.png", "--question=-why?"]) == 7
        said = capfd.readouterr().out
        assert said == "shipped red.png --out predictions --label models:/m@champion --question=-why?\n"
    asked = "--fps 2.0 --every 3 --list - --json x.jsonl --score 0.25 --batch 8 --resume --no-pictures"
    assert sightline("predict", ["m/2", "red.png", *asked.split()]) == 7
    assert capfd.readouterr().out == f"shipped red.png --out predictions --label models:/m/2 {asked}\n"
    assert sightline("predict", ["m/2", "a.tar", "--cluster"]) == 7
    assert capfd.readouterr().out == "shipped a.tar --out predictions --label models:/m/2 --cluster\n"


def test_a_bad_file_is_an_entry_and_the_rest_goes_on(
    folder: Path, sizes: list[int], capsys: pytest.CaptureFixture
) -> None:
    (folder / "text.jpg").write_text("no image")
    (folder / "locked.png").symlink_to("nowhere")
    cv2.imwrite("narrow.png", np.zeros((5, 7, 3), np.uint8))
    (folder / "list").write_text("red.png\nlocked.png\ntext.jpg\nnarrow.png\n")
    assert sightline("predict", ["a_run", "red.png", "--list", "list", "--batch", "5"]) == 1
    out, err = capsys.readouterr()
    found = json.loads(out)["predictions"]
    assert [entry["image"] for entry in found] == ["red.png", "red.png", "locked.png", "text.jpg", "narrow.png"]
    assert ["error" in entry for entry in found] == [False, False, True, True, False]
    assert found[2]["error"] == {"kind": "DataError", "message": "no such image file: 'locked.png'"}
    assert "cannot be used" in found[3]["error"]["message"] and found[3]["error"]["where"] == "text.jpg"
    assert "no such image file: 'locked.png'" in err and "save it again" in err
    assert sizes == [3, 1, 1, 1], "a batch that is refused is asked one by one"


def test_batches_are_of_the_size_that_is_asked_for(folder: Path, sizes: list[int]) -> None:
    assert sightline("predict", ["a_run", *["red.png"] * 5, "--batch", "2", "--no-pictures"]) == 0
    assert sizes == [2, 2, 1] and not (folder / "predictions").exists()


def test_a_batch_that_does_not_fit_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def full(records: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    fake = load(folder / "artifacts" / "a_run" / "best.ckpt", None)
    monkeypatch.setattr(fake, "predict_all", full)

    monkeypatch.setattr("pipeline.predicting.batches.load", lambda *_: fake)
    assert sightline("predict", ["a_run", "red.png", "other"]) == 2
    assert "not enough memory: '2 images in a batch'" in (err := capsys.readouterr().err) and "--batch 1" in err


def test_the_score_is_the_tasks(folder: Path) -> None:
    loaded = load(folder / "artifacts" / "a_run" / "best.ckpt", 0.25)
    assert loaded.module.task.config == ObjectConfig(picture_score=0.25)
