"""A task on clips, in files of its own: from the command line, frame by frame, and as a served model."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from contracts.errors import ConfigError, DataError
from contracts.inputs import Clip, inputs_of
from contracts.records import Record
from pipeline.predicting.clips import read_clip
from pipeline.predicting.service import Limits, Service
from pipeline.training.predictor import clip_parts, load_predictor
from tests.command import sightline
from tests.http_service import running
from tests.own_task import MODEL, own_checkpoint

pytestmark = pytest.mark.filterwarnings("default")  # MLflow's own

TASK = """
from dataclasses import dataclass
import numpy as np
import torch
from lightning_modules.augment.images import decode_image
from lightning_modules.base.families import ClassifierSpec
from lightning_modules.base.task import BaseTask, Item

class Task(BaseTask):
    @dataclass(frozen=True, kw_only=True)
    class Config:
        pass

    inputs, spec_class, requires, metric = ("clip",), ClassifierSpec, ("num_frames",), "right"

    def spec(self):
        return ClassifierSpec(num_classes=2)

    def encode(self, record, seed):
        return {"means": [decode_image(frame).mean() for frame in record.frames], "times": record.times_s}

    def items(self, record):
        return [Item(f"{record.key}/{i}", record.key, record.group) for i in range(len(record.frames))]

    def collate(self, examples):
        return {name: [value for example in examples for value in example[name]] for name in ("means", "times")}

    def predict(self, model, batch):
        means = torch.tensor(batch["means"], dtype=torch.float32)[:, None]
        return [{"at_s": t, "light": round(v)} for t, v in zip(batch["times"], model(means).flatten().tolist())]

    def answer(self, prediction):
        return prediction

    def losses(self, model, batch): ...
    def truths(self, record): ...
    def metrics(self, *, thorough=False): ...
"""
REPORT = """
import numpy as np
from lightning_modules.augment.images import decode_image
from lightning_modules.reports._report import BaseReport

class Report(BaseReport):
    def constant(self, truths): ...

    def picture(self, record, predictions, truths):
        return np.concatenate([decode_image(frame) for frame in record.frames], axis=1)
"""
LIGHTS = (10, 200, 90)


def png(light: int, size: tuple[int, int] = (16, 12)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, (light, light, light)).save(out, "PNG")
    return out.getvalue()


def answers(lights: Sequence[int], times: Sequence[float]) -> list[dict[str, Any]]:
    return [{"at_s": pytest.approx(t), "light": pytest.approx(v, abs=2)} for v, t in zip(lights, times, strict=True)]


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return own_checkpoint(tmp_path, monkeypatch, "light", task=TASK, report=REPORT)


@pytest.fixture
def frames(checkpoint: Path) -> Path:
    """A folder of three frames, 2, 10 and 11: in the order of numbers, not of names."""
    folder = checkpoint.parent / "frames"
    folder.mkdir()
    for number, light in zip((2, 10, 11), LIGHTS, strict=True):
        (folder / f"img_{number}.png").write_bytes(png(light))
    (folder / "notes.txt").write_text("not a frame")
    return folder


def predicted(capsys: pytest.CaptureFixture, *arguments: str) -> list[dict[str, Any]]:
    assert sightline("predict", ["r.ckpt", *arguments]) == 0
    return json.loads(capsys.readouterr().out)["predictions"]


def test_folders_of_frames_are_predicted_and_drawn(frames: Path, capsys: pytest.CaptureFixture) -> None:
    first, second = predicted(capsys, "frames", "frames", "--fps", "10", "--label", "m")
    assert first["clip"] == "frames" and first["answers"] == answers(LIGHTS, (0, 0.1, 0.2)) == second["answers"]
    assert [one["picture"] for one in (first, second)] == ["predictions/frames.m.png", "predictions/frames.m-2.png"]
    assert cv2.imread(first["picture"]).shape == (12, 48, 3)
    (plain,) = predicted(capsys, "frames")
    assert plain["answers"] == answers(LIGHTS, (0, 0.04, 0.08))


@pytest.mark.parametrize("kind", ["gif", "webp", "png", "tiff"])
def test_an_animated_image_is_a_clip_with_its_own_times(
    checkpoint: Path, capsys: pytest.CaptureFixture, kind: str
) -> None:
    first, *others = [Image.open(io.BytesIO(png(light))) for light in LIGHTS]
    how = {"lossless": True} if kind == "webp" else {}
    first.save(f"clip.{kind}", save_all=True, append_images=others, duration=[200, 500, 100], **how)
    (found,) = predicted(capsys, f"clip.{kind}")
    times = (0, 0.04, 0.08) if kind == "tiff" else (0, 0.2, 0.7)  # TIFFs know no times
    assert found["answers"] == answers(LIGHTS, times)
    assert read_clip(Path(f"clip.{kind}"), fps=2).times_s == (0, 0.5, 1.0)


def test_a_video_is_a_clip(checkpoint: Path, capsys: pytest.CaptureFixture) -> None:
    video = cv2.VideoWriter("clip.avi", cv2.VideoWriter_fourcc(*"MJPG"), 5.0, (16, 12))
    for light in LIGHTS:
        video.write(np.full((12, 16, 3), light, np.uint8))
    video.release()
    (found,) = predicted(capsys, "clip.avi")
    assert found["answers"] == answers(LIGHTS, (0, 0.2, 0.4))


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, ["a clip is missing", "name a folder of frames"]),
        (["empty"], 1, ["this folder has no frames: 'empty'", ".png"]),
        (["nosuch"], 2, ["no such image file: 'nosuch'"]),
        (["text.gif"], 1, ["no frames can be read from this file: 'text.gif'"]),
        (["mixed"], 1, ["frames of a clip differ in size", "mixed frame 2"]),
        (["broken"], 1, ["cannot be used", "broken"]),
        (["frames", "--text", "why?"], 2, ["this model takes no text: 'why?'"]),
        (["frames", "--fps", "0"], 2, ["0.001"]),
        (["frames", "--every", "2"], 2, ["takes a clip with all its frames: '--every 2'"]),
        (["-"], 2, ["a clip cannot be read from standard input"]),
    ],
)
def test_what_is_no_clip_is_told(
    frames: Path, capsys: pytest.CaptureFixture, arguments: list[str], code: int, said: list[str]
) -> None:
    for name, files in (("empty", []), ("mixed", [png(1), png(1, (9, 9))]), ("broken", [png(1)[:-30]])):
        Path(name).mkdir()
        for number, data in enumerate(files):
            (Path(name) / f"{number}.png").write_bytes(data)
    Path("text.gif").write_text("no image")
    assert sightline("predict", ["r.ckpt", *arguments]) == code
    err = capsys.readouterr().err
    assert all(text in err for text in said), err


def test_times_must_ascend_and_be_as_many_as_frames() -> None:
    for times in ((0.0,), (0.0, 0.0), (-1.0, 0.0), (0.0, float("nan"))):
        with pytest.raises(DataError, match="times of a clip do not fit"):
            clip_parts(Clip(frames=(png(1), png(1)), times_s=times))


def test_too_many_frames_are_refused(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.predicting import clips
    from pipeline.training import predictor

    for module in (clips, predictor):
        monkeypatch.setattr(module, "MAX_FRAMES", 2)
    with pytest.raises(DataError, match="too many frames"):
        clip_parts(Clip.even([png(1)] * 3))
    Image.open(io.BytesIO(png(1))).save("a.gif", save_all=True, append_images=[Image.new("RGB", (16, 12))] * 2)
    assert len(read_clip(Path("a.gif")).frames) == 2  # equal frames are one to Pillow
    first, *others = [Image.open(io.BytesIO(png(light))) for light in LIGHTS]
    first.save("b.gif", save_all=True, append_images=others)
    with pytest.raises(DataError, match="too many frames"):
        read_clip(Path("b.gif"))


@pytest.mark.usefixtures("forked_probe")
def test_the_served_model_takes_lists_of_frames(checkpoint: Path, tmp_path: Path) -> None:
    """Its signature follows from the task; JSON has base64; times are optional; what a record says comes out again."""
    import mlflow.pyfunc
    from mlflow.pyfunc.scoring_server import invocations

    from pipeline.tracking.probe import probe
    from pipeline.tracking.registry import save_model
    from pipeline.tracking.served_model import ServedModel

    save_model(checkpoint, tmp_path / "model")
    signature = yaml.safe_load((tmp_path / "model" / "MLmodel").read_text())["signature"]
    assert json.loads(signature["inputs"]) == [
        {"type": "array", "items": {"type": "binary"}, "name": "clip", "required": True},
        {"type": "array", "items": {"type": "double"}, "name": "times_s", "required": False},
    ]
    served = ServedModel()
    context = SimpleNamespace(artifacts={"checkpoint": str(checkpoint)})
    served.load_context(context)
    data = [png(light) for light in LIGHTS]
    rows = pd.DataFrame([{"clip": data, "times_s": [0.0, 1.0, 3.0]}, {"clip": data[:2], "times_s": None}])
    first, second = (json.loads(row) for row in served.predict(context, rows))
    assert first == answers(LIGHTS, (0, 1, 3)) and second == answers(LIGHTS[:2], (0, 0.04))
    for row, said in (({"clip": None}, "a clip is missing"), ({"clip": data[0]}, "a clip is of the wrong kind")):
        with pytest.raises(ConfigError, match=said):
            served.predict(context, pd.DataFrame([row]))

    frames = tuple(map(jpeg, LIGHTS))
    record = Record(key="a", image_id=0, width=16, height=12, frames=frames, times_s=(0.0, 1.0, 2.5))
    given = inputs_of(record, ("clip",))
    expected = load_predictor(checkpoint).predict(record)
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    asked = {"clip": [base64.b64encode(frame).decode() for frame in frames], "times_s": [0.0, 1.0, 2.5]}
    for times, last in ({"times_s": asked.pop("times_s")}, 2.5), ({}, 0.08):
        body = json.dumps({"dataframe_records": [{**asked, **times}]})
        answered = invocations(body, "application/json", loaded, loaded.metadata.get_input_schema())
        (row,) = json.loads(answered.response)["predictions"]
        assert json.loads(row)[2] == {**expected[2], "at_s": last}
    (tmp_path / "model" / "code" / "lightning_modules" / "tasks" / "light.py").write_text(TASK)
    for package, text in (("models", MODEL), ("reports", REPORT)):
        (tmp_path / "model" / "code" / "lightning_modules" / package / "light.py").write_text(text)
    assert probe(tmp_path / "model", given) == expected


def jpeg(light: int) -> bytes:
    return cv2.imencode(".jpg", np.full((12, 16, 3), light, np.uint8))[1].tobytes()


def test_clips_over_http(frames: Path, checkpoint: Path) -> None:
    """A file as the body, files of a form, and frames of a form: each as from the command line."""
    first, *others = [Image.open(io.BytesIO(png(light))) for light in LIGHTS]
    first.save("clip.gif", save_all=True, append_images=others, duration=[200, 500, 100])
    gif = Path("clip.gif").read_bytes()
    with running(Service("light", checkpoint, Limits())) as client:
        status, document = client.predict(gif, kind="image/gif")
        assert (status, document["answers"]) == (200, answers(LIGHTS, (0, 0.2, 0.7)))
        status, document = client.predict(gif, "?fps=2")
        assert (status, document["answers"]) == (200, answers(LIGHTS, (0, 0.5, 1.0)))
        sent = [("frame", f"{i}.png", png(light)) for i, light in enumerate(LIGHTS)]
        status, document = client.form([*sent, ("fps", None, b"10")])
        assert (status, document["predictions"][0]["answers"]) == (200, answers(LIGHTS, (0, 0.1, 0.2)))
        status, document = client.form([("clip", "a.gif", gif), ("clip", "b.gif", b"no clip")])
        well, broken = document["predictions"]
        assert status == 200 and well["answers"] == answers(LIGHTS, (0, 0.2, 0.7))
        assert "no frames can be read" in broken["error"]["what"], broken
        assert str(Path.cwd()) not in json.dumps(broken) and "/tmp" not in json.dumps(broken), "nothing of this machine"
        for body, kind in ((gif[: len(gif) // 3], "image/gif"), (b"text", "video/mp4")):
            status, document = client.predict(body, kind=kind)
            assert status == 422, document
