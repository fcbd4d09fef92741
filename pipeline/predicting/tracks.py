"""Objects followed through the frames of a video: ByteTrack (2110.06864; https://github.com/ifzhang/ByteTrack).

A detection that is sure begins or continues a track; one that is not continues a track that nothing else does, which is
what keeps objects that are half hidden. Where a track should be in the next frame is predicted by the filter of SORT
(1602.00763) with DeepSORT's noise (1703.07402): center, aspect, height, and how fast they change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from lightning_modules.ops.boxes import pairwise_ious

UNSURE = 0.1  # a score below which a detection says nothing
NEW_ABOVE = 0.1  # over the least score of a sure one, for a track to begin
KEPT_S = 1.0  # a track that nothing continues for so long has ended
_WITH_SURE, _WITH_UNSURE = 0.2, 0.5  # least IoU (times the score, with sure ones) of a track and what continues it
_POSITION, _SPEED = 1 / 20, 1 / 160  # deviations as shares of the height
_ASPECT, _ASPECT_SPEED, _ASPECT_SEEN = 1e-2, 1e-5, 1e-1


@dataclass
class _Track:
    """`mean` (8,) and `covariance` (8, 8) of center x and y, aspect, height, and their changes a frame."""

    number: int
    label: int
    mean: np.ndarray
    covariance: np.ndarray
    seen: int  # the frame of its last detection

    @property
    def box(self) -> np.ndarray:
        x, y, aspect, height = self.mean[:4]
        half = np.array([aspect * height, height]) / 2
        return np.array([x - half[0], y - half[1], x + half[0], y + half[1]])

    def predict(self, frames: int) -> None:
        motion = np.eye(8) + frames * np.eye(8, k=4)
        self.mean = motion @ self.mean
        noise = np.diag(_deviations(self.mean[3]) ** 2) * frames
        self.covariance = motion @ self.covariance @ motion.T + noise

    def update(self, box: np.ndarray, frame: int) -> None:
        self.seen = frame
        height = self.mean[3]
        seen = np.diag(np.array([_POSITION * height, _POSITION * height, _ASPECT_SEEN, _POSITION * height]) ** 2)
        gain = self.covariance[:, :4] @ np.linalg.inv(self.covariance[:4, :4] + seen)
        self.mean = self.mean + gain @ (_measured(box) - self.mean[:4])
        self.covariance = self.covariance - gain @ self.covariance[:4]


@dataclass
class Tracker:
    """Of one video.

    Attributes:
        sure: the least score of a sure detection.
        max_gap: frames without a detection after which a track has ended.
    """

    sure: float
    max_gap: int
    _tracks: list[_Track] = field(default_factory=list)
    _frame: int | None = None
    _begun: int = 0

    def follow(self, frame: int, boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """The track of each detection.

        Args:
            frame: its number; later ones come later. boxes: (N, 4) x1, y1, x2, y2 in pixels. scores, labels: (N,).

        Returns:
            (N,) int64, numbers from 1; 0: it is in no track.
        """
        for track in self._tracks:
            track.predict(frame - (self._frame if self._frame is not None else frame))
        last, self._frame = self._frame, frame
        self._tracks = [track for track in self._tracks if frame - track.seen <= self.max_gap]
        numbers = np.zeros(len(boxes), np.int64)
        sure = np.flatnonzero(scores >= self.sure)
        unsure = np.flatnonzero((scores < self.sure) & (scores >= min(UNSURE, self.sure)))
        left = self._join(self._tracks, sure, boxes, scores, labels, numbers, _WITH_SURE)
        left = [track for track in left if track.seen == last]  # one that was lost already waits for a sure one
        self._join(left, unsure, boxes, np.ones(len(boxes)), labels, numbers, _WITH_UNSURE)
        for i in sure:
            if not numbers[i] and scores[i] >= min(1.0, self.sure + NEW_ABOVE):
                numbers[i] = self._begin(boxes[i], int(labels[i]))
        return numbers

    def _join(
        self, tracks: Sequence[_Track], found: np.ndarray, boxes: np.ndarray, weights: np.ndarray,
        labels: np.ndarray, numbers: np.ndarray, least: float,
    ) -> list[_Track]:  # fmt: skip
        """Continue tracks by detections of their class; those that none continues."""
        if not tracks or not len(found):
            return list(tracks)
        fits = pairwise_ious(np.stack([track.box for track in tracks]), boxes[found]) * weights[found]
        fits[np.array([track.label for track in tracks])[:, None] != labels[found]] = 0.0
        taken = set()
        for row, column in zip(*linear_sum_assignment(-fits), strict=True):
            if fits[row, column] >= least:
                i = found[column]
                numbers[i] = tracks[row].number
                tracks[row].update(boxes[i], self._frame or 0)
                taken.add(row)
        return [track for row, track in enumerate(tracks) if row not in taken]

    def _begin(self, box: np.ndarray, label: int) -> int:
        self._begun += 1
        measured = _measured(box)
        covariance = np.diag((_deviations(measured[3]) * np.array([2, 2, 1, 2, 10, 10, 1, 10])) ** 2)
        mean = np.concatenate([measured, np.zeros(4)])
        self._tracks.append(_Track(self._begun, label, mean, covariance, self._frame or 0))
        return self._begun


def _measured(box: np.ndarray) -> np.ndarray:
    width, height = np.maximum(box[2:] - box[:2], 1e-3)
    return np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2, width / height, height])


def _deviations(height: float) -> np.ndarray:
    place, speed = _POSITION * height, _SPEED * height
    return np.array([place, place, _ASPECT, place, speed, speed, _ASPECT_SPEED, speed])
