"""R-CNN: which crops it learns from, what it finds, and what `finish` fits; the sliding window with it."""

from __future__ import annotations

import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou, nms

from contracts.errors import ConfigError
from lightning_modules.base.families import RegionDetectorSpec
from lightning_modules.base.finish import Finisher, finish
from lightning_modules.models import rcnn
from lightning_modules.models.rcnn import Config, Model
from lightning_modules.ops.windows import sliding_windows

SIDE, C = 64, 3
SPEC = RegionDetectorSpec(num_foreground_classes=C, image_size=SIDE)
COLORS = torch.tensor([[0, 0, 0], [230, 30, 30], [30, 200, 40], [40, 60, 230]], dtype=torch.uint8)
SMALL = Config(crop_size=32, padding=2, norm="group")
REGIONS = torch.from_numpy(sliding_windows((SIDE, SIDE), scales=(16.0, 24.0), stride=8))


def build(config: Config = SMALL) -> Model:
    torch.manual_seed(0)
    return Model(config, SPEC)


def scenes(count: int = 4, seed: int = 0):
    """Squares of one colour a class on noise, two an image."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(90, 130, (count, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    targets = []
    for image in images:
        labels = torch.randint(1, C + 1, (2,), generator=generator)
        boxes = []
        for part, label in enumerate(labels):
            x, y = (int(v) for v in torch.randint(0, 12, (2,), generator=generator))
            side = int(torch.randint(18, 26, (1,), generator=generator))
            x1, y1 = x, y + 32 * part if y + 32 * part + side <= SIDE else SIDE - side
            image[:, y1 : y1 + side, x1 : x1 + side] = COLORS[label][:, None, None]
            boxes.append([x1, y1, x1 + side, y1 + side])
        targets.append({"boxes": torch.tensor(boxes).float(), "labels": labels, "ignored": torch.zeros(0, 4)})
    return images, [REGIONS] * count, targets


def batch_of(images, regions, targets):
    """As `base/object_task.py` makes it."""
    return {
        "images": images,
        "sizes": [(SIDE, SIDE)] * len(images),
        "regions": torch.cat(list(regions)),
        "num_regions": [len(one) for one in regions],
        "num_objects": [len(one["labels"]) for one in targets],
        "num_ignored": [len(one["ignored"]) for one in targets],
        **{name: torch.cat([one[name] for one in targets]) for name in ("boxes", "labels", "ignored")},
    }


@pytest.fixture(scope="module")
def learned() -> Model:
    """Forty steps on eight images."""
    model = build().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for step in range(40):
        images, regions, targets = scenes(4, seed=step % 2)
        loss = model(images, regions, targets)[0]["loss_classifier"] / 4
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def fitted(learned) -> Model:
    model = copy.deepcopy(learned)
    assert isinstance(model, Finisher)
    finish(SimpleNamespace(), model, lambda: iter([batch_of(*scenes(4, seed)) for seed in (0, 1)]), norms=False)
    return model


@pytest.mark.parametrize(("ratios", "scales", "count"), [((1,), (32, 45, 64), 371), ((0.5, 1, 2), (32, 48, 64), 981)])
def test_the_sheets_windows(ratios, scales, count):
    assert len(sliding_windows((128, 128), scales=scales, ratios=ratios, stride=8)) == count


def test_a_quarter_of_the_crops_lies_on_objects():
    model = build()
    _, _, (target, *_) = scenes(1)
    boxes, labels = model._sample(REGIONS, target)
    assert len(boxes) == 16 and (labels > 0).sum() == 4
    best, nearest = box_iou(boxes, target["boxes"]).max(dim=1)
    assert ((best >= 0.5) == (labels > 0)).all()
    assert (labels[best >= 0.5] == target["labels"][nearest[best >= 0.5]]).all()


def test_true_boxes_are_among_the_candidates():
    _, _, (target, *_) = scenes(1)
    boxes, labels = build()._sample(torch.zeros(0, 4), target)
    assert torch.equal(boxes, target["boxes"]) and torch.equal(labels, target["labels"])


def test_ignored_regions_are_no_background():
    none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    everything = {**none, "ignored": torch.tensor([[0.0, 0, SIDE, SIDE]])}
    assert len(build()._sample(REGIONS, everything)[0]) == 0
    assert len(build()._sample(REGIONS, {**none, "ignored": torch.zeros(0, 4)})[0]) == 16
    half = {**none, "ignored": torch.tensor([[0.0, 0, SIDE, 32]])}
    assert (build()._sample(REGIONS, half)[0][:, 3] > 40).all(), "of 16 px at least 8 below the region"


def test_the_loss_is_a_sum_of_each_images_mean():
    model = build(replace(SMALL, crops_per_image=10_000)).eval()  # all of them: nothing is drawn
    images, _, targets = scenes(3)
    regions = [REGIONS, REGIONS[:20], torch.zeros(0, 4)]
    with torch.no_grad():
        together = model(images, regions, targets)[0]["loss_classifier"]
        alone = [
            model(images[i : i + 1], regions[i : i + 1], targets[i : i + 1])[0]["loss_classifier"] for i in range(3)
        ]
        crops = model._crops(rcnn.contents(model.pixel_norm, images, [(SIDE, SIDE)] * 3), [t["boxes"] for t in targets])
        logits = model._logits(model._map(crops).mean(dim=(2, 3)))[4:]
        by_hand = torch.nn.functional.cross_entropy(logits, targets[2]["labels"])
    torch.testing.assert_close(together, sum(alone))
    torch.testing.assert_close(alone[2], by_hand)


def test_validation_losses_neither_read_nor_move_the_random_state():
    model = build().eval()
    data = scenes(2)
    with torch.no_grad():
        torch.manual_seed(3)
        first = model(*data)[0]["loss_classifier"]
        after = torch.rand(1)
        torch.manual_seed(3)
        assert torch.equal(after, torch.rand(1))
        assert torch.equal(first, model(*data)[0]["loss_classifier"])


@pytest.mark.parametrize("config", [SMALL, replace(SMALL, norm="batch")])
def test_nothing_to_learn_from_gives_gradients_of_zeros(config):
    model = build(config).train()
    images, _, targets = scenes(2)
    targets = [{**t, "boxes": t["boxes"][:0], "labels": t["labels"][:0]} for t in targets]
    loss = model(images, [torch.zeros(0, 4)] * 2, targets)[0]["loss_classifier"]
    loss.backward()
    assert loss == 0 and all(p.grad is not None and not p.grad.any() for p in model.parameters())


def test_it_learns_a_small_batch_and_finds_its_objects(learned):
    images, regions, targets = scenes(4)
    with torch.no_grad():
        losses, found = learned(images, regions, targets, detect=True)
        alone = learned(images, regions, detect=True)[1]
    assert losses["loss_classifier"] / 4 < 0.3 < 1.386, "log 4 is not to know"
    for detection, one, target in zip(found, alone, targets, strict=True):
        assert all(torch.equal(detection[name], one[name]) for name in one)
        best = dict(zip(detection["labels"].flip(0).tolist(), detection["scores"].flip(0).tolist(), strict=True))
        assert all(best.get(label, 0) > 0.5 for label in target["labels"].tolist())


@torch.no_grad()
def test_detections_are_what_is_left_of_scored_regions(learned):
    images, regions, _ = scenes(2)
    means, _ = learned.features(rcnn.contents(learned.pixel_norm, images, [(SIDE, SIDE)] * 2), regions)
    probs = learned._logits(means[: len(REGIONS)]).softmax(dim=1)
    changed = copy.copy(learned)
    changed.config = replace(SMALL, score_threshold=0.0002)
    detection = changed(images, regions, detect=True)[1][0]
    expected = []
    for label in range(1, C + 1):
        chosen = torch.where(probs[:, label] > 0.0002)[0]
        kept = chosen[nms(REGIONS[chosen], probs[chosen, label], 0.3)]
        expected += [(float(probs[i, label]), label, REGIONS[i].tolist()) for i in kept]
    expected.sort(key=lambda one: -one[0])
    assert 5 < len(expected) < 100
    assert detection["labels"].tolist() == [label for _, label, _ in expected]
    torch.testing.assert_close(detection["boxes"], torch.tensor([box for _, _, box in expected]))
    torch.testing.assert_close(detection["scores"], torch.tensor([score for score, _, _ in expected]))


@torch.no_grad()
def test_limits_of_test_regions_detections_and_crops_at_once(learned):
    images, regions, _ = scenes(3)
    regions = [regions[0], torch.zeros(0, 4), regions[2]]
    changed = copy.copy(learned)
    found = {}
    for name, value in (("crops_at_once", 7), ("max_test_regions", 5), ("max_detections", 1)):
        changed.config = replace(SMALL, **{name: value})
        found[name] = changed(images, regions, detect=True)[1]
    whole = learned(images, regions, detect=True)[1]
    few = learned(images, [one[:5] for one in regions], detect=True)[1]
    for i in range(3):
        torch.testing.assert_close(found["crops_at_once"][i], whole[i], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found["max_test_regions"][i], few[i], rtol=1e-4, atol=1e-5)
        assert torch.equal(found["max_detections"][i]["scores"], whole[i]["scores"][:1])
    assert len(whole[1]["scores"]) == 0 < len(whole[0]["scores"])


def test_parts_hold_every_region_once_and_in_order():
    regions = [torch.arange(n * 4.0).reshape(n, 4) + 100 * n for n in (3, 0, 5, 1)]
    parts = rcnn._parts(regions, 4)
    assert [sum(len(one) for one in part) for part in parts] == [4, 4, 1] and all(len(part) == 4 for part in parts)
    assert torch.equal(torch.cat([one for part in parts for one in part]), torch.cat(regions))
    assert rcnn._parts([torch.zeros(0, 4)], 4) == []


@torch.no_grad()
def test_finished_it_goes_by_svms_and_regressions(learned, fitted):
    """The softmax is the control: the same weights, before."""
    images, regions, targets = scenes(4)
    assert not learned.is_finished and fitted.is_finished
    assert fitted.cache_bytes_per_image == 2 * (224 * (len(REGIONS) + 2)) + 2 * 224 * num_regressed() / 8
    before, after = (model(images, regions, targets, detect=True) for model in (learned, fitted))
    torch.testing.assert_close(before[0], after[0]), "the loss stays the softmax's"
    for first, second, target in zip(before[1], after[1], targets, strict=True):
        assert not torch.equal(first["scores"][:2], second["scores"][:2])
        top = {int(label) for label, score in zip(second["labels"], second["scores"], strict=True) if score > 0.5}
        assert set(target["labels"].tolist()) <= top
    assert mean_best_iou(after[1], targets) > mean_best_iou(before[1], targets)


def num_regressed() -> int:
    targets = [target for seed in (0, 1) for target in scenes(4, seed)[2]]
    count = 0
    for target in targets:
        for label in target["labels"].unique():
            count += int((box_iou(REGIONS, target["boxes"][target["labels"] == label]).amax(dim=1) > 0.6).sum())
    return count


def mean_best_iou(detections, targets) -> float:
    return float(
        np.mean([box_iou(t["boxes"], d["boxes"]).amax(dim=1).mean() for d, t in zip(detections, targets, strict=True)])
    )


@torch.no_grad()
def test_what_was_fitted_is_in_the_checkpoint(fitted):
    images, regions, _ = scenes(2)
    again = build().eval()
    again.load_state_dict(copy.deepcopy(fitted.state_dict()))
    for first, second in zip(
        fitted(images, regions, detect=True)[1], again(images, regions, detect=True)[1], strict=True
    ):
        torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_a_step_of_training_forgets_what_was_fitted(fitted):
    model = copy.deepcopy(fitted)
    with torch.no_grad():
        model(*scenes(2))
        assert model.is_finished
        model.train()(*scenes(2))
    assert not model.is_finished


def test_without_svms_and_regressions_nothing_is_read():
    model = build(replace(SMALL, classifier="softmax", box_regression="none"))

    def unread():
        raise AssertionError

    model.finish(unread)
    assert not model.is_finished and not {"svm_weight", "box_weight"} & model.state_dict().keys()


@torch.no_grad()
@pytest.mark.parametrize("settings", [{"classifier": "softmax"}, {"box_regression": "none"}])
def test_each_alone(learned, fitted, settings):
    model = build(replace(SMALL, **settings))
    model.load_state_dict(learned.state_dict(), strict=False)
    finish(SimpleNamespace(), model, lambda: iter([batch_of(*scenes(4, seed)) for seed in (0, 1)]), norms=False)
    images, regions, _ = scenes(2)
    found = model(images, regions, detect=True)[1][0]
    if "classifier" in settings:
        torch.testing.assert_close(model.box_weight, fitted.box_weight)
        assert torch.equal(found["scores"][:1], learned(images, regions, detect=True)[1][0]["scores"][:1])
    else:
        torch.testing.assert_close(model.svm_weight, fitted.svm_weight)
        rows = {tuple(row) for row in REGIONS.tolist()}
        assert all(tuple(box) in rows for box in found["boxes"].tolist())


@torch.no_grad()
def test_bf16_leaves_boxes_and_scores_in_float32(fitted):
    images, regions, targets = scenes(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses, found = fitted(images, regions, targets, detect=True)
    assert losses["loss_classifier"].dtype == torch.float32
    boxes = torch.cat([one["boxes"] for one in found])
    assert boxes.dtype == found[0]["scores"].dtype == torch.float32 and (boxes.bfloat16().float() != boxes).any()


@pytest.mark.parametrize(
    ("level", "backbone", "numbers"), [("c5", "small", 896), ("c4", "small", 1440), ("c5", "resnet18", 2048)]
)
def test_the_map_of_a_crop(level, backbone, numbers):
    """48 px: 2 x 2 places of 224 channels, 3 x 3 of 160."""
    model = Model(Config(level=level, backbone=backbone), SPEC)
    assert model.box_weight.shape == (4 * C, numbers) and model.training


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"padding": 24}, "padding leaves nothing of the crop: 24\n(.|\n)*less than half of crop_size, 48"),
        ({"padding": -1}, "padding must be"),
        ({"crop_size": 16}, "crop_size must be"),
        ({"svm_cost": 0.0}, "svm_cost must be"),
        ({"ridge_penalty": 0.0}, "ridge_penalty must be"),
        ({"backbone": "nothing"}, "unknown backbone"),
    ],
)
def test_settings_that_cannot_work(wrong, said):
    with pytest.raises(ConfigError, match=said):
        Config(**wrong)
