"""`sightline predict --track`: a detector's objects with the numbers of their tracks, and videos with them drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from contracts.errors import ConfigError, DataError
from lightning_modules.base.object_task import ObjectTask
from pipeline.predicting.given import Item, frame_rate
from pipeline.predicting.tracks import KEPT_S, Tracker

if TYPE_CHECKING:
    from pipeline.training.predictor import Predictor

_PER_OBJECT = ("boxes", "labels", "masks", "scores")  # of a prediction
_CODEC = "mp4v"  # OpenCV's wheels have no encoder of H.264


class Following:
    """Tracks of one video after the other, as their frames come.

    Args:
        out: folder of the films; None: none are drawn. every: of their frames each so-many-th comes. named: a video's
            name -> that of its film, an `.mp4`.

    Raises:
        ConfigError: this model finds no objects.
    """

    def __init__(self, predictor: Predictor, out: Path | None, every: int, named: Callable[[str], str]):
        task = predictor.module.task
        if not isinstance(task, ObjectTask):
            raise ConfigError(
                "only objects can be followed", value="--track",
                where=f"run {predictor.run['name']} ({predictor.run['task_name']})",
                allowed="tasks that find objects: detection, instances, region_detection", fix="leave it out",
            )  # fmt: skip
        self._task, self._out, self._every, self._named = task, out, every, named
        self._sure: float = task.config.picture_score
        task.config = replace(task.config, picture_score=0.0)  # what is in a track is answered, however unsure
        self._video, self._last = "", -1
        self._writer: cv2.VideoWriter | None = None

    def answer(self, item: Item, prediction: Mapping[str, Any]) -> tuple[dict[str, Any], Path | None]:
        """The objects of a frame that are in a track, each with `track`, a number from 1; and where they are drawn."""
        assert item.frame is not None
        if item.name != self._video or item.frame <= self._last:  # the same film once more
            self._begin(item.name)
        self._last = item.frame
        arrays = (np.asarray(prediction[name]) for name in ("boxes", "scores", "labels"))
        numbers = self._tracker.follow(item.frame, *arrays)
        chosen = np.flatnonzero(numbers)
        kept = {name: _of(value, chosen) if name in _PER_OBJECT else value for name, value in prediction.items()}
        answer = self._task.answer(kept)
        for found, number in zip(answer["objects"], numbers[chosen], strict=True):
            found["track"] = int(number)
        return answer, None if self._out is None else self._draw(item, answer["objects"])

    def close(self) -> None:
        """End the video that is being written."""
        if self._writer is not None:
            self._writer.release()
            self._writer = None

    def _begin(self, name: str) -> None:
        self.close()
        capture = cv2.VideoCapture(name, cv2.CAP_FFMPEG)
        self._video, self._fps = name, frame_rate(capture)
        capture.release()
        self._target = self._named(name)
        self._tracker = Tracker(self._sure, max(self._every, round(KEPT_S * self._fps)))

    def _draw(self, item: Item, objects: list[dict[str, Any]]) -> Path:
        assert self._out is not None and isinstance(item.data, bytes)
        frame = cv2.imdecode(np.frombuffer(item.data, np.uint8), cv2.IMREAD_COLOR)
        assert frame is not None  # it was an image a moment ago
        target = self._out / self._target
        if self._writer is None:
            self._out.mkdir(parents=True, exist_ok=True)
            size = (frame.shape[1], frame.shape[0])
            codec = cv2.VideoWriter.fourcc(*_CODEC)
            self._writer = cv2.VideoWriter(str(target), codec, self._fps / self._every, size)
            if not self._writer.isOpened():
                raise DataError("the video cannot be written", where=str(target))
        self._writer.write(drawn(frame, objects))
        return target


def drawn(frame: np.ndarray, objects: list[dict[str, Any]]) -> np.ndarray:
    """(h, w, 3) uint8 BGR with a box a track, in a color of its own, and its class and number above."""
    out, scale = frame.copy(), max(0.4, min(frame.shape[:2]) / 800)
    thickness = max(1, round(2 * scale))
    for found in objects:
        x1, y1, x2, y2 = (round(v) for v in found["box"])
        hue = np.array([[[found["track"] * 67 % 180, 255, 230]]], np.uint8)  # neighbours far apart on the circle
        color = tuple(map(int, cv2.cvtColor(hue, cv2.COLOR_HSV2BGR)[0, 0]))
        cv2.rectangle(out, (x1, y1), (x2, y2), color, thickness)
        text = f"{found['label']} {found['track']}"
        (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
        top = max(y1, height + 4)
        cv2.rectangle(out, (x1, top - height - 4), (x1 + width, top), color, -1)
        cv2.putText(out, text, (x1, top - 2), cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), thickness, cv2.LINE_AA)
    return out


def _of(value: Any, chosen: np.ndarray) -> Any:
    return value[chosen] if isinstance(value, np.ndarray) else [value[i] for i in chosen]
