"""Alignment of image, boxes, masks, labels and ids; pixels; determinism; empty inputs; dtypes."""

import dataclasses
import pickle

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from contracts.errors import ConfigError, DataError
from contracts.records import Record
from lightning_modules.augment.augment import Augment, Augmented
from lightning_modules.augment.config import AugmentConfig
from lightning_modules.augment.images import decode_image, decode_record, decode_semantic, image_size
from lightning_modules.ops.boxes import mask_boxes

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


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def apply(augment: Augment, image: np.ndarray, **kwargs) -> Augmented:
    """With a frame of the image's own size."""
    return augment(png(image), image.shape[:2], **kwargs)


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
        out = apply(augment, image, seed=seed, boxes=boxes, masks=masks, semantic=semantic)
        assert len(out.boxes) == len(out.masks) == len(out.indices)
        lost += NUM_OBJECTS - len(out.indices)
        for box, mask, index in zip(out.boxes, out.masks, out.indices, strict=True):
            assert (out.semantic[mask == 1] == index + 1).all()  # both nearest neighbour
            inner = cv2.erode(mask, np.ones((3, 3)), borderValue=0) == 1
            if inner.any():
                assert abs(np.median(out.image[inner]) - 40 * (index + 1)) < 20  # nearer to it than to any other
            pixels = np.argwhere(mask)[:, ::-1]
            np.testing.assert_array_equal(box, [*pixels.min(axis=0), *(pixels.max(axis=0) + 1)])
    assert lost > 0, "the transforms are so mild that the test shows nothing"


def test_boxes_without_masks_hold_their_objects():
    image, boxes, masks, _ = scene()
    augment = Augment(EVERYTHING, size=128)
    for seed in range(20):
        with_masks = apply(augment, image, seed=seed, boxes=boxes, masks=masks)
        alone = apply(augment, image, seed=seed, boxes=boxes)
        assert set(with_masks.indices) <= set(alone.indices)
        assert (alone.boxes[:, 2:] > alone.boxes[:, :2]).all()
        assert alone.boxes.min(initial=0) >= 0 and alone.boxes.max(initial=0) <= 128
        for box, index in zip(with_masks.boxes, with_masks.indices, strict=True):
            outer = alone.boxes[list(alone.indices).index(index)]
            assert (box[:2] >= outer[:2] - 2).all() and (box[2:] <= outer[2:] + 2).all()


def test_equal_seeds_equal_output_whatever_came_before():
    image, boxes, masks, semantic = scene()
    first, second = (Augment(EVERYTHING, size=96) for _ in range(2))
    apply(second, image, seed=99, boxes=boxes)
    a = apply(first, image, seed=2**62 + 7, boxes=boxes, masks=masks, semantic=semantic)
    b = apply(pickle.loads(pickle.dumps(second)), image, seed=2**62 + 7, boxes=boxes, masks=masks, semantic=semantic)
    for name in ("image", "boxes", "masks", "semantic", "indices"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    other = apply(first, image, seed=2**62 + 8, boxes=boxes, masks=masks, semantic=semantic)
    assert not np.array_equal(a.image, other.image)


def test_dtypes_and_shapes_are_fixed():
    image, boxes, masks, semantic = scene()
    augment = Augment(EVERYTHING, size=(64, 96))
    for seed in (None, 5):
        out = apply(augment, image, seed=seed, boxes=boxes.astype(np.float64), masks=masks, semantic=semantic)
        assert (out.image.dtype, out.boxes.dtype, out.masks.dtype, out.semantic.dtype, out.indices.dtype) == (
            np.uint8, np.float32, np.uint8, np.uint8, np.int64,
        )  # fmt: skip
        assert out.image.shape == (64, 96, 3) and out.masks.shape[1:] == out.semantic.shape == (64, 96)
        assert out.boxes.shape == (len(out.indices), 4)


@pytest.mark.parametrize("seed", [None, 1])
def test_images_without_objects(seed):
    image = scene()[0]
    augment = Augment(EVERYTHING, size=64)
    out = apply(augment, image, seed=seed, boxes=np.zeros((0, 4)), masks=np.zeros((0, *image.shape[:2]), np.uint8))
    assert out.boxes.shape == (0, 4) and out.masks.shape == (0, 64, 64) and out.indices.shape == (0,)
    bare = apply(augment, image, seed=seed)
    assert bare.masks is None and bare.semantic is None and bare.boxes.shape == (0, 4)


def test_objects_cut_away_are_dropped_with_their_masks():
    image = np.zeros((100, 100, 3), np.uint8)
    masks = np.zeros((2, 100, 100), np.uint8)
    masks[0, :2, :2] = masks[1, 45:55, 45:55] = 1
    augment = Augment(AugmentConfig(crop=0.45), size=50)
    counts = set()
    for seed in range(30):
        out = apply(augment, image, seed=seed, boxes=mask_boxes(masks), masks=masks)
        counts.add(tuple(out.indices))
        assert len(out.masks) == len(out.indices)
    assert (1,) in counts


@pytest.mark.parametrize("with_masks", [True, False])
def test_objects_that_are_hardly_seen_are_told_apart_from_those_that_are_gone(with_masks):
    """Background they are not: what shows of them is kept, to be ignored."""
    image = np.zeros((100, 100, 3), np.uint8)
    masks = np.zeros((3, 100, 100), np.uint8)
    masks[0, 40:60, :28] = masks[1, 40:60, 45:65] = masks[2, :5, :5] = 1
    augment = Augment(AugmentConfig(crop=0.45, min_visibility=0.3, brightness_contrast=0), size=100)
    counts = {"seen": 0, "hidden": 0, "gone": 0}
    for seed in range(40):
        out = apply(augment, image, seed=seed, boxes=mask_boxes(masks), masks=masks if with_masks else None)
        whole = apply(replace_config(augment, min_visibility=0.0), image, seed=seed, boxes=mask_boxes(masks))
        assert out.hidden.dtype == np.float32 and out.hidden.shape[1:] == (4,)
        expected = whole.boxes[~np.isin(whole.indices, out.indices)]
        np.testing.assert_allclose(out.hidden, expected, atol=1 if with_masks else 1e-4)
        counts["seen"] += 0 in out.indices
        counts["hidden"] += 0 not in out.indices and 0 in whole.indices
        counts["gone"] += 0 not in whole.indices
        assert 1 in out.indices
    assert min(counts.values()) > 2, counts
    assert not len(apply(augment, image, seed=None, boxes=mask_boxes(masks)).hidden)


def replace_config(augment: Augment, **changes) -> Augment:
    return Augment(dataclasses.replace(augment.config, **changes), size=augment.size, mode=augment.mode)


def test_who_must_know_decides_about_the_mirror():
    """A task that mirrors its text with the image: not once more by a flip that knows nothing of the text."""
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, :16] = 200
    augment = Augment(AugmentConfig(horizontal_flip=1.0, brightness_contrast=0), size=64)
    for mirror, left in ((True, False), (False, True), (None, False)):
        assert (apply(augment, image, seed=0, mirror=mirror).image[32, 8, 0] > 100) == left
    assert apply(augment, image, seed=None).image[32, 8, 0] > 100


def test_without_a_seed_letterbox_only_scales():
    image = scene(90, 130)[0]
    boxes = np.array([[0, 0, 130, 90], [13, 9, 26.5, 18]], np.float32)
    out = apply(Augment(EVERYTHING, size=65, mode="letterbox"), image, seed=None, boxes=boxes)
    assert out.content_size == (45, 65)
    np.testing.assert_allclose(out.boxes, boxes / 2, atol=1e-5)
    assert (out.image[45:] == (124, 116, 104)).all()
    np.testing.assert_array_equal(out.indices, [0, 1])


def test_filled_in_pixels_are_ignored_not_background():
    semantic = np.full((40, 80), 3, np.uint8)
    semantic[:5] = 255
    image = np.zeros((40, 80, 3), np.uint8)
    plain = apply(Augment(EVERYTHING, size=80, mode="letterbox"), image, seed=None, semantic=semantic).semantic
    assert (plain[40:] == 255).all() and (plain[5:40] == 3).all() and (plain[:5] == 255).all()
    rotating = Augment(AugmentConfig(rotate=45, brightness_contrast=0), size=80)
    for seed in range(5):
        assert set(np.unique(apply(rotating, image, seed=seed, semantic=semantic).semantic)) <= {3, 255}


@pytest.mark.parametrize(("name", "value"), [("crop", 0.5), ("scale", 1.0), ("rotate", -1), ("horizontal_flip", 1.2)])
def test_settings_out_of_range(name, value):
    with pytest.raises(ConfigError, match=f"{name} must be"):
        AugmentConfig(**{name: value})


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


def jpeg(image: np.ndarray, quality: int = 95) -> bytes:
    return cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def coordinates(height: int, width: int) -> np.ndarray:
    """Red says where a pixel lies along the width, green along the height; blue marks it as picture."""
    image = np.full((height, width, 3), 255, np.uint8)
    image[..., 0] = ((np.arange(width) + 0.5) / width * 255).round()
    image[..., 1] = ((np.arange(height) + 0.5) / height * 255).round()[:, None]
    return image


@pytest.mark.parametrize("rotate", [0, 25])
@pytest.mark.parametrize("mode", ["stretch", "letterbox"])
@pytest.mark.parametrize("stored", [(960, 1280), (240, 320), (321, 427)])
def test_boxes_follow_the_pixels_whatever_is_stored(rotate, mode, stored):
    frame = (960, 1280)  # the shards may hold fewer pixels, and a JPEG may be decoded at a half or less
    data = jpeg(coordinates(*stored))
    config = AugmentConfig(
        horizontal_flip=0.5,
        vertical_flip=0.5,
        crop=0.2,
        scale=0.3,
        shift=0.2,
        rotate=rotate,
        brightness_contrast=0,
        min_visibility=1,  # a box that was cut has another centre
    )
    augment = Augment(config, size=(96, 128), mode=mode)
    centres = np.random.default_rng(0).uniform((40, 40), (1240, 920), (60, 2))
    boxes = np.concatenate([centres - 20, centres + 20], axis=1).astype(np.float32)
    offsets: list[np.ndarray] = []
    for seed in range(25):
        out = augment(data, frame, seed=seed, boxes=boxes)
        expected = centres[out.indices] / (1280, 960) * 255
        for (x, y), shown in zip((out.boxes[:, :2] + out.boxes[:, 2:]) / 2, expected, strict=True):
            # Between pixels, whose centres have halves in our coordinates and none in OpenCV's.
            found = cv2.getRectSubPix(out.image, (1, 1), (float(x) - 0.5, float(y) - 0.5), patchType=cv2.CV_32F)[0, 0]
            assert found[2] > 250
            offsets.append(found[:2] - shown)
    assert len(offsets) > 400
    # One pixel of the output is 2 to 4 steps of grey. One pixel too many in `stored` makes a median of 0.5 to 1.
    assert np.median(np.abs(offsets)) < 0.45 and np.abs(offsets).max() < 2.2


def test_exact_without_a_seed():
    """Area averaging of exactly decoded pixels: each output pixel is the mean of what it covers."""
    image = np.random.default_rng(1).integers(0, 256, (96, 144, 3), dtype=np.uint8)
    out = apply(Augment(EVERYTHING, size=(32, 48)), image, seed=None).image
    mean = image.reshape(32, 3, 48, 3, 3).mean(axis=(1, 3))
    assert np.abs(out - mean).max() <= 0.51
    same = apply(Augment(EVERYTHING, size=(96, 144)), image, seed=None).image
    np.testing.assert_array_equal(same, image)


def test_filter_of_training_is_bilinear_after_halving():
    """For a factor of 3: halved by averaging (1.5 is left), then torch's bilinear without antialiasing."""
    image = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 256, (96, 144, 3), dtype=np.uint8), (3, 3), 0)
    out = apply(Augment(AugmentConfig(brightness_contrast=0), size=(32, 48)), image, seed=3).image
    halved = torch.from_numpy(image.reshape(48, 2, 72, 2, 3).mean(axis=(1, 3)).round()).permute(2, 0, 1)
    expected = F.interpolate(halved[None], size=(32, 48), mode="bilinear", antialias=False)[0].permute(1, 2, 0)
    assert np.abs(out - expected.numpy()).max() <= 1.5


def test_a_reduced_jpeg_is_the_averaged_jpeg():
    image = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 256, (200, 304, 3), dtype=np.uint8), (9, 9), 0)
    data = jpeg(image, 100)
    whole = decode_image(data).astype(np.float64)
    for shrink in (2, 4, 8):
        mean = whole.reshape(200 // shrink, shrink, 304 // shrink, shrink, 3).mean(axis=(1, 3))
        reduced = decode_image(data, shrink=shrink)
        assert reduced.shape == mean.shape
        assert np.abs(reduced - mean).mean() < 3
    for encode in (jpeg, png):
        cut = decode_image(encode(image[:199, :301]), shrink=4)
        assert cut.shape == (50, 76, 3)  # rounded up
        whole = image[:196, :300].reshape(49, 4, 75, 4, 3).mean(axis=(1, 3))
        assert np.abs(cut[:49, :75] - whole).mean() < 4  # not stretched: its pixels stay where they are


@pytest.mark.parametrize("encode", [jpeg, png])
@pytest.mark.parametrize("rotate", [0, 1e-9])  # each has its own map
@pytest.mark.parametrize("width", [1025, 1028, 1031])
def test_annotations_follow_an_image_whose_last_reduced_pixel_is_partial(width, rotate, encode):
    """1025 columns decoded at 1/8 are 129 of which the last holds one: read as 129 whole ones, an edge at three
    quarters lies two thirds of a pixel left of its box."""
    edge = 952
    image = np.zeros((16 * 8, width, 3), np.uint8)
    image[:, edge:] = 255
    labels = (image[..., 0] > 0).astype(np.uint8)
    augment = Augment(AugmentConfig(brightness_contrast=0, rotate=rotate), size=(16, 128))
    boxes = np.array([[0, 0, edge, 128]], np.float32)
    out = augment(encode(image), image.shape[:2], seed=1, boxes=boxes, semantic=labels)
    row = out.image[8, :, 0].astype(float)
    found = 128 - row.sum() / 255  # where the white begins, to a fraction of a pixel
    assert abs(out.boxes[0, 2] - found) < 0.1
    assert abs(out.boxes[0, 2] - (128 - out.semantic[8].sum())) <= 0.5


def test_jpegs_are_decoded_exactly(shared_dir):
    """The same pixels as Pillow's libjpeg, of real photographs, grey ones and 4:2:0 among them."""
    photographs = sorted((shared_dir / "data/coco_real/images").rglob("*.jpg"))[:25]
    assert photographs
    for path in photographs:
        with Image.open(path) as opened:
            expected = np.asarray(opened.convert("RGB"))
        np.testing.assert_array_equal(decode_image(path.read_bytes()), expected)
        assert image_size(path.read_bytes()) == expected.shape[:2]


def test_each_knob_draws_for_itself():
    """albumentations, given one seed, mirrors and turns upside down the same images and shifts to the same side."""
    image = np.zeros((64, 64, 3), np.uint8)
    image[:16, :16] = 200
    config = AugmentConfig(horizontal_flip=0.5, vertical_flip=0.5, brightness_contrast=0.2)
    counts, brightness = np.zeros((2, 2)), []
    for seed in range(400):
        out = apply(Augment(config, size=64), image, seed=seed).image
        corners = out[[8, 8, 55, 55], [8, 55, 8, 55], 0].astype(int)
        counts[divmod(int(corners.argmax()), 2)] += 1
        brightness.append((corners.max(), corners.argmax() % 2))
    assert counts.min() > 70  # each of four with 1/4; a fifth lower would be 4 deviations off
    values, mirrored = np.array(brightness).T
    assert abs(np.corrcoef(values, mirrored)[0, 1]) < 0.2


def test_hue_and_saturation_leave_grey_alone():
    config = AugmentConfig(brightness_contrast=0, hue=40, saturation=0.9)
    grey = np.repeat(np.arange(0, 256, 4, dtype=np.uint8)[None, :, None], 3, axis=2).repeat(64, axis=0)
    coloured = np.full((64, 64, 3), (150, 110, 90), np.uint8)
    changed = []
    for seed in range(10):
        out = apply(Augment(config, size=64), grey, seed=seed).image
        assert np.abs(out.astype(int) - grey).max() <= 1
        colour = apply(Augment(config, size=64), coloured, seed=seed).image[0, 0].astype(float)
        changed.append(np.abs(colour - (150, 110, 90)).max())
        assert abs(colour @ (0.299, 0.587, 0.114) - 119.7) < 2  # brightness is kept
    assert max(changed) > 20


def test_a_record_is_drawn_in_its_own_size():
    record = Record(key="a", image_id=1, width=160, height=120, image=png(scene(60, 80)[0]), image_format="png")
    assert decode_record(record).shape == (120, 160, 3)
