"""Segmentation of crops: what training cuts out and what it calls background, and how regions become a picture."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from contracts.errors import ConfigError
from contracts.records import Objects, Proposals, Record
from contracts.searching import Search
from lightning_modules.augment.augment import AugmentConfig
from lightning_modules.augment.images import decode_semantic
from lightning_modules.tasks import region_segmentation

HEIGHT, WIDTH = 48, 64
# Two squares of class 1, one ring of 255 around the first, a disc of class 2 that reaches into the first one's margin.
FIRST, SECOND, DISC = (8, 8, 24, 24), (40, 24, 56, 40), (24, 8, 32, 24)
PLAIN = AugmentConfig(brightness_contrast=0.0)


def build(data, **config):
    settings = {"image_size": 32, "augment": PLAIN, "cut": 1.0, "margin": 1.5} | config
    return region_segmentation.Task(region_segmentation.Task.Config(**settings), data)


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


@pytest.fixture
def record() -> Record:
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[6:26, 6:26] = 255
    for (x1, y1, x2, y2), label in ((FIRST, 1), (SECOND, 1), (DISC, 2)):
        labels[y1:y2, x1:x2] = label
    flags = np.zeros(3, bool)
    objects = Objects(
        ids=["0", "1", "2"], boxes=np.array([FIRST, SECOND, DISC], np.float32), labels=np.array([1, 1, 2]),
        areas=np.array([256.0, 256.0, 128.0]), is_crowd=flags, is_difficult=flags, is_truncated=flags, masks=[""] * 3,
    )  # fmt: skip
    boxes = np.array([(8, 6, 24, 24), (0, 0, 32, 32), (30, 10, 31, 24)], np.float32)
    return Record(
        key="a", image_id=1, width=WIDTH, height=HEIGHT, image=png(np.repeat(labels[..., None], 3, axis=2)),
        image_format="png", semantic_mask=png(labels), objects=objects,
        proposals=Proposals(boxes=boxes, scores=np.array([3, 2, 1], np.float32)),
    )  # fmt: skip


def chosen(record: Record, index: int) -> Record:
    """With this object alone to be drawn; the picture and its labels as they are."""
    crowd = np.ones(3, bool)
    crowd[index] = False
    return replace(record, objects=replace(record.objects, is_crowd=crowd))


def test_an_object_stands_alone_in_the_middle_of_its_crop(data, record) -> None:
    example = build(data, crops="objects").encode(chosen(record, 0), 0)
    (labels,) = example["labels"]
    np.testing.assert_array_equal(example["windows"], [[4, 4, 28, 28]])
    assert example["image"].shape == (1, 32, 32, 3) and set(np.unique(labels)) == {0, 1, 255}
    inside = labels == 1
    assert inside[16, 16] and 0.35 < inside.mean() < 0.55, "a square of 16 of 24 pixels"
    assert not (labels[:, 28:] == 2).any(), "the disc that reaches into the margin is background"
    assert set(np.unique(build(data, crops="objects").encode(chosen(record, 2), 0)["labels"])) == {0, 2, 255}


def test_outside_of_the_picture_is_ignored(data, record) -> None:
    labels = build(data, crops="objects", margin=4.0).encode(chosen(record, 0), 0)["labels"][0]
    assert (labels[:8, :] == 255).all() and (labels[:, :8] == 255).all() and (labels == 1).any()


def test_proposals_show_all_classes_of_those_that_overlap(data, record) -> None:
    """(8, 6, 24, 24) overlaps with the first object by 8/9, (0, 0, 32, 32) by a quarter; the others have none."""
    task = build(data, crops_per_image=24)
    windows = {tuple(window) for window in task.encode(chosen(record, 0), 5)["windows"].tolist()}
    assert windows == {(8, 6, 24, 24), FIRST}
    assert {tuple(w) for w in task.encode(chosen(record, 1), 5)["windows"].tolist()} == {SECOND}
    all_of_them = task.encode(record, 5)
    assert {1, 2} <= set(np.unique(all_of_them["labels"])), "every object has its turn"
    assert {tuple(w) for w in build(data).encode(replace(record, proposals=None), 5)["windows"].tolist()} <= {
        FIRST, SECOND, DISC,
    }  # fmt: skip


def test_training_shows_a_part_of_a_crop(data, record) -> None:
    task = build(data, crops="objects", crops_per_image=32, cut=0.75)
    windows = task.encode(chosen(record, 0), 1)["windows"]
    np.testing.assert_allclose(windows[:, 2:] - windows[:, :2], 18, rtol=1e-6)
    assert (windows[:, :2] >= 4).all() and (windows[:, 2:] <= 28).all() and len(np.unique(windows[:, 0])) > 20


def test_a_picture_is_asked_by_its_regions_and_as_a_whole(data, record) -> None:
    whole = [0, 0, WIDTH, HEIGHT]
    task = build(data, max_regions=1, min_side=2)
    assert task.encode(record, None)["windows"].tolist() == [[8, 6, 24, 24], whole]
    assert build(data).encode(record, None)["windows"].tolist()[-2:] == [[30, 10, 31, 24], whole]
    assert build(data, min_side=2).encode(record, None)["windows"].tolist() == [[8, 6, 24, 24], [0, 0, 32, 32], whole]
    assert build(data, inference="whole").encode(record, None)["windows"].tolist() == [whole]
    asked = Record(key="b", image_id=2, width=WIDTH, height=HEIGHT, image=record.image, image_format="png")
    found = build(data, search=Search(mode="single", scales=(25,), min_side=8)).encode(asked, None)
    assert len(found["windows"]) > 1 and "labels" not in found, "searched, where nobody has before"


def test_the_largest_score_of_all_crops_that_see_a_pixel_counts(data, record) -> None:
    """Scores below 0 count for nothing, and without any a pixel is background."""
    task = build(data)
    batch = task.collate([task.encode(one, None) for one in (replace(record, proposals=None), record)])
    batch["num_crops"], batch["windows"] = [2, 1], torch.tensor(
        [[0, 0, 32, 48], [16, 0, 64, 24], [0, 0, 64, 48]], dtype=torch.float32
    )  # fmt: skip
    flat = torch.tensor([[0.0, 2.0, 1.0], [0.5, 1.0, 3.0], [-1.0, -2.0, -3.0]])
    first, second = task._predictions(flat[:, :, None, None].expand(3, 3, 32, 32), batch)
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[:, :32] = 1
    expected[:24, 16:] = 2
    np.testing.assert_array_equal(decode_semantic(first["label_map"]), expected)
    assert not decode_semantic(second["label_map"]).any()


def test_crops_that_are_known_give_the_truth_back(data, record) -> None:
    """A network that reads the label off the pixel, at the end of the whole way: loss near 0, the picture's labels."""

    class Reads(torch.nn.Module):
        def forward(self, images):
            return 40.0 * torch.stack([images[:, 0] == label for label in range(3)], dim=1).float()

    task = build(data, image_size=64)
    batch = task.collate([task.encode(record, None)])
    parts, (prediction,) = task.evaluate_batch(Reads(), batch)
    truth, found = decode_semantic(record.semantic_mask), decode_semantic(prediction["label_map"])
    wrong = (found != truth) & (truth != 255)
    assert wrong.mean() < 0.05 and parts["cross_entropy"].count == (batch["labels"] != 255).sum()


def test_augmentations_that_crop_are_refused(data) -> None:
    with pytest.raises(ConfigError, match="crops are made of regions here"):
        build(data, augment=AugmentConfig(crop=0.1))
