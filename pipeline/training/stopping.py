"""A worker's wish for a state: since the last one is old, or to stop, as after SIGTERM before its node goes away."""

from __future__ import annotations

import threading
from enum import IntEnum

import torch
import torch.distributed as dist


class Stopped(Exception):
    """Training was asked to stop and has written a state; the same call goes on from there."""


class Wish(IntEnum):
    """The greatest of all ranks' wishes is granted."""

    NOTHING = 0
    STATE = 1
    STOP = 2  # with a state


class StopRequest:
    """All ranks do the same after the same step: each sends along, while a step is under way, what it wishes.

    The answer travels beside the step's own collectives and is there when the step ends. It goes through no file: on a
    network's file system a rank may see a new one a minute later than another.
    """

    asked = threading.Event()  # of this process; set by a signal handler

    def __init__(self) -> None:
        self._own = Wish.NOTHING
        self._flag: torch.Tensor | None = None
        self._sent: dist.Work | None = None

    def send(self, device: torch.device, *, state: bool = False) -> None:
        """Tell all ranks. Called by every rank at the same place, before what `due` is called after.

        Args:
            state: whether this rank wants a state to be written. To stop is wished where a signal asked for it.
        """
        self._own = Wish.STATE if state else Wish.NOTHING
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            own = Wish.STOP if self.asked.is_set() else self._own
            self._flag = torch.tensor(float(own), device=device)
            self._sent = dist.all_reduce(self._flag, dist.ReduceOp.MAX, async_op=True)

    def due(self) -> Wish:
        """What any rank wished when `send` was called; the same on all ranks."""
        wish = Wish.STOP if self.asked.is_set() else self._own
        self._own = Wish.NOTHING
        if self._sent is not None and self._flag is not None:
            self._sent.wait()
            wish = Wish(int(self._flag.item()))
            self._sent = self._flag = None
        if wish is Wish.STOP:
            self.asked.clear()
        return wish
