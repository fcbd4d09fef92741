"""Costs against closed forms. Times decide no test."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn

from benchmarks.segmentation_cost import vgg16_convolutions
from pipeline.measuring.cost import forward_flop, measure_cost, saved_bytes

SIDE = 16
IMAGE = torch.zeros(1, 3, SIDE, SIDE)


def stack(*widths: int) -> nn.Sequential:
    """Convolutions and ReLUs in place."""
    layers: list[nn.Module] = []
    for before, after in zip((3, *widths), widths, strict=False):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def test_what_is_saved_of_plain_layers_is_one_map_a_layer():
    """The input of a convolution and what its ReLU keeps are one storage, and weights are not counted."""
    assert saved_bytes(stack(5, 8), IMAGE) == 4 * SIDE**2 * (3 + 5 + 8)
    assert saved_bytes(stack(5, 8), IMAGE.repeat(3, 1, 1, 1)) == 3 * 4 * SIDE**2 * (3 + 5 + 8)


def test_six_layers_of_32_channels_keep_13_megabytes_at_128_pixels():
    saved = saved_bytes(nn.Sequential(stack(*[32] * 6), nn.Conv2d(32, 7, 1)), torch.zeros(1, 3, 128, 128))
    assert saved == 4 * 128**2 * (3 + 6 * 32)
    assert round((saved - 4 * 128**2 * 3) / 1e6, 1) == 12.6


class _Pieces(nn.Module):
    """Keeps two parts of one storage, a buffer, and what is thrown away at once."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 8))
        self.register_buffer("factor", torch.full((4, 8), 2.0))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = x + 1
        first = (self.weight[:, :4] * x[:, :4]).sum()  # keeps both factors; those of weights are its own storage
        last = (self.weight[:, 4:] * x[:, 4:]).sum()
        return first + last + (self.weight * self.factor).sum()


def test_parts_of_a_storage_count_once_and_whole():
    assert saved_bytes(_Pieces(), torch.zeros(4, 8)) == 4 * 4 * 8


def test_indices_of_pools_count():
    pool = nn.Sequential(nn.Conv2d(3, 4, 1), nn.MaxPool2d(2))
    quarter = 4 * (SIDE // 2) ** 2
    assert saved_bytes(pool, IMAGE) == 4 * 3 * SIDE**2 + 4 * 4 * SIDE**2 + 8 * quarter


def test_flops_are_two_a_multiply_add():
    model = nn.Sequential(stack(5, 8), nn.BatchNorm2d(8))
    assert forward_flop(model, IMAGE + 1) == 2 * 9 * (3 * 5 + 5 * 8) * SIDE**2
    assert not model[1].running_mean.any(), "a prediction moves no running average"


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_costs_are_of_one_image():
    model = nn.Sequential(stack(5, 8), nn.Dropout(0.5))
    modes: list[tuple[bool, int, int]] = []
    model.register_forward_hook(
        lambda module, given, _: modes.append((module.training, len(given[0]), torch.get_num_threads()))
    )
    before = model[0][0].weight.clone()
    cost = measure_cost(model, IMAGE.repeat(4, 1, 1, 1), lambda out: (out - 1).square().mean(), warm=1, repeats=2)
    assert cost.parameters == 3 * 5 * 9 + 5 + 5 * 8 * 9 + 8
    assert cost.forward_flop == 2 * 9 * (3 * 5 + 5 * 8) * SIDE**2
    assert cost.saved_bytes == 4 * SIDE**2 * (3 + 5 + 8 + 8)  # dropout's factors
    assert cost.forward_ms > 0 and cost.step_ms > 0
    assert modes == [(True, 4, 2), *[(True, 4, 1)] * 3, *[(False, 1, 1)] * 3, (False, 1, 2)]
    assert not torch.equal(model[0][0].weight, before), "a step includes the optimizer's"


@pytest.mark.parametrize(("side", "gflop", "full_gflop"), [(224, 30.69, 1476.2), (128, 10.02, 482.0)])
def test_vgg16_without_its_pools(side, gflop, full_gflop):
    (flop, values), (full_flop, full_values) = (vgg16_convolutions(side, pools=pools) for pools in (True, False))
    assert flop / 1e9 == pytest.approx(gflop, abs=0.005) and full_flop / 1e9 == pytest.approx(full_gflop, abs=0.05)
    assert round(full_flop / flop, 1) == 48.1 and round(full_values / values, 1) == 15.6
    with torch.device("meta"):
        features = torchvision.models.vgg16(weights=None).features
        layers = [layer for layer in features if not isinstance(layer, nn.MaxPool2d)]
        assert forward_flop(features, torch.zeros(1, 3, side, side)) == flop
        assert forward_flop(nn.Sequential(*layers), torch.zeros(1, 3, side, side)) == full_flop
    assert values == sum(c * (side >> pools) ** 2 for c, pools in _outputs())


def _outputs() -> list[tuple[int, int]]:
    """Channels and pools before it of each of the 13 convolutions (1409.1556, table 1, column D)."""
    return [(64, 0)] * 2 + [(128, 1)] * 2 + [(256, 2)] * 3 + [(512, 3)] * 3 + [(512, 4)] * 3
