"""Backbones, pixel normalisation and pyramid."""

from typing import get_args
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torch import nn

from contracts.errors import ConfigError
from lightning_modules.blocks import backbones
from lightning_modules.blocks.backbones import BackboneName, build_backbone
from lightning_modules.blocks.fpn import Pyramid
from lightning_modules.blocks.pixels import PixelNorm, pad_to_stride, stack_images, to_channels_last


@pytest.mark.parametrize("name", ["small", "resnet18", "mobilenet_v3_large", "convnext_tiny", "vgg16"])
def test_four_maps_of_the_stated_strides_and_channels(name):
    backbone = build_backbone(name).eval()
    with torch.no_grad():
        maps = backbone(torch.zeros(1, 3, 64, 96))
    assert list(maps) == ["c2", "c3", "c4", "c5"]
    for level, stride in zip(maps, (4, 8, 16, 32), strict=True):
        assert maps[level].shape == (1, backbone.channels[level], 64 // stride, 96 // stride)


def test_building_leaves_the_norms_untouched():
    norms = [m for m in build_backbone("resnet18").modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert all(m.training and float(m.running_mean.abs().sum()) == 0 for m in norms)


def test_small_has_the_stated_size():
    count = sum(p.numel() for p in build_backbone("small").parameters())
    assert 1.0e6 < count < 2.0e6


def test_unknown_name_lists_the_choices():
    with pytest.raises(ConfigError, match="resnet18"):
        build_backbone("resnet19")


def test_ours_has_no_pretrained_weights():
    with pytest.raises(ConfigError, match="from scratch"):
        build_backbone("small", pretrained=True)


def test_weights_that_cannot_be_had_say_where_to_put_them(monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ConfigError) as error:
        build_backbone("resnet18", pretrained=True)
    text = str(error.value)
    assert "https://download.pytorch.org/models/resnet18" in text
    assert str(tmp_path / "checkpoints" / "resnet18") in text
    assert "pretrained: false" in text


def test_pretrained_weights_are_loaded(monkeypatch):
    state = backbones.torchvision.models.resnet18().state_dict()
    monkeypatch.setattr(backbones, "_state_dict", lambda name, weights: state)
    for norm in ("batch", "sync", "frozen"):
        backbone = build_backbone("resnet18", pretrained=True, norm=norm)
        torch.testing.assert_close(backbone.stages[0][0].weight, state["conv1.weight"])
        torch.testing.assert_close(backbone.stages[3][1].conv2.weight, state["layer4.1.conv2.weight"])
        # what loading a checkpoint does
        build_backbone("resnet18", norm=norm).load_state_dict(backbone.state_dict())


def test_pixel_norm_is_imagenets_and_keeps_channels_last():
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, (6, 8, 3), dtype=np.uint8) for _ in range(2)]
    images = stack_images(arrays)
    assert images.shape == (2, 3, 6, 8) and images.dtype == torch.uint8
    out = PixelNorm()(images)
    expected = (arrays[1][2, 5] / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(out[1, :, 2, 5].numpy(), expected, atol=1e-5)
    assert out.dtype == torch.float32 and out.is_contiguous(memory_format=torch.channels_last)
    assert not PixelNorm().state_dict()


def test_convolutions_of_every_dimension_are_laid_out_channels_last():
    """`Module.to(memory_format=torch.channels_last)` raises at the weight of a Conv3d."""
    model = nn.Sequential(
        nn.Conv3d(3, 4, 3),
        nn.Flatten(2, 3),
        nn.Conv2d(4, 5, 3),
        nn.ConvTranspose2d(5, 4, 2),
        nn.Flatten(2),
        nn.Conv1d(4, 2, 1),
    )
    x = torch.randn(2, 3, 5, 6, 7)
    expected = model(x)
    assert to_channels_last(model) is model
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert model[2].weight.is_contiguous(memory_format=torch.channels_last)
    assert model[3].weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("name", get_args(BackboneName))
def test_maps_of_a_padded_image_are_exact_fractions_of_it(name):
    """What upsampling by 2 and box pooling rely on; vgg16 and convnext_tiny round down, the others up."""
    x = pad_to_stride(torch.zeros(1, 3, 100, 33))
    assert x.shape[-2:] == (128, 64)
    with torch.no_grad():
        maps = build_backbone(name).eval()(x)
    strides = {level: (128 / y.shape[-2], 64 / y.shape[-1]) for level, y in maps.items()}
    assert strides == {"c2": (4, 4), "c3": (8, 8), "c4": (16, 16), "c5": (32, 32)}


def test_pyramid_gives_the_chosen_levels():
    backbone = build_backbone("small")
    maps = Pyramid(backbone.channels, ("c4", "c5"), 16)(backbone(torch.zeros(1, 3, 64, 64)))
    assert [(k, tuple(v.shape)) for k, v in maps.items()] == [("c4", (1, 16, 4, 4)), ("c5", (1, 16, 2, 2))]


@pytest.mark.parametrize("levels", [(), ("c6",), ("c4", "c3"), ("c3", "c3"), ("c3", "c5")])
def test_pyramid_refuses_wrong_levels(levels):
    with pytest.raises(ConfigError, match="levels"):
        Pyramid(build_backbone("small").channels, levels, 16)
