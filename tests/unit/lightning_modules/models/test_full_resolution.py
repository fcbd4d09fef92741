"""Full resolution: closed forms of its cost and its field of view, images of any sides."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from contracts.errors import ConfigError
from lightning_modules.base.families import SegmenterSpec
from lightning_modules.models.full_resolution import Config, Model
from pipeline.measuring.cost import forward_flop, saved_bytes

SPEC = SegmenterSpec(num_classes=7)
DILATIONS = (1, 2, 4, 8, 16, 1)
PIXELS = 128 * 128


@pytest.mark.parametrize("dilations", [(), DILATIONS])
def test_cost_at_128_pixels(dilations):
    """2 * 9 * C_in * C_out FLOPs a pixel and layer: 1.55 GFLOP, dilated or not. Convolutions give 12.6 MB an image, and
    as much again stays of them behind norm and ReLU."""
    model = Model(Config(dilations=dilations), SPEC)
    images = torch.zeros(1, 3, 128, 128, dtype=torch.uint8)
    expected = PIXELS * (2 * 9 * (3 * 32 + 5 * 32 * 32) + 2 * 32 * 7)
    assert forward_flop(model, images) == expected and round(expected / 1e9, 2) == 1.55
    maps = 6 * 32 * PIXELS * 4
    statistics = 6 * 2 * 32 * 4  # mean and deviation that each norm used
    assert round(maps / 1e6, 1) == 12.6
    assert saved_bytes(model, images) == 3 * PIXELS * 4 + 2 * maps + statistics


@pytest.mark.parametrize(("dilations", "side"), [((), 13), (DILATIONS, 65)])
def test_a_logit_depends_on_the_receptive_field_and_on_no_more(dilations, side):
    config = Config(widths=(2,) * 6, dilations=dilations)
    model = Model(config, SPEC).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()  # so that no ReLU is closed
    x = torch.ones(1, 3, 91, 91, requires_grad=True)
    model.scores(model.backbone(x))[..., 45, 45].sum().backward()
    assert x.grad is not None
    rows, columns = x.grad[0].sum(dim=0).nonzero().T
    first, last = 45 - side // 2, 45 + side // 2
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (first, last, first, last)
    assert config.receptive_field == side


@pytest.mark.parametrize("dilations", [(), DILATIONS])
@pytest.mark.parametrize("size", [(37, 50), (5, 3), (1, 1)])
def test_images_of_any_sides(dilations, size):
    model = Model(Config(widths=(4,) * 6, dilations=dilations), SPEC).eval()
    with torch.no_grad():
        logits = model(torch.zeros(2, 3, *size, dtype=torch.uint8))
    assert logits.shape == (2, 7, *size) and torch.isfinite(logits).all()


@pytest.mark.parametrize("norm", ["batch", "sync", "group"])
def test_learns_a_batch(norm):
    torch.manual_seed(0)
    model = Model(Config(widths=(16, 16, 16), dilations=(1, 2, 1), norm=norm), SegmenterSpec(num_classes=3))
    labels = torch.randint(0, 3, (2, 1, 4, 4)).repeat_interleave(6, dim=2).repeat_interleave(6, dim=3)[:, 0]
    # A class is how far neighbouring pixels differ, which none shows by itself.
    images = (128 + torch.randn(2, 3, 24, 24) * torch.tensor([2.0, 20.0, 60.0])[labels][:, None]).clamp(0, 255).byte()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for step in range(80):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        first = next(model.backbone.parameters()).grad
        assert step or (first is not None and (first.flatten(1).norm(dim=1) > 0).all()), "the first layer learns"
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.9 and losses[-1] < 0.35, losses[::10]


def test_logits_are_float32_under_autocast():
    model = Model(Config(widths=(4, 4)), SPEC)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(torch.zeros(2, 3, 16, 16, dtype=torch.uint8)).dtype == torch.float32


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"widths": ()}, "a network without layers"),
        ({"widths": (8, 0)}, r"widths must be 1 or more \(is \(8, 0\)\)"),
        ({"dilations": (1, 0, 1, 1, 1, 1)}, "dilations must be 1 or more"),
        ({"dilations": (1, 2)}, "allowed: 6 numbers, one for each of widths"),
        ({"norm": "frozen"}, "allowed: batch, sync, group"),
    ],
)
def test_settings_that_make_no_network(settings, said):
    with pytest.raises(ConfigError, match=said):
        Config(**settings)
