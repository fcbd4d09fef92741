"""From stored pixels to network input, on the device.

Shapes: B images of height H and width W.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor, nn
from torch.nn import functional as F

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB in 0..1: what torchvision's pretrained weights were trained with
IMAGENET_STD = (0.229, 0.224, 0.225)
STRIDE = 32  # of c5, the coarsest map of a backbone
_PIXELS_AT_ONCE = 32
_ALIGNMENT = 64  # bytes


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


def to_channels_last(module: nn.Module) -> nn.Module:
    """The module, its convolutions' weights laid out as images from `stack_images` are, in two and three dimensions.

    `Module.to(memory_format=torch.channels_last)` fails at a weight of three dimensions.
    """
    nn.utils.convert_conv2d_weight_memory_format(module, torch.channels_last)
    nn.utils.convert_conv3d_weight_memory_format(module, torch.channels_last_3d)
    return module


def pad_to_stride(x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """(B, C, H, W) with zeros below and right (ImageNet's mean colour after `PixelNorm`) up to multiples of `STRIDE`.

    Backbones differ in how they round: maps of whole cells alone are 1/4, 1/8, 1/16 and 1/32 of the image in all.

    Args:
        size: (height, width) to round up in place of the image's own.
    """
    height, width = (-(-length // STRIDE) * STRIDE for length in size or x.shape[-2:])
    if x.shape[-2:] == (height, width):
        return x
    return F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2]))


def aligned(num_bytes: int) -> int:
    """Rounded up, so that what follows starts where any type may."""
    return -(-num_bytes // _ALIGNMENT) * _ALIGNMENT


class BatchRows:
    """Memory that the arrays of a batch are written into where they are made, so that stacking them copies nothing.

    Arrays of one shape and type are the rows of one block.

    Args:
        num_rows: examples of the batch.
        memory: (n,) uint8 that blocks are put into as long as they fit; else they get memory of their own.
    """

    def __init__(self, num_rows: int, memory: np.ndarray | None = None):
        self.num_rows = num_rows
        self.num_bytes = 0  # of all blocks
        self._memory = np.empty(0, np.uint8) if memory is None else memory
        self._blocks: dict[tuple[tuple[int, ...], np.dtype], tuple[np.ndarray, int]] = {}

    def new(self, shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
        """The next row of this shape and type; memory of its own when there are more than `num_rows`."""
        key = (shape, np.dtype(dtype))
        block, taken = self._blocks.get(key) or (self.block((self.num_rows, *shape), key[1]), 0)
        if taken == self.num_rows:
            return np.empty(*key)
        self._blocks[key] = (block, taken + 1)
        return block[taken]

    def joined(self, arrays: Sequence[np.ndarray]) -> np.ndarray | None:
        """The block (num_rows, ..) whose rows these arrays are, all and in order; None if they are not."""
        block, taken = self._blocks.get((arrays[0].shape, arrays[0].dtype), (None, 0))
        if block is None or not taken == len(arrays) == self.num_rows:
            return None
        starts = [array.__array_interface__["data"][0] for array in arrays]
        first, step = block.__array_interface__["data"][0], block.strides[0]
        return block if starts == [first + i * step for i in range(len(starts))] else None

    def block(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array of that shape."""
        size = math.prod(shape) * dtype.itemsize
        start = self.num_bytes
        self.num_bytes += aligned(size)
        if start + size > len(self._memory):
            return np.empty(shape, dtype)
        return self._memory[start : start + size].view(dtype).reshape(shape)


_rows: BatchRows | None = None


@contextmanager
def written_to(rows: BatchRows) -> Iterator[None]:
    """Within, `new_row` and `stack` use these rows."""
    global _rows
    before, _rows = _rows, rows
    try:
        yield
    finally:
        _rows = before


def new_row(shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """Memory for an array that `stack` will be given: a row of the batch that is being made, if one is."""
    return np.empty(shape, dtype) if _rows is None else _rows.new(shape, dtype)


def stack(arrays: Sequence[np.ndarray]) -> Tensor:
    """B arrays of one shape and type -> tensor (B, ..). Copies those that were not written to the batch's rows."""
    rows = _rows or BatchRows(len(arrays))
    block = rows.joined(arrays)
    if block is None:
        block = np.stack(arrays, out=rows.block((len(arrays), *arrays[0].shape), arrays[0].dtype))
    return torch.from_numpy(block)


def stack_images(images: Sequence[np.ndarray]) -> Tensor:
    """B arrays (H, W, 3) uint8 of one size -> tensor (B, 3, H, W) uint8 with channels_last strides."""
    return stack(images).permute(0, 3, 1, 2)
