"""The one pass of RetinaNet and SSD: what holds for both. Each against torchvision's own forward: `test_retinanet.py`,
`test_ssd.py`."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import box_iou

from contracts.errors import ConfigError
from lightning_modules.base.families import DetectorSpec
from lightning_modules.blocks.dense import DenseDetector
from lightning_modules.models import retinanet, ssd
from lightning_modules.ops.matching import BACKGROUND, NEITHER

SIZE = 64
SPEC = DetectorSpec(num_foreground_classes=3, image_size=SIZE)
LOSSES = {"loss_classifier", "loss_box_reg"}
NAMES = ("retinanet", "ssd")
pytestmark = pytest.mark.parametrize("name", NAMES)


def detector(name: str, **settings) -> DenseDetector:
    torch.manual_seed(0)
    if name == "ssd":
        return ssd.Model(ssd.Config(**settings), SPEC)
    return retinanet.Model(retinanet.Config(channels=16, num_convs=1, **settings), SPEC)


def sample(num_images: int = 3):
    """Noise with two bright squares each, class 1 red and class 3 green."""
    generator = torch.Generator().manual_seed(5)
    images = torch.randint(0, 100, (num_images, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    targets = []
    for i in range(num_images):
        boxes = torch.tensor([[4.0 + 3 * i, 4, 28 + 3 * i, 26], [24, 32, 48, 60]])
        for channel, (x1, y1, x2, y2) in enumerate(boxes.int().tolist()):
            images[i, channel, y1:y2, x1:x2] = 250
        targets.append({"boxes": boxes, "labels": torch.tensor([1, 3]), "ignored": torch.zeros(0, 4)})
    return images, targets


def empty(target):
    return {key: value[:0] for key, value in target.items()}


def test_an_images_losses_and_gradients_do_not_depend_on_its_neighbours(name):
    """However a batch is cut into micro-batches and among workers, the gradient is the same."""
    model = detector(name, norm="group")
    images, targets = sample()
    targets[1] = empty(targets[1])
    targets[2]["ignored"] = torch.tensor([[0.0, 0, SIZE, 30]])
    gradients, losses = [], []
    for parts in ([slice(0, 3)], [slice(0, 1), slice(1, 3)], [slice(i, i + 1) for i in range(3)]):
        found = [model(images[part], targets[part])[0] for part in parts]
        losses.append({key: sum(one[key] for one in found) for key in LOSSES})
        gradients.append(torch.autograd.grad(sum(losses[-1].values()), list(model.parameters())))
    for other in (1, 2):
        torch.testing.assert_close(losses[other], losses[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(gradients[other], gradients[0], rtol=1e-3, atol=1e-4)
    assert min(losses[0].values()) > 0


def test_one_pass_gives_losses_and_detections_as_two_do(name):
    model = detector(name, score_threshold=0.0).eval()
    images, targets = sample()
    with torch.no_grad():
        losses, detections = model(images, targets, detect=True)
        assert losses.keys() == LOSSES
        torch.testing.assert_close(losses, model(images, targets)[0])
        assert model(images, targets)[1] == []
        nothing, alone = model(images, detect=True)
    assert nothing == {} and len(alone) == 3
    for both, one in zip(detections, alone, strict=True):
        torch.testing.assert_close(both, one)
        assert len(one["boxes"]) > 0 and set(one["labels"].tolist()) <= {1, 2, 3}
        assert torch.equal(one["scores"], one["scores"].sort(descending=True).values)


def test_bf16_autocast_leaves_boxes_scores_and_losses_in_float32(name):
    model = detector(name, score_threshold=0.0).eval()
    images, targets = sample()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        losses, detections = model(images, targets, detect=True)
    assert all(value.dtype == torch.float32 for value in losses.values())
    boxes = torch.cat([d["boxes"] for d in detections])
    assert boxes.dtype == torch.float32 and (boxes.bfloat16().float() != boxes).any()
    assert all(d["scores"].dtype == torch.float32 for d in detections)


def test_images_without_objects(name):
    model = detector(name)
    images, targets = sample(2)
    for some in ([targets[0], empty(targets[1])], [empty(targets[0])] * 2):
        losses = model(images, some)[0]
        sum(losses.values()).backward()
        assert all(loss.isfinite() for loss in losses.values())
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert losses["loss_box_reg"] == 0
    assert (losses["loss_classifier"] == 0) == (name == "ssd"), "SSD's background counts beside matched boxes alone"


def test_ignored_regions_are_neither_positive_nor_negative(name):
    model = detector(name).eval()
    images, targets = sample(1)
    target, region = targets[0], torch.tensor([[30.0, 0, 64, 30]])
    with torch.no_grad():
        x = model._batch(images)
        anchors = torch.cat(model.anchors(x, model.neck(model.backbone(x))))
        free = model.assign(anchors, target)
        masked = model.assign(anchors, {**target, "ignored": region})
        everything = {**target, "ignored": torch.tensor([[0.0, 0, SIZE, SIZE]])}
        losses = [model(images, [one])[0] for one in (target, {**target, "ignored": region}, everything)]
    changed = free != masked
    assert changed.any() and (free[changed] == BACKGROUND).all() and (masked[changed] == NEITHER).all()
    low, high = torch.maximum(anchors[:, :2], region[:, :2]), torch.minimum(anchors[:, 2:], region[:, 2:])
    covered = (high - low).clamp(min=0).prod(1) / (anchors[:, 2:] - anchors[:, :2]).prod(1)
    assert torch.equal(changed, (free == BACKGROUND) & (covered >= 0.5))
    assert losses[0]["loss_classifier"] > losses[1]["loss_classifier"] > losses[2]["loss_classifier"] > 0
    assert losses[0]["loss_box_reg"] == losses[1]["loss_box_reg"] == losses[2]["loss_box_reg"], "objects in it count"


def test_detections_lie_within_the_content(name):
    """A wide image in its letterbox: 40 rows of 64."""
    model = detector(name, score_threshold=0.0, max_detections=10_000, nms_threshold=1.0).eval()
    images, _ = sample(2)
    with torch.no_grad():
        wide, square = model(images, sizes=[(40, SIZE), (SIZE, SIZE)], detect=True)[1]
        expected = model(images, detect=True)[1][0]
    assert wide["boxes"][:, 3].max() == 40 and wide["boxes"][:, 2].max() == SIZE == square["boxes"][:, 3].max()
    assert ((wide["boxes"][:, 2:] - wide["boxes"][:, :2]).amin(dim=1) > 0).all()
    assert len(wide["boxes"]) < len(expected["boxes"]), "what lies below the content is no detection"


def test_images_of_different_sizes(name):
    model = detector(name, score_threshold=0.0).eval()
    images = [torch.full((3, 50, 64), 90, dtype=torch.uint8), torch.full((3, 33, 30), 90, dtype=torch.uint8)]
    with torch.no_grad():
        detections = model(images, detect=True)[1]
    for image, detection in zip(images, detections, strict=True):
        assert detection["boxes"][:, 2].max() == image.shape[2] and detection["boxes"][:, 3].max() == image.shape[1]


def test_limits_on_what_is_found(name):
    model = detector(name, score_threshold=0.0, max_detections=7).eval()
    images, _ = sample(1)
    with torch.no_grad():
        most = model(images, detect=True)[1][0]
        model.config = type(model.config)(**{**vars(model.config), "score_threshold": float(most["scores"][3])})
        best = model(images, detect=True)[1][0]
    assert len(most["scores"]) == 7 and len(best["scores"]) == 3, "a score must be above the threshold"


def test_learns_a_few_images(name):
    model = detector(name, norm="group")
    images, targets = sample(2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    totals = []
    for _ in range(50):
        total = sum(model(images, targets)[0].values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < 0.1 * totals[0]
    with torch.no_grad():
        detections = model.eval()(images, detect=True)[1]
    for target, found in zip(targets, detections, strict=True):
        best = box_iou(target["boxes"], found["boxes"][:2])
        assert (best.amax(dim=1) > 0.7).all()
        assert torch.equal(found["labels"][best.argmax(dim=1)], target["labels"])


@pytest.mark.parametrize(
    "wrong", [{"score_threshold": 1.5}, {"candidates": 0}, {"nms_threshold": -0.1}, {"max_detections": 0}]
)
def test_settings_out_of_range(name, wrong):
    config = {"ssd": ssd.Config, "retinanet": retinanet.Config}[name]
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        config(**wrong)
