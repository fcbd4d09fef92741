"""Scenes: what is drawn is what is described."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.ingest.worlds._scenes import (
    COLORS,
    RADII,
    SHAPES,
    TEXTURES,
    Scene,
    SceneStyle,
    draw_scene,
    mask_box,
    unit_outlines,
)

STYLE = SceneStyle(image_size=128, max_objects=4, min_visible=0.5, crowd_probability=0.3)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(np.random.default_rng([5, i]), STYLE) for i in range(80)]


def test_same_seed_same_pixels_and_other_seed_other_pixels() -> None:
    first, again, other = (draw_scene(np.random.default_rng(seed), STYLE) for seed in (3, 3, 4))
    assert np.array_equal(first.image, again.image)
    assert [o.shape for o in first.objects] == [o.shape for o in again.objects]
    assert first.image.shape != other.image.shape or not np.array_equal(first.image, other.image)


def test_sizes_counts_and_kinds_cover_what_is_promised(scenes: list[Scene]) -> None:
    assert {s.image.shape for s in scenes} == {(128, 128, 3), (128, 112, 3), (112, 128, 3)}
    assert {len(s.objects) for s in scenes} == {1, 2, 3, 4}
    objects = [o for s in scenes for o in s.objects]
    assert {o.shape for o in objects} == set(SHAPES)
    assert {o.color for o in objects} == set(COLORS)
    assert {o.texture for o in objects} == set(TEXTURES)
    assert {o.size for o in objects} == {"small", "large"}
    assert any(o.is_truncated for o in objects) and not all(o.is_truncated for o in objects)
    assert max(sum(o.size == "large" for o in s.objects) for s in scenes) == 2


def test_masks_are_disjoint_and_visible_enough(scenes: list[Scene]) -> None:
    for scene in scenes:
        masks = [o.mask for o in scene.objects] + ([scene.crowd.mask] if scene.crowd else [])
        assert np.sum(masks, axis=0).max() == 1
        assert all(STYLE.min_visible <= o.visible_fraction <= 1 for o in scene.objects)
    assert any(o.visible_fraction < 0.8 and not o.is_truncated for s in scenes for o in s.objects)


def test_truncated_objects_touch_the_border(scenes: list[Scene]) -> None:
    for scene in scenes:
        height, width = scene.image.shape[:2]
        for o in scene.objects:
            x1, y1, x2, y2 = o.box
            # an occluder may hide the part at the border
            if o.is_truncated and o.visible_fraction > 0.9:
                assert x1 == 0 or y1 == 0 or x2 == width or y2 == height


def test_pixels_of_plain_objects_have_the_named_color(scenes: list[Scene]) -> None:
    names, table = list(COLORS), np.array(list(COLORS.values()), float)
    right = []
    for o, image in ((o, s.image) for s in scenes for o in s.objects if o.texture == "plain"):
        mean = image[o.mask].mean(axis=0)
        right.append(names[int(np.abs(table - mean).sum(axis=1).argmin())] == o.color)
    assert len(right) > 15 and all(right)


def test_crowds_are_seen_and_share_nothing_with_objects(scenes: list[Scene]) -> None:
    crowded = [s for s in scenes if s.crowd]
    assert 10 < len(crowded) < 45
    for scene in crowded:
        assert scene.crowd is not None
        assert all(o.shape != scene.crowd.shape and o.color != scene.crowd.color for o in scene.objects)


@pytest.mark.parametrize("shape", SHAPES)
def test_outlines_are_about_unit_size_and_turn(shape: str) -> None:
    straight, turned = unit_outlines(shape, 0.0), unit_outlines(shape, 15.0)
    for ring, moved in zip(straight, turned, strict=True):
        radii = np.linalg.norm(ring, axis=1)
        assert radii.min() > 0.3 and 0.5 < radii.max() < 1.35
        assert np.allclose(np.sort(np.linalg.norm(moved, axis=1)), np.sort(radii))
        if shape not in ("circle", "ring"):
            assert not np.allclose(ring, moved)


def test_small_and_large_do_not_meet() -> None:
    assert RADII["small"][1] * 1.35 < RADII["large"][0]


def test_one_object_at_most_when_asked() -> None:
    style = SceneStyle(image_size=96, max_objects=1, min_visible=0.5)
    assert {len(draw_scene(np.random.default_rng(i), style).objects) for i in range(10)} == {1}


def test_mask_box_is_tight() -> None:
    mask = np.zeros((9, 12), bool)
    mask[2:5, 3:10] = True
    mask[4, 11] = True
    assert mask_box(mask) == (3, 2, 12, 5)
