"""Faster R-CNN on one map: what it reads of a backbone, how it pools, and that it learns."""

from __future__ import annotations

import pytest
import torch

from contracts.errors import ConfigError
from lightning_modules.base.families import DetectorSpec
from lightning_modules.blocks.backbones import build_backbone
from lightning_modules.blocks.detectors import RCNNConfig
from lightning_modules.blocks.single_map import RoIMaxPool, Trunk
from lightning_modules.models import faster_rcnn

SPEC = DetectorSpec(num_foreground_classes=2, image_size=64)
PAPER = {"levels": ("c4",), "pyramid": False, "pooling": "max", "anchors": (0.25, 0.5, 0.9)}


def test_a_ramp_is_pooled_as_caffe_does():
    """The largest of each bin; a box of half-open edges holds the pixels up to its edge, and none behind it."""
    ramp, pool = torch.arange(64.0).view(1, 1, 8, 8), RoIMaxPool("c2", 2)
    pool.scale = 1.0
    assert pool({"c2": ramp}, [torch.tensor([[0.0, 0.0, 4.0, 4.0]])], [(8, 8)]).flatten().tolist() == [9, 11, 25, 27]
    pool.scale = 0.25  # cells round(0 / 4) to round(11 / 4)
    assert pool({"c2": ramp}, [torch.tensor([[0.0, 0.0, 12.0, 12.0]])], [(32, 32)]).flatten()[-1] == 27


def test_the_trunk_is_the_backbones_own_map_and_no_more():
    backbone = build_backbone("small").eval()
    trunk = Trunk(backbone, "c4").eval()
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(trunk(images)["c4"], backbone(images)["c4"])
    assert trunk.channels == {"c4": 160}
    assert not any(one is two for one in trunk.parameters() for two in backbone.stages[3].parameters())


def test_of_vgg16_it_is_conv5_3():
    """1506.01497: 13 convolutions, 512 channels, stride 16, after the last ReLU and before pool5."""
    trunk = Trunk(build_backbone("vgg16"), "c4", pools_last=True)
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in trunk.modules()) == 13
    assert sum(parameter.numel() for parameter in trunk.parameters()) == 14_714_688
    found = trunk(torch.rand(1, 3, 64, 96))["c4"]
    assert found.shape == (1, 512, 4, 6) and trunk.channels == {"c4": 512} and found.min() == 0


def test_the_papers_detector_has_its_parameters():
    """VGG-16 and 20 classes: 137,078,239 with two logits an anchor; ours has one, so 9 * 513 fewer."""
    config = faster_rcnn.Config(
        **PAPER | {"anchors": (128 / 600, 256 / 600, 512 / 600), "backbone": "vgg16"},
        aspect_ratios=(0.5, 1.0, 2.0), box_head=4096,
    )  # fmt: skip
    with torch.device("meta"):
        model = faster_rcnn.Model(config, DetectorSpec(num_foreground_classes=20, image_size=600))
    assert sum(parameter.numel() for parameter in model.parameters()) == 137_078_239 - 9 * 513


def test_it_learns_a_batch():
    torch.manual_seed(2)  # of others the last digits, which are the processor's, decide
    config = faster_rcnn.Config(**PAPER, box_head=64, rpn_pre_nms_train=100, rpn_pre_nms_eval=100)
    model = faster_rcnn.Model(config, SPEC)
    images = torch.full((2, 3, 64, 64), 90, dtype=torch.uint8)
    images[0, 0, 8:40, 8:40] = 255
    images[1, 2, 20:60, 10:50] = 255
    targets = [
        {"boxes": torch.tensor([box]), "labels": torch.tensor([label]), "ignored": torch.zeros(0, 4)}
        for box, label in (([8.0, 8, 40, 40], 1), ([10.0, 20, 50, 60], 2))
    ]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(60):
        losses = model(images, targets)[0]
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    assert losses.keys() == {"loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"}
    found = model.eval()(images, detect=True)[1]
    for one, target in zip(found, targets, strict=True):
        assert one["labels"][0] == target["labels"][0] and one["scores"][0] > 0.5
        assert (one["boxes"][0] - target["boxes"][0]).abs().max() < 8


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"pyramid": False}, "without a pyramid there is one level"),
        ({"pooling": "max"}, "reads one level"),
        ({"pooling": "max", "levels": ("c3", "c4"), "head_levels": ("c3", "c4")}, "reads one level"),
    ],
)
def test_what_one_map_cannot_be(settings, said):
    with pytest.raises(ConfigError, match=said):
        RCNNConfig(**settings)
    RCNNConfig(pooling="max", head_levels=("c4",))
