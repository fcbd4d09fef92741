"""From stored pixels to network input, on the device.

Shapes: B images of height H and width W.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB in 0..1: what torchvision's pretrained weights were trained with
IMAGENET_STD = (0.229, 0.224, 0.225)
_PIXELS_AT_ONCE = 32


class PixelNorm(nn.Module):
    """uint8 (B, 3, H, W) RGB in 0..255 -> float32 (B, 3, H, W) with ImageNet's mean and deviation.

    Batches travel to the device as uint8 (a quarter of the bytes) and are normalised there. The memory format of
    the input is kept, so a batch stacked from (H, W, 3) arrays arrives at the first convolution as channels_last.
    """

    scale: Tensor
    offset: Tensor

    def __init__(self) -> None:
        super().__init__()
        mean, std = 255 * torch.tensor(IMAGENET_MEAN), 255 * torch.tensor(IMAGENET_STD)
        # Constants of the code, not of the training: left out of checkpoints.
        self.register_buffer("scale", 1 / std, persistent=False)
        self.register_buffer("offset", -mean / std, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        out = images.to(torch.float32, copy=True)
        pixels = out.permute(0, 2, 3, 1)
        if pixels.is_contiguous() and pixels.numel() % (3 * _PIXELS_AT_ONCE) == 0:
            # The same numbers, several pixels a row: arithmetic on rows of three is four times as slow.
            rows, repeat = pixels.view(-1, 3 * _PIXELS_AT_ONCE), _PIXELS_AT_ONCE
        else:
            rows, repeat = pixels, 1
        torch.addcmul(self.offset.repeat(repeat), rows, self.scale.repeat(repeat), out=rows)
        return out


_new_array: Callable[[tuple[int, ...], np.dtype], np.ndarray] = np.empty


@contextmanager
def stacked_in(new_array: Callable[[tuple[int, ...], np.dtype], np.ndarray]) -> Iterator[None]:
    """Within, `stack` takes its memory from `new_array(shape, dtype)`: a loader's, which is used again and again."""
    global _new_array
    before, _new_array = _new_array, new_array
    try:
        yield
    finally:
        _new_array = before


def stack(arrays: Sequence[np.ndarray]) -> Tensor:
    """B arrays of one shape and type -> tensor (B, ..), one copy."""
    out = _new_array((len(arrays), *arrays[0].shape), arrays[0].dtype)
    for target, array in zip(out, arrays, strict=True):
        target[...] = array
    return torch.from_numpy(out)


def stack_images(images: Sequence[np.ndarray]) -> Tensor:
    """B arrays (H, W, 3) uint8 of one size -> tensor (B, 3, H, W) uint8 with channels_last strides, one copy."""
    return stack(images).permute(0, 3, 1, 2)
