"""What a network costs: arithmetic, parameters, memory that a training step holds, and time on one thread of a CPU.

Conventions, as other tools have others:

- FLOPs are 2 a multiply-add, as torch's `FlopCounterMode` counts; fvcore, thop and torchvision's tables count 1 (VGG-16
  at 224 px: 30.9 GFLOP here, 15.5 there). Convolutions, matrix products and attention count; norms, activations, pools
  do not.
- Memory is that of the distinct tensors which autograd keeps for the backward pass of the network, without the loss,
  parameters and buffers. It follows from shapes alone, where the peak of a process is noise.
- Time is the process's own on the processor, not the wall clock's, so that other work on the machine changes it little.

Shapes: images (B, 3, H, W) uint8; the network gives one tensor of any shape for them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

Loss = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one image.

    Attributes:
        parameters: of the network, whatever the image.
        forward_flop: FLOPs of a prediction, 2 a multiply-add.
        saved_bytes: what a training step keeps of the forward pass.
        forward_ms: processor milliseconds of a prediction, one image at a time.
        step_ms: processor milliseconds of a training step (forward, loss, backward, AdamW), divided by its images.
    """

    parameters: int
    forward_flop: int
    saved_bytes: int
    forward_ms: float
    step_ms: float


def measure_cost(model: nn.Module, images: Tensor, loss: Loss, *, warm: int = 5, repeats: int = 30) -> Cost:
    """All of it, on one thread. The network's weights and running averages change: give one that is not needed.

    Args:
        images: a batch as a training step has it; forward passes are timed with its first image.
        loss: what the network gives -> the scalar that a step minimises.
        warm: passes before the timed ones; repeats: timed ones, of which the median counts.
    """
    saved = saved_bytes(model, images)
    with _one_thread():
        step_s = _median_s(_training_step(model, images, loss), warm, repeats)
        model.eval()
        with torch.inference_mode():
            forward_s = _median_s(lambda: model(images[:1]), warm, repeats)
    return Cost(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        forward_flop=forward_flop(model, images[:1]),
        saved_bytes=saved // len(images),
        forward_ms=1000 * forward_s,
        step_ms=1000 * step_s / len(images),
    )


def forward_flop(model: nn.Module, images: Tensor) -> int:
    """FLOPs of a prediction for all the images; the network is in evaluation mode afterwards."""
    model.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images)
    return counter.get_total_flops()


def saved_bytes(model: nn.Module, images: Tensor) -> int:
    """Bytes that autograd keeps of a forward pass in training mode, for all the images. A storage that several
    operations keep, or keep parts of, counts once and whole; int64 indices of pools count."""
    kept: dict[int, Tensor] = {}  # address -> what keeps the storage there: a freed one's address would come again

    def keep(tensor: Tensor) -> Tensor:
        tensor = tensor.detach()
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    model.train()
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        model(images)
    for own in (*model.parameters(), *model.buffers()):
        kept.pop(own.untyped_storage().data_ptr(), None)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def _training_step(model: nn.Module, images: Tensor, loss: Loss) -> Callable[[], None]:
    model.train()
    optimizer = torch.optim.AdamW(model.parameters())

    def step() -> None:
        optimizer.zero_grad()
        loss(model(images)).backward()
        optimizer.step()

    return step


def _median_s(function: Callable[[], object], warm: int, repeats: int) -> float:
    seconds = []
    for i in range(warm + repeats):
        start = time.process_time()
        function()
        if i >= warm:
            seconds.append(time.process_time() - start)
    return statistics.median(seconds)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
