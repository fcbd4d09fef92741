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

from contracts.inputs import Given
from contracts.redact import redact

# What the pipeline has and a serving machine has not.
NOT_SERVED_WITH = ("ray", "dvc", "webdataset", "ijson")
# Imported while nobody waits for it; the model's own code imports by itself whatever it needs.
_EARLY = ("torch", "torchvision", "pytorch_lightning", "cv2")

_PROBE = """
import atexit, gc, importlib, json, sys
atexit.register(gc.freeze)  # to look for garbage at the end takes as long as to answer
for name in sys.argv[1].split(","):
    sys.modules[name] = None
import mlflow.pyfunc, pandas
for name in sys.argv[2].split(","):
    importlib.import_module(name)
asked = sys.stdin.readline()  # nothing comes when whoever asks has died
if asked:
    model, row, files = json.loads(asked)
    for name, parts in files.items():
        row[name] = [open(part, "rb").read() for part in parts] if isinstance(parts, list) else open(parts, "rb").read()
    loaded = mlflow.pyfunc.load_model(model, suppress_warnings=True)  # else it reads what every package consists of
    print(loaded.predict(pandas.DataFrame([row]))[0], file=open("answer", "w"))
"""

# Starts what follows its second argument: a fork of the process that has the libraries loaded, where there is one. A
# fork has nothing of ours, either: it looks for modules as a new process does.
_STARTER = """
import importlib, os, sys
sys.path.insert(0, sys.argv[1])
warm = importlib.import_module("pipeline.system.warm")
arguments = ["-c", *sys.argv[2:]]
os.environ[warm.VARIABLE] = os.environ.get(warm.SERVER, "")
code = warm.hand_over(arguments)
if code is None:
    os.execv(sys.executable, [sys.executable, *arguments])
sys.exit(code if code >= 0 else 128 - code)
"""
_CODE = Path(__file__).resolve().parents[2]
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
    command = [sys.executable, "-c", _STARTER, str(_CODE), _PROBE, ",".join(NOT_SERVED_WITH), ",".join(_EARLY)]
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


def probe(model: Path, inputs: Mapping[str, Given]) -> Any:
    """One answer of a model's folder to one row of inputs.

    Raises:
        RuntimeError: it cannot be loaded or used; the end of what it said.
    """
    if not _waiting:
        with early():
            return probe(model, inputs)
    process, folder = _waiting.pop()
    row: dict[str, Any] = {}
    files: dict[str, str | list[str]] = {}  # bytes go by files
    for name, value in inputs.items():
        if isinstance(value, str):
            row[name] = value
        elif isinstance(value, bytes):
            (folder / name).write_bytes(value)
            files[name] = name
        else:
            files[name] = [f"{name}.{i}" for i in range(len(value.frames))]
            for part, frame in zip(files[name], value.frames, strict=True):
                (folder / part).write_bytes(frame)
            row["times_s"] = value.times_s
    process.communicate(f"{json.dumps([str(model), row, files])}\n")
    if process.returncode != 0:
        raise RuntimeError(redact((folder / "told").read_text().strip()[-500:]))
    return json.loads((folder / "answer").read_text())
