"""Detection of given regions: which ones a record has, where augmentation puts them, and what is done without any."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from contracts.errors import ConfigError
from contracts.raw import RawRecord
from contracts.records import Proposals
from contracts.searching import Search
from lightning_modules.augment.augment import AugmentConfig
from lightning_modules.base.families import RegionDetectorSpec
from lightning_modules.base.object_task import targets_of
from lightning_modules.models import fast_rcnn
from lightning_modules.reports import region_detection as report
from lightning_modules.tasks import region_detection
from lightning_modules.tasks.region_detection import Windows
from pipeline.ingest.door.admit import admit
from pipeline.ingest.door.config import DoorConfig

HEIGHT, WIDTH = 48, 64
BOXES = np.array([[4, 6, 30, 40], [0, 0, 64, 48], [10, 8, 20, 20], [40, 0, 64, 24]], np.float32)
SEARCH = Search(mode="single", scales=(25,), min_side=8)


def build(data, **config):
    return region_detection.Task(region_detection.Task.Config(image_size=64, **config), data)


@pytest.fixture
def record(make_record):
    return replace(make_record(0), proposals=Proposals(boxes=BOXES, scores=np.linspace(1, 0, 4, dtype=np.float32)))


class Asked(torch.nn.Module):
    """Keeps what it is called with; finds nothing, and loses nothing."""

    def forward(self, images, regions, targets=None, *, sizes=None, detect=False):
        self.regions, self.targets = [one.clone() for one in regions], targets
        none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "scores": torch.zeros(0)}
        return {}, [none] * len(images) if detect else []


def test_the_model_is_handed_the_proposals_in_their_order(data, record, make_record):
    """In the letterbox's pixels, in training, validation and prediction; each image its own."""
    task, model = build(data), Asked()
    assert task.spec() == RegionDetectorSpec(num_foreground_classes=2, image_size=64)
    small = replace(record, proposals=Proposals(boxes=BOXES[:1], scores=np.ones(1, np.float32)))
    batch = task.collate([task.encode(one, None) for one in (record, small)])
    for call in (task.losses, task.evaluate_batch, task.predict):
        call(model, batch)
        assert [len(one) for one in model.regions] == batch["num_regions"] == [4, 1]
        np.testing.assert_allclose(model.regions[0], BOXES, atol=1e-4)  # 64 x 48 fills the letterbox's width
        assert (model.targets is None) == (call == task.predict)
    twice = region_detection.Task(region_detection.Task.Config(image_size=128), data)
    np.testing.assert_allclose(twice.encode(record, None)["regions"], 2 * BOXES, atol=1e-4)


def test_true_boxes_are_not_among_them(data, record):
    task = build(data)
    batch = task.collate([task.encode(record, None)])
    np.testing.assert_allclose(targets_of(batch)[0]["boxes"], record.objects.boxes, atol=1e-4)
    assert batch["regions"].shape == (4, 4)


def test_a_mirrored_picture_has_mirrored_regions(data, record):
    task = build(data, augment=AugmentConfig(horizontal_flip=1.0))
    found = task.encode(record, 3)["regions"]
    np.testing.assert_allclose(found, BOXES[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [WIDTH, 0, WIDTH, 0], atol=1e-4)
    straight = build(data, augment=AugmentConfig(horizontal_flip=0.0)).encode(record, 3)["regions"]
    np.testing.assert_allclose(straight, BOXES, atol=1e-4)


def test_what_a_crop_leaves_out_is_no_region(data, record):
    task = build(data, augment=AugmentConfig(crop=0.45, min_visibility=0.9))
    numbers = set()
    for seed in range(12):
        regions = task.encode(record, seed)["regions"]
        assert (regions[:, 2:] > regions[:, :2]).all() and regions.dtype == np.float32
        assert (regions >= 0).all() and (regions <= 64).all()
        numbers.add(len(regions))
    assert len(numbers) > 1


def test_max_regions_are_the_best_before_anything_is_drawn(data, record):
    task = build(data, max_regions=2, augment=AugmentConfig(horizontal_flip=0.0))
    for seed in (None, 0, 1):
        np.testing.assert_allclose(task.encode(record, seed)["regions"], BOXES[:2], atol=1e-4)


def test_a_record_without_proposals_searches_itself_as_the_shard_stage_would(data, make_record, tmp_path):
    bare = make_record(0)
    (tmp_path / "image.png").write_bytes(bare.image)
    image = tmp_path / "image.png"
    raw = RawRecord(key="image", annotation_file="image.xml", image_id=1, image=image)
    stored = admit(raw, (), DoorConfig(search=SEARCH)).record
    assert stored.proposals is not None and len(stored.proposals.boxes) > 2
    assert admit(raw, ()).record.proposals is None, "only where the data set asks for it"
    task = build(data, search=SEARCH)
    found = task.encode(bare, None)["regions"]
    np.testing.assert_array_equal(found, task.encode(stored, None)["regions"])
    np.testing.assert_array_equal(found, stored.proposals.boxes)
    np.testing.assert_array_equal(build(data, search=SEARCH, max_regions=2).encode(bare, None)["regions"], found[:2])
    assert len(build(data).encode(bare, None)["regions"]) < len(found), "the default's boxes are those of photographs"


def test_no_proposals_are_not_searched_for_again(data, record):
    none = replace(record, proposals=Proposals(boxes=BOXES[:0], scores=np.zeros(0, np.float32)))
    assert build(data, search=SEARCH).encode(none, None)["regions"].shape == (0, 4)


@pytest.mark.parametrize("min_side", [8, 60])
def test_a_flat_picture(data, make_record, min_side):
    """One region, the whole, or none if that is too small; training and prediction take both."""
    flat = cv2.imencode(".png", np.full((HEIGHT, WIDTH, 3), 90, np.uint8))[1].tobytes()
    records = [replace(make_record(9, empty=True), image=flat), replace(make_record(0), image=flat)]
    task = build(data, search=replace(SEARCH, min_side=min_side))
    model = fast_rcnn.Model(fast_rcnn.Config(head_channels=16), task.spec())
    for seed in (None, 5):
        batch = task.collate([task.encode(one, seed) for one in records])
        assert batch["num_regions"] == ([1, 1] if min_side == 8 else [0, 0])
        total = sum(loss.value for loss in task.losses(model.train(), batch).values())
        total.backward()
        assert torch.isfinite(total)
    with torch.no_grad():
        predictions = task.evaluate_batch(model.eval(), task.collate([task.encode(one, None) for one in records]))[1]
    if min_side == 60:
        assert [len(one["boxes"]) for one in predictions] == [0, 0]


def test_windows_are_those_of_the_grid_whatever_the_proposals(data, record):
    """32 x 32 and 48 x 48 at a stride of 16 in 64 x 48: 3 x 2 and 2 x 1."""
    task = build(data, regions="windows", windows=Windows(scales=(32, 48), stride=16))
    found = task.encode(record, None)["regions"]
    assert found[:6].tolist() == [[x, y, x + 32, y + 32] for y in (0, 16) for x in (0, 16, 32)]
    assert found[6:].tolist() == [[x, 0, x + 48, 48] for x in (0, 16)]
    fewer = build(data, regions="windows", windows=task.config.windows, max_regions=1)
    assert len(fewer.regions(record)) == 8, "a limit of proposals alone"


def test_windows_follow_the_size_of_each_record(data, record):
    task = build(data, regions="windows", windows=Windows(scales=(32,), stride=16))
    assert len(task.regions(record)) == 6 and len(task.regions(replace(record, height=32))) == 3
    assert task.regions(record) is task.regions(record), "made once a size"


def test_the_published_number_of_windows(data, record):
    """128 x 128, three scales and shapes at a stride of 8: 981."""
    task = build(data, regions="windows", windows=Windows(scales=(32, 48, 64), ratios=(0.5, 1, 2)))
    assert len(task.regions(replace(record, height=128, width=128))) == 981


def test_answers_and_pictures(data, record):
    task = build(data)
    truth = task.truths(record)[0]
    prediction = {name: truth[name] for name in ("boxes", "labels", "size")} | {"scores": np.array([0.9, 0.1])}
    assert [one["label"] for one in task.answer(prediction)["objects"]] == ["square"]
    assert task.score({"a": prediction}, {"a": truth})["mAP_2010"] == pytest.approx(1.0)
    assert report.Report(task).picture(record, [prediction], [truth]).dtype == np.uint8


@pytest.mark.parametrize(
    ("wrong", "said"), [({"max_regions": 0}, "max_regions must be"), ({"image_size": 16}, "image_size must be")]
)
def test_settings_that_cannot_work(wrong, said):
    with pytest.raises(ConfigError, match=said):
        region_detection.Task.Config(**wrong)
    with pytest.raises(ConfigError, match="stride must be"):
        Windows(stride=0.0)
