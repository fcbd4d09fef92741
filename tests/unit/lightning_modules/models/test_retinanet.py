"""RetinaNet: the paper's numbers, torchvision's own forward on the same weights, settings that cannot work."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

import pytest
import torch
from torch import nn
from torchvision.models.detection.retinanet import RetinaNet
from torchvision.ops import box_iou

from contracts.errors import ConfigError
from lightning_modules.base.families import DetectorSpec
from lightning_modules.models.retinanet import Config, Model

SIZE = 64
SPEC = DetectorSpec(num_foreground_classes=3, image_size=SIZE)
SMALL = Config(channels=16, num_convs=2, score_threshold=0.0)
PAPER = Config(channels=16, p6_p7=True, tower_norm="none")


def build(config: Config = SMALL, spec: DetectorSpec = SPEC) -> Model:
    torch.manual_seed(0)
    return Model(config, spec)


def anchors_of(model: Model, height: int, width: int) -> list[torch.Tensor]:
    """Those of maps that a padded image of this size has, each rounded up."""
    maps = [torch.zeros(1, 1, -(-height // s), -(-width // s)) for s in model.config.strides]
    return model.anchors(torch.zeros(1, 3, height, width), maps)


def sample(num_images: int):
    generator = torch.Generator().manual_seed(5)
    images = torch.randint(0, 256, (num_images, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    boxes = [torch.tensor([[6.0 + i, 4, 40, 30], [20, 30, 50, 60]]) for i in range(num_images)]
    return images, [{"boxes": b, "labels": torch.tensor([1, 3]), "ignored": torch.zeros(0, 4)} for b in boxes]


class Maps(nn.Module):
    """Backbone and neck as torchvision calls them."""

    def __init__(self, model: Model):
        super().__init__()
        self.backbone, self.neck, self.out_channels = model.backbone, model.neck, model.config.channels

    def forward(self, x):
        return OrderedDict(enumerate(self.neck(self.backbone(x))))


def torchvisions(model: Model) -> RetinaNet:
    """Around the same parts, with a transform that changes nothing."""
    config = model.config
    theirs = RetinaNet(
        Maps(model),
        num_classes=SPEC.num_foreground_classes,
        anchor_generator=model.anchor_generator,
        head=model.head,
        min_size=SIZE,
        max_size=SIZE,
        image_mean=[0, 0, 0],
        image_std=[1, 1, 1],
        score_thresh=config.score_threshold,
        nms_thresh=config.nms_threshold,
        detections_per_img=10_000,
        topk_candidates=config.candidates,
    )
    theirs.transform.torch_choice = lambda sizes: sizes[0]
    return theirs


@pytest.mark.parametrize(
    "settings",
    [{}, {"tower_norm": "none", "anchors": (0.2, 0.3, 0.5, 0.7, 0.8, 0.9), "aspect_ratios": (1.0,)}, {"p6_p7": True}],
)
def test_losses_equal_torchvisions(settings):
    """Whose boxes cost L1, and whose classes begin with 0. Its images' losses are averaged, ours added up."""
    model = build(replace(SMALL, box_beta=0.0, norm="group", **settings))
    nn.init.uniform_(model.head.classification_head.cls_logits.bias, -1, 1)  # else background costs next to nothing
    images, targets = sample(3)
    theirs = torchvisions(model).train()
    if settings.get("p6_p7"):  # 64 px are half a place of P7's: torchvision would take its stride for 64
        theirs.anchor_generator.forward = lambda batch, maps: [torch.cat(model.anchors(batch.tensors, maps))] * 3
    expected = theirs(list(model.pixel_norm(images)), [{**t, "labels": t["labels"] - 1} for t in targets])
    losses, _ = model(images, targets)
    torch.testing.assert_close(losses["loss_classifier"] / 3, expected["classification"], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(losses["loss_box_reg"] / 3, expected["bbox_regression"], rtol=1e-4, atol=1e-6)
    assert expected["bbox_regression"] > 0.1


def test_box_beta_makes_small_errors_quadratic():
    images, targets = sample(1)
    losses = {}
    for beta in (0.0, 0.11, 100.0):
        model = build(replace(SMALL, box_beta=beta)).eval()
        losses[beta] = model(images, targets)[0]["loss_box_reg"].item()
    assert losses[0.0] > losses[0.11] > losses[100.0] > 0


@pytest.mark.parametrize("settings", [{}, {"candidates": 40}, {"max_detections": 5}, {"score_threshold": 0.010055}])
def test_detections_equal_torchvisions(settings):
    """But for boxes that clipping leaves no area of, which it gives, too."""
    model = build(replace(SMALL, tower_norm="group", **settings)).eval()
    images, _ = sample(2)
    with torch.no_grad():
        for layer in (model.head.classification_head.cls_logits, model.head.regression_head.bbox_reg):
            layer.weight.mul_(8)  # else all scores are nearly one, and all boxes anchors
        expected = torchvisions(model).eval()(list(model.pixel_norm(images)))
        detections = model(images, detect=True)[1]
    for ours, theirs in zip(detections, expected, strict=True):
        sides = theirs["boxes"][:, 2:] - theirs["boxes"][:, :2]
        kept = torch.where(sides.amin(dim=1) >= 0.01)[0][: model.config.max_detections]
        theirs = {name: value[kept] for name, value in theirs.items()}
        assert len(kept) > 1
        assert torch.equal(ours["labels"], theirs["labels"] + 1)
        torch.testing.assert_close(ours["boxes"], theirs["boxes"], rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(ours["scores"], theirs["scores"], rtol=1e-4, atol=1e-6)


def test_number_of_anchors():
    spec = DetectorSpec(num_foreground_classes=6, image_size=128)
    assert [len(a) for a in anchors_of(build(spec=spec), 128, 128)] == [2304, 576, 144]  # 3,024
    assert sum(len(a) for a in anchors_of(build(PAPER), 800, 1344)) == 201_600
    shares = replace(SMALL, anchors=(0.2, 0.3, 0.4), aspect_ratios=(0.5, 1.0))
    assert sum(len(a) for a in anchors_of(build(shares, spec), 128, 128)) == 2 * (256 + 64 + 16)


def test_the_papers_anchors():
    c3, *_, p7 = anchors_of(build(PAPER), 800, 1344)
    sides = (c3[:9, 2:] - c3[:9, :2]).tolist()
    assert sides[3:6] == [[32, 32], [40, 40], [50, 50]], "corners are rounded to whole pixels"
    assert sides[0] == [46, 22] and sides[6] == [22, 46], "height / width of 0.5 and 2"
    assert c3[9 * 168 + 9].tolist() == [8 + c3[0, 0], 8 + c3[0, 1], 8 + c3[0, 2], 8 + c3[0, 3]], "row 1, column 1"
    assert (p7[-1, 2:] + p7[-1, :2]).tolist() == [2 * 10 * 128, 2 * 6 * 128]


def test_anchors_follow_the_stride_where_maps_are_rounded_up():
    """96 px are 1.5 places of P6: torchvision's own call has 48 px between them in place of 64."""
    model = build(PAPER)
    p6 = anchors_of(model, 96, 96)[3]
    assert (p6[9] - p6[0]).tolist() == [64, 0, 64, 0] and len(p6) == 4 * 9


def test_shares_of_the_image_are_shared_out_from_the_finest_level_on():
    config = replace(SMALL, anchors=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6))
    assert config.sides(100) == [pytest.approx(s) for s in [(10, 20), (30, 40), (50, 60)]]


def test_every_class_starts_at_a_probability_of_a_hundredth():
    for config in (SMALL, PAPER, Config()):
        head = build(config).head.classification_head
        torch.testing.assert_close(
            head.cls_logits.bias, torch.full_like(head.cls_logits.bias, -4.59512), rtol=0, atol=1e-5
        )


def test_the_first_loss_of_background():
    """3,024 anchors x 6 classes x 7.5377e-7; nothing matches, so nothing divides it."""
    spec = DetectorSpec(num_foreground_classes=6, image_size=128)
    model = build(replace(PAPER, p6_p7=False), spec).eval()
    none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "ignored": torch.zeros(0, 4)}
    losses, _ = model(torch.zeros(1, 3, 128, 128, dtype=torch.uint8), [none])
    assert losses["loss_classifier"].item() == pytest.approx(0.013676, rel=1e-3)


def test_an_object_that_no_anchor_reaches_takes_its_best():
    model = build()
    anchors = torch.cat(anchors_of(model, SIZE, SIZE))
    tiny = torch.tensor([[30.0, 30, 36, 34]])
    best = box_iou(tiny, anchors).max()
    matches = model.assign(anchors, {"boxes": tiny, "ignored": torch.zeros(0, 4)})
    assert best < 0.4 and (matches >= 0).sum() == (box_iou(tiny, anchors) == best).sum()


def test_p6_and_p7_are_made_of_c5():
    model = build(replace(PAPER, channels=224))  # as wide as c5 of this backbone: torchvision would take P5
    maps = model.backbone(torch.randn(1, 3, 64, 64))
    out = model.neck(maps)
    assert [tuple(one.shape[-2:]) for one in out] == [(8, 8), (4, 4), (2, 2), (1, 1), (1, 1)]
    assert torch.autograd.grad(out[3].sum(), model.neck.pyramid.parameters(), allow_unused=True)[0] is None
    torch.testing.assert_close(out[3], model.neck.extra.p6(maps["c5"]))


@pytest.mark.parametrize(("num_convs", "tower_norm"), [(1, "none"), (4, "none"), (2, "group")])
def test_towers(num_convs, tower_norm):
    head = build(replace(SMALL, num_convs=num_convs, tower_norm=tower_norm)).head
    for tower in (head.classification_head.conv, head.regression_head.conv):
        assert sum(isinstance(m, nn.Conv2d) for m in tower.modules()) == num_convs
        assert sum(isinstance(m, nn.GroupNorm) for m in tower.modules()) == (num_convs if tower_norm == "group" else 0)


def test_cross_entropy():
    images, targets = sample(1)
    model = build(replace(SMALL, focal_alpha=-1.0, focal_gamma=0.0)).eval()
    plain = model(images, targets)[0]["loss_classifier"].item()
    model.config = replace(model.config, focal_gamma=2.0)
    focal = model(images, targets)[0]["loss_classifier"].item()
    model.config = replace(model.config, focal_alpha=0.25)
    weighted = model(images, targets)[0]["loss_classifier"].item()
    assert plain > focal > weighted > 0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"levels": ("c3", "c5")}, "wrong pyramid levels"),
        ({"levels": ("c3", "c4"), "p6_p7": True}, "P6 and P7 follow c5"),
        ({"anchors": (0.1, 0.2)}, "cannot be shared out"),
        ({"anchors": ()}, "cannot be shared out"),
        ({"anchors": (0.1, 0.2, -0.3)}, "anchors must be"),
        ({"aspect_ratios": ()}, "aspect_ratios is empty"),
        ({"num_convs": 5}, "num_convs must be"),
        ({"num_convs": 0}, "num_convs must be"),
        ({"focal_alpha": -0.5}, "0 to 1, or -1"),
        ({"focal_alpha": 1.1}, "focal_alpha must be"),
        ({"focal_gamma": -1.0}, "focal_gamma must be"),
        ({"box_beta": -1.0}, "box_beta must be"),
        ({"channels": 0}, "channels must be"),
        ({"pretrained": True}, "trained from scratch"),
    ],
)
def test_settings_that_cannot_work(wrong, said):
    with pytest.raises(ConfigError, match=said):
        Config(**wrong)
