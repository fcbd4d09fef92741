"""Scenes of the generated world: what is in an image, where, and its pixels.

A scene is a background with clutter that is no object, sometimes a crowd of tiny shapes, and one to `max_objects`
objects painted over one another. An object has a shape (its class), a colour, a texture and one of two sizes; its mask
is what can be seen of it. All is a function of the generator that is passed in.

Shapes: image (H, W, 3) uint8 RGB, masks (H, W) bool, outlines lists of (P, 2) float64 x, y in pixel-edge coordinates
(pixel column c covers c <= x < c + 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

SHAPES = ("circle", "cross", "ring", "square", "star", "triangle")  # alphabetical, as VOC numbers its classes
COLORS = {
    "blue": (45, 75, 220),
    "cyan": (60, 205, 215),
    "green": (40, 150, 55),
    "purple": (150, 50, 180),
    "red": (215, 45, 40),
    "white": (242, 242, 242),
    "yellow": (240, 210, 45),
}
# A class mostly has its own texture, as a zebra has stripes: what a small network learns first. The exceptions, and a
# weaker model's mistakes on them, keep the shape worth learning (texture bias: arXiv 1811.12231).
TYPICAL_TEXTURE = {
    "circle": "dotted",
    "cross": "plain",
    "ring": "rayed",
    "square": "checked",
    "star": "ringed",
    "triangle": "striped",
}
TEXTURES = tuple(sorted(TYPICAL_TEXTURE.values()))
TYPICAL_PROBABILITY = 0.85
RADII = {"small": (0.12, 0.15), "large": (0.21, 0.27)}  # of image_size; the gap keeps "small" and "large" apart

_OBJECT_COUNT_WEIGHTS = (0.54, 0.29, 0.10, 0.07)  # of 1, 2, 3, 4 objects; every further one like the last
_ASPECTS = ((1.0, 1.0), (1.0, 0.875), (0.875, 1.0))  # height, width
_SUPERSAMPLING = 4
_CROWD_RADIUS = 0.034
_PLACEMENT_TRIES = 24


@dataclass(frozen=True, kw_only=True)
class SceneStyle:
    """What the two worlds set differently.

    `image_size` is the longer side in pixels. `min_visible` is the part (0..1) of its full shape that every object
    keeps after occlusion and the image border.
    """

    image_size: int
    max_objects: int
    min_visible: float
    overlap_probability: float = 0.25
    border_probability: float = 0.12
    crowd_probability: float = 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class SceneObject:
    """`mask` is the visible part and `visible_fraction` its share of the whole shape; truncated: cut by the border."""

    shape: str
    color: str
    texture: str
    size: str
    mask: np.ndarray
    visible_fraction: float
    is_truncated: bool

    @property
    def center(self) -> tuple[float, float]:
        """Centroid x, y of the visible part."""
        ys, xs = np.nonzero(self.mask)
        return float(xs.mean()) + 0.5, float(ys.mean()) + 0.5

    @property
    def box(self) -> tuple[int, int, int, int]:
        return mask_box(self.mask)


@dataclass(frozen=True, kw_only=True, eq=False)
class Crowd:
    """Many tiny shapes of one class and colour; `mask` is all that is visible of them."""

    shape: str
    color: str
    mask: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    image: np.ndarray
    objects: tuple[SceneObject, ...]
    crowd: Crowd | None = None


def mask_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Tight `(x1, y1, x2, y2)` of a non-empty mask, pixel edges: x2 and y2 are one past the last pixel."""
    xs, ys = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1


def draw_scene(rng: np.random.Generator, style: SceneStyle) -> Scene:
    """Sample a scene and paint it. There is always at least one object."""
    aspect = _ASPECTS[rng.integers(len(_ASPECTS))]
    height, width = (round(style.image_size * side) for side in aspect)
    image = _background(rng, height, width)
    _add_clutter(rng, image, style.image_size)
    crowd = _crowd(rng, image, style) if rng.random() < style.crowd_probability else None
    placed: list[_Placed] = []
    while not placed:
        placed = _place_objects(rng, height, width, style, crowd)
    for item in placed:
        _paint(image, item.alpha, _texture(rng, item, height, width))
    image += rng.normal(0, rng.uniform(1, 4), image.shape).astype(np.float32)
    if crowd is not None:
        covered = np.any([item.mask for item in placed], axis=0)
        crowd = Crowd(shape=crowd.shape, color=crowd.color, mask=crowd.mask & ~covered)
    objects = tuple(
        SceneObject(
            shape=item.shape,
            color=item.color,
            texture=item.texture,
            size=item.size,
            mask=item.visible,
            visible_fraction=item.visible.sum() / item.full_area,
            is_truncated=item.is_truncated,
        )
        for item in placed
    )
    return Scene(image=np.clip(np.rint(image), 0, 255).astype(np.uint8), objects=objects, crowd=crowd)


@dataclass(kw_only=True, eq=False)
class _Placed:
    """An object on its way into a scene; `visible` shrinks as later ones are put over it."""

    shape: str
    color: str
    texture: str
    size: str
    alpha: np.ndarray  # (H, W) float32, 0..1
    mask: np.ndarray  # what would be seen without other objects
    visible: np.ndarray
    full_area: float  # square pixels, of the whole shape, inside the image or not
    center: np.ndarray
    radius: float
    is_truncated: bool


# ---- what is where


def _object_sizes(rng: np.random.Generator, max_objects: int) -> list[str]:
    """At most two objects are large, so that it is clear which ones a caption speaks of."""
    weights = np.array([*_OBJECT_COUNT_WEIGHTS, *[_OBJECT_COUNT_WEIGHTS[-1]] * max_objects][:max_objects])
    count = int(rng.choice(max_objects, p=weights / weights.sum())) + 1
    if count == 1:
        return ["large" if rng.random() < 0.8 else "small"]
    num_large = 2 if rng.random() < 0.45 else 1
    sizes = ["large"] * num_large + ["small"] * (count - num_large)
    return [sizes[i] for i in rng.permutation(count)]


def _place_objects(
    rng: np.random.Generator, height: int, width: int, style: SceneStyle, crowd: Crowd | None
) -> list[_Placed]:
    """Objects from back to front, without those that found no place."""
    shapes = [s for s in SHAPES if crowd is None or s != crowd.shape]
    colors = [c for c in COLORS if crowd is None or c != crowd.color]
    placed: list[_Placed] = []
    for size in _object_sizes(rng, style.max_objects):
        # repeats make counting questions worth asking
        shape = str(rng.choice([p.shape for p in placed] if placed and rng.random() < 0.2 else shapes))
        color = str(rng.choice([p.color for p in placed] if placed and rng.random() < 0.15 else colors))
        texture = TYPICAL_TEXTURE[shape] if rng.random() < TYPICAL_PROBABILITY else str(rng.choice(TEXTURES))
        overlaps, cut = rng.random() < style.overlap_probability, rng.random() < style.border_probability
        for attempt in range(_PLACEMENT_TRIES):
            radius = rng.uniform(*RADII[size]) * style.image_size
            drawn = _Placed(
                shape=shape, color=color, texture=texture, size=size, radius=radius,
                **_outlined(rng, shape, radius, height, width, cut=cut and attempt < _PLACEMENT_TRIES // 2),
            )  # fmt: skip
            if _fits(drawn, placed, crowd, style.min_visible, overlaps):
                for other in placed:
                    other.visible = other.visible & ~drawn.mask
                placed.append(drawn)
                break
    return placed


def _outlined(
    rng: np.random.Generator, shape: str, radius: float, height: int, width: int, *, cut: bool
) -> dict[str, Any]:
    """Geometry of a shape at a random place: inside the image, or, with `cut`, possibly over its border."""
    outlines = [ring * radius for ring in unit_outlines(shape, rng.uniform(-12, 12))]
    outer, *holes = (cv2.contourArea(ring.astype(np.float32)) for ring in outlines)
    size, reach = np.array([width, height]), np.abs(outlines[0]).max(axis=0) + 1
    margin = 0.45 * reach if cut else reach
    center = rng.uniform(margin, size - margin)
    moved = [ring + center for ring in outlines]
    alpha = _coverage(moved, height, width)
    mask = alpha >= 0.5
    return {
        "alpha": alpha,
        "mask": mask,
        "visible": mask,
        "full_area": max(outer - sum(holes), float(mask.sum())),
        "center": center,
        "is_truncated": bool((moved[0] < -0.5).any() or (moved[0] > size + 0.5).any()),
    }


def _fits(drawn: _Placed, placed: list[_Placed], crowd: Crowd | None, min_visible: float, overlaps: bool) -> bool:
    """It is inside enough, leaves enough of each earlier object, and covers one to speak of only where it may."""
    if drawn.mask.sum() < min_visible * drawn.full_area:
        return False
    if any((p.visible & ~drawn.mask).sum() < min_visible * p.full_area for p in placed):
        return False
    others = [p.mask for p in placed] + ([crowd.mask] if crowd else [])
    return overlaps or all((mask & drawn.mask).sum() <= 0.04 * mask.sum() for mask in others)


def _crowd(rng: np.random.Generator, image: np.ndarray, style: SceneStyle) -> Crowd:
    """Paint 12 to 22 tiny shapes of one class close together, behind all objects."""
    height, width = image.shape[:2]
    shape, color = str(rng.choice(SHAPES)), str(rng.choice(list(COLORS)))
    reach = 0.22 * style.image_size
    center = rng.uniform((reach, reach), (width - reach, height - reach))
    outlines = []
    for _ in range(int(rng.integers(12, 23))):
        angle, distance = rng.uniform(0, 2 * np.pi), reach * np.sqrt(rng.uniform(0, 1)) * 0.85
        offset = center + distance * np.array([np.cos(angle), np.sin(angle)])
        outlines.append(
            [o * _CROWD_RADIUS * style.image_size + offset for o in unit_outlines(shape, rng.uniform(-12, 12))]
        )
    alpha = np.max([_coverage(rings, height, width) for rings in outlines], axis=0)
    _paint(image, alpha, np.broadcast_to(np.array(COLORS[color], np.float32), image.shape))
    return Crowd(shape=shape, color=color, mask=alpha >= 0.5)


# ---- pixels


def unit_outlines(shape: str, degrees: float) -> list[np.ndarray]:
    """Outline of a shape of about unit radius round the origin, turned by `degrees`; a second one is a hole.

    Scales differ a little so that all shapes of one radius look about equally large.
    """
    turn = np.deg2rad(degrees)

    def around(angles: np.ndarray, radii: np.ndarray | float) -> np.ndarray:
        return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)

    circle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    if shape == "circle":
        return [around(circle, 1.0)]
    if shape == "ring":
        return [around(circle, 1.05), around(circle, 0.52)]
    if shape == "square":
        return [around(turn + np.pi / 4 + np.arange(4) * np.pi / 2, 1.22)]
    if shape == "triangle":
        return [around(turn - np.pi / 2 + np.arange(3) * 2 * np.pi / 3, 1.25)]
    if shape == "star":
        return [around(turn - np.pi / 2 + np.arange(10) * np.pi / 5, np.where(np.arange(10) % 2, 0.48, 1.3))]
    arm = 0.27  # half width of a cross's bar
    points = [np.array([(arm, -1.1), (arm, -arm), (1.1, -arm)])]
    for _ in range(3):
        points.append(points[-1] @ np.array([(0.0, 1.0), (-1.0, 0.0)]))  # the next quarter
    rotation = np.array([(np.cos(turn), np.sin(turn)), (-np.sin(turn), np.cos(turn))])
    return [np.concatenate(points) @ rotation]


def _coverage(outlines: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """(H, W) float32: how much of each pixel lies inside, even-odd."""
    coverage = np.zeros((height, width), np.float32)
    k = _SUPERSAMPLING
    x1, y1 = np.clip(np.floor(np.min(outlines[0], axis=0)), 0, (width, height)).astype(int).tolist()
    x2, y2 = np.clip(np.ceil(np.max(outlines[0], axis=0)) + 1, 0, (width, height)).astype(int).tolist()
    if x1 >= x2 or y1 >= y2:
        return coverage
    canvas = np.zeros(((y2 - y1) * k, (x2 - x1) * k), np.uint8)
    # OpenCV puts integer coordinates on pixel centres: half a (fine) pixel less than edge coordinates
    rings = [np.rint(((ring - (x1, y1)) * k - 0.5) * 16).astype(np.int32) for ring in outlines]
    cv2.fillPoly(canvas, rings, 255, shift=4)
    coverage[y1:y2, x1:x2] = cv2.resize(canvas, (x2 - x1, y2 - y1), interpolation=cv2.INTER_AREA) / np.float32(255)
    return coverage


def _paint(image: np.ndarray, alpha: np.ndarray, color: np.ndarray) -> None:
    image += alpha[..., None] * (color - image)


def _texture(rng: np.random.Generator, item: _Placed, height: int, width: int) -> np.ndarray:
    """(H, W, 3) float32 colours of an object: plain, or with a dark pattern of a width that suits its size."""
    color = (np.array(COLORS[item.color]) * rng.uniform(0.88, 1.04)).astype(np.float32)
    if item.texture == "plain":
        return np.broadcast_to(color, (height, width, 3))
    angle = rng.uniform(0, np.pi)
    center = item.center.astype(np.float32)
    y, x = np.mgrid[:height, :width].astype(np.float32) - center[::-1, None, None]
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    period = max(5.0, 0.42 * item.radius)
    dark = {
        "striped": lambda: np.sin(2 * np.pi * u / period) > 0,
        "checked": lambda: (np.sin(2 * np.pi * u / period) > 0) ^ (np.sin(2 * np.pi * v / period) > 0),
        "ringed": lambda: np.sin(2 * np.pi * np.hypot(u, v) / period) > 0,
        "rayed": lambda: np.sin(8 * np.arctan2(v, u)) > 0,
        "dotted": lambda: np.hypot(np.mod(u, period) - period / 2, np.mod(v, period) - period / 2) < 0.31 * period,
    }[item.texture]()
    return color * np.where(dark, np.float32(0.5), np.float32(1.0))[..., None]


def _background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(H, W, 3) float32 in muted middle tones, which no object colour has: plain, gradient, cloudy or woven."""

    def tone() -> np.ndarray:
        return (rng.uniform(70, 140) + rng.uniform(-16, 16, 3)).astype(np.float32)

    y, x = np.mgrid[:height, :width].astype(np.float32) / max(height, width)
    angle = rng.uniform(0, 2 * np.pi)
    along = x * np.cos(angle) + y * np.sin(angle)
    kind = rng.choice(("plain", "gradient", "cloudy", "woven"))
    image = np.empty((height, width, 3), np.float32)
    image[:] = tone()
    if kind == "gradient":
        weight = (along - along.min()) / (along.max() - along.min())
        image += weight[..., None] * (tone() - image)
    elif kind == "cloudy":
        clouds = rng.normal(0, 9, (6, 6)).astype(np.float32)
        image += cv2.resize(clouds, (width, height), interpolation=cv2.INTER_CUBIC)[..., None]
    elif kind == "woven":
        image += 6 * np.sin(2 * np.pi * along * rng.uniform(8, 20))[..., None]
    return image


def _add_clutter(rng: np.random.Generator, image: np.ndarray, image_size: int) -> None:
    """Thin lines and specks of any colour: things that a detector must not call objects."""
    height, width = image.shape[:2]
    for _ in range(int(rng.integers(0, 4))):
        start, end = rng.integers(0, (width, height), (2, 2)).tolist()
        cv2.line(image, start, end, rng.uniform(30, 220, 3).tolist(), max(1, image_size // 128))
    for _ in range(int(rng.integers(0, 12))):
        center = rng.integers(0, (width, height)).tolist()
        radius = int(rng.integers(1, max(2, image_size // 64) + 1))
        cv2.circle(image, center, radius, rng.uniform(30, 220, 3).tolist(), -1)
