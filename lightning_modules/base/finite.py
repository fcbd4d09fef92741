"""Numbers that are not finite stop training before the optimizer takes them in, and never get into a state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from contracts.errors import TrainingError
from lightning_modules.ops.gather import gather_to_all

MAX_SKIPPED = 20  # float16: a scale of 65536 is below 1 by then, so it is not the scale
_SHOWN = 5
_FIX = "lower train.optimizer.lr, set train.gradient_clip_norm, or look at these samples; the state before is whole"


class StepWatch:
    """The losses of one optimizer step's micro-batches and the norm of its gradient, looked at together: reading them
    waits for the GPU, which is done once a step.

    The gradient is the sum over all ranks, so all ranks find the same and stop together.
    """

    def __init__(self) -> None:
        self._losses: list[tuple[list[str], dict[str, Tensor], Tensor]] = []
        self._skipped = 0  # steps in a row that the float16 scaler left out

    def add(self, keys: list[str], parts: Mapping[str, Tensor], total: Tensor) -> None:
        """A micro-batch: its samples, its loss terms and their sum."""
        self._losses.append((keys, {name: part.detach() for name, part in parts.items()}, total.detach()))

    def check(self, norm: Tensor, named: Iterable[tuple[str, nn.Parameter]], *, where: str, scaled: bool) -> None:
        """Called when the gradient is complete, before it is clipped and used.

        Args:
            norm: () of the whole gradient. named: the model's parameters.
            where: epoch and step, for the message.
            scaled: float16 with a scaler, which leaves out a step whose gradient overflows and tries a lower scale.

        Raises:
            TrainingError: a loss or the gradient is NaN or infinite.
        """
        losses, self._losses = self._losses, []
        finite = torch.isfinite(torch.stack([norm.float(), *(total.float() for _, _, total in losses)])).tolist()
        bad_losses = [
            (keys, {name: float(part) for name, part in parts.items()})
            for (keys, parts, _), good in zip(losses, finite[1:], strict=True)
            if not good
        ]
        if finite[0]:
            self._skipped = 0
            if bad_losses:  # of this rank alone: a loss without a gradient
                raise _bad_loss(bad_losses, where)
            return
        # All ranks are here, as the norm is of all: what one knows, each can tell.
        everyone = gather_to_all((bad_losses, [key for keys, _, _ in losses for key in keys]))
        if found := [loss for losses_of_rank, _ in everyone for loss in losses_of_rank]:
            raise _bad_loss(found, where)
        self._skipped += 1
        if scaled and self._skipped < MAX_SKIPPED:
            return
        broken = [
            name for name, parameter in named if parameter.grad is not None and not torch.isfinite(parameter.grad).all()
        ]
        samples = [key for _, keys in everyone for key in keys]
        raise TrainingError(
            "a gradient is not finite" + (f" in {MAX_SKIPPED} steps in a row, whatever the scale" if scaled else ""),
            value=f"norm {float(norm)}",
            where=f"{where}, parameters {_first(broken) or 'none alone: their norm'}, samples {samples}",
            fix=_FIX,
        )


def check_state(checkpoint: Mapping[str, Any], where: str) -> None:
    """Refuse a state with a weight or a value of the optimizer that is not finite.

    Args:
        checkpoint: Lightning's, with all that is trained and averaged in it.

    Raises:
        TrainingError: names the first of them.
    """
    tensors: dict[str, Tensor] = {}
    for part in ("current_model_state", "state_dict", "averaging_state"):
        tensors |= {f"{part}: {name}": value for name, value in checkpoint.get(part, {}).items()}
    for optimizer in checkpoint.get("optimizer_states", ()):
        for index, values in optimizer["state"].items():
            tensors |= {f"optimizer: {name} of parameter {index}": value for name, value in values.items()}
    floats = {name: t for name, t in tensors.items() if isinstance(t, Tensor) and t.is_floating_point()}
    if not floats:
        return
    device = next(iter(floats.values())).device  # one answer for all: each would wait for the GPU
    good = torch.stack([torch.isfinite(value).all().to(device) for value in floats.values()]).tolist()
    if not all(good):
        raise TrainingError(
            "a weight is not finite: this state is not written",
            value=_first([name for name, fine in zip(floats, good, strict=True) if not fine]),
            where=where,
            fix="lower train.optimizer.lr; the state before is whole, and the same command goes on from it",
        )


def _bad_loss(found: list[tuple[list[str], dict[str, float]]], where: str) -> TrainingError:
    keys, parts = found[0]
    return TrainingError("the loss is not finite", value=parts, where=f"{where}, samples {keys}", fix=_FIX)


def _first(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
