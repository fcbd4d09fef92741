"""DeconvNet (1505.04366): VGG-16 down to one vector, and its mirror image back up, unpooling to where maxima were.

The authors' network (HyeonwooNoh/DeconvNet, `training/001_stage_1/stage_1_train.prototxt`): each convolution is
followed by batch norm and ReLU; every pool keeps its switches, the places of its maxima, and the unpool of the same
level puts values there and zeros elsewhere; transposed 3x3 convolutions of stride 1 fill the gaps. No dropout.

It is fully convolutional: of an image larger than `Config.min_side` fc6 makes a map, and everything works as before.
The authors train it on crops of objects and of proposals, and answer a picture from its proposals' crops: that is the
task `region_segmentation`; with `segmentation` it is handed whole pictures.

Shapes: images (B, 3, H, W) uint8 -> logits (B, K, H, W) float32, K classes with background. Level i of L has C_i
channels on (ceil(H / 2^i), ceil(W / 2^i)): pools round up as Caffe's do, so that sides may be odd and every pixel is
looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from contracts.errors import ConfigError
from contracts.ranges import COUNT, check_ranges
from lightning_modules.base.families import SegmenterSpec
from lightning_modules.blocks.backbones import _state_dict
from lightning_modules.blocks.norms import NormName, own_norm
from lightning_modules.blocks.pixels import PixelNorm

VGG16 = {"widths": (64, 128, 256, 512, 512), "convs": (2, 2, 3, 3, 3), "fc_channels": 4096, "fc_size": 7}
_DECONVOLUTION_STD = 0.01  # of the paper's weights that do not come from VGG-16

Switches = tuple[Tensor, tuple[int, int]]  # indices (B, C, h, w) int64 into rows of the map before the pool; its size


@dataclass(frozen=True, kw_only=True)
class Config:
    """The defaults are for images of 128 px on a CPU. The paper's network, for 224 px, is widths
    [64, 128, 256, 512, 512], convs [2, 2, 3, 3, 3], fc_channels 4096, fc_size 7.

    Attributes:
        widths: channels of each level of the encoder, each followed by a pool that halves the sides; the decoder
            mirrors them.
        convs: 3x3 convolutions of each level, as many numbers as `widths`.
        fc_channels: of fc6 and fc7, the vector in the middle.
        fc_size: side of fc6, in cells of the last pool. Images whose sides are not more than
            (fc_size - 1) * 2^(number of widths) pixels are padded to that.
        pretrained: whether encoder, fc6 and fc7 start from torchvision's VGG-16 with batch norm, which wants the
            paper's sizes.
        norm: which statistics the norms use (`blocks/norms.py`), "batch", "sync" or "group".

    Raises:
        ConfigError: numbers out of range, no level, as many `convs` as there are not levels, `pretrained` with other
            sizes or with group norms, or norm "frozen".
    """

    widths: tuple[int, ...] = (16, 32, 64, 128, 160)
    convs: tuple[int, ...] = (1, 1, 2, 2, 2)
    fc_channels: int = 256
    fc_size: int = 4
    pretrained: bool = False
    norm: NormName = "batch"

    def __post_init__(self) -> None:
        check_ranges(self, widths=COUNT, convs=COUNT, fc_channels=COUNT, fc_size=COUNT)
        if not self.widths or len(self.convs) != len(self.widths):
            raise ConfigError(
                "every level needs its width and its number of convolutions",
                value={"widths": list(self.widths), "convs": list(self.convs)},
                where="convs",
                allowed="one or more levels, and as many numbers in convs as in widths",
            )
        if self.norm == "frozen":
            raise ConfigError(
                "the decoder's norms have no pretrained statistics that could be frozen",
                value=self.norm,
                where="norm",
                allowed="batch, sync, group",
            )
        if self.pretrained:
            self._check_pretrained()

    def _check_pretrained(self) -> None:
        sizes = {name: getattr(self, name) for name in VGG16}
        if sizes != VGG16:
            raise ConfigError(
                "pretrained weights are of the sizes of VGG-16",
                value=sizes,
                where="pretrained",
                allowed=", ".join(f"{name}: {value}" for name, value in VGG16.items()),
                fix="take these sizes, or set pretrained: false",
            )
        if self.norm == "group":
            raise ConfigError(
                "pretrained weights belong to batch norms",
                value={"pretrained": True, "norm": self.norm},
                where="norm",
                allowed="norm: batch or sync; or pretrained: false",
            )

    @property
    def min_side(self) -> int:
        """Least height and width in pixels: fewer have fewer cells than fc6 looks at."""
        return (self.fc_size - 1) * 2 ** len(self.widths) + 1


def _normed(convolution: nn.Conv2d | nn.ConvTranspose2d, norm: NormName) -> list[nn.Module]:
    """With bias, as the paper's, though the norm takes it out again."""
    return [convolution, own_norm(norm, convolution.out_channels), nn.ReLU(inplace=True)]


class Encoder(nn.Module):
    """VGG's convolutions with norms. (B, 3, H, W) float -> (B, C_L, ceil(H / 2^L), ceil(W / 2^L)), and the switches of
    each pool, the first one's first."""

    def __init__(self, widths: tuple[int, ...], convs: tuple[int, ...], norm: NormName):
        super().__init__()
        self.stages = nn.ModuleList()
        before = 3
        for width, number in zip(widths, convs, strict=True):
            layers: list[nn.Module] = []
            for _ in range(number):
                layers += _normed(nn.Conv2d(before, width, 3, padding=1), norm)
                before = width
            self.stages.append(nn.Sequential(*layers))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Switches]]:
        switches: list[Switches] = []
        for stage in self.stages:
            x = stage(x)
            height, width = x.shape[-2:]
            x, indices = F.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
            switches.append((indices, (height, width)))
        return x, switches


def unpool(x: Tensor, switches: Switches) -> Tensor:
    """(B, C, h, w) -> (B, C, H, W): each value where the pool found its maximum (of equal ones the first in row order),
    zeros elsewhere."""
    indices, size = switches
    return F.max_unpool2d(x, indices, (2, 2), output_size=size)


def _decoder(widths: tuple[int, ...], convs: tuple[int, ...], norm: NormName) -> nn.ModuleList:
    """The encoder's stages from the last to the first, each as wide as its level but for its last layer, which has the
    width of the next finer level."""
    stages = nn.ModuleList()
    for level in reversed(range(len(widths))):
        width, after = widths[level], widths[max(level - 1, 0)]
        outputs = [width] * (convs[level] - 1) + [after]
        layers: list[nn.Module] = []
        for channels, before in zip(outputs, [width, *outputs], strict=False):
            layers += _normed(nn.ConvTranspose2d(before, channels, 3, padding=1), norm)
        stages.append(nn.Sequential(*layers))
    return stages


class Model(nn.Module):
    """A `Segmenter` (`base/families.py`). With the paper's sizes and 21 classes it has 251,805,653 parameters.

    Raises:
        ConfigError: pretrained weights that cannot be had.
    """

    spec_class: ClassVar[type] = SegmenterSpec

    def __init__(self, config: Config, spec: SegmenterSpec):
        super().__init__()
        self.config = config
        last, fc, size, norm = config.widths[-1], config.fc_channels, config.fc_size, config.norm
        self.pixel_norm = PixelNorm()
        self.backbone = Encoder(config.widths, config.convs, norm)
        self.fc = nn.Sequential(*_normed(nn.Conv2d(last, fc, size), norm), *_normed(nn.Conv2d(fc, fc, 1), norm))
        self.fc_deconvolution = nn.Sequential(*_normed(nn.ConvTranspose2d(fc, last, size), norm))
        self.decoder = _decoder(config.widths, config.convs, norm)
        self.scores = nn.Conv2d(config.widths[0], spec.num_classes, 1)
        self._start()
        if config.pretrained:
            load_vgg16(self, _state_dict("vgg16_bn", torchvision.models.VGG16_BN_Weights.DEFAULT))

    def _start(self) -> None:
        for part in (self.backbone, self.fc, self.fc_deconvolution, self.decoder, self.scores):
            for module in part.modules():
                if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                    if part in (self.backbone, self.fc):
                        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                    else:
                        nn.init.normal_(module.weight, std=_DECONVOLUTION_STD)
                    assert module.bias is not None
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        x = self.pixel_norm(images)
        height, width = x.shape[-2:]
        least = self.config.min_side
        if min(height, width) < least:  # fc6 looks at so much: more of ImageNet's mean colour, below and right
            x = F.pad(x, (0, max(0, least - width), 0, max(0, least - height)))
        x, switches = self.backbone(x)
        x = self.fc_deconvolution(self.fc(x))
        for stage, places in zip(self.decoder, reversed(switches), strict=True):
            x = stage(unpool(x, places))
        # Float32 from here: bf16 logits make ties of neighbouring classes.
        with torch.autocast(images.device.type, enabled=False):
            return self.scores(x.float())[..., :height, :width]  # type: ignore[no-any-return]


def load_vgg16(model: Model, weights: dict[str, Tensor]) -> None:
    """Start encoder, fc6 and fc7 from the state dict of a torchvision VGG with batch norms and as many channels.

    fc6 and fc7 have norms here and none there, which start as they are.
    """
    index = 0  # torchvision's `features`: convolution, norm, ReLU as here, and a pool after each stage
    for stage in model.backbone.stages:
        assert isinstance(stage, nn.Sequential)
        for layer in stage:
            for name, value in layer.state_dict().items():
                if name != "num_batches_tracked":  # the file is older than that
                    value.copy_(weights[f"features.{index}.{name}"])
            index += 1
        index += 1
    for layer, name in ((model.fc[0], "classifier.0"), (model.fc[3], "classifier.3")):
        state = layer.state_dict()
        state["weight"].copy_(weights[f"{name}.weight"].view_as(state["weight"]))
        state["bias"].copy_(weights[f"{name}.bias"])
