"""Counts and places of boxes that know nothing of the image."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from contracts.errors import ConfigError
from lightning_modules.ops.windows import count_all_boxes, random_boxes, sliding_windows


def every_box(height: int, width: int) -> list[tuple[int, int, int, int]]:
    spans = [itertools.combinations(range(side + 1), 2) for side in (width, height)]
    return [(x1, y1, x2, y2) for (x1, x2), (y1, y2) in itertools.product(*spans)]


def test_all_boxes_of_an_image():
    assert count_all_boxes((3, 4)) == len(every_box(3, 4)) == 60
    assert count_all_boxes((128, 128)) == 68_161_536
    assert count_all_boxes((375, 500)) == 8_830_125_000
    assert count_all_boxes((600, 800)) == 57_768_120_000


def test_windows_of_a_small_image_by_hand():
    windows = sliding_windows((5, 8), scales=(4,), ratios=(1, 0.25), stride=2)
    assert windows.dtype == np.float32
    assert windows.tolist() == [
        [0, 0, 4, 4],
        [2, 0, 6, 4],
        [4, 0, 8, 4],
        [0, 0, 8, 2],
        [0, 2, 8, 4],
    ]  # ratio 1/4: eight wide, two high; y = 4 would end at 6


def test_windows_visited():
    """Counts by hand for each scale and shape: (floor((128 - w) / 8) + 1) * (floor((128 - h) / 8) + 1)."""
    shapes = itertools.product((32, 48, 64), (0.5, 1, 2))
    each = [len(sliding_windows((128, 128), scales=(s,), ratios=(r,), stride=8)) for s, r in shapes]
    assert each == [154, 169, 154, 96, 121, 96, 55, 81, 55]
    assert len(sliding_windows((128, 128), scales=(32, 48, 64), ratios=(0.5, 1, 2), stride=8)) == sum(each) == 981
    assert len(sliding_windows((128, 128), scales=(32, 45, 64), stride=8)) == 371
    assert len(sliding_windows((375, 500), scales=(64, 128, 256), ratios=(0.5, 1, 2), stride=8)) == 11_573


def test_windows_stay_inside_and_have_their_shape():
    windows = sliding_windows((100, 60), scales=(20, 70), ratios=(0.5, 2), stride=7)
    assert windows.min() == 0 and (windows[:, 2] <= 60).all() and (windows[:, 3] <= 100).all()
    width, height = (windows[:, 2:] - windows[:, :2]).T
    np.testing.assert_allclose(np.sqrt(width * height)[[0, -1]], [20, 70], rtol=1e-5)
    np.testing.assert_allclose((height / width)[[0, -1]], [0.5, 2], rtol=1e-5)
    assert not (np.isclose(width, 70 * 2**0.5)).any(), "98.99 px wide: larger than the image"
    assert sliding_windows((9, 9), scales=(10,), stride=1).shape == (0, 4)


def test_random_boxes_are_drawn_evenly_from_all():
    boxes = random_boxes((2, 3), 18_000, seed=1)
    seen, counts = np.unique(boxes, axis=0, return_counts=True)
    assert set(map(tuple, seen.tolist())) == set(every_box(2, 3))
    assert np.abs(counts - 1000).max() < 4 * 1000**0.5
    large = random_boxes((6, 5), 6_000, seed=1, min_side=4)
    seen, counts = np.unique(large, axis=0, return_counts=True)
    wanted = {b for b in every_box(6, 5) if b[2] - b[0] >= 4 and b[3] - b[1] >= 4}
    assert set(map(tuple, seen.tolist())) == wanted and len(wanted) == 18
    assert np.abs(counts - 6000 / 18).max() < 4 * (6000 / 18) ** 0.5


def test_random_boxes_go_by_their_seed():
    first, same, other = (random_boxes((50, 60), 10, seed=seed) for seed in (0, 0, 1))
    assert first.tobytes() == same.tobytes() != other.tobytes()
    assert first.dtype == np.float32 and random_boxes((5, 5), 0, seed=0).shape == (0, 4)
    assert random_boxes((1, 1), 3, seed=0).tolist() == [[0, 0, 1, 1]] * 3


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: count_all_boxes((0, 5)), r"\(0, 5\)"),
        (lambda: sliding_windows((9, 9), scales=(), stride=1), "scales"),
        (lambda: sliding_windows((9, 9), scales=(3,), ratios=(-1,), stride=1), "ratios"),
        (lambda: sliding_windows((9, 9), scales=(3,), stride=0), "stride"),
        (lambda: sliding_windows((9, 0), scales=(3,), stride=1), "size"),
        (lambda: random_boxes((9, 9), -1, seed=0), r"\(-1, 0\)"),
        (lambda: random_boxes((9, 9), 1, seed=-1), r"\(1, -1\)"),
        (lambda: random_boxes((9, 5), 1, seed=0, min_side=6), "1 to 5"),
        (lambda: random_boxes((9, 5), 1, seed=0, min_side=0), "1 to 5"),
    ],
)
def test_what_makes_no_boxes_is_told(call, told):
    with pytest.raises(ConfigError, match=told):
        call()
