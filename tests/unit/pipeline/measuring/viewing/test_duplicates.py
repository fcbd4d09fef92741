"""Near duplicates: planted ones are found, different pictures are not, whatever the tiles."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from lightning_modules.augment.images import decode_image
from pipeline.measuring.viewing import duplicates
from pipeline.measuring.viewing.duplicates import Fingerprints, Found, Pair, Place


def photographs(count: int, seed: int = 0) -> list[np.ndarray]:
    """Different pictures of soft spots, 96 x 128 px."""
    generator = np.random.default_rng(seed)
    noise = generator.integers(0, 256, (count, 6, 8, 3), np.uint8)
    return [cv2.resize(one, (128, 96), interpolation=cv2.INTER_CUBIC) for one in noise]


def jpeg(picture: np.ndarray) -> np.ndarray:
    return decode_image(cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 40])[1].tobytes())


COPIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "encoded again": jpeg,
    "half as large": lambda picture: cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "brighter": lambda picture: np.clip(picture * 1.2, 0, 255).astype(np.uint8),
    "darker": lambda picture: (picture * 0.7).astype(np.uint8),
    "cut": lambda picture: picture[2:-1, 1:-3],
}


def found(splits: dict[str, list[np.ndarray]], **asked: int) -> Found:
    fingerprints = Fingerprints()
    for split, pictures in splits.items():
        for position, picture in enumerate(pictures):
            fingerprints.add(Place(split, position), picture)
    return fingerprints.find(**asked)


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_in_another_split_is_found(kind):
    train, val = photographs(30), photographs(12, seed=1)
    val[7] = COPIES[kind](train[4])
    there = found({"train": train, "val": val})
    (pair,) = there.pairs
    assert (pair.one, pair.other) == (Place("train", 4), Place("val", 7)) and pair.bits <= duplicates.MOST_BITS
    assert there.num_pairs == {("train", "val"): 1} and there.num_pictures == {"train": 1, "val": 1}


def colored(picture: np.ndarray, *weights: float) -> np.ndarray:
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    return np.stack([grey * weight for weight in weights], axis=-1).astype(np.uint8)


def test_other_pictures_are_none_and_neither_are_other_colors():
    train = photographs(40)
    others = [
        train[0][:, ::-1],  # as the page says
        train[5][6:-6, 6:-6],  # 43 bits: beyond the threshold, though its colors agree
        colored(train[1], 0.4, 0.4, 1.0),  # 2 bits: grey values cannot tell
        jpeg(train[9]),  # beside them a copy
    ]
    there = found({"train": [*train, colored(train[1], 1.0, 0.4, 0.4)], "val": others})
    assert [(pair.one, pair.other) for pair in there.pairs] == [(Place("train", 9), Place("val", 3))]
    assert there.num_pairs == {("train", "val"): 1} and there.num_compared == 45


def test_pairs_between_splits_come_first_and_all_are_counted():
    train, val, test = photographs(10), photographs(5, seed=1), photographs(5, seed=2)
    train[9] = train[0]  # bit for bit, and yet after the others
    val[1], test[2] = jpeg(train[3]), jpeg(train[3])
    there = found({"train": train, "val": val, "test": test}, num=3)
    counted = {("train", "train"): 1, ("train", "val"): 1, ("train", "test"): 1, ("val", "test"): 1}
    assert there.num_pairs == counted and there.num_pictures == {"train": 1, "val": 1, "test": 1}
    assert len(there.pairs) == 3 and all(pair.one.split != pair.other.split for pair in there.pairs)
    everything = found({"train": train, "val": val, "test": test}).pairs
    assert everything[:3] == there.pairs
    assert everything[3:] == [Pair(0, Place("train", 0), Place("train", 9))]


def test_blank_pictures_are_counted_and_not_compared():
    blank = [np.full((64, 64, 3), value, np.uint8) for value in (0, 200)]
    there = found({"train": [*blank, *photographs(3)], "val": blank})
    assert (there.num_blank, there.num_compared, there.pairs) == (4, 3, [])
    assert found({"train": []}).num_compared == 0


def test_tiles_change_nothing_and_all_is_told(monkeypatch):
    pictures = photographs(50)
    for i in range(25):
        pictures[49 - i] = jpeg(pictures[i])
    whole, advanced = found({"train": pictures[:20], "val": pictures[20:]}), []
    monkeypatch.setattr(duplicates, "_ROWS", 7)
    monkeypatch.setattr(duplicates, "_COLUMNS", 11)
    fingerprints = Fingerprints()
    for i, picture in enumerate(pictures):
        fingerprints.add(Place("train", i) if i < 20 else Place("val", i - 20), picture)
    tiled = fingerprints.find(advanced.append)
    assert tiled.num_pairs == whole.num_pairs and sum(whole.num_pairs.values()) == 25
    assert set(tiled.pairs) == set(whole.pairs) and sum(advanced) == 50


def test_the_nearest_are_kept_of_many(monkeypatch):
    monkeypatch.setattr(duplicates, "_MOST_KEPT", 2)
    monkeypatch.setattr(duplicates, "_ROWS", 2)
    train = photographs(8)
    val = [COPIES["cut"](picture) for picture in train]
    val[6] = train[6]
    there = found({"train": train, "val": val})
    assert there.num_pairs == {("train", "val"): 8} and len(there.pairs) == 2
    assert there.pairs[0] == Pair(0, Place("train", 6), Place("val", 6))
