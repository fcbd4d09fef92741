"""SSD: the authors' numbers, torchvision's own forward on the same weights, settings that cannot work."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

import pytest
import torch
from torch import nn
from torchvision.models.detection.ssd import SSD, ssd300_vgg16

from contracts.errors import ConfigError
from lightning_modules.base.families import DetectorSpec
from lightning_modules.models.ssd import Config, Model

SIZE = 64
SPEC = DetectorSpec(num_foreground_classes=3, image_size=SIZE)
PAPER = {size: Config(variant=f"ssd{size}", backbone="vgg16") for size in (300, 512)}
MAPS = {300: (38, 19, 10, 5, 3, 1), 512: (64, 32, 16, 8, 4, 2, 1)}


def build(config: Config, image_size: int = SIZE, num_classes: int = 3) -> Model:
    torch.manual_seed(0)
    return Model(config, DetectorSpec(num_foreground_classes=num_classes, image_size=image_size))


def unfilled(config: Config, image_size: int, num_classes: int = 3) -> Model:
    """Shapes without numbers."""
    with torch.device("meta"):
        return Model(config, DetectorSpec(num_foreground_classes=num_classes, image_size=image_size))


def boxes_of(model: Model, image_size: int, sides: tuple[int, ...]) -> torch.Tensor:
    return model.anchors(torch.zeros(1, 3, image_size, image_size), [torch.zeros(1, 1, s, s) for s in sides])[0]


def sample():
    generator = torch.Generator().manual_seed(5)
    images = torch.randint(0, 256, (3, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    boxes = [torch.tensor([[6.0 + i, 4, 40, 30], [20, 30, 50, 60]]) for i in range(3)]
    return images, [{"boxes": b, "labels": torch.tensor([1, 3]), "ignored": torch.zeros(0, 4)} for b in boxes]


@pytest.mark.parametrize(("size", "count"), [(300, 8732), (512, 24_564)])
def test_the_authors_maps_and_boxes(size, count):
    model = unfilled(PAPER[size], size)
    x = torch.zeros(1, 3, size, size, device="meta")
    maps = model.neck(model.backbone(x))
    assert tuple(m.shape[-1] for m in maps) == tuple(m.shape[-2] for m in maps) == MAPS[size]
    assert [m.shape[1] for m in maps] == [512, 1024, 512, 256, 256, 256, 256][: len(maps)]
    assert model.head(maps)["cls_logits"].shape == (1, count, 4)
    assert len(boxes_of(model, size, MAPS[size])) == count


def test_the_authors_first_boxes():
    """`prior_box_layer.cpp`: centers of half a step, sides of `ssd_pascal.py`, not cut at the image."""
    boxes = boxes_of(unfilled(PAPER[300], 300), 300, MAPS[300])
    torch.testing.assert_close(boxes[0], torch.tensor([-11.0, -11, 19, 19]))
    sides = boxes[:, 2:] - boxes[:, :2]
    expected = [[30.0, 30], [42.4264, 42.4264], [42.4264, 21.2132], [21.2132, 42.4264]]
    torch.testing.assert_close(sides[:4], torch.tensor(expected))
    second = 38 * 38 * 4
    expected = [[60.0, 60], [81.6088, 81.6088], [84.8528, 42.4264], [42.4264, 84.8528], [103.9230, 34.6410]]
    torch.testing.assert_close(sides[second : second + 5], torch.tensor(expected))
    torch.testing.assert_close(sides[-3], torch.tensor([288.3747, 288.3747]))
    torch.testing.assert_close((boxes[-1, 2:] + boxes[-1, :2]) / 2, torch.tensor([150.0, 150]))
    fifth = boxes[second + (19 * 19 + 10 * 10 + 5 * 5) * 6]
    torch.testing.assert_close((fifth[2:] + fifth[:2]) / 2, torch.tensor([50.0, 50]))  # 3 x 3 places, 100 px apart


def test_ssd512_has_the_authors_sides_cut_to_whole_pixels():
    boxes = boxes_of(unfilled(PAPER[512], 512), 512, MAPS[512])
    firsts, start = [], 0
    for side, shapes in zip(MAPS[512], (4, 6, 6, 6, 6, 4, 4), strict=True):
        firsts.append((boxes[start, 2] - boxes[start, 0]).item())
        start += side**2 * shapes
    assert firsts == pytest.approx([35, 76, 153, 230, 307, 384, 460], abs=1e-3)
    torch.testing.assert_close(boxes[0], torch.tensor([-13.5, -13.5, 21.5, 21.5]))


@pytest.mark.parametrize(("num_classes", "count"), [(20, 26_285_486), (90, 35_641_826), (6, 24_414_218)])
def test_number_of_parameters(num_classes, count):
    assert sum(p.numel() for p in unfilled(PAPER[300], 300, num_classes).parameters()) == count


def test_ssd300_is_torchvisions_on_the_same_weights():
    model = build(PAPER[300], 300).eval()
    theirs = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=4).eval()
    own = [*model.backbone.parameters(), *model.neck.extras.parameters()]
    copied = [p for name, p in theirs.backbone.named_parameters() if name != "scale_weight"]
    torch.nn.init.uniform_(model.neck.scale, 10, 30)
    with torch.no_grad():
        theirs.backbone.scale_weight.copy_(model.neck.scale)
        for mine, other in zip(own, copied, strict=True):
            other.copy_(mine)
        theirs.head.load_state_dict(model.head.state_dict())
        x = torch.randn(1, 3, 300, 300, generator=torch.Generator().manual_seed(1))
        maps, expected = model.neck(model.backbone(x)), list(theirs.backbone(x).values())
        torch.testing.assert_close(maps, expected, rtol=1e-3, atol=1e-4)
        for name, value in theirs.head(expected).items():
            torch.testing.assert_close(model.head(maps)[name], value, rtol=1e-3, atol=1e-3)
    norms = (maps[0] / model.neck.scale[:, None, None]).norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms))


class Maps(nn.Module):
    """Backbone and neck as torchvision calls them."""

    def __init__(self, model: Model):
        super().__init__()
        self.backbone, self.neck, self.out_channels = model.backbone, model.neck, model.neck.out_channels

    def forward(self, x):
        return OrderedDict(enumerate(self.neck(self.backbone(x))))


def torchvisions(model: Model) -> SSD:
    """Around the same parts, with a transform that changes nothing."""
    config = model.config
    return SSD(
        Maps(model),
        model.default_boxes,
        (SIZE, SIZE),
        4,
        image_mean=[0, 0, 0],
        image_std=[1, 1, 1],
        head=model.head,
        score_thresh=config.score_threshold,
        nms_thresh=config.nms_threshold,
        detections_per_img=config.max_detections,
        topk_candidates=config.candidates,
    )


def test_losses_equal_torchvisions():
    """Of one image: it divides by the matched boxes of the whole batch."""
    model = build(Config(norm="group"))
    images, targets = sample()
    theirs = torchvisions(model).train()
    for i in range(3):
        image, target = images[i : i + 1], targets[i : i + 1]
        expected = theirs(list(model.pixel_norm(image)), target)
        losses = model(image, target)[0]
        torch.testing.assert_close(losses["loss_classifier"], expected["classification"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(losses["loss_box_reg"], expected["bbox_regression"], rtol=1e-4, atol=1e-5)
        assert min(expected.values()) > 0.1


@pytest.mark.parametrize("settings", [{}, {"candidates": 20}, {"max_detections": 5}, {"score_threshold": 0.4}])
def test_detections_equal_torchvisions(settings):
    model = build(Config(**settings)).eval()
    images, _ = sample()
    with torch.no_grad():
        expected = torchvisions(model).eval()(list(model.pixel_norm(images)))
        detections = model(images, detect=True)[1]
    for ours, theirs in zip(detections, expected, strict=True):
        has_area = (theirs["boxes"][:, 2:] - theirs["boxes"][:, :2]).amin(dim=1) > 0.01
        assert has_area.all() and len(has_area) > 1
        assert torch.equal(ours["labels"], theirs["labels"])
        torch.testing.assert_close(ours["boxes"], theirs["boxes"], rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(ours["scores"], theirs["scores"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("size", "sides", "count"), [(128, (16, 8, 4, 2, 1), 1524), (100, (16, 8, 4, 2, 1), 1524)])
def test_the_small_variants_boxes(size, sides, count):
    """100 px are padded to 128."""
    model = build(Config(), size)
    x = model._batch(torch.zeros(1, 3, size, size, dtype=torch.uint8))
    maps = model.neck(model.backbone(x))
    assert tuple(m.shape[-1] for m in maps) == sides
    boxes = model.anchors(x, maps)[0]
    assert len(boxes) == count
    torch.testing.assert_close(boxes[0], torch.tensor([-12.0, -12, 20, 20]))
    torch.testing.assert_close(boxes[-4], torch.tensor([9.6, 9.6, 118.4, 118.4]))
    assert (boxes[:, 2:] - boxes[:, :2]).amax() > 128, "wider than the image, not clipped"


def test_scales_of_ones_own():
    model = build(Config(scales=(0.1, 0.2, 0.4, 0.6, 0.8, 0.9)), 128)
    boxes = boxes_of(model, 128, (16, 8, 4, 2, 1))
    sides = boxes[:, 2:] - boxes[:, :2]
    torch.testing.assert_close(sides[:2], torch.tensor([[12.8, 12.8], [18.10193, 18.10193]]), rtol=1e-5, atol=0)


def test_the_share_of_hard_negatives():
    images, targets = sample()
    losses = []
    for ratio in (0.0, 3.0, 1e6):
        model = build(Config(negative_ratio=ratio)).eval()
        losses.append(model(images, targets)[0]["loss_classifier"].item())
    assert losses[0] < losses[1] < losses[2]


@pytest.mark.parametrize(("size", "wrong"), [(300, 128), (300, 512), (512, 300)])
def test_the_authors_variants_take_one_image_size(size, wrong):
    with pytest.raises(ConfigError, match=f"takes images of {size} px: {wrong}\n.*task.image_size"):
        Model(PAPER[size], replace(SPEC, image_size=wrong))


def test_a_larger_image_is_refused():
    with pytest.raises(ConfigError, match="larger than this detector's input: '65 x 64 pixels'"):
        build(Config())(torch.zeros(1, 3, 65, 64, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"variant": "ssd300"}, "ssd300 is built on VGG-16: 'small'"),
        ({"variant": "ssd512", "backbone": "resnet18"}, "ssd512 is built on VGG-16"),
        ({"variant": "ssd300", "backbone": "vgg16", "norm": "group"}, "no batch norms"),
        ({"scales": (0.1, 0.2)}, "the scales do not fit"),
        ({"scales": (0.1, 0.2, 0.3, 0.5, 0.4, 0.9)}, "each larger than the one before"),
        ({"scales": (0.0, 0.2, 0.3, 0.4, 0.5, 0.9)}, "scales must be"),
        ({"negative_ratio": -1.0}, "negative_ratio must be"),
    ],
)
def test_settings_that_cannot_work(wrong, said):
    with pytest.raises(ConfigError, match=said):
        Config(**wrong)
