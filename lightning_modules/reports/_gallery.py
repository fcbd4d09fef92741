"""A split's best and worst captions side by side, each with the score of its image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from lightning_modules.drawing import text as draw
from lightning_modules.metrics.caption_scores import references_of
from lightning_modules.metrics.captions import CaptionMetrics
from lightning_modules.metrics.ptb_tokenizer import comparable_tokens

NUM_BEST, NUM_WORST = 8, 5
_TILE_PX, _NUM_COLUMNS = 190, 4


def best_and_worst(
    captions: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    """Items with their own CIDEr-D, 0..10: at most `NUM_BEST`, the best first, and `NUM_WORST` others, the worst first.

    Of equal scores the first id comes first. An item without a reference is in neither.
    """
    keys, tokens = references_of(references)
    scores = CaptionMetrics(tokens).per_image(comparable_tokens([captions[key] for key in keys]))["CIDEr"]
    order = sorted(range(len(keys)), key=lambda i: (-scores[i], keys[i]))
    best = order[:NUM_BEST]
    worst = sorted(order[len(best) :][-NUM_WORST:], key=lambda i: (scores[i], keys[i]))
    return [(keys[i], float(scores[i])) for i in best], [(keys[i], float(scores[i])) for i in worst]


def caption_gallery(
    captions: Mapping[str, str], references: Mapping[str, Sequence[str]], picture: Callable[[str], np.ndarray]
) -> np.ndarray:
    """(h, w, 3) uint8 RGB: best captions, then worst, each below its picture with its score and a reference.

    Args:
        captions, references: by item. picture: gives an item's picture.
    """
    parts = []
    for title, chosen, color in zip(
        ("Best captions, by the CIDEr-D of the image", "Worst captions"),
        best_and_worst(captions, references),
        (draw.GREEN, draw.RED),
        strict=True,
    ):
        if chosen:
            parts.append(draw.text_block([(title, draw.BLACK)], _NUM_COLUMNS * _TILE_PX))
            tiles = [_tile(picture(key), captions[key], score, references[key][0], color) for key, score in chosen]
            height = max(len(tile) for tile in tiles)
            padded = [np.pad(t, ((0, height - len(t)), (0, 0), (0, 0)), constant_values=255) for t in tiles]
            parts.append(draw.grid(padded, _NUM_COLUMNS))
    return draw.stack(parts or [draw.text_block([("no caption can be compared", draw.GREY)], _TILE_PX)])


def _tile(image: np.ndarray, caption: str, score: float, reference: str, color: draw.Colour) -> np.ndarray:
    paragraphs = [(f"{score:.2f}  {caption or '(no word)'}", color), (reference, draw.GREY)]
    return np.concatenate([draw.fit(image, _TILE_PX), draw.text_block(paragraphs, _TILE_PX)])
