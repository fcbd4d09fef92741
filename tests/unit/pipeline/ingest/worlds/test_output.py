"""Outlines and run lengths of masks, checked with pycocotools; checks of settings."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from contracts.errors import ConfigError
from pipeline.ingest.worlds import coco_scenes, voc_scenes
from pipeline.ingest.worlds._output import SplitSizes, image_rng, mask_polygons, mask_run_lengths


def _decode_polygons(polygons: list[list[float]], height: int, width: int) -> np.ndarray:
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))).astype(bool)


def _blob(seed: int) -> np.ndarray:
    """A ragged mask with several parts and holes, which touches the border."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:40, :48]
    mask = np.zeros((40, 48), bool)
    for _ in range(4):
        cx, cy, r = rng.uniform(0, 48), rng.uniform(0, 40), rng.uniform(3, 14)
        disc = (x - cx) ** 2 + (y - cy) ** 2
        mask |= (disc < r**2) & (disc > (r * 0.4) ** 2)
    return mask


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0.11 with numpy 2
@pytest.mark.parametrize("seed", range(20))
def test_polygons_decode_to_the_mask(seed: int) -> None:
    mask = _blob(seed)
    polygons = mask_polygons(mask)
    assert all(len(p) >= 6 and len(p) % 2 == 0 for p in polygons)
    assert np.array_equal(_decode_polygons(polygons, *mask.shape), mask)


def test_a_split_object_has_one_polygon_a_part() -> None:
    mask = np.zeros((20, 30), bool)
    mask[5:15, 2:10] = True
    mask[5:15, 14:28] = True
    assert mask_polygons(mask) == [
        [14.25, 5.25, 14.25, 14.75, 27.75, 14.75, 27.75, 5.25],
        [2.25, 5.25, 2.25, 14.75, 9.75, 14.75, 9.75, 5.25],
    ]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0.11 with numpy 2
@pytest.mark.parametrize("seed", range(5))
def test_run_lengths_decode_to_the_mask(seed: int) -> None:
    mask = _blob(seed)
    runs = mask_run_lengths(mask)
    assert sum(runs["counts"]) == mask.size
    assert np.array_equal(coco_mask.decode(coco_mask.frPyObjects(runs, *mask.shape)).astype(bool), mask)


def test_run_lengths_begin_with_zeros_and_go_down_the_columns() -> None:
    mask = np.array([[1, 0], [0, 1], [0, 1]], bool)
    assert mask_run_lengths(mask) == {"counts": [0, 1, 3, 2], "size": [3, 2]}
    assert mask_run_lengths(~mask) == {"counts": [1, 3, 2], "size": [3, 2]}


@pytest.mark.parametrize("world", [coco_scenes, voc_scenes])
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"seed": -1}, "seed must be 0 or more"),
        ({"image_size": 16}, "image_size must be 64 or more and at most 1024"),
        ({"jpeg_quality": 101}, "jpeg_quality must be 30 or more and at most 100"),
        ({"max_objects": 0}, "max_objects must be 1 or more and at most 7"),
    ],
)
def test_impossible_settings_are_told(world: ModuleType, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        world.Config(**changed)


@pytest.mark.parametrize(("train", "val", "name"), [(0, 2, "train"), (4, -2, "val")])
def test_no_split_is_empty(train: int, val: int, name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be 1 or more"):
        SplitSizes(train=train, val=val)


def test_each_image_has_its_own_numbers() -> None:
    drawn = {image_rng(seed, stream, i).random() for seed in (1, 2) for stream in (0, 1) for i in (0, 1)}
    assert len(drawn) == 8
    assert image_rng(1, 0, 1).random() in drawn
