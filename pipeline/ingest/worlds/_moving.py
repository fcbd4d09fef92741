"""Moving shapes: what a generated clip shows, and its pixels.

Classes come in pairs, and a clip of one class played backwards is a clip of its partner, with the very same frames: no
frame, and no set of frames, tells the two apart. Shape, color and background have nothing to do with the class.

Shapes: a clip has T frames (S, S, 3) uint8 RGB.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from contracts.errors import DataError

# Pairs of (class, what a caption says of it); the second of a pair is the first backwards.
PAIRS = (
    (("MoveLeft", "moves to the left"), ("MoveRight", "moves to the right")),
    (("Grow", "grows"), ("Shrink", "shrinks")),
    (("TurnClockwise", "turns clockwise"), ("TurnCounterclockwise", "turns counterclockwise")),
    (("Vanish", "vanishes"), ("Appear", "appears")),
)
ACTIONS = tuple(name for pair in PAIRS for name, _ in pair)
SAID = {name: said for pair in PAIRS for name, said in pair}
COLORS = {
    "blue": (60, 90, 235), "green": (50, 175, 70), "red": (225, 50, 45), "white": (245, 245, 245),
    "yellow": (245, 215, 50),
}  # fmt: skip
SHAPES = ("circle", "square", "triangle", "bar")
_OUTLINES = {
    "circle": [(math.cos(math.tau * i / 24), math.sin(math.tau * i / 24)) for i in range(24)],
    "square": [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
    "triangle": [(0.0, -1.0), (0.9, 0.75), (-0.9, 0.75)],
    "bar": [(-1.0, -0.5), (1.0, -0.5), (1.0, 0.5), (-1.0, 0.5)],
}
_MARK = [(0.15, -0.42), (0.85, -0.42), (0.85, 0.42), (0.15, 0.42)]  # or nobody could see a circle turn
_SUPERSAMPLING = 4
_FOURCC = "FFV1"  # without loss, so that frames backwards are the same frames


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a clip's object looks like; `ground` is the background's grey."""

    shape: str
    color: str
    ground: int


@dataclass(frozen=True, kw_only=True)
class Pose:
    """Center and radius as shares of the picture's side, degrees clockwise, opacity in 0..1."""

    x: float
    y: float
    radius: float
    angle: float
    opacity: float = 1.0


def draw_look(rng: np.random.Generator, ground: int | None = None) -> Look:
    return Look(
        shape=str(rng.choice(SHAPES)), color=str(rng.choice(list(COLORS))),
        ground=int(rng.integers(15, 110)) if ground is None else ground,
    )  # fmt: skip


def poses(rng: np.random.Generator, action: str, num_frames: int) -> list[Pose]:
    """What an object does in `num_frames` frames. With generators of one seed the poses of partners are the same ones,
    in opposite order."""
    place = ACTIONS.index(action)
    kind, backwards = ACTIONS[2 * (place // 2)], place % 2 == 1
    radius = rng.uniform(0.19, 0.28)
    low = max(radius, 0.24)
    rest = Pose(x=rng.uniform(low, 1 - low), y=rng.uniform(low, 1 - low), radius=radius, angle=rng.uniform(0, 360))
    speed = rng.uniform(0.8, 1.25)
    shares = np.linspace(0, 1, num_frames) if num_frames > 1 else np.zeros(1)
    steps = num_frames - 1
    # How far it goes leaves room for where it begins: a first frame is to say as little as any other.
    if kind == "MoveLeft":
        way = min(0.045 * speed * steps, 0.7 * (1 - 2 * radius))
        start = rng.uniform(radius + way, 1 - radius)
        made = [replace(rest, x=start - way * share) for share in shares]
    elif kind == "Grow":
        growth = min(1.1 ** (speed * steps), 2.2)
        least = 0.1 * (0.36 / 0.1 / growth) ** rng.uniform(0, 1)
        rest = replace(rest, x=0.35 + 0.3 * rest.x, y=0.35 + 0.3 * rest.y)
        made = [replace(rest, radius=least * growth**share) for share in shares]
    elif kind == "TurnClockwise":
        # The mark swings over the top: which way it turns is where it goes, as for what moves.
        way = min(15 * speed * steps, 110)
        rest = replace(rest, radius=rng.uniform(0.24, 0.3), x=0.3 + 0.4 * rest.x, y=0.3 + 0.4 * rest.y)
        start = -90 + rng.uniform(-45, 45) - way / 2
        made = [replace(rest, angle=start + way * share) for share in shares]
    else:
        way = min(0.08 * speed * steps, 0.6)
        start = rng.uniform(0.12 + way, 1)
        made = [replace(rest, opacity=start - way * share) for share in shares]
    return made[::-1] if backwards else made


def picture(look: Look, pose: Pose, size: int) -> np.ndarray:
    """One frame."""
    side = size * _SUPERSAMPLING
    canvas = np.full((side, side, 3), look.ground, np.uint8)
    turn = math.radians(pose.angle)
    turned = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])

    def points(outline: list[tuple[float, float]]) -> np.ndarray:
        placed = np.array(outline) @ turned.T * pose.radius + (pose.x, pose.y)
        return np.rint(placed * side).astype(np.int32)

    cv2.fillPoly(canvas, [points(_OUTLINES[look.shape])], COLORS[look.color])
    cv2.fillPoly(canvas, [points(_MARK)], (0, 0, 0))
    mixed = look.ground + pose.opacity * (canvas.astype(np.float32) - look.ground)
    small = cv2.resize(mixed, (size, size), interpolation=cv2.INTER_AREA)
    return np.rint(small).astype(np.uint8)


def write_video(path: Path, frames: list[np.ndarray], fps: float) -> None:
    """An AVI without loss.

    Raises:
        DataError: this OpenCV cannot write one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*_FOURCC), fps, (width, height))
    try:
        if not writer.isOpened():
            raise DataError(
                "this OpenCV writes no video", value=_FOURCC, where=str(path),
                fix="install opencv-python-headless as requirements.txt names it; a build without FFmpeg cannot",
            )  # fmt: skip
        for frame in frames:
            writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    finally:
        writer.release()
