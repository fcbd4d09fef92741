"""`events.jsonl`: what rank 0 has to say, appended line by line; the driver tails it into MLflow.

Workers thus need neither MLflow nor a network to it, a line costs microseconds, and a crash loses nothing that
was written. Lines: `{"kind": "metrics", "step", "epoch", "time", "values"}` and
`{"kind": "image", "step", "time", "name", "file"}` with `file` relative to the folder of the events file. What a
training repeats after it was killed, from a state of before, is not said again: MLflow would show such a step twice.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pytorch_lightning.loggers.logger import Logger, rank_zero_experiment
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from pipeline.training.history import read_event


class EventLogger(Logger):
    """Lightning's metrics as event lines. All methods do nothing but on rank 0."""

    def __init__(self, path: Path):
        super().__init__()
        self.path = path
        self._told = _told(path)
        self._last: tuple[int | None, dict[str, float]] | None = None

    @property
    def name(self) -> str:
        return "events"

    @property
    def version(self) -> str:
        return "1"

    @property
    @rank_zero_experiment
    def experiment(self) -> Path:
        return self.path

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Parameters are logged once by the driver, from the resolved run."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Write a line; what was said of this step in the line before is not said again."""
        if (step, metrics) == self._last:
            return
        self._last = (step, dict(metrics))
        epoch = int(metrics.get("epoch", -1))
        values = {k: v for k, v in metrics.items() if k != "epoch" and (k, step) not in self._told}
        if values:
            self._write({"kind": "metrics", "step": step, "epoch": epoch, "values": values})

    @rank_zero_only
    def image(self, name: str, picture: np.ndarray, step: int) -> None:
        """Store (h, w, 3) uint8 RGB `picture` as PNG and announce it."""
        if (name, step) in self._told:
            return
        file = f"pictures/{name.replace('/', '-')}-{step:08d}.png"
        target = self.path.parent / file
        target.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(target), picture[..., ::-1])
        self._write({"kind": "image", "step": step, "name": name, "file": file})

    def _write(self, line: dict[str, Any]) -> None:
        # One write of a whole line in append mode: a reader sees all of it or a torn end that it waits for.
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({**line, "time": time.time()}) + "\n")


def _told(path: Path) -> set[tuple[str, int | None]]:
    """Metrics and pictures, each with its step, that processes before this one told."""
    if not path.is_file():
        return set()
    with open(path, "rb") as lines:
        events = [event for line in lines if line.endswith(b"\n") and (event := read_event(line))]
    return {
        (name, event.get("step"))
        for event in events
        for name in (event["values"] if event.get("kind") == "metrics" else [event.get("name", "")])
    }
