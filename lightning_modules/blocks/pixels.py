"""From stored pixels to network input, on the device.

Shapes: B images of height H and width W.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB in 0..1: what torchvision's pretrained weights were trained with
IMAGENET_STD = (0.229, 0.224, 0.225)


class PixelNorm(nn.Module):
    """uint8 (B, 3, H, W) RGB in 0..255 -> float32 (B, 3, H, W) with ImageNet's mean and deviation.

    Batches travel to the device as uint8 (a quarter of the bytes) and are normalised there. The memory format of
    the input is kept, so a batch stacked from (H, W, 3) arrays arrives at the first convolution as channels_last.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
        # Constants of the code, not of the training: left out of checkpoints.
        self.register_buffer("mean", (mean * 255).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", (1 / (std * 255)).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images.float() - self.mean) * self.scale


def stack_images(images: Sequence[np.ndarray]) -> Tensor:
    """B arrays (H, W, 3) uint8 of one size -> tensor (B, 3, H, W) uint8 with channels_last strides, one copy."""
    return torch.stack([torch.from_numpy(image) for image in images]).permute(0, 3, 1, 2)
