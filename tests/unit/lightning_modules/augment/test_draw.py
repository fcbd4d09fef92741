"""The two steps: what is drawn, and that what it does to pixels stays what it was."""

import hashlib

import cv2
import numpy as np
import pytest

from contracts.errors import DataError
from lightning_modules.augment.augment import Augment
from lightning_modules.augment.config import AugmentConfig

SETTINGS = {
    "objects": (AugmentConfig(horizontal_flip=0.5), 128, "letterbox"),
    "words": (AugmentConfig(scale=0.15, shift=0.06, rotate=8.0, saturation=0.1), 96, "stretch"),
    "classes": (AugmentConfig(horizontal_flip=0.5, scale=0.15, shift=0.06), 128, "stretch"),
    "everything": (
        AugmentConfig(horizontal_flip=0.5, vertical_flip=0.5, crop=0.3, scale=0.3, shift=0.2, hue=8, saturation=0.2),
        (64, 96),
        "letterbox",
    ),
}
SIZES = {"128": ((128, 160), (128, 160)), "480": ((480, 640), (960, 1280))}  # stored, frame

# Of the pixels, and of all annotations: as they were when drawing and applying were one step.
DIGESTS = {
    ("128.png", "objects"): ("7aa2c0caaaf44757", "5499052152c8da3c"),
    ("128.png", "words"): ("79d342fd7e7a3eac", "deccd837f5a6f69d"),
    ("128.png", "classes"): ("04d0056229f171aa", "41a4d1754cf553b4"),
    ("128.png", "everything"): ("037207a3f6715a53", "f4b0b952bee08fa6"),
    ("128.jpg", "objects"): ("22c5e24389edadb3", "5499052152c8da3c"),
    ("128.jpg", "words"): ("d543ea797ea28d42", "deccd837f5a6f69d"),
    ("128.jpg", "classes"): ("ed044ab0057e0787", "41a4d1754cf553b4"),
    ("128.jpg", "everything"): ("feb341e645fc7b95", "f4b0b952bee08fa6"),
    ("480.png", "objects"): ("78a0b394cb359f07", "d147b89c0fe1a73e"),
    ("480.png", "words"): ("7ebe1a8b08af56d9", "dd8bbf5dd413cb27"),
    ("480.png", "classes"): ("4417ff7e7b6a1fd9", "a30b9071b8056d94"),
    ("480.png", "everything"): ("918ce3c570b8f906", "dc2af8a7281155c6"),
    ("480.jpg", "objects"): ("1010d389a83bb001", "d147b89c0fe1a73e"),
    ("480.jpg", "words"): ("a8b4a4f322d02b53", "dd8bbf5dd413cb27"),
    ("480.jpg", "classes"): ("c1a7d6e387725247", "a30b9071b8056d94"),
    ("480.jpg", "everything"): ("2e6884dda01417df", "dc2af8a7281155c6"),
}


def encoded(size: tuple[int, int], kind: str = ".png") -> bytes:
    """Colored squares of 8 x 8 pixels."""
    small = np.random.default_rng(7).integers(0, 256, (size[0] // 8, size[1] // 8, 3), dtype=np.uint8)
    return cv2.imencode(kind, cv2.resize(small, size[::-1], interpolation=cv2.INTER_NEAREST))[1].tobytes()


def objects(frame: tuple[int, int]) -> dict[str, np.ndarray]:
    """Six boxes of a quarter of the sides, their masks, and labels of the pixels."""
    sides = np.array(frame[::-1])
    corners = np.random.default_rng(1).uniform(0, 0.7, (6, 2)) * sides
    boxes = np.concatenate([corners, corners + sides * 0.25], axis=1).astype(np.float32)
    masks = np.zeros((6, *frame), np.uint8)
    for mask, box in zip(masks, boxes.astype(int), strict=True):
        mask[box[1] : box[3], box[0] : box[2]] = 1
    semantic = (masks * np.arange(1, 7, dtype=np.uint8)[:, None, None]).max(axis=0)
    return {"boxes": boxes, "masks": masks, "semantic": semantic}


@pytest.mark.parametrize("case", DIGESTS, ids=" ".join)
def test_the_same_seeds_give_the_same_bits(case):
    kind, name = case
    stored, frame = SIZES[kind[:3]]
    config, size, mode = SETTINGS[name]
    augment, image, on = Augment(config, size=size, mode=mode), encoded(stored, kind[3:]), objects(frame)
    pixels, others = hashlib.sha256(), hashlib.sha256()
    for seed in (None, 0, 1, 2, 3, 4, 2**62 + 5):
        for mirror in (None, True):
            out = augment(image, frame, seed=seed, mirror=mirror, **on)
            pixels.update(out.image.tobytes())
            for each in (out.boxes, out.masks, out.semantic, out.indices, out.hidden):
                others.update(np.ascontiguousarray(each).tobytes())
            others.update(str(out.content_size).encode())
            alone = augment(image, frame, seed=seed, mirror=mirror, boxes=on["boxes"])
            others.update(alone.boxes.tobytes() + alone.hidden.tobytes())
    assert (pixels.hexdigest()[:16], others.hexdigest()[:16]) == DIGESTS[case]


def test_a_draw_is_all_that_is_random():
    """Equal numbers in, an equal draw out, and it alone decides about the pixels."""
    frame = (128, 160)
    further = ({"name": "GaussNoise", "p": 1.0},)
    config = AugmentConfig(horizontal_flip=0.5, crop=0.3, rotate=20, hue=8, albumentations=further)
    first, second = Augment(config, size=64), Augment(config, size=64)
    second.draw(99, frame)
    draws = [first.draw(seed, frame) for seed in range(20)]
    assert draws == [second.draw(seed, frame) for seed in range(20)] and len(set(draws)) == 20
    image = encoded(frame)
    later = [second.apply(draw, image).image for draw in reversed(draws)][::-1]
    for draw, other in zip(draws, later, strict=True):
        np.testing.assert_array_equal(first.apply(draw, image).image, other)


def test_all_frames_of_a_clip_change_alike():
    frame = (128, 160)
    further = ({"name": "GaussNoise", "p": 1.0}, {"name": "Affine", "rotate": 20, "p": 1.0})
    config = AugmentConfig(horizontal_flip=0.5, crop=0.3, shift=0.1, hue=8, albumentations=further)
    augment, on = Augment(config, size=(64, 80)), objects(frame)
    images = [encoded(frame), encoded(frame), cv2.imencode(".png", np.zeros((*frame, 3)))[1].tobytes()]
    for seed in (None, *range(6)):
        draw = augment.draw(seed, frame)
        clip, alone = augment.apply(draw, images, **on), augment.apply(draw, images[0], **on)
        assert clip.image.shape == (3, 64, 80, 3) and clip.image.dtype == np.uint8
        np.testing.assert_array_equal(clip.image[0], alone.image)
        np.testing.assert_array_equal(clip.image[1], alone.image)
        assert (clip.image[2] != clip.image[0]).any()
        for name in ("boxes", "masks", "semantic", "indices"):
            np.testing.assert_array_equal(getattr(clip, name), getattr(alone, name))


def test_proposals_move_as_boxes_do():
    frame = (128, 160)
    config = AugmentConfig(horizontal_flip=0.5, crop=0.4, shift=0.2, rotate=15, min_visibility=0.4)
    augment, boxes = Augment(config, size=64), objects(frame)["boxes"]
    dropped = 0
    for seed in (None, *range(30)):
        out = augment(encoded(frame), frame, seed=seed, boxes=boxes, proposals=boxes)
        np.testing.assert_array_equal(out.proposals, out.boxes)
        np.testing.assert_array_equal(out.proposal_indices, out.indices)
        dropped += len(boxes) - len(out.proposals)
    assert dropped > 20


def test_corners_of_quads_keep_their_order_and_are_not_cut():
    frame = (128, 160)
    quads = np.array([[[10, 10], [50, 14], [50, 34], [10, 30]], [[-80, 0], [10, 0], [10, 20], [-80, 20]]], np.float32)
    out = Augment(AugmentConfig(horizontal_flip=1.0), size=(64, 80))(encoded(frame), frame, seed=0, quads=quads)
    np.testing.assert_array_equal(out.quad_indices, [0, 1])  # a ninth of the second shows, more than 0.1
    np.testing.assert_allclose(out.quads, (quads * (-1, 1) + (160, 0)) / 2, atol=1e-5)
    strict = AugmentConfig(horizontal_flip=1.0, min_visibility=0.2)
    out = Augment(strict, size=(64, 80))(encoded(frame), frame, seed=0, quads=quads)
    np.testing.assert_array_equal(out.quad_indices, [0])


def test_frames_of_two_sizes_are_refused():
    with pytest.raises(DataError, match="differ in size"):
        Augment(AugmentConfig(), size=64)([encoded((128, 160)), encoded((64, 80))], (128, 160), seed=1)
