"""What is done once after the last step, with the best weights and the training split: what gradients do not give."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, runtime_checkable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_modules.base.task import BaseTask, Batch

Batches = Callable[[], Iterable[Batch]]


@runtime_checkable
class Finisher(Protocol):
    """A model with parts that are fitted without gradients, such as the SVMs of R-CNN."""

    def finish(self, batches: Batches) -> None:
        """Fit them. The model is in evaluation mode, and nothing records gradients.

        Args:
            batches: each call goes once through the training split, as validation sees it: whole, not augmented, always
                in the same order. Tensors are on the model's device.
        """
        ...


def finish(task: BaseTask, model: nn.Module, batches: Batches, *, norms: bool) -> bool:
    """Fit what the model fits at the end, after the statistics of its batch norms if `norms` says so.

    Returns:
        Whether there was anything to do. The model is in evaluation mode then.
    """
    if not norms and not isinstance(model, Finisher):
        return False
    model.eval()
    with torch.no_grad():
        if norms:
            recompute_norms(task, model, batches())
        if isinstance(model, Finisher):
            model.finish(batches)
    return True


def recompute_norms(task: BaseTask, model: nn.Module, batches: Iterable[Batch]) -> None:
    """Running averages of all batch norms anew, as plain means over the batches (as `swa_utils.update_bn`; 1803.05407,
    3.2): averaged weights never saw the activations that theirs were taken of.

    Unlike there, all but the norms is in evaluation mode, so that dropout is off as in prediction.
    """
    found = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    momenta = [norm.momentum for norm in found]
    for norm in found:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for a plain mean
        norm.train()
    try:
        for batch in batches:
            task.losses(model, batch)
    finally:
        for norm, momentum in zip(found, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()
