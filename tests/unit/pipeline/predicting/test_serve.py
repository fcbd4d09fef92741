"""`sightline serve`: a real server on the loopback, asked over HTTP as clients ask."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from contracts.records import Record
from lightning_modules.base.task import Prediction
from pipeline.predicting import bodies
from pipeline.predicting.service import Limits, Service
from pipeline.training.predictor import Predictor, load_predictor
from tests.command import sightline
from tests.http_service import Client, running, until
from tests.local_training import make_checkpoint
from tests.own_task import own_checkpoint
from tests.unit.pipeline.predicting.test_text_only import REPORT, TASK, WORDS

ROOT = Path(__file__).resolve().parents[4]
LIMITS = Limits(max_bytes=200_000, batch=4, wait_s=0.02)


def image(seed: int, height: int = 40, width: int = 60) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("served") / "seg.ckpt", 1)


@pytest.fixture(scope="module")
def predictor(checkpoint: Path) -> Predictor:
    return load_predictor(checkpoint)


@pytest.fixture(scope="module")
def service(checkpoint: Path) -> Service:
    return Service("models:/seg/3", checkpoint, LIMITS)


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[Client]:
    with running(service) as client:
        yield client


def alone(predictor: Predictor, data: bytes) -> Any:
    """What the predictor itself answers, as JSON has it."""
    return json.loads(json.dumps(predictor.answers(predictor.predict(predictor.record({"image": data})))))


def test_an_image_is_answered_as_by_the_predictor(client: Client, predictor: Predictor) -> None:
    for kind in ("image/png", "application/octet-stream", "application/x-www-form-urlencoded", ""):
        status, document = client.predict(image(0), kind=kind)
        assert (status, document) == (200, {"model": "models:/seg/3", "answers": alone(predictor, image(0))})


def test_the_model_is_described(client: Client, checkpoint: Path) -> None:
    status, document, _ = client.ask("GET", "/")
    assert status == 200
    described = {"model": "models:/seg/3", "version": "3", "task": "segmentation", "classes": ["circle", "square"]}
    assert described.items() <= document.items()
    assert list(document["inputs"]) == ["image"]
    assert document["example"] == "curl --data-binary @photo.jpg 'http://here:1/predict'"
    assert len(document["checkpoint_sha256"]) == 64 and document["limits"]["max_mb"] == 0.2
    interface = client.ask("GET", "/openapi.json")[1]
    assert interface["paths"]["/predict"]["post"]["requestBody"]["content"].keys() >= {"image/*", "multipart/form-data"}
    assert "swagger" in client.ask("GET", "/docs")[1]


def test_many_clients_share_batches_and_each_gets_its_own_answer(
    service: Service, client: Client, predictor: Predictor
) -> None:
    images = [image(i, 20 + 4 * i, 90 - 4 * i) for i in range(12)]
    before = client.ask("GET", "/health")[1]
    with ThreadPoolExecutor(13) as pool:
        bad = pool.submit(client.predict, b"no image")
        found = list(pool.map(client.predict, images))
    after = client.ask("GET", "/health")[1]
    for data, (status, document) in zip(images, found, strict=True):
        assert status == 200
        assert document["answers"] == alone(predictor, data)
    assert bad.result()[0] == 422
    assert after["answered"] - before["answered"] == 12
    assert after["batches"] - before["batches"] < 12
    assert after["waiting"] == service.taken == 0


def test_a_form_has_an_answer_for_each_file(client: Client, predictor: Predictor) -> None:
    files = [("image", "a.png", image(1)), ("image", "b.png", b"no image"), ("image", "c.png", image(2, 30, 30))]
    status, document = client.form(files)
    first, second, third = document["predictions"]
    assert status == 200
    assert first == {"image": "a.png", "answers": alone(predictor, image(1))}
    assert third == {"image": "c.png", "answers": alone(predictor, image(2, 30, 30))}
    assert second["image"] == "b.png" and "cannot be used" in second["error"]["what"]
    status, document = client.form([("image", "b.png", b"no image")])
    assert status == 422 and "cannot be used" in document["error"]["what"]
    assert client.form(files[:1] * (LIMITS.places + 1))[0] == 413


@pytest.mark.parametrize(
    ("method", "path", "kind", "body", "status", "what", "value"),
    [
        ("POST", "/predict", "image/png", b"text", 422, "this image cannot be used", "4 bytes starting with b'text'"),
        ("POST", "/predict", "image/png", image(0)[:300], 422, "this image cannot be used", ""),
        ("POST", "/predict", "image/png", b"", 400, "an input is missing", "image"),
        ("POST", "/predict", "", b"", 400, "an input is missing", "image"),
        ("POST", "/predict?question=why", "image/png", image(0), 400, "does not take this input", "question"),
        ("POST", "/predict?nosuch=1", "image/png", image(0), 400, "no such input", "nosuch"),
        ("POST", "/predict?text=1&text=2", "image/png", image(0), 400, "given twice", "text"),
        ("POST", "/predict?fps=fast", "image/png", image(0), 400, "not a number of frames", "fast"),
        ("POST", "/predict", "text/html", b"<p>", 415, "of a kind that is not read", "text/html"),
        ("POST", "/predict", "application/json", b"{}", 415, "takes more than texts", "application/json"),
        ("POST", "/predict", "multipart/form-data", b"x", 400, "form cannot be read", ""),
        ("POST", "/predict", "multipart/form-data; boundary=a", b"--b\r\nx", 400, "form cannot be read", ""),
        ("GET", "/predict", "", b"", 405, "not by this method", "GET /predict"),
        ("POST", "/nosuch", "", b"", 404, "no such address", "POST /nosuch"),
    ],
)
def test_a_clients_error_is_told_as_json(
    client: Client, method: str, path: str, kind: str, body: bytes, status: int, what: str, value: str
) -> None:
    found, document, _headers = client.ask(method, path, body, {"Content-Type": kind} if kind else {})
    assert (found, list(document)) == (status, ["error"])
    assert what in document["error"]["what"]
    assert value in document["error"].get("value", "")
    assert document["error"].keys() <= {"what", "value", "where", "allowed", "fix"}


def test_a_file_that_a_form_does_not_have_is_refused(client: Client) -> None:
    status, document = client.form([("picture", "a.png", image(0))])
    assert (status, document["error"]["value"]) == (400, "picture")
    status, document = client.form([("question", None, b"why?"), ("image", "a.png", image(0))])
    assert (status, document["error"]["value"]) == (400, "question")


def test_a_body_beyond_the_limit_is_not_read(client: Client, service: Service) -> None:
    too_large = bytes(LIMITS.max_bytes + 1)
    assert client.predict(too_large)[0] == 413
    chunks = iter([too_large[:50_000]] * 10)
    status, document, _ = client.ask("POST", "/predict", chunks, {"Content-Type": "image/png"})
    assert (status, document["error"]["allowed"]) == (413, "at most 0.2 MB")
    assert client.form([("image", "a.png", too_large)])[0] == 413
    form = [
        b'--a\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n',
        *[too_large[:50_000]] * 10,
    ]
    kind = "multipart/form-data; boundary=a"
    assert client.predict(iter(form), kind=kind)[0] == 413
    with socket.create_connection(("127.0.0.1", client.port), timeout=10) as connection:
        head = "POST /predict HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 99999999999\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 413")
    assert service.taken == 0


def test_an_image_of_too_many_pixels_is_refused_undecoded(client: Client) -> None:
    bomb = cv2.imencode(".png", np.zeros((8000, 8000), np.uint8), [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()
    assert len(bomb) < LIMITS.max_bytes
    status, document = client.predict(bomb)
    assert status == 422 and "8000 x 8000" in document["error"]["value"]


def test_a_body_that_does_not_come_holds_its_place_for_a_while_only(
    client: Client, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "BODY_S", 0.1)
    monkeypatch.setattr(bodies, "_DISCARD_S", 0.1)
    with socket.create_connection(("127.0.0.1", client.port), timeout=10) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
        assert connection.recv(100).startswith(b"HTTP/1.1 408")
    assert service.taken == 0


class Gated(Predictor):
    """Computes nothing before it is let go, and fails at images 13 pixels wide."""

    go: threading.Event

    def predict_all(self, records: Sequence[Record]) -> list[list[Prediction]]:
        assert self.go.wait(30)
        if any(record.width == 13 for record in records):
            raise RuntimeError("password=geheim")
        return super().predict_all(records)


@pytest.fixture
def gated(predictor: Predictor) -> Iterator[Gated]:
    gated = Gated(predictor.module, predictor.run)
    gated.go = threading.Event()
    yield gated
    gated.go.set()


def test_not_ready_before_the_model_is_loaded(checkpoint: Path, gated: Gated) -> None:
    def load(path: Path) -> Predictor:
        assert gated.go.wait(30)
        return gated

    with running(Service("seg", checkpoint, LIMITS, load), wait=False) as client:
        status, document, headers = client.ask("GET", "/health")
        assert (status, document["status"], headers["Retry-After"]) == (503, "loading", "1")
        assert client.ask("GET", "/")[1]["status"] == "loading"
        status, document, headers = client.ask("POST", "/predict", image(0))
        assert (status, document["error"]["what"], headers["Retry-After"]) == (503, "the model is not loaded yet", "1")
        gated.go.set()
        until(lambda: client.ask("GET", "/health")[0] == 200)
        assert client.predict(image(0))[0] == 200


def test_who_comes_while_too_many_wait_is_told_to_come_again(checkpoint: Path, gated: Gated) -> None:
    service = Service("seg", checkpoint, replace(LIMITS, batch=2), lambda path: gated)
    with running(service) as client, ThreadPoolExecutor(service.limits.places) as pool:
        waiting = [pool.submit(client.predict, image(i)) for i in range(service.limits.places)]
        until(lambda: service.taken == service.limits.places)
        status, document, headers = client.ask("POST", "/predict", image(0))
        assert (status, document["error"]["what"]) == (503, "too many requests are waiting")
        assert headers["Retry-After"] == "1"
        assert client.ask("GET", "/health")[0] == 200
        gated.go.set()
        assert {future.result(60)[0] for future in waiting} == {200}
        assert client.predict(image(0))[0] == 200


def test_a_failure_of_the_model_stays_in_the_log_without_secrets(
    checkpoint: Path, gated: Gated, predictor: Predictor, capfd: pytest.CaptureFixture
) -> None:
    gated.go.set()
    limits = replace(LIMITS, batch=2, wait_s=5.0)
    with running(Service("seg", checkpoint, limits, lambda path: gated)) as client, ThreadPoolExecutor(2) as pool:
        bad, good = (pool.submit(client.predict, data) for data in (image(0, 9, 13), image(1)))
        assert bad.result() == (
            500,
            {"error": {"what": "the model failed at this input", "fix": "the server's log says more"}},
        )
        assert good.result() == (200, {"model": "seg", "answers": alone(predictor, image(1))})
    logged = capfd.readouterr().err
    assert "RuntimeError: password=***" in logged and "geheim" not in logged


@pytest.mark.filterwarnings("default")
def test_a_model_of_texts_takes_json_or_fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = own_checkpoint(tmp_path, monkeypatch, "wordlength", task=TASK, report=REPORT)
    with running(Service("words", own, LIMITS)) as client:
        answered = (200, {"model": "words", "answers": WORDS})
        assert client.predict(b'{"source": "ein langer"}', kind="application/json") == answered
        assert client.predict(b"source=ein+langer", kind="application/x-www-form-urlencoded") == answered
        assert client.predict(b"", "?source=ein%20langer", kind="") == answered
        assert client.form([("source", None, b"ein langer")]) == (200, {"model": "words", "predictions": [
            {"answers": WORDS}]})  # fmt: skip
        for body in (b"{", b"[]", b'{"source": 3}', b"[" * 100_000):
            assert client.predict(body, kind="application/json")[0] == 400
        assert client.predict(image(0), kind="image/png")[0] == 415
        assert client.predict(b"{}", kind="application/json")[1]["error"]["value"] == "source"
        assert client.ask("GET", "/")[1]["example"].endswith("""-d '{"source": "the sentence to translate"}'""")


def test_told_to_end_it_answers_what_it_has_begun_with(checkpoint: Path) -> None:
    command = [sys.executable, "-m", "pipeline.cli", "serve", str(checkpoint), "--port", "0", "--host", "0.0.0.0"]
    process = subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        told = process.stdout.readline()
        port = int(re.search(r":(\d+) ", told)[1])  # type: ignore[index]
        data = image(0)
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            head = f"POST /predict?text=geheim HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
            connection.sendall(head.replace("?text=geheim", "").encode() + data[:100])
            until(lambda: Client(port).ask("GET", "/health")[1]["waiting"] == 1)
            assert Client(port).predict(data, "?text=geheim")[0] == 400
            process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            connection.sendall(data[100:])
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
        out, err = process.communicate(timeout=30)
        assert process.returncode == 130
        assert out.splitlines()[-1] == "answered 1 inputs in 1 batches"
        assert err.startswith("warning: 0.0.0.0 is open to others") and err.endswith("interrupted\n")
        assert "400 POST /predict: this model does not take this input" in err and "geheim" not in out + err
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        assert process.stderr is not None
        process.stderr.close()


def test_what_cannot_be_served_is_told_with_2(tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture,
                                              monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.ckpt").write_bytes(b"no checkpoint")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        assert sightline("serve", ["bad.ckpt", "--port", "0"]) == 2
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert "the checkpoint cannot be read" in capsys.readouterr().err
    assert sightline("serve", ["nosuch", "--port", "0"]) == 2
    assert "no such trained run: 'nosuch'" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert sightline("serve", [str(checkpoint), "--port", str(other.getsockname()[1])]) == 2
    assert "the port is in use" in capsys.readouterr().err
    assert sightline("serve", [str(checkpoint), "--host", "192.0.2.1", "--port", "0"]) == 2
    assert "this address cannot be listened on" in capsys.readouterr().err


@pytest.mark.parametrize("has_server", [True, False])
def test_a_registered_model_is_served_by_the_code_it_ships(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture, has_server: bool
) -> None:
    from pipeline.tracking import connection
    from pipeline.tracking import mlflow_run as tracking

    def fetch(uri: str, client: Any, target: Path, *, trust: bool) -> Path:
        assert not trust
        code = target / "model" / "code" / "pipeline"
        (code / "predicting").mkdir(parents=True)
        (code / "__init__.py").touch()
        (code / "cli.py").write_text("import sys\nprint('shipped', *sys.argv[3:])\nsys.exit(7)\n")
        if has_server:
            (code / "predicting" / "serve.py").touch()
        (target / "model" / "artifacts").mkdir()
        (target / "model" / "artifacts" / "best.ckpt").touch()
        return target / "model"

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(connection, "connect", lambda config, root: None)
    monkeypatch.setattr(tracking, "fetch_signed", fetch)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        code = sightline("serve", ["m/2", "--port", "0", "--batch", "3"])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    out, err = capfd.readouterr()
    if has_server:
        assert (code, out) == (
            7,
            "shipped --host 127.0.0.1 --port 0 --max-mb 20.0 --batch 3 --wait-ms 5.0 --label models:/m/2\n",
        )
    else:
        assert code == 2 and "ships has no server yet: 'models:/m/2'" in err and "mlflow models serve" in err
