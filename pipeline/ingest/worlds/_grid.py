"""Pictures of shapes in the nine places of a grid, of which questions are asked that need two looks.

A picture has four to six objects, each of another color and shape than the others: no two are alike in both. Objects
lie in places of a 3 x 3 grid, so that "left of" is clear: the next place of the same row.

Shapes: image (H, W, 3) uint8 RGB, boxes `(x1, y1, x2, y2)` in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.ingest.worlds._scenes import COLORS, unit_outlines

SHAPES = ("circle", "cross", "ring", "square", "triangle")
COLOR_NAMES = ("blue", "green", "purple", "red", "white", "yellow")
SIDE = 3  # of the grid
PLACES = (
    "at the top left", "at the top", "at the top right",
    "on the left", "in the center", "on the right",
    "at the bottom left", "at the bottom", "at the bottom right",
)  # fmt: skip
STEPS = {"left of": (0, -1), "right of": (0, 1), "above": (-1, 0), "below": (1, 0)}  # row, column of the neighbor

Corners = tuple[int, int, int, int]

_NUM_OBJECTS = (4, 5, 6)
_REPEATED_COLOR = 0.25
_SHIFT_PX = 3


@dataclass(frozen=True, kw_only=True)
class Thing:
    """An object. `place` counts the grid's places row by row from 0."""

    color: str
    shape: str
    place: int
    box: Corners

    @property
    def name(self) -> str:
        return f"{self.color} {self.shape}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    image: np.ndarray
    things: tuple[Thing, ...]

    def at(self, place: int) -> Thing | None:
        return next((thing for thing in self.things if thing.place == place), None)

    def beside(self, thing: Thing, side: str) -> Thing | None:
        """What is in the next place on that side (a key of `STEPS`)."""
        row, column = divmod(thing.place, SIDE)
        row, column = row + STEPS[side][0], column + STEPS[side][1]
        inside = 0 <= row < SIDE and 0 <= column < SIDE
        return self.at(row * SIDE + column) if inside else None

    def only(self, attribute: str) -> list[Thing]:
        """The things with which no other shares this attribute, `color` or `shape`."""
        values = [getattr(thing, attribute) for thing in self.things]
        return [thing for thing, value in zip(self.things, values, strict=True) if values.count(value) == 1]


def draw_picture(rng: np.random.Generator, size: int) -> Picture:
    """A picture of `size` x `size` pixels."""
    tone = rng.uniform(60, 120) + rng.uniform(-12, 12, 3)
    image = np.full((size, size, 3), np.clip(tone, 0, 255), np.uint8)
    count = int(rng.choice(_NUM_OBJECTS))
    places = np.sort(rng.choice(SIDE * SIDE, count, replace=False))
    things: list[Thing] = []
    colors = list(rng.permutation(COLOR_NAMES))
    for place in places.tolist():
        while True:
            color = str(colors[len(things)])
            if things and rng.random() < _REPEATED_COLOR:
                color = things[int(rng.integers(len(things)))].color
            shape = str(rng.choice(SHAPES))
            if all((color, shape) != (other.color, other.shape) for other in things):
                break
        box = _paint(rng, image, color, shape, place)
        things.append(Thing(color=color, shape=shape, place=place, box=box))
    noise = rng.normal(0, 3, image.shape)
    noisy = np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)
    return Picture(image=noisy, things=tuple(things))


def _paint(
    rng: np.random.Generator, image: np.ndarray, color: str, shape: str, place: int
) -> tuple[int, int, int, int]:
    """Paint an object into its place; returns its box."""
    size = image.shape[0]
    cell = size / SIDE
    row, column = divmod(place, SIDE)
    shift = _SHIFT_PX * size / 96
    center = np.array([column + 0.5, row + 0.5]) * cell + rng.uniform(-shift, shift, 2)
    radius = rng.uniform(0.28, 0.33) * cell
    rings = [ring * radius + center for ring in unit_outlines(shape, rng.uniform(-12, 12))]
    shade = np.array(COLORS[color]) * rng.uniform(0.9, 1.03)
    fixed = [np.rint((ring - 0.5) * 16).astype(np.int32) for ring in rings]  # OpenCV counts from pixel centers
    cv2.fillPoly(image, fixed, np.clip(shade, 0, 255).tolist(), lineType=cv2.LINE_AA, shift=4)
    low, high = np.floor(rings[0].min(axis=0)), np.ceil(rings[0].max(axis=0))
    x1, y1 = np.clip(low, 0, size - 1).astype(int).tolist()
    x2, y2 = np.clip(high, 1, size).astype(int).tolist()
    return x1, y1, x2, y2
