"""VGG-16 cut before its last layer: one vector of 4,096 channels an image, as captioners of 2014 and 2015 read it.

Shapes: B images (B, 3, H, W) float, normalised -> (B, 4096, 1, 1).
"""

from __future__ import annotations

import torchvision
from torch import Tensor, nn

from lightning_modules.blocks.backbones import _state_dict

FC7_CHANNELS = 4096


class VGG16FC7(nn.Module):
    """`features`, `avgpool` and `classifier[:6]` of torchvision's VGG-16 (1409.1556, configuration D): up to ReLU 7 and
    its dropout, "fc7". 134,260,544 parameters: 138,357,544 without the last layer's 4,097,000.

    The paper's images are 224 px; others are pooled to the same 7 x 7 places. torchvision's weights want RGB with
    ImageNet's mean and deviation (`PixelNorm`), not Caffe's BGR.

    Where nothing of it is trained, it is as in evaluation mode: NeuralTalk2 left dropout on in a frozen one.

    Attributes:
        channels: as of `Backbone`.

    Raises:
        ConfigError: pretrained weights that cannot be had.
    """

    def __init__(self, *, pretrained: bool = False):
        super().__init__()
        model = torchvision.models.vgg16(weights=None)
        if pretrained:
            model.load_state_dict(_state_dict("vgg16", torchvision.models.VGG16_Weights.DEFAULT))
        self.features, self.avgpool = model.features, model.avgpool
        self.classifier = model.classifier[:6]
        self.channels = {"fc7": FC7_CHANNELS}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W), H and W at least 32 -> {"fc7": (B, 4096, 1, 1)}."""
        x = self.avgpool(self.features(images)).flatten(1)
        is_trained = any(parameter.requires_grad for parameter in self.parameters())
        for layer in self.classifier:
            if is_trained or not isinstance(layer, nn.Dropout):
                x = layer(x)
        return {"fc7": x[..., None, None]}
