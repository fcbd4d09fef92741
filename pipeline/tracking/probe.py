"""One answer of a model's folder in a fresh process, with the code it ships, without unpickling, and without what only
the pipeline has. The process may be started early, to import the libraries while others work.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from contracts.redact import redact

# What the pipeline has and a serving machine has not.
NOT_SERVED_WITH = ("ray", "dvc", "webdataset", "ijson")
# Imported while nobody waits for it; the model's own code imports by itself whatever it needs.
_EARLY = ("torch", "torchvision", "pytorch_lightning", "cv2")

_PROBE = """
import importlib, json, sys
for name in sys.argv[1].split(","):
    sys.modules[name] = None
import mlflow.pyfunc, pandas
for name in sys.argv[2].split(","):
    importlib.import_module(name)
asked = sys.stdin.readline()  # nothing comes when whoever asks has died
if asked:
    model, modes = json.loads(asked)
    row = {name: open(name, mode, encoding=None if mode == "rb" else "utf-8").read() for name, mode in modes.items()}
    print(mlflow.pyfunc.load_model(model).predict(pandas.DataFrame([row]))[0], file=open("answer", "w"))
"""

_waiting: list[tuple[subprocess.Popen[str], Path]] = []


@contextmanager
def early() -> Iterator[None]:
    """Within, the process of the first `probe` is there already."""
    with _process() as started:
        _waiting.append(started)
        try:
            yield
        finally:
            _waiting.clear()


@contextmanager
def _process() -> Iterator[tuple[subprocess.Popen[str], Path]]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "PYTHONSAFEPATH": "1",  # the folder of the project must not stand in for the shipped code
    }
    command = [sys.executable, "-c", _PROBE, ",".join(NOT_SERVED_WITH), ",".join(_EARLY)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "text": True}
    with (
        tempfile.TemporaryDirectory() as folder,
        open(Path(folder) / "told", "w") as told,
        subprocess.Popen(command, cwd=folder, env=environment, stderr=told, **pipes) as process,  # type: ignore[call-overload]
    ):
        try:
            yield process, Path(folder)
        finally:
            process.kill()


def probe(model: Path, inputs: Mapping[str, bytes | str]) -> Any:
    """One answer of a model's folder to one row of inputs.

    Raises:
        RuntimeError: it cannot be loaded or used; the end of what it said.
    """
    if not _waiting:
        with early():
            return probe(model, inputs)
    process, folder = _waiting.pop()
    for name, value in inputs.items():
        (folder / name).write_bytes(value if isinstance(value, bytes) else value.encode())
    modes = {name: "rb" if isinstance(value, bytes) else "r" for name, value in inputs.items()}
    process.communicate(f"{json.dumps([str(model), modes])}\n")
    if process.returncode != 0:
        raise RuntimeError(redact((folder / "told").read_text().strip()[-500:]))
    return json.loads((folder / "answer").read_text())
