"""What segmentation at full resolution costs beside networks that go down and up again, and what VGG-16 would cost
without its pools.

All for an image of 128 px and 7 classes, float32, in processor time of one thread. FLOPs are 2 a multiply-add; steps
are of 4 images in channels_last, as training has them; "for backward" is what autograd keeps of the network, without
the loss; `pipeline/measuring/cost.py` says how. The row of VGG-16 is computed from its shapes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.vgg import cfgs

from benchmarks import Figure
from lightning_modules.base.families import SegmenterSpec
from lightning_modules.blocks.pixels import to_channels_last
from lightning_modules.models import deconvnet, fcn, full_resolution
from pipeline.measuring.cost import Cost, measure_cost

SIDE, CLASSES, BATCH = 128, 7, 4
WARM, REPEATS = 2, 10
VGG_SIDE = 224
YARDSTICK = "FCN-8s"


def measure() -> list[Figure]:
    costs = {name: _cost(model) for name, model in _models().items()}
    return [*_beside_the_yardstick(costs), *_vgg16()]


def _models() -> dict[str, nn.Module]:
    spec = SegmenterSpec(num_classes=CLASSES)
    dilated = full_resolution.Config(dilations=(1, 2, 4, 8, 16, 1))
    return {
        YARDSTICK: fcn.Model(fcn.Config(), spec),
        "FCN-16s": fcn.Model(fcn.Config(variant="16s"), spec),
        "FCN-32s": fcn.Model(fcn.Config(variant="32s"), spec),
        "DeconvNet": deconvnet.Model(deconvnet.Config(), spec),
        "full plain": full_resolution.Model(full_resolution.Config(), spec),
        "full dilated": full_resolution.Model(dilated, spec),
    }


def _cost(model: nn.Module) -> Cost:
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (BATCH, SIDE, SIDE, 3), dtype=torch.uint8, generator=random)
    labels = torch.randint(0, CLASSES, (BATCH, SIDE, SIDE), generator=random)

    def loss(logits: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels)

    return measure_cost(to_channels_last(model), pixels.permute(0, 3, 1, 2), loss, warm=WARM, repeats=REPEATS)


def _beside_the_yardstick(costs: dict[str, Cost]) -> list[Figure]:
    quantities = (
        ("forward", "GFLOP", lambda cost: cost.forward_flop / 1e9, ">= 6"),
        ("for backward", "MB", lambda cost: cost.saved_bytes / 1e6, "> 5"),
        ("forward", "ms", lambda cost: cost.forward_ms, ""),
        ("step", "ms", lambda cost: cost.step_ms, ""),
        ("parameters", "M", lambda cost: cost.parameters / 1e6, ""),
    )
    return [
        Figure(
            what=f"{YARDSTICK}: {what}",
            value=of(costs[YARDSTICK]),
            unit=unit,
            beside=name,
            other=of(cost),
            goal=goal if name.startswith("full") else "",
        )
        for what, unit, of, goal in quantities
        for name, cost in costs.items()
        if name != YARDSTICK
    ]


def vgg16_convolutions(side: int, *, pools: bool = True) -> tuple[int, int]:
    """FLOPs (2 a multiply-add) and output values of VGG-16's 13 convolutions for an image of `side` x `side` pixels,
    from the shapes alone; without pools every one is at full resolution."""
    flop = values = 0
    before = 3
    for width in cfgs["D"]:
        if isinstance(width, int):
            flop += 2 * 9 * before * width * side**2
            values += width * side**2
            before = width
        elif pools:
            side //= 2
    return flop, values


def _vgg16() -> list[Figure]:
    (flop, values), (full_flop, full_values) = (vgg16_convolutions(VGG_SIDE, pools=pools) for pools in (True, False))
    what, beside = f"VGG-16, {VGG_SIDE} px", "no pools"
    return [
        Figure(what=f"{what}: forward", value=flop / 1e9, unit="GFLOP", beside=beside, other=full_flop / 1e9),
        Figure(what=f"{what}: outputs", value=4 * values / 1e6, unit="MB", beside=beside, other=4 * full_values / 1e6),
    ]
