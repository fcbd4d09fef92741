"""Our one map and albumentations' transforms, held to each other: boxes, points, pixels.

Coordinates here are continuous: pixel i covers [i, i + 1) and its center is i + 0.5. albumentations has boxes like
this, and counts points from the center of the first pixel: `Compose` gets points - 0.5. Its angles turn against the
clock, ours with it. Where it scales, it scales points as they are counted there, which moves them by half a pixel times
the zoom less one: up to 0.51 px here.
"""

import albumentations as A
import cv2
import numpy as np
import pytest

from lightning_modules.augment.view import FILL_RGB, Motion, View

HEIGHT, WIDTH = 96, 128
BOXES = np.array([[40, 30, 70, 60], [60.5, 44.25, 90, 70], [33, 50, 50, 66]], np.float32)
POINTS = np.array([[40, 30], [70.5, 44.25], [64, 48], [50, 66]], np.float32)
DEGREES = 12


def affine(**settings) -> A.Affine:
    return A.Affine(p=1.0, border_mode=cv2.BORDER_CONSTANT, fill=FILL_RGB, balanced_scale=False, **settings)


# What ours does, the size that it gives, what theirs does.
CASES = {
    "nothing": (Motion(), (HEIGHT, WIDTH), [A.NoOp(p=1.0)]),
    "mirror": (Motion(mirror=True), (HEIGHT, WIDTH), [A.HorizontalFlip(p=1.0)]),
    "upside down": (Motion(upside_down=True), (HEIGHT, WIDTH), [A.VerticalFlip(p=1.0)]),
    "resize": (Motion(), (48, 80), [A.Resize(48, 80, p=1.0)]),
    "enlarge": (Motion(), (120, 192), [A.Resize(120, 192, p=1.0)]),
    "crop": (
        Motion(crop=(16 / WIDTH, 8 / HEIGHT, 112 / WIDTH, 80 / HEIGHT)),
        (72, 96),
        [A.Crop(x_min=16, y_min=8, x_max=112, y_max=80, p=1.0)],
    ),
    "crop, resize, mirror": (
        Motion(crop=(16 / WIDTH, 8 / HEIGHT, 112 / WIDTH, 80 / HEIGHT), mirror=True),
        (60, 64),
        [A.Crop(x_min=16, y_min=8, x_max=112, y_max=80, p=1.0), A.Resize(60, 64, p=1.0), A.HorizontalFlip(p=1.0)],
    ),
    "zoom out": (
        Motion(crop=(-16 / WIDTH, -8 / HEIGHT, 144 / WIDTH, 120 / HEIGHT)),
        (128, 160),
        [A.Pad(padding=(16, 8, 16, 24), fill=FILL_RGB, p=1.0)],
    ),
    "shift": (
        Motion(shift=(8 / WIDTH, -6 / HEIGHT)),
        (HEIGHT, WIDTH),
        [affine(translate_px={"x": (8, 8), "y": (-6, -6)}, scale=1.0, rotate=0, shear=0)],
    ),
    "turn": (Motion(angle=np.radians(DEGREES)), (HEIGHT, WIDTH), [affine(rotate=-DEGREES, scale=1.0, shear=0)]),
    "turn, zoom, shift": (
        Motion(angle=np.radians(DEGREES), zoom=1.2, shift=(4 / WIDTH, 3 / HEIGHT)),
        (HEIGHT, WIDTH),
        [affine(rotate=-DEGREES, scale=1.2, translate_px={"x": (4, 4), "y": (3, 3)}, shear=0)],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_both_move_boxes_points_and_pixels_alike(name):
    motion, size, transforms = CASES[name]
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8), (0, 0), 3)
    image = cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX)
    view = View(motion, frame=(HEIGHT, WIDTH), stored=(HEIGHT, WIDTH), content=size, output=size)
    ours = np.empty((*size, 3), np.uint8)
    view.show_image(image, ours, antialias=False)
    theirs = A.Compose(
        transforms,
        bbox_params=A.BboxParams("pascal_voc", label_fields=["places"], clip=True),
        keypoint_params=A.KeypointParams("xy", remove_invisible=False),
        seed=0,
    )(image=image, bboxes=BOXES, places=np.arange(len(BOXES)), keypoints=POINTS - 0.5)
    assert theirs["image"].shape == ours.shape
    np.testing.assert_allclose(view.move_points(POINTS), np.asarray(theirs["keypoints"]) + 0.5, atol=0.51)
    boxes = view.move_boxes(BOXES, clip=True)
    np.testing.assert_array_equal(np.asarray(theirs["places"]).astype(int), np.arange(len(BOXES)))
    if motion.angle:  # ours are around the turned rectangle, theirs around what is drawn in it or larger
        centers = [(each[:, :2] + each[:, 2:]) / 2 for each in (boxes, np.asarray(theirs["bboxes"]))]
        np.testing.assert_allclose(*centers, atol=0.51)
    np.testing.assert_allclose(boxes, theirs["bboxes"], atol=0.51)
    # Of 255: both interpolate linearly; half a pixel less would be several times as much.
    difference = np.abs(ours.astype(int) - theirs["image"])
    inside = difference[6:-6, 6:-6]
    assert inside.mean() < 1.0 and np.quantile(inside, 0.99) <= 4, (inside.mean(), inside.max())
