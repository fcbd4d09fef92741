"""Norms over the images of two workers on a GPU; gloo joins them, as NCCL does not join two on one GPU."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from lightning_modules.blocks.norms import set_norms, unmoved

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch synchronises norms on GPUs alone")

IMAGES = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))


def passed(model: nn.Module, images: torch.Tensor, bf16: bool) -> dict[str, torch.Tensor]:
    """Output, gradients of its sum of squares and the norms' averages."""
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=bf16):
        out = model(images.cuda()).float()
    out.square().sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    return {name: value.detach().cpu() for name, value in {**model.state_dict(), **gradients, "out": out}.items()}


def work(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", store=dist.FileStore(str(folder / "store"), 2), rank=rank, world_size=2)
    found = {}
    for bf16 in (False, True):
        model = net()
        set_norms(model, "sync")
        model.cuda()
        other = copy.deepcopy(model)
        found["both", bf16] = passed(model, IMAGES[:2] if rank == 0 else IMAGES[2:], bf16)
        if rank == 0:
            found["one", bf16] = passed(other, IMAGES[:2], bf16)
        else:
            with unmoved(other):
                found["one", bf16] = passed(other, 9 * IMAGES[2:], bf16)
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sync")
    mp.spawn(work, args=(folder,), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize(("case", "images"), [("both", IMAGES), ("one", IMAGES[:2])])
def test_two_workers_are_as_one_with_all_images_and_a_stand_in_is_none(found, case, images, bf16):
    near = {"rtol": 3e-2, "atol": 3e-2} if bf16 else {"rtol": 1e-4, "atol": 1e-5}
    expected = passed(net().cuda(), images, bf16)
    first, second = (of_rank[case, bf16] for of_rank in found)
    for name in ("1.running_mean", "1.running_var", "4.running_mean", "4.running_var"):
        torch.testing.assert_close(first[name], expected[name], **near)
        torch.testing.assert_close(second[name], first[name], rtol=0, atol=0)
    together = torch.cat([first["out"], second["out"]]) if case == "both" else first["out"]
    torch.testing.assert_close(together, expected["out"], **near)
