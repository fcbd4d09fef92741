"""Collectives over all ranks. Those on Python objects are for starts, validations and failures, not for steps."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def _group() -> dist.ProcessGroup | None:
    """The group that objects travel in; None: the default one. NCCL would take them through the GPU's memory, all of a
    validation's predictions at once, and past the step that runs there."""
    world = dist.group.WORLD
    assert world is not None
    return None if dist.get_backend() == "gloo" else _cpu_group(world)


@cache
def _cpu_group(world: dist.ProcessGroup) -> dist.ProcessGroup:
    """Made at the first collective, which all ranks come to, with the default group's patience."""
    patience = world._get_backend(world._device_types[0]).options._timeout
    group = dist.new_group(backend="gloo", timeout=patience)
    assert isinstance(group, dist.ProcessGroup)  # a rank outside a group gets a number
    return group


def is_first() -> bool:
    """Whether this is rank 0, or the only process."""
    return not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0


def gather_to_first(item: T) -> list[T] | None:
    """Every rank's `item` in rank order on rank 0, None elsewhere; `[item]` without a process group."""
    if not (dist.is_available() and dist.is_initialized()):
        return [item]
    parts: list[Any] | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
    dist.gather_object(item, parts, dst=0, group=_group())
    return parts


def gather_to_all(item: T, group: dist.ProcessGroup | None = None) -> list[T]:
    """Every rank's `item` in rank order, on every rank of `group` (None: all); `[item]` without a process group."""
    if not (dist.is_available() and dist.is_initialized()):
        return [item]
    group = group or _group()
    parts: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(parts, item, group=group)
    return parts


def gather_tensors(tensor: Tensor, group: dist.ProcessGroup | None = None) -> list[Tensor]:
    """`gather_to_all` for a tensor of any size on each rank, where it lies: a `dist_sync_fn` of `torchmetrics.Metric`.

    Args:
        group: torchmetrics', if a metric was given one.
    """
    return [part.to(tensor.device) for part in gather_to_all(tensor.cpu(), group)]


def gather_tensors_to_first(tensor: Tensor, group: dist.ProcessGroup | None = None) -> list[Tensor]:
    """The same on rank 0 alone, for a metric that is computed there; elsewhere `[tensor]`."""
    assert group is None, "of all ranks"
    parts = gather_to_first(tensor.cpu())
    return [tensor] if parts is None else [part.to(tensor.device) for part in parts]


def broadcast_from_first(item: T) -> T:
    """Rank 0's `item` on every rank."""
    if not (dist.is_available() and dist.is_initialized()):
        return item
    box = [item]
    dist.broadcast_object_list(box, src=0, group=_group())
    return box[0]


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum of every rank's `values`, in place, on every rank; nothing waits for a GPU."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(values)
    return values
