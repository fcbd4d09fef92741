"""Mirroring what is said of an image together with it."""

from __future__ import annotations

import re

import numpy as np

_SIDE = re.compile(r"\b(left|right)", re.IGNORECASE)
_OTHER = {"left": "right", "right": "left"}


def draw_mirror(seed: int | None, probability: float) -> bool:
    """Whether the example of this seed is mirrored; never without a seed."""
    # Its own stream: the same number also seeds the augmentation and the choice of sentences.
    return seed is not None and bool(np.random.default_rng([seed, 2]).random() < probability)


def mirror_text(text: str) -> str:
    """ "left", "right" and words that begin with them ("leftmost") exchanged, in lower case."""
    return _SIDE.sub(lambda match: _OTHER[match[0].lower()], text)
