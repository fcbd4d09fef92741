"""Where attention points at the words that name an object, by hand on maps of 2 x 2 and 3 x 4 cells."""

import math

import numpy as np
import pytest

from lightning_modules.metrics.measurement import values_of
from lightning_modules.metrics.pointing import PointingScore
from lightning_modules.ops.masks import encode_masks


def at(row: int, column: int, size: tuple[int, int] = (2, 2)) -> np.ndarray:
    one = np.full(size, 0.1)
    one[row, column] = 1
    return one / one.sum()


def truth(names, boxes, masks=None, size=(40, 80)):
    masks = [""] * len(names) if masks is None else masks
    return {"object_names": names, "object_boxes": np.array(boxes, np.float32), "object_masks": masks, "size": size}


def score(*pairs):
    items = [(f"i{n}", f"i{n}", prediction, known) for n, (prediction, known) in enumerate(pairs)]
    return values_of(PointingScore().measure_items(items))


LEFT, RIGHT = [0.0, 0.0, 0.5, 0.5], [0.6, 0.0, 1.0, 1.0]


def test_hits_at_the_noun_and_at_the_word_before():
    maps = [at(0, 0), at(0, 0), at(0, 1), at(1, 1), at(1, 1), at(0, 0)]
    written = {"words": ["a", "red", "star", "above", "a", "ring"], "attention": np.stack(maps)}
    values = score((written, truth(["star", "ring"], [LEFT, RIGHT])))
    assert values["pointing"] == 0.0, "star is looked for on the right, ring on the left"
    assert values["pointing/before"] == 1.0, "red on the left, and the article of the ring on the right"
    assert values["pointing/uniform"] == pytest.approx((1 / 4 + 2 / 4) / 2)
    assert "pointing/mask" not in values, "no object has one"


def test_any_object_of_the_class_counts_and_what_is_not_there_does_not():
    written = {"words": ["star", "circle"], "attention": np.stack([at(1, 1), at(0, 0)])}
    values = score((written, truth(["star", "star"], [LEFT, RIGHT])))
    assert values["pointing"] == 1.0 and values["pointing/uniform"] == 3 / 4
    assert "pointing/before" not in values, "nothing stands before the first word"
    assert "pointing" not in score((written, truth(["ring"], [LEFT])))


def test_on_a_mask_only_its_pixels_hit():
    mask = np.zeros((1, 40, 80), np.uint8)
    mask[0, :20, :18] = 1  # of the box's left part: the middle of the cell, column 20, is not on it
    wide = mask.copy()
    wide[0, :20, :21] = 1
    written = {"words": ["star"], "attention": at(0, 0)[None]}
    for pixels, hit in ((mask, 0.0), (wide, 1.0)):
        values = score((written, truth(["star"], [LEFT], encode_masks(pixels))))
        assert (values["pointing"], values["pointing/mask"]) == (1.0, hit)


def test_names_of_two_words_count_at_the_second_and_grids_need_not_be_square():
    written = {"words": ["a", "dining", "table"], "attention": np.stack([at(0, 0, (3, 4))] * 2 + [at(2, 3, (3, 4))])}
    values = score((written, truth(["Dining Table"], [[0.75, 0.6, 1, 1]])))
    assert values["pointing"] == 1.0 and values["pointing/before"] == 0.0
    assert values["pointing/uniform"] == pytest.approx(1 / 12)


def test_entropy_is_of_all_words_and_one_place_points_nowhere():
    flat = {"words": ["a", "b"], "attention": np.full((2, 2, 2), 0.25, np.float16)}
    assert score((flat, truth([], np.zeros((0, 4)))))["attention_entropy"] == pytest.approx(math.log(4))
    pooled = {"words": ["star"], "attention": np.ones((1, 1, 1), np.float16)}
    assert score((pooled, truth(["star"], [LEFT]))) == {}
    assert score(({"words": [], "attention": np.zeros((0, 2, 2))}, truth(["star"], [LEFT]))) == {}
    assert score() == {}


def test_words_of_all_images_are_one_share():
    hits = {"words": ["star"] * 3, "attention": np.stack([at(0, 0)] * 3)}
    miss = {"words": ["star"], "attention": at(1, 1)[None]}
    known = truth(["star"], [LEFT])
    assert score((hits, known), (miss, known))["pointing"] == 3 / 4
    (measured,) = PointingScore().measure_items([("a", "a", hits, known), ("b", "b", miss, known)])
    drawn = measured.resample(np.array([[2.0, 0.0], [0.0, 2.0], [1.0, 3.0]]))["pointing"]
    assert drawn.tolist() == [1.0, 0.0, 0.5]
