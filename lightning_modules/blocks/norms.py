"""Which statistics a model's norms use: one setting, applied to a model that was built with `nn.BatchNorm2d`.

Shapes: x (B, C, H, W); one mean and one variance a channel from the B * H * W values of it.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Literal

import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.ops import FrozenBatchNorm2d

# batch: each worker's own images, of one micro-batch; DDP gives all the first worker's running averages.
# sync: the images of all workers, of one micro-batch. On CPUs as `batch`: torch has it for GPUs alone.
# frozen: the pretrained statistics stay. What has none (a model's own norm) does as with `group`.
# group: each image by itself (1803.08494), so that nothing depends on how a batch is cut.
NormName = Literal["batch", "sync", "frozen", "group"]
MAX_GROUPS = 32  # the paper's


class BatchNorm(nn.BatchNorm2d):
    """1502.03167. From one value a channel no variance can be told: the running averages are used then, and kept."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() <= x.shape[1]:
            return _by_running_averages(self, x)
        return super().forward(x)


class SyncNorm(nn.SyncBatchNorm):
    """torch's batch norm over all workers' images; on a CPU over this worker's.

    A worker whose images are to count for nothing (`unmoved`) still takes part, with no image: the others wait for it.
    """

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1):
        super().__init__(num_features, eps, momentum)
        self.is_unmoved = False

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return _by_running_averages(self, x)
        if x.is_cuda and dist.is_initialized() and dist.get_world_size() > 1:
            if not self.is_unmoved:
                return super().forward(x)
            others = super().forward(x[:0].float())  # float32 as what the others send; backward is a collective, too
            return _by_running_averages(self, x) + others.sum()
        if self.is_unmoved or x.numel() <= x.shape[1]:
            return _by_running_averages(self, x)
        return _BatchNorm.forward(self, x)


def _by_running_averages(norm: _BatchNorm, x: Tensor) -> Tensor:
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps)


def group_norm(channels: int) -> nn.GroupNorm:
    """At most 32 groups, of two channels or more: one value of one channel would always become 0."""
    return nn.GroupNorm(math.gcd(max(1, channels // 2), MAX_GROUPS), channels)


def own_norm(name: NormName, channels: int) -> nn.Module:
    """A norm of a model's own, without pretrained statistics."""
    if name in ("batch", "sync"):
        return (BatchNorm if name == "batch" else SyncNorm)(channels)
    return group_norm(channels)


def set_norms(module: nn.Module, name: NormName) -> int:
    """Put the norm called `name` in place of every `nn.BatchNorm2d` below `module`, its numbers taken over.

    Returns:
        How many there were.
    """
    count = 0
    for child_name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, child_name, _as(child, name))
            count += 1
        else:
            count += set_norms(child, name)
    return count


def _as(norm: nn.BatchNorm2d, name: NormName) -> nn.Module:
    channels = norm.num_features
    new: nn.Module
    if name == "group":
        return group_norm(channels)
    if name == "frozen":
        new = FrozenBatchNorm2d(channels, norm.eps)
    else:
        new = (BatchNorm if name == "batch" else SyncNorm)(channels, norm.eps, norm.momentum)
    new.load_state_dict(norm.state_dict())
    return new


@contextlib.contextmanager
def unmoved(model: nn.Module) -> Iterator[None]:
    """Within, batch norms of any kind use their running averages and leave them as they are."""
    changed: list[nn.Module] = []
    for module in model.modules():
        if isinstance(module, SyncNorm):
            module.is_unmoved = True
            changed.append(module)
        elif isinstance(module, _BatchNorm) and module.training:
            module.training = False
            changed.append(module)
    try:
        yield
    finally:
        for module in changed:
            if isinstance(module, SyncNorm):
                module.is_unmoved = False
            else:
                module.training = True
