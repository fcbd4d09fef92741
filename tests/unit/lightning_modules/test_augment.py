"""The adapter to albumentations: alignment of boxes, masks, labels and ids, determinism, empty inputs, dtypes."""

import pickle

import cv2
import numpy as np
import pytest

from contracts.errors import ConfigError, DataError
from lightning_modules.augment import Augment, AugmentConfig, decode_image, decode_semantic, mask_boxes

EVERYTHING = AugmentConfig(
    horizontal_flip=0.5,
    vertical_flip=0.5,
    crop=0.3,
    scale=0.3,
    shift=0.2,
    rotate=40,
    brightness_contrast=0.0,
    min_visibility=0.0,
)
NUM_OBJECTS = 5


def scene(height: int = 90, width: int = 130) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Object i is a filled rectangle of grey 40 * (i + 1); its mask, box and semantic label (i + 1) say the same."""
    rng = np.random.default_rng(3)
    image = np.zeros((height, width, 3), np.uint8)
    masks = np.zeros((NUM_OBJECTS, height, width), np.uint8)
    semantic = np.zeros((height, width), np.uint8)
    for i in range(NUM_OBJECTS):
        x, y = rng.integers(0, width - 30), rng.integers(0, height - 30)
        where = (slice(y, y + rng.integers(12, 30)), slice(x, x + rng.integers(12, 30)))
        image[where], semantic[where] = 40 * (i + 1), i + 1
        masks[:, where[0], where[1]] = 0
        masks[i][where] = 1
    return image, mask_boxes(masks), masks, semantic


@pytest.mark.parametrize("mode", ["stretch", "letterbox"])
def test_boxes_masks_labels_and_ids_stay_aligned(mode):
    image, boxes, masks, semantic = scene()
    augment = Augment(EVERYTHING, size=(128, 160), mode=mode)
    lost = 0
    for seed in range(50):
        out = augment(image, seed=seed, boxes=boxes, masks=masks, semantic=semantic)
        assert len(out.boxes) == len(out.masks) == len(out.indices)
        lost += NUM_OBJECTS - len(out.indices)
        for box, mask, index in zip(out.boxes, out.masks, out.indices, strict=True):
            assert (out.semantic[mask == 1] == index + 1).all()  # both nearest neighbour
            inner = cv2.erode(mask, np.ones((3, 3)), borderValue=0) == 1
            if inner.any():
                assert abs(np.median(out.image[inner]) - 40 * (index + 1)) < 20  # nearer to it than to any other
            np.testing.assert_array_equal(box, mask_boxes(mask[None])[0])
    assert lost > 0, "the transforms are so mild that the test shows nothing"


def test_boxes_without_masks_hold_their_objects():
    image, boxes, masks, _ = scene()
    augment = Augment(EVERYTHING, size=128)
    for seed in range(20):
        with_masks = augment(image, seed=seed, boxes=boxes, masks=masks)
        alone = augment(image, seed=seed, boxes=boxes)
        assert set(with_masks.indices) <= set(alone.indices)
        assert (alone.boxes[:, 2:] > alone.boxes[:, :2]).all()
        assert alone.boxes.min(initial=0) >= 0 and alone.boxes.max(initial=0) <= 128
        for box, index in zip(with_masks.boxes, with_masks.indices, strict=True):
            outer = alone.boxes[list(alone.indices).index(index)]
            assert (box[:2] >= outer[:2] - 2).all() and (box[2:] <= outer[2:] + 2).all()


def test_equal_seeds_equal_output_whatever_came_before():
    image, boxes, masks, semantic = scene()
    first, second = (Augment(EVERYTHING, size=96) for _ in range(2))
    second(image, seed=99, boxes=boxes)
    a = first(image, seed=2**62 + 7, boxes=boxes, masks=masks, semantic=semantic)
    b = pickle.loads(pickle.dumps(second))(image, seed=2**62 + 7, boxes=boxes, masks=masks, semantic=semantic)
    for name in ("image", "boxes", "masks", "semantic", "indices"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    other = first(image, seed=2**62 + 8, boxes=boxes, masks=masks, semantic=semantic)
    assert not np.array_equal(a.image, other.image)


def test_dtypes_and_shapes_are_fixed():
    image, boxes, masks, semantic = scene()
    augment = Augment(EVERYTHING, size=(64, 96))
    for seed in (None, 5):
        out = augment(image, seed=seed, boxes=boxes.astype(np.float64), masks=masks, semantic=semantic)
        assert (out.image.dtype, out.boxes.dtype, out.masks.dtype, out.semantic.dtype, out.indices.dtype) == (
            np.uint8, np.float32, np.uint8, np.uint8, np.int64,
        )  # fmt: skip
        assert out.image.shape == (64, 96, 3) and out.masks.shape[1:] == out.semantic.shape == (64, 96)
        assert out.boxes.shape == (len(out.indices), 4)


@pytest.mark.parametrize("seed", [None, 1])
def test_images_without_objects(seed):
    image = scene()[0]
    augment = Augment(EVERYTHING, size=64)
    out = augment(image, seed=seed, boxes=np.zeros((0, 4)), masks=np.zeros((0, *image.shape[:2]), np.uint8))
    assert out.boxes.shape == (0, 4) and out.masks.shape == (0, 64, 64) and out.indices.shape == (0,)
    bare = augment(image, seed=seed)
    assert bare.masks is None and bare.semantic is None and bare.boxes.shape == (0, 4)


def test_objects_cut_away_are_dropped_with_their_masks():
    image = np.zeros((100, 100, 3), np.uint8)
    masks = np.zeros((2, 100, 100), np.uint8)
    masks[0, :2, :2] = masks[1, 45:55, 45:55] = 1
    augment = Augment(AugmentConfig(crop=0.45), size=50)
    counts = set()
    for seed in range(30):
        out = augment(image, seed=seed, boxes=mask_boxes(masks), masks=masks)
        counts.add(tuple(out.indices))
        assert len(out.masks) == len(out.indices)
    assert (1,) in counts


def test_without_a_seed_letterbox_only_scales():
    image = scene(90, 130)[0]
    boxes = np.array([[0, 0, 130, 90], [13, 9, 26.5, 18]], np.float32)
    out = Augment(EVERYTHING, size=65, mode="letterbox")(image, seed=None, boxes=boxes)
    assert out.content_size == (45, 65)
    np.testing.assert_allclose(out.boxes, boxes / 2, atol=1e-5)
    assert (out.image[45:] == (124, 116, 104)).all()
    np.testing.assert_array_equal(out.indices, [0, 1])


def test_filled_in_pixels_are_ignored_not_background():
    semantic = np.full((40, 80), 3, np.uint8)
    semantic[:5] = 255
    image = np.zeros((40, 80, 3), np.uint8)
    plain = Augment(EVERYTHING, size=80, mode="letterbox")(image, seed=None, semantic=semantic).semantic
    assert (plain[40:] == 255).all() and (plain[5:40] == 3).all() and (plain[:5] == 255).all()
    rotating = Augment(AugmentConfig(rotate=45, brightness_contrast=0), size=80)
    for seed in range(5):
        assert set(np.unique(rotating(image, seed=seed, semantic=semantic).semantic)) <= {3, 255}


@pytest.mark.parametrize(("name", "value"), [("crop", 0.5), ("scale", 1.0), ("rotate", -1), ("horizontal_flip", 1.2)])
def test_settings_out_of_range(name, value):
    with pytest.raises(ConfigError, match=f"augment.{name}"):
        AugmentConfig(**{name: value})


def test_each_transform_runs_alone():
    image, boxes, masks, semantic = scene()
    for name in AugmentConfig.__dataclass_fields__:
        config = AugmentConfig(**{"brightness_contrast": 0.0, name: 0.3 if name != "hue" else 10})
        out = Augment(config, size=64)(image, seed=0, boxes=boxes, masks=masks, semantic=semantic)
        assert out.image.shape == (64, 64, 3)


def test_decode_image_colour_order_grey_and_refusal():
    red = np.zeros((8, 9, 3), np.uint8)
    red[..., 0] = 200
    decoded = decode_image(cv2.imencode(".png", red[..., ::-1])[1].tobytes())
    np.testing.assert_array_equal(decoded, red)
    grey = decode_image(cv2.imencode(".png", np.full((8, 9), 7, np.uint8))[1].tobytes())
    assert grey.shape == (8, 9, 3) and (grey == 7).all()
    with pytest.raises(DataError):
        decode_image(b"no image")


def test_decode_semantic_refuses_colour():
    labels = np.arange(72, dtype=np.uint8).reshape(8, 9)
    np.testing.assert_array_equal(decode_semantic(cv2.imencode(".png", labels)[1].tobytes()), labels)
    with pytest.raises(DataError, match="single-channel"):
        decode_semantic(cv2.imencode(".png", np.zeros((8, 9, 3), np.uint8))[1].tobytes())
