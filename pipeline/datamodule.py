"""Manifest -> records -> task.encode -> task.collate. Knows no task.

The loaders follow `pipeline.sampling`: every rank and any number of loader workers see the same global batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset

from contracts.errors import ConfigError, DataError, SightlineError
from contracts.records import Record
from contracts.seeds import derive_seed
from lightning_modules.blocks.pixels import BatchRows, written_to
from lightning_modules.task import BaseTask, Batch
from pipeline.batch_memory import BatchMemory
from pipeline.loader_process import init_worker
from pipeline.manifest import load_manifest
from pipeline.sampling import Request, epoch_order, eval_requests, micro_batches, num_batches, train_requests
from pipeline.sections import LoaderConfig
from pipeline.shard_cache import ShardCache
from pipeline.shards import SplitReader, open_splits

_SPARE_BYTES = 64 << 10  # a slot's room for small tensors that the first sample says little of
_BATCHES_IN_USE = 3  # the one that is trained on, the one before, whose tensors die late, and the next


class RequestDataset(Dataset):
    """Turns a `Request` into a batch; what a loader worker runs."""

    def __init__(self, reader: SplitReader, task: BaseTask, *, seed: int | None):
        self.reader = reader
        self.task = task
        self.seed = seed  # None: validation, nothing random
        self.memory: BatchMemory | None = None

    def __getitem__(self, item: tuple[Request, int | None]) -> tuple[Batch | SightlineError, int | None]:
        """The batch of a request. What is wrong with the data is handed over like one: a loader would raise it anew
        with its worker's traceback in the text."""
        try:
            return self._batch(*item), item[1]
        except SightlineError as error:
            return error, item[1]

    def _batch(self, request: Request, slot: int | None) -> Batch:
        records = [self.reader.read(position) for position in request.positions]

        def make() -> Batch:
            return self.task.collate([self._encode(record, request) for record in records])

        if self.memory is not None and slot is not None:
            batch = self.memory.fill(make, slot, len(records))
        else:
            with written_to(BatchRows(len(records))):
                batch = make()
        batch["keys"] = [record.key for record in records]
        batch["is_stand_in"], batch["num_step_images"] = request.is_stand_in, request.num_step_images
        if self.seed is None:
            batch["truths"] = [self.task.truth(record) for record in records]
        return batch

    def batch_bytes(self, request: Request) -> int:
        """What the tensors of this request's batch take, judged by its first sample; texts may be twice as long."""
        rows = BatchRows(1)
        with written_to(rows):
            batch = self.task.collate([self._encode(self.reader.read(request.positions[0]), request)])
        small = sum(value.nbytes for value in batch.values() if isinstance(value, torch.Tensor)) - rows.num_bytes
        return len(request.positions) * (rows.num_bytes + 2 * max(0, small)) + _SPARE_BYTES

    def _encode(self, record: Record, request: Request) -> Any:
        try:
            return self.task.encode(record, self._seed(record, request))
        except Exception as error:
            error.add_note(f"while sample {record.key!r} was encoded")
            raise

    def _seed(self, record: Record, request: Request) -> int | None:
        return None if self.seed is None else derive_seed(self.seed, request.epoch, record.key)


class _Requests:
    """Hands one list of requests to a DataLoader that outlives epochs (persistent workers), each with a free slot."""

    def __init__(self) -> None:
        self.pending: list[Request] = []
        self.memory: BatchMemory | None = None

    def __iter__(self) -> Iterator[tuple[Request, int | None]]:
        if self.memory is not None:
            self.memory.restart()
        for request in self.pending:
            yield request, None if self.memory is None else self.memory.take()

    def __len__(self) -> int:
        return len(self.pending)


def _identity(batch: Any) -> Any:
    return batch


def with_step_counts(batches: Iterator[Batch], per_step: int) -> Iterator[Batch]:
    """Each batch with what all `per_step` micro-batches of its step count, which therefore are loaded before the first
    is trained on; those of a task that counts images alone are not waited for."""
    for first in batches:
        step = [first, *islice(batches, per_step - 1)] if "counts" in first else [first]
        counted = [batch["counts"] for batch in step if "counts" in batch and not batch["is_stand_in"]]
        counts = {name: sum(part[name] for part in counted) for name in first.get("counts", ())}
        while step:
            yield {**step.pop(0), "step_counts": counts}


class PlannedLoader:
    """An iterable of batches with an exact length, `set_epoch` and a position that Lightning saves and restores.

    The position counts delivered batches of the current epoch, not prefetched ones: global batches, so that another
    number of workers and accumulation steps can go on from it.

    Args:
        plan: epoch -> this rank's requests, `per_batch` for each of `num_batches` global batches.
        reuse_memory: workers write batches into shared memory that is used again. It stays allocated.
    """

    def __init__(
        self,
        dataset: RequestDataset,
        plan: Callable[[int], list[Request]],
        num_batches: int,
        config: LoaderConfig,
        *,
        per_batch: int = 1,
        reuse_memory: bool = False,
        pin_memory: bool = False,
    ):
        self.dataset = dataset
        self.batch_sampler = None
        self._plan = plan
        self._per_batch, self._length = per_batch, num_batches * per_batch
        self._epoch = 0
        self._delivered = 0
        self._requests = _Requests()
        self._config = config
        self._reuse_memory, self._pin_memory = reuse_memory and config.num_workers > 0, pin_memory

    @cached_property
    def _loader(self) -> DataLoader:
        """Made when the first requests are known, which say how large a batch is."""
        config, workers = self._config, self._config.num_workers
        prefetch = max(config.prefetch, -(-self._per_batch // workers) if workers else 0)  # a step's are taken at once
        if self._reuse_memory and self._requests.pending:
            largest = max(self._requests.pending, key=lambda request: len(request.positions))
            slots = workers * prefetch + self._per_batch - 1 + _BATCHES_IN_USE
            self._requests.memory = BatchMemory(slots, self.dataset.batch_bytes(largest))
            self.dataset.memory = self._requests.memory
        return DataLoader(
            self.dataset,
            sampler=self._requests,  # type: ignore[arg-type]
            batch_size=None,
            collate_fn=_identity,
            num_workers=workers,
            persistent_workers=workers > 0,
            prefetch_factor=prefetch if workers else None,
            multiprocessing_context=config.start_method if workers else None,
            worker_init_fn=init_worker if workers else None,
            pin_memory=self._pin_memory,
        )

    def __len__(self) -> int:
        return self._length

    @property
    def sampler(self) -> PlannedLoader:
        """Lightning calls its `set_epoch` before each epoch."""
        return self  # no attribute: in a cycle of references, workers would live until the next garbage collection

    def set_epoch(self, epoch: int) -> None:
        if epoch != self._epoch:
            self._epoch, self._delivered = epoch, 0

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self._epoch, "batches": self._delivered // self._per_batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._epoch = state["epoch"]
        self._delivered = state["batches"] * self._per_batch % max(1, self._length)

    def __iter__(self) -> Iterator[Batch]:
        self._requests.pending = self._plan(self._epoch)[self._delivered :]
        for batch in with_step_counts(self._received(), self._per_batch):
            self._delivered += 1
            if self._delivered >= self._length:
                self._delivered = 0  # the next iteration starts the epoch anew, unless set_epoch moves on
            yield batch

    def _received(self) -> Iterator[Batch]:
        for batch, slot in self._loader:
            if isinstance(batch, SightlineError):
                raise batch
            if self._requests.memory is not None:
                batch = self._requests.memory.receive(batch, slot, pin=self._pin_memory)
            yield batch


class TarDataModule(pl.LightningDataModule):
    """The data of one run.

    Args:
        folder: `data/shards/<dataset>`.
        batch_size: global training batch, over all ranks and accumulation steps.
        micro_batch_size: most samples that a rank trains on at once; None: its whole part of a global batch.
        eval_batch_size: images of one validation batch on one rank.

    Raises:
        ConfigError: there are more ranks than samples in a global batch.
        DataError: the training or validation split has no sample that the task can use.
    """

    def __init__(
        self,
        folder: Path,
        task: BaseTask,
        config: LoaderConfig,
        *,
        batch_size: int,
        micro_batch_size: int | None,
        eval_batch_size: int,
        seed: int,
        world: int = 1,
        rank: int = 0,
    ):
        super().__init__()
        self.manifest = load_manifest(folder)
        self.folder, self.task, self.config = folder, task, config
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.accumulate = micro_batches(batch_size, world, micro_batch_size)
        self.seed, self.world, self.rank = seed, world, rank
        if batch_size < world:
            raise ConfigError(
                "a worker would have nothing to do",
                value=f"batch_size {batch_size}, {world} workers",
                where="train.batch_size",
                allowed=f"at least {world}: it counts the samples of all workers",
            )

    @cached_property
    def _readers(self) -> dict[str, SplitReader]:
        """All splits, also where one is read: only so it can be told whether one has another's samples."""
        cache = ShardCache(int(self.config.cache_gib * 2**30))  # asked only where shards lie in an object store
        return open_splits(self.folder, self.manifest, cache)

    def reader(self, split: str) -> SplitReader:
        if split not in self._readers:
            raise DataError("no such split", value=split, where=str(self.folder), allowed=", ".join(self._readers))
        return self._readers[split]

    def _usable(self, split: str, requires: tuple[str, ...]) -> np.ndarray:
        positions = self.reader(split).select(requires)
        if not len(positions):
            raise DataError(
                f"split {split!r} has no sample that this task can use",
                where=str(self.folder),
                allowed=f"samples with {' and '.join(requires) or 'an image'}",
            )
        return positions

    def eval_keys(self, split: str) -> list[str]:
        return self.reader(split).keys(self._usable(split, self.task.eval_requires))

    def record(self, split: str, key: str) -> Record:
        keys = self.reader(split).columns["key"]
        return self.reader(split).read(int(np.flatnonzero(keys == key.encode())[0]))

    def train_plan(self, epoch: int) -> list[Request]:
        """This rank's requests of an epoch."""
        reader, usable = self.reader("train"), self._usable("train", self.task.requires)
        sizes = np.bincount(reader.columns["shard"][usable], minlength=len(reader.shards))
        order = usable[epoch_order(sizes.tolist(), seed=self.seed, epoch=epoch, window=self.config.window)]
        return list(
            train_requests(
                order,
                epoch=epoch,
                batch_size=self.batch_size,
                world=self.world,
                rank=self.rank,
                accumulate=self.accumulate,
            )
        )

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps: global batches of an epoch."""
        return num_batches(len(self._usable("train", self.task.requires)), self.batch_size)

    def train_dataloader(self) -> PlannedLoader:
        return PlannedLoader(
            RequestDataset(self.reader("train"), self.task, seed=self.seed),
            self.train_plan,
            self.steps_per_epoch,
            self.config,
            per_batch=self.accumulate,
            reuse_memory=True,
            pin_memory=torch.cuda.is_available(),
        )

    def eval_dataloader(self, split: str) -> PlannedLoader:
        usable = self._usable(split, self.task.eval_requires)
        requests = [
            replace(r, positions=tuple(usable[list(r.positions)].tolist()))
            for r in eval_requests(len(usable), batch_size=self.eval_batch_size, world=self.world, rank=self.rank)
        ]
        return PlannedLoader(
            RequestDataset(self.reader(split), self.task, seed=None), lambda epoch: requests, len(requests), self.config
        )

    def val_dataloader(self) -> PlannedLoader:
        return self.eval_dataloader("val")
