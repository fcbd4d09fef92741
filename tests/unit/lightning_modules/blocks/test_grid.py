"""What both detectors on a grid share: one pass, padding, clipping, suppression; and that they learn."""

import pytest
import torch
from torch import nn
from torchvision.ops import box_iou

from contracts.errors import ConfigError
from lightning_modules.base.families import DetectorSpec
from lightning_modules.blocks.grid import GridConfig, GridDetector
from lightning_modules.models import grid_boxes, yolo

SIZE = 64  # c4 has 4 x 4 places
SPEC = DetectorSpec(num_foreground_classes=3, image_size=SIZE)
SMALL = {"grid": 4, "conv_channels": (32,), "hidden": 64, "score_threshold": 0.0}
MODELS = pytest.mark.parametrize("module", [yolo, grid_boxes], ids=["yolo", "grid_boxes"])
NAMES = {
    yolo: {"coordinates", "confidence", "no_object", "class"},
    grid_boxes: {"coordinates", "confidence", "class"},
}


def built(module, **settings):
    torch.manual_seed(0)
    return module.Model(module.Config(**(SMALL | settings)), SPEC)


def target(boxes, labels, ignored=()):
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "ignored": torch.tensor(ignored, dtype=torch.float32).reshape(-1, 4),
    }


def scenes():
    """Four images of noise with coloured rectangles."""
    generator = torch.Generator().manual_seed(5)
    images = torch.randint(90, 130, (4, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    targets = [
        target([[4, 6, 30, 30], [34, 34, 62, 60]], [1, 2]),
        target([[20, 2, 44, 28]], [3]),
        target([[2, 32, 28, 60], [36, 4, 60, 30]], [2, 1]),
        target([], []),
    ]
    for image, one in zip(images, targets, strict=True):
        for box, label in zip(one["boxes"].int().tolist(), one["labels"].tolist(), strict=True):
            image[:, box[1] : box[3], box[0] : box[2]] = 0
            image[label - 1, box[1] : box[3], box[0] : box[2]] = 250
    return images, targets


@MODELS
def test_learns_a_few_scenes_and_finds_their_boxes(module):
    model, (images, targets) = built(module, dropout=0.0, norm="group"), scenes()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    first = last = 0.0
    for step in range(45):
        loss = sum(model(images, targets)[0].values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        first, last = (loss.item() if step == 0 else first), loss.item()
    assert last < first / 10
    with torch.no_grad():
        found = model.eval()(images, detect=True)[1]
    for one, truth in zip(found, targets, strict=True):
        sure = one["scores"] > 0.4
        boxes, labels = one["boxes"][sure], one["labels"][sure]
        assert len(boxes) == len(truth["boxes"])
        if len(boxes):
            best, place = box_iou(truth["boxes"], boxes).max(dim=1)
            assert (best > 0.6).all() and torch.equal(labels[place], truth["labels"])


@MODELS
def test_one_pass_gives_what_losses_and_detections_alone_are(module):
    model, (images, targets) = built(module).eval(), scenes()
    with torch.no_grad():
        losses, found = model(images, targets, detect=True)
        alone, nothing = model(images, targets)
        assert set(losses) == NAMES[module] and not nothing
        torch.testing.assert_close(losses, alone, rtol=0, atol=0)
        none, again = model(images, detect=True)
    assert none == {}
    torch.testing.assert_close(found, again, rtol=0, atol=0)


@MODELS
def test_gradients_do_not_depend_on_how_a_batch_is_cut(module):
    model, (images, targets) = built(module, dropout=0.0, norm="group").train(), scenes()
    targets[1]["ignored"] = torch.tensor([[0.0, 40, SIZE, SIZE]])

    def gradients(cuts):
        model.zero_grad()
        for start, end in cuts:
            sum(model(images[start:end], targets[start:end])[0].values()).backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    whole = gradients([(0, 4)])
    assert any(name.startswith("backbone.stages.0") for name in whole) and "out.weight" in whole
    for name, gradient in gradients([(0, 1), (1, 4)]).items():
        torch.testing.assert_close(gradient, whole[name], rtol=1e-3, atol=1e-3 * whole[name].abs().max().item())


@MODELS
def test_images_without_objects(module):
    model, (images, targets) = built(module).train(), scenes()
    empty = [targets[3], targets[3]]
    losses, _ = model(images[:2], empty)
    assert losses["coordinates"] == 0 < losses["confidence"] + losses.get("no_object", 0)
    sum(losses.values()).backward()
    assert torch.isfinite(model.out.weight.grad).all() and model.out.weight.grad.abs().sum() > 0


@MODELS
def test_ignored_regions_are_not_background(module):
    model, (images, _) = built(module).eval(), scenes()
    everything = target([], [], [[0, 0, SIZE, SIZE]])
    half = target([], [], [[0, 0, SIZE, SIZE / 2]])
    with torch.no_grad():
        none, some, free = (sum(model(images[:1], [one])[0].values()) for one in (everything, half, target([], [])))
    assert none == 0 < some < free


@MODELS
def test_boxes_are_clipped_to_the_content(module):
    model, (images, _) = built(module).eval(), scenes()
    sizes = [(64, 64), (20, 64), (64, 30), (37, 41)]
    with torch.no_grad():
        model.out.bias.uniform_(-2, 2)
        found = model(images, sizes=sizes, detect=True)[1]
    for one, (height, width) in zip(found, sizes, strict=True):
        x1, y1, x2, y2 = one["boxes"].T
        assert len(x1) and (x1 >= 0).all() and (y1 >= 0).all() and (x1 < x2).all() and (y1 < y2).all()
        assert x2.max() == width and y2.max() == height  # boxes reach over all of these


@MODELS
def test_boxes_are_suppressed_class_by_class(module):
    model = built(module, nms_threshold=0.5, score_threshold=0.1, max_detections=3)
    boxes = torch.tensor([[0.0, 0, 20, 20], [1, 1, 21, 21], [40, 40, 60, 60], [70, 70, 90, 90]])
    scores = torch.tensor([[0.9, 0.2, 0.0], [0.8, 0.0, 0.0], [0.3, 0.0, 0.5], [1.0, 1.0, 1.0]])
    found = model._kept(boxes, scores, (SIZE, SIZE))  # the last box lies outside; one of 0.8 in one of 0.9
    torch.testing.assert_close(found["scores"], torch.tensor([0.9, 0.5, 0.3]))  # and three at most
    assert found["labels"].tolist() == [1, 3, 1]
    assert found["boxes"].tolist() == [[0, 0, 20, 20], [40, 40, 60, 60], [40, 40, 60, 60]]
    none = model._kept(boxes, torch.full((4, 3), 0.1), (SIZE, SIZE))
    assert none["boxes"].shape == (0, 4) and none["labels"].dtype == torch.int64


@MODELS
def test_smaller_images_are_padded_to_the_trained_square(module):
    model, (images, _) = built(module).eval(), scenes()
    content = images[:, :, :40, :45]
    square = torch.zeros(4, 3, SIZE, SIZE, dtype=torch.uint8)
    square[:, :, :40, :45] = content
    with torch.no_grad():
        as_batch = model(content, detect=True)[1]
        as_list = model([content[0], images[1], content[2], content[3, :, :20]], detect=True)[1]
        whole = model(images, detect=True)[1]
        assert model._square(content).shape == (4, 3, SIZE, SIZE)
        assert (model._square(content)[:, :, 40:] == 0).all() and (model._square(content)[..., 45:] == 0).all()
        assert model._square([images[0], torch.zeros(3, 65, 10, dtype=torch.uint8)]).shape == (2, 3, 80, 80)
    assert as_batch[0]["boxes"][:, 2].max() <= 45 and as_batch[0]["boxes"][:, 3].max() <= 40
    torch.testing.assert_close(as_list[0], as_batch[0], rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(as_list[1], whole[1], rtol=1e-4, atol=1e-3)


def test_a_map_that_has_the_grid_is_read_as_it_is():
    spec = DetectorSpec(num_foreground_classes=6, image_size=112)
    model = yolo.Model(yolo.Config(conv_channels=(8,), hidden=8), spec).eval()
    seen = []
    model.convs[-1].register_forward_hook(lambda module, inputs, out: seen.append((inputs[0], out)))
    with torch.no_grad():
        model._run(torch.rand(1, 3, 112, 112, generator=torch.Generator().manual_seed(0)))
        model._run(torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0)))
    (before, after), (larger, pooled) = seen
    assert torch.equal(before, after) and before.shape[-2:] == (7, 7)
    assert larger.shape[-2:] == (8, 8) and pooled.shape[-2:] == (7, 7)
    torch.testing.assert_close(pooled[..., 0, 0], larger[..., :2, :2].mean(dim=(2, 3)))


@MODELS
@pytest.mark.parametrize("settings", [{"level": "c3"}, {"level": "c5"}, {"backbone": "mobilenet_v3_large"}])
def test_every_level_and_backbone_gives_the_grid(module, settings):
    model = built(module, **{"hidden": 4, "conv_channels": (4,)} | settings).eval()
    run = []
    for stage in model.backbone.stages:
        stage.register_forward_hook(lambda *_: run.append(1))
    with torch.no_grad():
        out = model._run(model._square(torch.zeros(1, 3, 50, 50, dtype=torch.uint8)))
    assert out.boxes.shape == (1, 16, model.num_boxes, 4)
    assert len(run) == {"c3": 2, "c4": 3, "c5": 4}[model.config.level]  # deeper stages do not run


@MODELS
def test_bf16_autocast_leaves_boxes_scores_and_losses_in_float32(module):
    model, (images, targets) = built(module).eval(), scenes()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        losses, found = model(images, targets, detect=True)
        out = model._run(model._square(images))
    assert all((part.bfloat16().float() != part).float().mean() > 0.9 for part in out)
    assert all(value.dtype == torch.float32 for value in losses.values())
    boxes, scores = (torch.cat([one[name] for one in found]) for name in ("boxes", "scores"))
    assert boxes.dtype == scores.dtype == torch.float32
    assert (boxes.bfloat16().float() != boxes).any() and (scores.bfloat16().float() != scores).any()


def test_the_norms_are_those_that_are_asked_for():
    grouped = built(yolo, norm="group")
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in grouped.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in built(yolo).convs)


def test_a_head_says_its_losses_and_candidates():
    bare = GridDetector(GridConfig(**SMALL), SPEC, num_boxes=1, num_scores=3)
    images, targets = scenes()
    with pytest.raises(NotImplementedError):
        bare(images, targets)
    with pytest.raises(NotImplementedError):
        bare(images, detect=True)


@MODELS
@pytest.mark.parametrize(
    "wrong",
    [
        {"grid": 0},
        {"conv_channels": (8, 0)},
        {"hidden": 0},
        {"dropout": 1.0},
        {"score_threshold": 1.5},
        {"nms_threshold": -0.1},
        {"max_detections": 0},
        {"level": "c6"},
        {"backbone": "small", "pretrained": True},
    ],
)
def test_settings_out_of_range(module, wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        module.Config(**wrong)


def test_maps_that_round_down_cover_the_whole_image():
    """vgg16's do; and there may be no convolution of the head's own."""
    model = built(yolo, backbone="vgg16", hidden=4, conv_channels=()).eval()
    with torch.no_grad():
        square = model._square(torch.zeros(1, 3, 70, 70, dtype=torch.uint8))
        assert square.shape[-1] == 80 and model._run(square).boxes.shape == (1, 16, 2, 4)
