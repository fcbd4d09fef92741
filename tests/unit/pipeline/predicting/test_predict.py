"""`sightline predict`: the document, the picture, and errors that say what to do."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from contracts.inputs import InputName
from contracts.records import Record
from lightning_modules.augment.images import decode_record
from pipeline.predicting import predict
from pipeline.training import predictor
from pipeline.training.predictor import Predictor
from tests.command import sightline


class FakePredictor(Predictor):
    """A trained run that answers with the image's size and draws its mean color; its inputs are checked as any's."""

    def __init__(self, asks: bool):
        self.run = {"name": "a_run", "task_name": "vqa" if asks else "detection"}

    @property
    def inputs(self) -> tuple[InputName, ...]:
        return ("image", "question") if self.run["task_name"] == "vqa" else ("image",)

    def predict(self, record: Record) -> list[dict[str, Any]]:
        mean = decode_record(record).reshape(-1, 3).mean(0)
        return [{"size": (record.height, record.width), "asked": [q.text for q in record.questions], "mean": mean}]

    def answers(self, predictions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"size": list(p["size"]), "asked": p["asked"]} for p in predictions]

    def picture(self, record: Record, predictions: Sequence[dict[str, Any]]) -> np.ndarray:
        return np.broadcast_to(predictions[0]["mean"].astype(np.uint8), (8, 9, 3))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with two trained runs and one red image."""
    monkeypatch.chdir(tmp_path)
    for run in ("a_run", "asks"):
        (tmp_path / "artifacts" / run).mkdir(parents=True)
        (tmp_path / "artifacts" / run / "best.ckpt").touch()
        record = {"run_id": "1", "git_commit": "", "git_changed": [], "code": "0" * 64, "manifest_digest": "0" * 64}
        record["fingerprint"] = "0" * 64
        record["checkpoint_sha256"] = hashlib.sha256(b"").hexdigest()
        (tmp_path / "artifacts" / run / "run.json").write_text(json.dumps(record))
    red = np.zeros((20, 30, 3), np.uint8)
    red[..., 2] = 200  # OpenCV writes blue, green, red
    (tmp_path / "other").mkdir()
    for path in (tmp_path / "red.png", tmp_path / "other" / "red.png"):
        cv2.imwrite(str(path), red)
    monkeypatch.setattr(predictor, "load_predictor", lambda path: FakePredictor(path.parent.name == "asks"))
    return tmp_path


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
        (["a_run", "other"], ["no such image file: 'other'"]),
        (["a_run", "text.jpg"], ["cannot be used", "text.jpg"]),
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
    (folder / "text.jpg").write_text("no image")
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
    assert sightline("predict", ["m/2", "red.png", "--fps", "2"]) == 7
    assert capfd.readouterr().out == "shipped red.png --out predictions --label models:/m/2 --fps 2.0\n"
