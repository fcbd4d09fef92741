"""Objects travel between CPUs, whatever the ranks' tensors travel through."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from lightning_modules.ops.gather import (
    _cpu_group,
    broadcast_from_first,
    gather_tensors,
    gather_tensors_to_first,
    gather_to_all,
    gather_to_first,
    is_first,
)

CPU = torch.device("cpu")


@pytest.fixture
def world(request, tmp_path) -> Iterator[dist.ProcessGroup]:
    if request.param == "pretend" and not hasattr(dist.Backend, "PRETEND"):
        # Gloo by another name, as NCCL is to `get_backend`.
        dist.Backend.register_backend("pretend", dist.ProcessGroupGloo, devices=["cpu"])
    meeting = f"file://{tmp_path}/meeting"
    dist.init_process_group(request.param, meeting, timedelta(seconds=77), world_size=1, rank=0)
    assert dist.group.WORLD is not None
    yield dist.group.WORLD
    dist.destroy_process_group()


def num_collectives(group: dist.ProcessGroup) -> int:
    return group._get_backend(CPU)._get_sequence_number_for_group()


@pytest.mark.parametrize(("world", "through_it"), [("gloo", True), ("pretend", False)], indirect=["world"])
def test_objects_go_through_gloo(world, through_it):
    before = num_collectives(world)
    item = {"a": [1, 2], "b": "x"}
    assert gather_to_first(item) == [item]
    assert gather_to_all(item) == [item]
    assert broadcast_from_first(item) == item and is_first()
    for gather in (gather_tensors, gather_tensors_to_first):
        (tensor,) = gather(torch.arange(3, dtype=torch.uint8))
        assert tensor.tolist() == [0, 1, 2] and tensor.dtype == torch.uint8
    assert (num_collectives(world) > before) == through_it
    if not through_it:
        assert gather_tensors(torch.ones(2), world)[0].tolist() == [1, 1]
        assert num_collectives(world) > before, "the group that torchmetrics was given"
        group = _cpu_group(world)
        assert group is _cpu_group(world), "one group, not one a call"
        assert dist.get_backend(group) == "gloo" and num_collectives(group) > 0
        assert group._get_backend(CPU).options._timeout == timedelta(seconds=77), "as patient as the ranks' own"


def test_without_a_group_an_item_stays_what_it_is():
    assert gather_to_first(3) == gather_to_all(3) == [3] and broadcast_from_first(3) == 3 and is_first()
    assert [gather(torch.ones(()))[0] for gather in (gather_tensors, gather_tensors_to_first)] == [1, 1]
