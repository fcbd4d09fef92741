"""albumentations' transforms by name: alignment of all of them, seeds, what they drop, and what is refused."""

import pickle
import subprocess
import sys
import warnings

import albumentations
import cv2
import numpy as np
import pytest

from contracts.errors import ConfigError
from lightning_modules.augment import named
from lightning_modules.augment.augment import Augment, Augmented
from lightning_modules.augment.config import AugmentConfig
from lightning_modules.ops.boxes import mask_boxes
from pipeline.settings.params import load_params

SIZE = (80, 120)
# Where a transform has settings without which it cannot be made, or does nothing.
SETTINGS = {
    **{
        name: {"height": 60, "width": 70}
        for name in ("AtLeastOneBBoxRandomCrop", "CenterCrop", "CropNonEmptyMaskIfExists", "RandomCrop")
    },
    "RandomSizedBBoxSafeCrop": {"height": 60, "width": 70},
    "Resize": {"height": 60, "width": 70},
    "RandomResizedCrop": {"size": [60, 70]},
    "RandomSizedCrop": {"min_max_height": [40, 70], "size": [60, 70]},
    "Crop": {"x_min": 10, "y_min": 5, "x_max": 110, "y_max": 70},
    "CropAndPad": {"px": [-10, 10]},
    "GridElasticDeform": {"num_grid_xy": [3, 3], "magnitude": 5},
    "LongestMaxSize": {"max_size": 100},
    "SmallestMaxSize": {"max_size": 60},
    "PadIfNeeded": {"min_height": 100, "min_width": 130},
    "Pad": {"padding": 10},
}
# What hides pixels and leaves boxes as they are, or moves pixels about within an object: labels and masks move alike,
# but a rectangle is none after it.
UNSHAPED = {"GridDropout", "RandomGridShuffle", "CoarseDropout", "Erasing", "MaskDropout", "PixelDropout", "XYMasking"}
UNSHAPED |= {"ElasticTransform", "GridElasticDeform", "ThinPlateSpline", "PiecewiseAffine", "FrequencyMasking"}
UNSHAPED |= {"TimeMasking", "GridDistortion", "Morphological"}
# They give floats or tensors, which models here do not take.
FLOATS = {"FromFloat", "Normalize", "ToFloat"}


def kinds(base: type) -> list[str]:
    every = {name: getattr(albumentations, name) for name in dir(albumentations)}
    bases = (albumentations.ImageOnlyTransform, albumentations.DualTransform, albumentations.Transform3D)
    found = (name for name, kind in every.items() if isinstance(kind, type) and issubclass(kind, base))
    return sorted(name for name in found if every[name] not in bases)


VOLUMES = set(kinds(albumentations.Transform3D))
MOVING = [name for name in kinds(albumentations.DualTransform) if name not in named._REFUSED and name not in VOLUMES]
PIXELS = [
    name for name in kinds(albumentations.ImageOnlyTransform) if name not in named._REFUSED and name not in FLOATS
]


def scene() -> tuple[bytes, dict[str, np.ndarray]]:
    """Object i is a filled rectangle of grey 60 * (i + 1); mask, label, quad and proposal say the same."""
    image, masks = np.zeros((*SIZE, 3), np.uint8), np.zeros((4, *SIZE), np.uint8)
    for i, (x, y) in enumerate(((6, 8), (62, 12), (20, 46), (80, 44))):
        image[y : y + 24, x : x + 30] = 60 * (i + 1)
        masks[i, y : y + 24, x : x + 30] = 1
    boxes = mask_boxes(masks)
    quads = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
    semantic = (masks * np.arange(1, 5, dtype=np.uint8)[:, None, None]).max(axis=0)
    on = {"boxes": boxes, "masks": masks, "quads": quads, "proposals": boxes, "semantic": semantic}
    return cv2.imencode(".png", image)[1].tobytes(), on


def with_transforms(*sections: dict, **settings) -> Augment:
    config = AugmentConfig(brightness_contrast=0, albumentations=sections, **settings)
    return Augment(config, size=SIZE)


def assert_aligned(out: Augmented, *, shaped: bool) -> None:
    assert len(out.boxes) == len(out.masks) == len(out.indices)
    np.testing.assert_array_equal(out.boxes, mask_boxes(out.masks))
    quads = dict(zip(out.quad_indices.tolist(), out.quads, strict=True))
    proposals = dict(zip(out.proposal_indices.tolist(), out.proposals, strict=True))
    for box, mask, index in zip(out.boxes, out.masks, out.indices.tolist(), strict=True):
        assert (out.semantic[mask == 1] == index + 1).all()
        if not shaped:
            continue
        inner = cv2.erode(mask, np.ones((5, 5)), borderValue=0) == 1
        if inner.any():
            assert abs(np.median(out.image[inner]) - 60 * (index + 1)) < 12
        # albumentations' boxes of what was turned are larger than what is in them, never smaller.
        if index in proposals:
            assert (proposals[index][:2] <= box[:2] + 2).all() and (proposals[index][2:] >= box[2:] - 2).all()
        around = np.concatenate([quads[index].min(axis=0), quads[index].max(axis=0)]) if index in quads else np.zeros(4)
        if index in quads and (around >= 0).all() and (around <= [120, 80] * 2).all():  # none of it was cut
            np.testing.assert_allclose(around, box, atol=2.1)


@pytest.mark.parametrize("name", MOVING)
def test_every_transform_keeps_annotations_aligned(name):
    image, on = scene()
    augment = with_transforms({"name": name, "p": 1.0, **SETTINGS.get(name, {})}, horizontal_flip=0.5)
    for seed in range(5):
        out = augment(image, SIZE, seed=seed, **on)
        assert out.image.shape == (*SIZE, 3) and out.image.dtype == out.semantic.dtype == np.uint8
        assert out.boxes.dtype == out.quads.dtype == out.proposals.dtype == np.float32
        assert_aligned(out, shaped=name not in UNSHAPED)
        again = augment(image, SIZE, seed=seed, **on)
        for each in ("image", "boxes", "masks", "semantic", "quads", "proposals", "indices"):
            np.testing.assert_array_equal(getattr(out, each), getattr(again, each))
    bare = augment(image, SIZE, seed=0)
    assert bare.image.shape == (*SIZE, 3) and not len(bare.boxes) and bare.masks is None


def test_transforms_of_pixels_alone_leave_all_else():
    image, on = scene()
    plain = with_transforms()(image, SIZE, seed=1, **on)
    for name in PIXELS:
        out = with_transforms({"name": name, "p": 1.0})(image, SIZE, seed=1, **on)
        assert out.image.shape == plain.image.shape and out.image.dtype == np.uint8, name
        for each in ("boxes", "masks", "semantic", "quads", "proposals", "indices"):
            np.testing.assert_array_equal(getattr(out, each), getattr(plain, each))


def test_each_transform_draws_from_a_seed_of_its_own():
    image = scene()[0]
    noise = {"name": "GaussNoise", "p": 0.5}
    augment, plain = with_transforms(noise, noise, {"name": "ToGray", "p": 1.0}), with_transforms()
    changed = 0
    for seed in range(60):
        out = augment(image, SIZE, seed=seed).image
        copied = pickle.loads(pickle.dumps(augment))
        np.testing.assert_array_equal(out, copied(image, SIZE, seed=seed).image)  # as loader workers have it
        changed += not np.array_equal(out, plain(image, SIZE, seed=seed).image)
    assert 36 <= changed <= 54  # 3/4: the two draw apart; with one seed for both it would be 1/2
    kept = augment(image, SIZE, seed=None).image
    np.testing.assert_array_equal(kept, plain(image, SIZE, seed=None).image)
    flips = with_transforms({"name": "HorizontalFlip"}, {"name": "VerticalFlip"})
    corners = [
        flips(image, SIZE, seed=seed).image[[20, 20, 59, 59], [15, 104, 15, 104], 0].argmax() for seed in range(80)
    ]
    assert set(corners) == {0, 1, 2, 3}


def test_what_a_transform_cuts_off_is_dropped_with_its_mask_or_ignored():
    image, on = scene()
    crop = {"name": "Crop", "x_min": 30, "y_min": 0, "x_max": 120, "y_max": 80, "p": 1.0}
    out = with_transforms(crop, min_visibility=0.5)(image, SIZE, seed=1, **on)
    # Object 0 has 6 of its 30 columns left: hardly seen. Object 2 has 20 of 30.
    np.testing.assert_array_equal(out.indices, [1, 2, 3])
    np.testing.assert_array_equal(out.quad_indices, [1, 2, 3])
    np.testing.assert_array_equal(out.proposal_indices, [1, 2, 3])
    assert len(out.masks) == 3 and len(out.hidden) == 1
    np.testing.assert_allclose(out.hidden[0], [0, 8, 8, 32], atol=0.6)  # 90 columns became 120
    gone = with_transforms(crop | {"x_min": 40})(image, SIZE, seed=1, **on)
    np.testing.assert_array_equal(gone.indices, [1, 2, 3])
    assert not len(gone.hidden)


def test_pixels_from_outside_are_ignored_not_background():
    image, on = scene()
    out = with_transforms({"name": "Pad", "padding": 20, "p": 1.0})(image, SIZE, seed=1, **on)
    assert (out.semantic[:13] == 255).all() and (out.semantic[:, :14] == 255).all()
    assert (out.semantic[40, 20:100] != 255).all()


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"name": "Blurr"}, "did you mean 'Blur'"),
        ({"name": "HorizontalFlipp"}, "did you mean 'HorizontalFlip'"),
        ({"p": 0.1}, "no transform of albumentations"),
        ({"name": "OneOf", "transforms": []}, "no transform of albumentations"),
        ({"name": "DualTransform"}, "no transform of albumentations"),
        ({"name": "GaussianBlur", "radius": 3}, "radius.*\n.*\n.*sigma_limit"),
        ({"name": "GaussianBlur", "p": 1.5}, "wrong settings of GaussianBlur"),
        ({"name": "ColorJitter", "p": 2}, "wrong settings of ColorJitter"),
        ({"name": "ToRGB"}, "these have three"),
        ({"name": "FDA"}, "FDA needs other images"),
        ({"name": "Mosaic"}, "Mosaic needs other images"),
        ({"name": "RandomCropNearBBox"}, "one chosen box"),
        ({"name": "CenterCrop3D", "size": [2, 2, 2]}, "needs volumes"),
        ({"name": "Normalize"}, "no image of 8 bits"),
        ({"name": "ToFloat"}, "no image of 8 bits"),
    ],
)
def test_settings_are_checked_without_an_image(section, message):
    with pytest.raises(ConfigError, match=f"(?s){message}") as raised:
        AugmentConfig(albumentations=({"name": "ToGray"}, section))
    assert "augment.albumentations.1" in str(raised.value)


def test_advice_is_no_mistake_and_a_large_crop_may_fit_a_large_image():
    AugmentConfig(albumentations=({"name": "TimeReverse"}, {"name": "RandomCrop", "height": 300, "width": 300}))


@pytest.mark.parametrize("name", sorted(named._KNOWN))
def test_what_is_known_of_settings_is_what_the_library_says(name):
    for key, limits in named._KNOWN[name].items():
        for value in limits:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                getattr(albumentations, name)(**{key: value})
            assert named._is_known({"name": name, key: value})
        assert not named._is_known({"name": name, key: limits[1] + 1})
        assert not named._is_known({"name": name, key: list(limits)})
    assert not named._is_known({"name": name, "other": 0.1})


def test_shipped_runs_have_their_colors_from_albumentations_and_check_needs_no_import(root):
    runs = load_params(root).document["runs"]
    named_there = {name: run["task"].get("augment", {}) for name, run in runs.items()}
    for name in ("segmentation_fcn", "detection_faster_rcnn", "instances_mask_rcnn"):
        assert named_there[name]["albumentations"] and named_there[name]["brightness_contrast"] == 0
        assert all(named._is_known(section) for section in named_there[name]["albumentations"])


def test_known_settings_are_right_without_the_library():
    """`check` must stay fast, and nothing may ask the network."""
    code = (
        "import sys\n"
        "from lightning_modules.augment.config import AugmentConfig\n"
        "AugmentConfig(albumentations=({'name': 'ColorJitter', 'hue': 0.02, 'p': 1},))\n"
        "assert not {'albumentations', 'torch', 'cv2'} & set(sys.modules), 'slow'\n"
        "try: AugmentConfig(albumentations=({'name': 'ColorJitter', 'p': 2.0},))\n"
        "except ValueError: import os; assert os.environ['NO_ALBUMENTATIONS_UPDATE'] == '1'\n"
        "else: raise SystemExit(3)\n"
    )
    environment = {"PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=120)
