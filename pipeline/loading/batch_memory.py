"""Shared memory that loader workers write batches into, in place, again and again.

Otherwise every batch is stacked in fresh memory, copied to fresh shared memory and unmapped after use, and the system
hands all of it out page by page, which for images of 640 pixels takes as long as decoding them.
"""

from __future__ import annotations

import ctypes
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.heap import BufferWrapper
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from lightning_modules.blocks.pixels import BatchRows, aligned, written_to

T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """Where a tensor of a batch lies in its slot: what a worker sends in place of it."""

    offset: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class BatchMemory:
    """A fixed number of slots, each for the tensors of one batch. Travels to the workers, which write to it.

    A slot is free again when nothing refers to its batch's tensors any more, so a batch may be kept as long as one
    likes: as no slot is free then, later batches get memory of their own.

    Args:
        num_slots: batches on the way to the workers and back, plus those in use.
        slot_bytes: what does not fit is not put there.
    """

    def __init__(self, num_slots: int, slot_bytes: int):
        self.slot_bytes = aligned(slot_bytes)
        # What multiprocessing's own arrays lie in: a file without a name, so nothing is ever left behind. They would
        # be filled with zeros.
        self._memory = BufferWrapper(num_slots * self.slot_bytes)
        self._free = list(range(num_slots))
        self._sent: set[int] = set()

    # in the process that trains

    def restart(self) -> None:
        """No batch is on its way any more: those of an epoch that was left early never came."""
        self._free += self._sent
        self._sent.clear()

    def take(self) -> int | None:
        """A free slot for the next request, if there is one."""
        if not self._free:
            return None
        self._sent.add(slot := self._free.pop())
        return slot

    def receive(self, batch: Mapping[str, Any], slot: int | None, *, pin: bool = False) -> dict[str, Any]:
        """The batch with its tensors, which lie in the slot; with `pin` in copies that a GPU can read meanwhile."""
        if slot is None:
            return dict(batch)
        self._sent.discard(slot)
        memory = self._slot(slot)
        weakref.finalize(memory, self._free.append, slot).atexit = False  # every tensor's storage holds `memory`
        whole = torch.from_numpy(memory)

        def found(place: Place) -> Tensor:
            tensor = _tensor(whole, place)
            return tensor.pin_memory() if pin else tensor

        return {name: found(value) if isinstance(value, Place) else value for name, value in batch.items()}

    # in a worker

    def fill(self, make: Callable[[], dict[str, Any]], slot: int, num_rows: int) -> dict[str, Any]:
        """`make()`, a batch of `num_rows` examples, with the place of each tensor that was written into the slot."""
        memory = self._slot(slot)
        rows = BatchRows(num_rows, memory)
        with written_to(rows):
            batch = make()
        start = memory.ctypes.data

        def placed(tensor: Tensor) -> Place | Tensor:
            if not start <= tensor.data_ptr() < start + self.slot_bytes:
                if not tensor.is_contiguous() or rows.num_bytes + tensor.nbytes > self.slot_bytes:
                    return tensor
                # Small, but torch would open a file and a connection to send it.
                copy = torch.from_numpy(rows.block(tuple(tensor.shape), tensor.numpy().dtype))
                tensor = copy.copy_(tensor)
            return Place(tensor.data_ptr() - start, tensor.dtype, tuple(tensor.shape), tensor.stride())

        return {name: placed(value) if isinstance(value, Tensor) else value for name, value in batch.items()}

    def _slot(self, index: int) -> np.ndarray:
        """A new array of the slot's bytes."""
        return np.frombuffer(self._memory.create_memoryview(), np.uint8, self.slot_bytes, index * self.slot_bytes)


def ahead(items: Iterator[T], device: int | None = None) -> Iterator[T]:
    """`items`, the next of which a thread makes while one is used.

    Args:
        device: the GPU that this thread works with; the other would take the first one.
    """
    enter = () if device is None else (torch.cuda.set_device, (device,))
    end = object()
    with ThreadPoolExecutor(1, "batches", *enter) as pool:
        coming: Future[Any] = pool.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, items, end)
            yield item


def _tensor(whole: Tensor, place: Place) -> Tensor:
    item = place.dtype.itemsize
    size = sum((length - 1) * step for length, step in zip(place.shape, place.stride, strict=True)) + 1
    typed = whole[place.offset : place.offset + size * item].view(place.dtype)
    return typed.as_strided(place.shape, place.stride)


def keep_freed_memory() -> None:
    """Tell glibc to keep what is freed, for the next image, in place of giving it back to the system page by page."""
    if sys.platform.startswith("linux"):
        libc = ctypes.CDLL(None)
        if hasattr(libc, "gnu_get_libc_version"):
            trim_threshold, mmap_threshold = -1, -3  # <malloc.h>
            libc.mallopt(mmap_threshold, 32 << 20)  # its upper limit
            libc.mallopt(trim_threshold, 1 << 30)
