"""Pictures of a data set that are nearly the same, found by perceptual hashes.

Each picture has a fingerprint of 192 bits: imagehash's phash (frequencies of a DCT) and dhash (gradients) along both
axes, 64 bits each. Two are nearly the same where at most `MOST_BITS` of them differ and their small color pictures
agree but for brightness and contrast: phash and dhash see no color.

How this was chosen stands in docs/decisions.md. Found are copies encoded again, made smaller, brighter or darker, or
cut by about 2 % a side; not found are mirrored ones, and half of those cut by 5 % a side or more.

All pairs are compared, in tiles: 4 bytes of work memory a pair of a tile, whatever the number of pictures.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

import cv2
import imagehash
import numpy as np
from PIL import Image

MOST_BITS = 24  # of 192: an eighth
LEAST_CORRELATION = 0.9  # of the small color pictures
LEAST_SIDE_PX = 64  # a picture is decoded no smaller than this for its hashes
_COLOR_SIDE = 8
_LEAST_CONTRAST = 4.0  # standard deviation of grey values below which a picture is blank: its hashes are noise
_ROWS, _COLUMNS = 64, 8192  # of a tile: 4 MiB of 64-bit words
_MOST_KEPT = 2000  # pairs of which the nearest are kept, while others are only counted


class Place(NamedTuple):
    """Where a record is: its split and its position there."""

    split: str
    position: int


class Pair(NamedTuple):
    """Two pictures of which `bits` of 192 differ."""

    bits: int
    one: Place
    other: Place


class Found(NamedTuple):
    """`pairs`: the nearest ones, between splits first. `num_pairs` by (split, split), of one split too; `num_pictures`
    by split: those that have a partner in another split. `num_blank` were not compared."""

    pairs: list[Pair]
    num_pairs: dict[tuple[str, str], int]
    num_pictures: dict[str, int]
    num_compared: int
    num_blank: int


class Fingerprints:
    """Collects fingerprints, 216 bytes a picture, then finds pairs."""

    def __init__(self) -> None:
        self._splits: list[str] = []
        self._split_of, self._positions, self._hashes = array("B"), array("q"), array("Q")
        self._colors = bytearray()
        self._num_blank = 0

    def __len__(self) -> int:
        return len(self._positions)

    def add(self, place: Place, picture: np.ndarray) -> None:
        """Take one picture, (H, W, 3) uint8 RGB."""
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        if grey.std() < _LEAST_CONTRAST:
            self._num_blank += 1
            return
        if place.split not in self._splits:
            self._splits.append(place.split)
        self._split_of.append(self._splits.index(place.split))
        self._positions.append(place.position)
        image = Image.fromarray(grey)
        for kind in (imagehash.phash, imagehash.dhash, imagehash.dhash_vertical):
            self._hashes.append(int.from_bytes(np.packbits(kind(image).hash).tobytes()))
        self._colors += cv2.resize(picture, (_COLOR_SIDE, _COLOR_SIDE), interpolation=cv2.INTER_AREA).tobytes()

    def find(self, advance: Callable[[int], None] = lambda _: None, *, num: int = 40) -> Found:
        """All near pairs, counted; the nearest `num` of them, those between splits before those within one.

        Args:
            advance: called with the number of pictures that were compared with all others.
        """
        split_of = np.frombuffer(self._split_of, np.uint8)
        counts: Counter[tuple[int, int]] = Counter()
        is_partner = np.zeros(len(self), bool)
        kept: dict[bool, np.ndarray] = {crossing: np.zeros((0, 3), np.int64) for crossing in (True, False)}
        for pairs in self._near(advance):
            splits = np.sort(split_of[pairs[:, :2]], axis=1)
            counts.update(map(tuple, splits.tolist()))
            crosses = splits[:, 0] != splits[:, 1]
            is_partner[pairs[crosses, :2]] = True
            for crossing in kept:
                joined = np.concatenate([kept[crossing], pairs[crosses == crossing]])
                kept[crossing] = joined[np.argsort(joined[:, 2], kind="stable")[:_MOST_KEPT]]
        ordered = np.concatenate([kept[True], kept[False]])[:num]
        partners = np.bincount(split_of[is_partner], minlength=len(self._splits)).tolist()
        return Found(
            [Pair(bits, self._place(i), self._place(j)) for i, j, bits in ordered.tolist()],
            {(self._splits[a], self._splits[b]): count for (a, b), count in sorted(counts.items())},
            dict(zip(self._splits, partners, strict=True)),
            len(self),
            self._num_blank,
        )

    def _place(self, i: int) -> Place:
        return Place(self._splits[self._split_of[i]], self._positions[i])

    def _near(self, advance: Callable[[int], None]) -> Iterator[np.ndarray]:
        """Near pairs as rows (i, j, bits) int64, i < j, some at a time."""
        if not len(self):
            return
        hashes = np.ascontiguousarray(np.frombuffer(self._hashes, np.uint64).reshape(-1, 3).T)  # (3, N)
        colors = np.frombuffer(self._colors, np.uint8).reshape(len(self), -1)
        for top in range(0, len(self), _ROWS):
            rows = hashes[:, top : top + _ROWS]
            for left in range(top, len(self), _COLUMNS):
                columns = hashes[:, left : left + _COLUMNS]
                # phash alone rules out nine of ten; the others are looked at for what is left.
                bits = np.bitwise_count(rows[0][:, None] ^ columns[0])
                i, j = np.nonzero(bits <= MOST_BITS)
                total = bits[i, j].astype(np.int64)
                for row, column in zip(rows[1:], columns[1:], strict=True):
                    total += np.bitwise_count(row[i] ^ column[j])
                near = (total <= MOST_BITS) & (i + top < j + left)
                i, j = i[near] + top, j[near] + left
                alike = _correlations(colors[i], colors[j]) >= LEAST_CORRELATION
                if alike.any():
                    yield np.column_stack([i, j, total[near]])[alike]
            advance(rows.shape[1])


def _correlations(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Pearson's correlation of each pair of rows (P, C) -> (P,): blind for brightness and contrast, not for hue."""
    parts = [part - part.mean(axis=1, keepdims=True) for part in (one.astype(np.float32), other.astype(np.float32))]
    norms = np.sqrt((parts[0] ** 2).sum(axis=1) * (parts[1] ** 2).sum(axis=1))
    return (parts[0] * parts[1]).sum(axis=1) / np.maximum(norms, 1e-6)
