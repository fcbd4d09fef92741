"""The two heads: VGG-16's published size and torchvision's own logits, the mean of the last map, what is loaded."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from contracts.ranges import RangeError
from lightning_modules.base.families import ClassifierSpec
from lightning_modules.blocks.backbones import Backbone
from lightning_modules.models import image_classifier
from lightning_modules.models.image_classifier import Config, Model


def build(num_classes: int = 5, **settings: Any) -> Model:
    torch.manual_seed(0)
    return Model(Config(**settings), ClassifierSpec(num_classes=num_classes))


def images(side: int, number: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (number, 3, side, side), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(("num_classes", "expected"), [(1000, 138_357_544), (20, 134_342_484)])
def test_vgg16_has_the_published_parameters(num_classes: int, expected: int) -> None:
    with torch.device("meta"):
        model = build(num_classes, backbone="vgg16", head="vgg")
    assert sum(parameter.numel() for parameter in model.parameters()) == expected
    assert sum(parameter.numel() for parameter in model.backbone.parameters()) == 14_714_688


def test_vgg16_gives_torchvisions_logits() -> None:
    """On the same weights, with fc6 and fc7 of 64 channels in both."""
    model = build(backbone="vgg16", head="vgg", head_channels=64).eval()
    with torch.device("meta"):  # of its own fc6 nothing is wanted
        theirs = torchvision.models.vgg16(weights=None)
    theirs.features.to_empty(device="cpu")
    first, second, last = nn.Linear(512 * 49, 64), nn.Linear(64, 64), nn.Linear(64, 5)
    theirs.classifier = nn.Sequential(first, nn.ReLU(), nn.Dropout(), second, nn.ReLU(), nn.Dropout(), last)
    theirs.eval().features.load_state_dict(
        dict(zip(theirs.features.state_dict(), model.backbone.state_dict().values(), strict=True))
    )
    own = [module for module in model.features if isinstance(module, nn.Linear)] + [model.classify]
    for mine, layer in zip(own, (first, second, last), strict=True):
        layer.weight.data.mul_(3)  # not to vanish
        mine.load_state_dict(layer.state_dict())
    x = images(96)
    with torch.inference_mode():
        found = model(x)
        torch.testing.assert_close(found, theirs(model.pixel_norm(x)), rtol=1e-4, atol=1e-5)
    assert found.abs().max() > 0.01 and found.dtype == torch.float32


def test_start_of_weights() -> None:
    with torch.inference_mode():
        assert not build().eval()(images(64)).any(), "equal scores"
    vgg = build(head="vgg", head_channels=64)
    layers = [module for module in vgg.modules() if isinstance(module, nn.Linear)]
    assert len(layers) == 3
    for layer in layers:
        assert float(layer.weight.detach().std()) == pytest.approx(0.01, rel=0.15) and not layer.bias.any()


def test_the_mean_of_the_last_map_is_what_pool_reads() -> None:
    model = build().eval()
    nn.init.normal_(model.classify.weight)
    x = images(96)
    with torch.inference_mode():
        maps = model.backbone(model.pixel_norm(x))["c5"]
        torch.testing.assert_close(model(x), model.classify(maps.mean(dim=(2, 3))))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0.0]), ({"dropout": 0.3}, [0.3]), ({"head": "vgg"}, [0.5, 0.5]),
        ({"head": "vgg", "dropout": 0.0}, [0.0, 0.0]), ({"head": "vgg", "dropout": 0.2}, [0.2, 0.2]),
    ],
)  # fmt: skip
def test_dropout_is_the_heads_own_unless_it_is_set(settings: dict[str, Any], expected: list[float]) -> None:
    model = build(head_channels=8, **settings)
    assert [module.p for module in model.modules() if isinstance(module, nn.Dropout)] == expected


def test_images_of_any_side_go_through_vggs_head() -> None:
    model = build(head="vgg", head_channels=16).eval()
    with torch.inference_mode():
        assert model(images(64)).shape == model(images(101)).shape == (2, 5)


def test_pretrained_vgg_brings_fc6_and_fc7(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the sizes of the weights only: a small fc6 has nothing to take from there."""
    parts = {"classifier.0": (8, 512 * 49), "classifier.3": (8, 8)}
    weights = {f"{name}.weight": torch.full(shape, 0.5 + i) for i, (name, shape) in enumerate(parts.items())}
    weights |= {f"{name}.bias": torch.full((8,), 2.5 + i) for i, name in enumerate(parts)}
    asked: list[str] = []
    monkeypatch.setattr(image_classifier, "_state_dict", lambda name, found: asked.append(name) or weights)
    stages = Backbone([nn.Identity()] * 4, (64, 128, 256, 512))  # of VGG-16, without its convolutions
    monkeypatch.setattr(image_classifier, "build_backbone", lambda name, **settings: stages)
    build(backbone="vgg16", head="vgg", head_channels=8, pretrained=True)
    monkeypatch.setattr(image_classifier, "_VGG_CHANNELS", 8)
    build(backbone="vgg16", pretrained=True)
    build(backbone="resnet18", head="vgg", head_channels=8, pretrained=True)
    build(backbone="vgg16", head="vgg", head_channels=8)
    assert asked == [], "nothing that fits, or nothing asked for"
    model = build(backbone="vgg16", head="vgg", head_channels=8, pretrained=True)
    assert asked == ["vgg16"]
    layers = [module for module in model.features if isinstance(module, nn.Linear)]
    assert [float(layer.weight.detach().mean()) for layer in layers] == [0.5, 1.5]
    assert [float(layer.bias.detach().mean()) for layer in layers] == [2.5, 3.5]


def test_settings_out_of_range_are_told() -> None:
    with pytest.raises(RangeError, match="dropout must be") as error:
        Config(dropout=1.0, head_channels=0)
    assert "head_channels must be" in str(error.value)
