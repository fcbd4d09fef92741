"""One small image from its JPEG to what a batch gets, with boxes and masks: our colors and albumentations'.

Geometry is the one map in all of them, but for the last, which mirrors by albumentations. Processor time of an image,
the settings taken in turns; one thread.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import cv2
import numpy as np

from benchmarks import Figure
from lightning_modules.augment.augment import Augment
from lightning_modules.augment.config import AugmentConfig

SIDE, IMAGES, REPEATS = 128, 200, 9
COLORS = {"name": "RandomBrightnessContrast", "brightness_limit": 0.1, "contrast_limit": 0.1, "p": 1.0}
OURS = "one matrix of ours"


def measure() -> list[Figure]:
    settings = {
        OURS: AugmentConfig(horizontal_flip=0.5),
        "RandomBrightnessContrast by name": _named(COLORS, horizontal_flip=0.5),
        "ColorJitter by name": _named({"name": "ColorJitter", "p": 1.0}, horizontal_flip=0.5),
        "RandomBrightnessContrast and HorizontalFlip by name": _named(COLORS, {"name": "HorizontalFlip", "p": 0.5}),
    }
    augments = {name: Augment(config, size=SIDE, mode="letterbox") for name, config in settings.items()}
    image, on = _example()
    timings: dict[str, list[float]] = {name: [] for name in augments}
    for repeat in range(REPEATS):
        for name, augment in augments.items():
            augment(image, (SIDE, SIDE), seed=0, **on)  # which may import the library
            start = time.process_time()
            for i in range(IMAGES):
                augment(image, (SIDE, SIDE), seed=repeat * IMAGES + i, **on)
            timings[name].append((time.process_time() - start) / IMAGES * 1000)
    ours = statistics.median(timings.pop(OURS))
    return [
        Figure(
            what=f"augmenting {SIDE} px, boxes, masks: {name}", value=statistics.median(times), unit="ms", beside=OURS,
            other=ours,
        )
        for name, times in timings.items()
    ]  # fmt: skip


def _named(*sections: dict[str, Any], **others: float) -> AugmentConfig:
    return AugmentConfig(brightness_contrast=0, albumentations=sections, **others)


def _example() -> tuple[bytes, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8), (0, 0), 2)
    boxes = np.array([[10, 10, 50, 60], [60, 40, 110, 100]], np.float32)
    masks = np.zeros((2, SIDE, SIDE), np.uint8)
    masks[0, 10:60, 10:50] = masks[1, 40:100, 60:110] = 1
    return cv2.imencode(".jpg", image)[1].tobytes(), {"boxes": boxes, "masks": masks}
