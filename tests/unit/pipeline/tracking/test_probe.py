"""The process that asks a registered model starts early, never stays, and has nothing of ours but what the model ships:
a process of its own or, as in a `sightline repro`, a fork of the one that has the libraries loaded."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from pipeline.system import warm
from pipeline.tracking import probe

MODEL = "flavors: {python_function: {loader_module: told, code: code, python_version: '3.11'}}\n"
SHIPPED = """
import json, sys
def _load_pyfunc(path):
    return Model()
class Model:
    def predict(self, rows, params=None):
        try:
            import webdataset
            found = "webdataset"
        except ImportError:
            found = "none"
        packages = ("pipeline", "contracts", "lightning_modules")
        ours = [name for name in sys.modules if name.partition(".")[0] in packages]
        return [json.dumps([ours, found, bytes(rows["image"][0]).decode(), __file__])]
"""


@pytest.mark.parametrize("way", ["alone", "fork"])
def test_a_model_finds_what_it_ships_and_nothing_else_of_ours(tmp_path: Path, warm_socket, way, monkeypatch):
    monkeypatch.setenv(warm.SERVER, warm_socket if way == "fork" else "")
    (tmp_path / "MLmodel").write_text(MODEL)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "told.py").write_text(SHIPPED)
    file = str(tmp_path / "code" / "told.py")
    assert probe.probe(tmp_path, {"image": b"image"}) == [[], "none", "image", file]


@pytest.mark.usefixtures("forked_probe")
def test_an_early_process_that_is_not_asked_ends_with_its_block():
    with probe.early():
        ((process, folder),) = probe._waiting
        assert psutil.Process(process.pid).is_running() and folder.is_dir()
    assert process.poll() is not None and not folder.exists() and not probe._waiting


@pytest.mark.usefixtures("forked_probe")
def test_it_ends_when_whoever_would_ask_has_died():
    with probe._process() as (process, _):
        process.stdin.close()  # as the system does for a process that was killed
        assert process.wait(120) == 0


@pytest.mark.usefixtures("forked_probe")
def test_the_early_process_is_asked_once_and_tells_why_a_model_cannot_be_used(tmp_path: Path):
    (tmp_path / "MLmodel").write_text("flavors: {}\n")
    with probe.early():
        ((early, _),) = probe._waiting
        with pytest.raises(RuntimeError, match=r"\w"):
            probe.probe(tmp_path, {"image": b"image"})
        assert early.returncode not in (None, 0) and not probe._waiting
