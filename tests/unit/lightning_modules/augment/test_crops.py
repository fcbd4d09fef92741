"""Crops of each kind, zooming out, the middle of an image, lines of text: where they lie, what becomes of objects."""

import cv2
import numpy as np
import pytest

from contracts.errors import ConfigError
from lightning_modules.augment.augment import Augment
from lightning_modules.augment.config import AugmentConfig, ObjectCrop, RandomCrop, ZoomOut
from lightning_modules.augment.view import FILL_RGB
from lightning_modules.ops.boxes import pairwise_ious
from lightning_modules.tasks.classification import Task as Classification
from pipeline.settings.parse import parse

FRAME = (240, 320)
STILL = {"brightness_contrast": 0.0, "min_visibility": 0.0}


def encoded(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def coordinates(height: int, width: int) -> np.ndarray:
    """Red says where a pixel lies along the width, green along the height; blue marks it as picture."""
    image = np.full((height, width, 3), 255, np.uint8)
    image[..., 0] = ((np.arange(width) + 0.5) / width * 255).round()
    image[..., 1] = ((np.arange(height) + 0.5) / height * 255).round()[:, None]
    return image


KINDS = {
    "random_crop": {"random_crop": RandomCrop(area=(0.2, 1.0))},
    "object_crop": {"object_crop": ObjectCrop()},
    "zoom_out": {"zoom_out": ZoomOut(probability=1.0)},
    "zoom_out and object_crop": {"zoom_out": ZoomOut(probability=0.7), "object_crop": ObjectCrop()},
    "zoom_out and crop, moved": {
        "zoom_out": ZoomOut(probability=1.0, largest=2.0),
        "crop": 0.3,
        "shift": 0.1,
        "scale": 0.2,
    },
}


@pytest.mark.parametrize("rotate", [0, 20])
@pytest.mark.parametrize("mode", ["stretch", "letterbox", "cover", "line"])
@pytest.mark.parametrize("kind", KINDS)
def test_annotations_follow_the_pixels(kind, mode, rotate):
    config = AugmentConfig(**KINDS[kind], **STILL, horizontal_flip=0.5, vertical_flip=0.5, rotate=rotate)
    augment, image = Augment(config, size=(96, 128), mode=mode), encoded(coordinates(480, 640))
    centers = np.random.default_rng(0).uniform((20, 20), (300, 220), (60, 2)).astype(np.float32)
    boxes = np.concatenate([centers - 4, centers + 4], axis=1)
    offsets, seen = [], 0
    for seed in range(15):
        out = augment(image, FRAME, seed=seed, boxes=boxes, quads=boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2))
        for quad, index in zip(out.quads, out.quad_indices, strict=True):
            x, y = quad.mean(axis=0)
            if not (2 < x < 126 and 2 < y < 94):
                continue  # the middle of what is cut may lie outside
            found = cv2.getRectSubPix(out.image, (1, 1), (float(x) - 0.5, float(y) - 0.5), patchType=cv2.CV_32F)[0, 0]
            if found[2] < 250:
                continue  # at the border of the picture
            seen += 1
            offsets.append((found[:2] - centers[index] / (320, 240) * 255) / 255 * (128, 96))
    assert seen > 150
    assert np.median(np.abs(offsets)) < 0.4 and np.abs(offsets).max() < 2.5


def test_a_random_crop_has_the_area_and_the_aspect_that_it_may_have():
    augment = Augment(AugmentConfig(random_crop=RandomCrop(area=(0.1, 0.5), ratio=(0.5, 2.0))), size=64, mode="cover")
    crops = np.array([augment.draw(seed, FRAME).motion.crop for seed in range(400)])
    sides = crops[:, 2:] - crops[:, :2]
    assert crops.min() >= 0 and crops.max() <= 1
    areas, ratios = sides.prod(axis=1), sides[:, 0] * 320 / (sides[:, 1] * 240)
    assert areas.min() >= 0.0999 and areas.max() <= 0.5001 and abs(areas.mean() - 0.3) < 0.02
    assert ratios.min() >= 0.499 and ratios.max() <= 2.001 and abs(np.median(np.log(ratios))) < 0.1
    narrow = Augment(AugmentConfig(random_crop=RandomCrop(area=(1.0, 1.0), ratio=(1.0, 1.0))), size=64)
    np.testing.assert_allclose(narrow.draw(1, FRAME).motion.crop, (0.125, 0, 0.875, 1))  # the largest square


def test_an_object_crop_meets_an_object():
    """Least IoUs are drawn evenly, each is kept, and the center of an object lies within."""
    boxes = np.array([[20, 20, 120, 100], [200, 60, 300, 220]], np.float32)
    for least in (0.0, 0.1, 0.3, 0.5):
        augment = Augment(AugmentConfig(object_crop=ObjectCrop(min_ious=(least,))), size=64)
        crops = np.array([augment.draw(seed, FRAME, boxes=boxes).motion.crop for seed in range(60)])
        windows = crops * (320, 240, 320, 240)
        partial = (crops != (0, 0, 1, 1)).any(axis=1)
        assert partial.sum() > 40
        assert (pairwise_ious(windows, boxes).max(axis=1)[partial] >= least).all()
        sides = windows[:, 2:] - windows[:, :2]
        ratios = sides[:, 0] / sides[:, 1]
        assert (ratios[partial] >= 0.499).all() and (ratios[partial] <= 2.001).all()
        assert (sides[partial] >= np.array([0.299 * 320, 0.299 * 240])).all()
        centers = (boxes[:, :2] + boxes[:, 2:]) / 2
        inside = (centers[None] > windows[:, None, :2]) & (centers[None] < windows[:, None, 2:])
        assert inside.all(axis=2).any(axis=1).all()


def test_the_whole_image_is_one_of_the_crops():
    boxes = np.array([[100, 80, 220, 160]], np.float32)
    augment = Augment(AugmentConfig(object_crop=ObjectCrop(min_ious=(0.0, 1.0))), size=64)
    whole = [augment.draw(seed, FRAME, boxes=boxes).motion.crop == (0, 0, 1, 1) for seed in range(400)]
    assert abs(np.mean(whole) - 0.5) < 0.08
    tiny = np.array([[100, 80, 104, 84]], np.float32)  # no crop can have that IoU
    augment = Augment(AugmentConfig(object_crop=ObjectCrop(min_ious=(0.9,))), size=64)
    assert all(augment.draw(seed, FRAME, boxes=tiny).motion.crop == (0, 0, 1, 1) for seed in range(10))
    assert augment.draw(1, FRAME).motion.crop == (0, 0, 1, 1)  # without objects


def test_an_object_whose_center_is_cut_off_is_ignored_not_learnt():
    config = AugmentConfig(object_crop=ObjectCrop(min_ious=(0.0,)), **STILL)
    augment, image = Augment(config, size=64), encoded(np.zeros((*FRAME, 3), np.uint8))
    boxes = np.array([[20, 20, 120, 100], [140, 60, 240, 220], [10, 150, 90, 230]], np.float32)
    centers, told = (boxes[:, :2] + boxes[:, 2:]) / 2 / (320, 240), 0
    for seed in range(60):
        crop = np.array(augment.draw(seed, FRAME, boxes=boxes).motion.crop)
        inside = ((centers > crop[:2]) & (centers < crop[2:])).all(axis=1)
        out = augment(image, FRAME, seed=seed, boxes=boxes)
        np.testing.assert_array_equal(out.indices, np.flatnonzero(inside))
        told += len(out.hidden)
        assert len(out.hidden) <= (~inside).sum()
    assert told > 15


def test_zooming_out_puts_the_image_on_a_canvas_of_the_mean_color():
    augment = Augment(AugmentConfig(zoom_out=ZoomOut(probability=0.5, largest=4.0), **STILL), size=200)
    image, semantic = encoded(np.zeros((*FRAME, 3), np.uint8)), np.full(FRAME, 3, np.uint8)
    boxes, sides = np.array([[0, 0, 320, 240]], np.float32), []
    for seed in range(200):
        out = augment(image, FRAME, seed=seed, boxes=boxes, semantic=semantic)
        x1, y1, x2, y2 = out.boxes[0].round().astype(int)
        assert (out.image[y1:y2, x1:x2] == 0).all() and (out.semantic[y1:y2, x1:x2] == 3).all()
        rest = np.ones((200, 200), bool)
        rest[y1:y2, x1:x2] = False
        assert (out.image[rest] == FILL_RGB).all() and (out.semantic[rest] == 255).all()
        assert abs((x2 - x1) - (y2 - y1)) <= 1
        sides.append(200 / (x2 - x1))
    zoomed = np.array(sides)[np.array(sides) > 1]
    assert abs(len(zoomed) / 200 - 0.5) < 0.12
    assert zoomed.max() <= 4.1 and zoomed.max() > 3.7 and abs(zoomed.mean() - 2.5) < 0.3


def test_cover_shows_the_middle_in_validation():
    image = np.random.default_rng(1).integers(0, 256, (100, 200, 3), dtype=np.uint8)
    out = Augment(AugmentConfig(), size=50, mode="cover", center=1.0)(encoded(image), (100, 200), seed=None).image
    expected = image[:, 50:150].reshape(50, 2, 50, 2, 3).mean(axis=(1, 3))
    assert np.abs(out - expected).max() <= 0.51
    out = Augment(AugmentConfig(), size=40, mode="cover", center=0.8)(encoded(image), (100, 200), seed=None).image
    expected = image[10:90, 60:140].reshape(40, 2, 40, 2, 3).mean(axis=(1, 3))
    assert np.abs(out - expected).max() <= 0.51


@pytest.mark.parametrize(("frame", "width"), [((20, 60), 96), ((64, 64), 32), ((30, 900), 200), ((100, 1), 1)])
def test_lines_have_one_height_and_their_own_width(frame, width):
    image = np.zeros((*frame, 3), np.uint8)
    augment = Augment(AugmentConfig(brightness_contrast=0), size=(32, 200), mode="line")
    for seed in (None, 3):
        out = augment(encoded(image), frame, seed=seed)
        assert out.content_size == (32, width) and out.image.shape == (32, 200, 3)
        assert (out.image[:, :width] == 0).all() and (out.image[:, width:] == FILL_RGB).all()


def test_classification_takes_crops_from_params():
    problems: list[str] = []
    section = {"resize": "cover", "augment": {"random_crop": {"area": [0.3, 1.0]}}}
    config = parse(Classification.Config, section, "task", problems)
    assert not problems and config.augment.random_crop == RandomCrop(area=(0.3, 1.0))
    assert config.augment.horizontal_flip == 0.5  # the task's own default stays
    parse(Classification.Config, {"augment": {"random_crop": {"areas": [0.3, 1.0]}}}, "task", problems)
    assert len(problems) == 1 and "areas" in problems[0] and "area" in problems[0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AugmentConfig(crop=0.1, random_crop=RandomCrop()), "more than one kind of crop"),
        (lambda: AugmentConfig(object_crop=ObjectCrop(), random_crop=RandomCrop()), "more than one kind of crop"),
        (lambda: RandomCrop(area=(0.0, 1.0)), "area must be"),
        (lambda: RandomCrop(area=(0.5, 0.2)), "smaller first"),
        (lambda: RandomCrop(ratio=(2.0, 0.5)), "smaller first"),
        (lambda: ObjectCrop(min_ious=(0.5, 1.5)), "min_ious must be"),
        (lambda: ObjectCrop(min_ious=()), "min_ious must be"),
        (lambda: ObjectCrop(side=(0.0, 1.0)), "side must be"),
        (lambda: ObjectCrop(ratio=(3.0, 1.0)), "smaller first"),
        (lambda: ObjectCrop(trials=0), "trials must be"),
        (lambda: ZoomOut(largest=0.5), "largest must be"),
        (lambda: ZoomOut(probability=1.5), "probability must be"),
        (lambda: Classification.Config(center=0.0), "center must be"),
    ],
)  # fmt: skip
def test_settings_out_of_range(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
