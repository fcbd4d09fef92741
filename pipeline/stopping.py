"""A worker's wish to stop soon, with a state written first, such as after SIGTERM before its node goes away."""

from __future__ import annotations

import threading

import torch
import torch.distributed as dist


class Stopped(Exception):
    """Training was asked to stop and has written a state; the same call goes on from there."""


class StopRequest:
    """All ranks stop after the same step: each sends along, while a step is under way, whether it was told to stop.

    The answer travels beside the step's own collectives and is there when the step ends. It goes through no file: on a
    network's file system a rank may see a new one a minute later than another.
    """

    asked = threading.Event()  # of this process; set by a signal handler

    def __init__(self) -> None:
        self._flag: torch.Tensor | None = None
        self._sent: dist.Work | None = None

    def send(self, device: torch.device) -> None:
        """Ask all ranks. Called by every rank at the same place, before what `due` is called after."""
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            self._flag = torch.tensor(float(self.asked.is_set()), device=device)
            self._sent = dist.all_reduce(self._flag, dist.ReduceOp.MAX, async_op=True)

    def due(self) -> bool:
        """Whether any rank had been told to stop when `send` was called; the same on all ranks."""
        stop = self.asked.is_set()
        if self._sent is not None and self._flag is not None:
            self._sent.wait()
            stop = bool(self._flag.item())
            self._sent = self._flag = None
        if stop:
            self.asked.clear()
        return stop
