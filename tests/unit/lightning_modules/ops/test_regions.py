"""Segments, their features and the hierarchy of merges; numbers by hand unless it is said otherwise."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from lightning_modules.ops.regions import (
    Regions,
    describe,
    merge_all,
    pixel_bins,
    segment,
    similarities,
    touching_pairs,
)


def hand_made(areas: list[float], colors: list[list[float]] | None = None) -> Regions:
    """Regions in a row, one pixel high and as wide as their area."""
    ends = np.cumsum(areas)
    boxes = np.stack([ends - areas, 0 * ends, ends, 0 * ends + 1], axis=1).astype(np.int64)
    histograms = np.ones((len(areas), 1)) if colors is None else np.array(colors, np.float64)
    return Regions(np.array(areas, np.float64), boxes, histograms, np.ones((len(areas), 1)))


def chain(count: int) -> np.ndarray:
    return np.stack([np.arange(count - 1), np.arange(1, count)], axis=1)


def noisy_squares(seed: int = 0) -> np.ndarray:
    """(32, 40, 3) uint8: squares of eight pixels, each of a color of its own, with noise."""
    rng = np.random.default_rng(seed)
    squares = rng.integers(40, 200, (4, 5, 3)).repeat(8, 0).repeat(8, 1)
    return (squares + rng.integers(0, 20, squares.shape)).astype(np.uint8)


def test_flat_areas_are_segments_and_small_ones_join_a_neighbor():
    image = np.zeros((20, 30, 3), np.uint8)
    image[:, 12:] = (200, 0, 0)
    image[4:7, 3:6] = (0, 200, 0)  # 9 px
    few, many = (segment(image, scale) for scale in (40, 5))
    assert few.max() == 1 and (few[:, :10] == few[0, 0]).all() and (few[:, 14:] == few[0, 29]).all()
    assert few[0, 0] != few[0, 29]
    assert len({int(many[0, 0]), int(many[5, 4]), int(many[0, 29])}) == 3
    assert segment(image[:1], 5).tolist() == [[0] * 30], "too thin for diagonals: one segment"


_FLAT_EDGES = """
import zlib, numpy as np
from lightning_modules.ops.regions import segment
image = np.zeros((64, 64, 3), np.uint8)
image[:, 32:], image[20:40, 10:50] = 127, 204
print(zlib.crc32(segment(image, 5).tobytes()))
"""


def test_equal_edges_come_in_one_order_on_every_cpu(root):
    """numpy sorts with the vector instructions that it finds; without them equal values come out in another order."""
    found = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    if not found:
        pytest.skip("numpy has no vector instructions here to go without")
    digests = {
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _FLAT_EDGES],
            env={"PYTHONPATH": str(root), "NPY_DISABLE_CPU_FEATURES": without},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for without in ("", " ".join(found))
    }
    assert len(digests) == 1


def test_segments_touch_along_sides_not_at_corners():
    segments = np.array([[0, 0, 1], [2, 3, 1], [2, 3, 4]])
    assert touching_pairs(segments).tolist() == [[0, 1], [0, 2], [0, 3], [1, 3], [1, 4], [2, 3], [3, 4]]
    assert touching_pairs(np.zeros((3, 3), np.int64)).shape == (0, 2)


def test_features_of_segments():
    """A ramp of 0.1 a pixel, three rows of it in segment 1: its middle has the derivatives 0.1 and 0.0707."""
    ramp = np.rint(np.arange(10) * 25.5).astype(np.uint8)
    image = np.tile(ramp, (9, 1))[..., None]
    segments = np.zeros((9, 10), np.int64)
    segments[3:6, 4:6] = 1
    regions = describe(segments, pixel_bins(image))
    assert regions.areas.tolist() == [84, 6]
    assert regions.boxes.tolist() == [[0, 0, 10, 9], [4, 3, 6, 6]]
    colors = np.zeros(25)
    colors[[10, 12]] = 0.5  # 102 and 128 of 255 are 9.6 and 12.05 of 24
    np.testing.assert_allclose(regions.colors[1], colors)
    textures = regions.textures[1].reshape(8, 10)
    # Steps of 0.43 / 9: 0.1 is 2.1 of them, 0.0707 is 1.5 (rounded by the levels of eight bits). To the right, then
    # to the left, down, up, the diagonals with a part to the right, and their opposites.
    assert textures.argmax(axis=1)[:4].tolist() == [2, 0, 0, 0]
    assert textures[4, 1:3].sum() == textures[6, 1:3].sum() == pytest.approx(1 / 8)
    assert textures[5, 0] == textures[7, 0] == pytest.approx(1 / 8)
    np.testing.assert_allclose(regions.textures.sum(axis=1), 1)


def test_every_channel_has_its_own_texture():
    image = np.zeros((8, 8, 2), np.uint8)
    image[:, 4:, 1] = 255
    textures = describe(np.zeros((8, 8), np.int64), pixel_bins(image)).textures.reshape(2, 8, 10)
    assert textures[0, :, 0].sum() == pytest.approx(1 / 2), "flat"
    assert textures[1, 0, 1:].sum() > 0 and textures[1, 0, 9] > 0, "steeper than the last bin"


def test_similarities():
    """Boxes of 4x2 and 3x3 px with a gap between them in an image of 100 px: 20 px of the box round both are empty."""
    regions = Regions(
        areas=np.array([8.0, 9.0]),
        boxes=np.array([[0, 0, 4, 2], [5, 1, 8, 4]]),
        colors=np.array([[0.5, 0.5, 0.0], [0.25, 0.25, 0.5]]),
        textures=np.array([[0.9, 0.1], [0.3, 0.7]]),
    )
    values = {"color": 0.5, "texture": 0.4, "size": 0.83, "fill": 1 - (8 * 4 - 17) / 100}
    first, second = np.array([0]), np.array([1])
    for name, value in values.items():
        assert similarities(regions, first, second, [name], 100) == pytest.approx([value])
    assert similarities(regions, first, second, list(values), 100) == pytest.approx([np.mean(list(values.values()))])


def test_small_regions_are_joined_first():
    """Of areas 2, 1, 3, 10 in a row: 2+1; then 3 with those 3, not with 10."""
    merged, merges = merge_all(hand_made([2, 1, 3, 10]), chain(4), ["size"])
    assert merges.tolist() == [[0, 1], [2, 4], [3, 5]]
    assert merged.areas.tolist() == [2, 1, 3, 10, 3, 6, 16]
    assert merged.boxes[4:].tolist() == [[0, 0, 3, 1], [0, 0, 6, 1], [0, 0, 16, 1]]


def test_only_neighbors_are_joined_and_a_merge_changes_what_is_alike():
    """Red, blue, red, red: the last two are alike; the first red has no other neighbor than blue.

    Then blue stands between one red and a red of twice its area: both are as unlike, the lower numbers come first.
    """
    red, blue = [1.0, 0.0], [0.0, 1.0]
    merged, merges = merge_all(hand_made([5, 5, 5, 5], [red, blue, red, red]), chain(4), ["color"])
    assert merges.tolist() == [[2, 3], [0, 1], [4, 5]]
    np.testing.assert_allclose(merged.colors[4:], [red, [0.5, 0.5], [0.75, 0.25]])
    _, merges = merge_all(hand_made([5, 5, 5], [red, blue, [0.2, 0.8]]), chain(3), ["color"])
    assert merges.tolist() == [[1, 2], [0, 3]]


def test_equally_alike_pairs_are_joined_in_their_order():
    _, merges = merge_all(hand_made([4, 4, 4, 4]), chain(4), ["color"])
    assert merges.tolist() == [[0, 1], [2, 3], [4, 5]]


def test_a_single_region_is_its_own_hierarchy():
    merged, merges = merge_all(hand_made([7]), np.zeros((0, 2), np.int64), ["size"])
    assert merged.areas.tolist() == [7] and merges.shape == (0, 2)


@pytest.mark.parametrize("names", [("color", "texture", "size", "fill"), ("texture",)])
def test_features_handed_on_equal_those_of_the_merged_pixels(names):
    image = noisy_squares()
    segments, bins = segment(image, 20), pixel_bins(image)
    regions = describe(segments, bins)
    num_first = len(regions.areas)
    merged, merges = merge_all(regions, touching_pairs(segments), names)
    assert 10 < num_first == len(merges) + 1
    members = [segments == i for i in range(num_first)]
    for i, (a, b) in enumerate(merges, start=num_first):
        members.append(members[a] | members[b])
        again = describe(members[i].astype(np.int64), bins) if not members[i].all() else None
        if again is None:
            assert i == 2 * num_first - 2, "the last, and only it, is the whole image"
            again = describe(np.zeros_like(segments), bins)
        assert merged.areas[i] == again.areas[-1]
        assert merged.boxes[i].tolist() == again.boxes[-1].tolist()
        np.testing.assert_allclose(merged.colors[i], again.colors[-1], rtol=0, atol=1e-12)
        np.testing.assert_allclose(merged.textures[i], again.textures[-1], rtol=0, atol=1e-12)
