"""Mirroring what is said of an image together with it."""

from __future__ import annotations

import re

import numpy as np

from contracts.errors import ConfigError
from lightning_modules.augment.augment import AugmentConfig

_SIDE = re.compile(r"\b(left|right)", re.IGNORECASE)
_OTHER = {"left": "right", "right": "left"}


def check_flip(augment: AugmentConfig) -> None:
    """Refuse a flip that knows nothing of the text, in a task whose `mirror` does.

    Raises:
        ConfigError: there is one.
    """
    if augment.horizontal_flip:
        raise ConfigError(
            "this task mirrors images by `mirror`, which exchanges left and right in the text as well",
            value=augment.horizontal_flip,
            where="augment.horizontal_flip",
            allowed="0",
            fix="set the task's `mirror` to that probability",
        )


def draw_mirror(seed: int | None, probability: float) -> bool:
    """Whether the example of this seed is mirrored; never without a seed."""
    # Its own stream: the same number also seeds the augmentation and the choice of sentences.
    return seed is not None and bool(np.random.default_rng([seed, 2]).random() < probability)


def mirror_text(text: str) -> str:
    """ "left", "right" and words that begin with them ("leftmost") exchanged, in lower case."""
    return _SIDE.sub(lambda match: _OTHER[match[0].lower()], text)
