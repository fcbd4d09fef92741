"""The data of one run as Lightning's loaders of batches. Knows no task.

The loaders follow `pipeline.loading.sampling`: every rank and any number of loader workers see the same global batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import webdataset as wds

from contracts.errors import ConfigError, DataError, SightlineError
from contracts.records import Record
from lightning_modules.base.task import BaseTask, Batch
from pipeline.loading.batch_memory import BatchMemory, ahead
from pipeline.loading.loader_process import init_worker, start_fork_server
from pipeline.loading.prefetch import fetched_ahead, reach_of
from pipeline.loading.requests import Ask, RequestDataset
from pipeline.loading.sampling import (
    epoch_order,
    eval_requests,
    micro_batches,
    num_batches,
    train_requests,
)
from pipeline.settings.sections import LoaderConfig
from pipeline.shards.cache import ShardCache
from pipeline.shards.manifest import load_manifest
from pipeline.shards.reader import SplitReader, open_splits

_BATCHES_IN_USE = 3  # the one that is trained on, the one before, whose tensors die late, and the next


class _Asks:
    """Hands one list of asks to a DataLoader that outlives epochs (persistent workers), those of training with a slot
    that is free."""

    def __init__(self) -> None:
        self.pending: list[Ask] = []
        self.memory: BatchMemory | None = None

    def __iter__(self) -> Iterator[Ask]:
        if self.memory is not None:
            self.memory.restart()
        for ask in self.pending:
            yield ask._replace(slot=self.memory.take()) if self.memory is not None and ask.training else ask

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


class BatchLoader:
    """The loader processes of one rank, which read for training and validation, one after the other.

    Attributes:
        largest: the largest batch of a training; None where there is none. Processes write training batches into shared
            memory that is used again, and stays allocated.
        per_step: micro-batches of a step, which may all be waited for.
    """

    def __init__(self, dataset: RequestDataset, config: LoaderConfig, *, pin_memory: bool = False):
        self.dataset = dataset
        self.largest: Ask | None = None
        self.per_step = 1
        self._config, self._pin_memory = config, pin_memory
        self._asks = _Asks()
        self._turn = 0

    @property
    def window(self) -> int:
        return self._config.window

    @cached_property
    def _loader(self) -> wds.WebLoader:
        config, workers = self._config, self._config.num_workers
        prefetch = max(config.prefetch, -(-self.per_step // workers) if workers else 0)  # a step's are taken at once
        if workers and self.largest is not None:
            slots = workers * prefetch + self.per_step - 1 + _BATCHES_IN_USE
            self.dataset.memory = self._asks.memory = BatchMemory(slots, self.dataset.batch_bytes(self.largest))
        return wds.WebLoader(
            self.dataset,
            sampler=self._asks,
            batch_size=None,
            collate_fn=_identity,
            num_workers=workers,
            persistent_workers=workers > 0,
            prefetch_factor=prefetch if workers else None,
            multiprocessing_context=config.start_method if workers else None,
            worker_init_fn=init_worker if workers else None,
            pin_memory=self._pin_memory,
        )

    def batches(self, asks: list[Ask]) -> Iterator[Batch]:
        """The batches of `asks`, in order. Who asks next takes the processes over."""
        self._turn += 1
        self._asks.pending = asks
        # Started here: only the main thread hears at once of a process that died.
        sent = self._loader.iterator1()
        batches: Iterator[Batch] = islice(self._received(sent, self._turn, len(asks)), len(asks))
        if self._pin_memory and self._asks.memory is not None:
            # Cut to its length: the thread must not look for a next one while validation takes the processes over.
            batches = ahead(batches, torch.cuda.current_device() if torch.cuda.is_available() else None)
        return batches

    def _received(self, sent: Iterator[Any], turn: int, num_asks: int) -> Iterator[Batch]:
        for done, (batch, slot) in enumerate(sent, start=1):
            if isinstance(batch, SightlineError):
                raise batch
            if self._asks.memory is not None:
                batch = self._asks.memory.receive(batch, slot, pin=self._pin_memory)
            yield batch
            if self._turn != turn:
                assert done == num_asks, "another iteration took the loader processes over before this one had ended"
                return

    def close(self) -> None:
        """End the processes: references to a loader live in cycles, until the next garbage collection."""
        pipeline = self.__dict__.pop("_loader", None)
        if pipeline is None or not self._config.num_workers:
            return
        workers = pipeline.stage(0)._iterator
        if workers is not None:
            workers._shutdown_workers()


class PlannedLoader:
    """An iterable of batches with an exact length, `set_epoch` and a position that Lightning saves and restores.

    The position counts delivered batches of the current epoch, not prefetched ones: global batches, so that another
    number of workers and accumulation steps can go on from it.

    Args:
        plan: epoch -> this rank's asks, `per_batch` for each of `num_batches` global batches.
    """

    def __init__(self, loader: BatchLoader, plan: Callable[[int], list[Ask]], num_batches: int, *, per_batch: int = 1):
        self.batch_sampler = None
        self._loader, self._plan = loader, plan
        self._per_batch, self._length = per_batch, num_batches * per_batch
        self._epoch = 0
        self._delivered = 0

    @property
    def dataset(self) -> RequestDataset:
        return self._loader.dataset

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
        asks = self._plan(self._epoch)[self._delivered :]
        with self._fetched_ahead(asks) as advance:
            for done, batch in enumerate(with_step_counts(self._loader.batches(asks), self._per_batch), start=1):
                advance(done)
                self._delivered += 1
                if self._delivered >= self._length:
                    self._delivered = 0  # the next iteration starts the epoch anew, unless set_epoch moves on
                yield batch

    @contextmanager
    def _fetched_ahead(self, asks: list[Ask]) -> Iterator[Callable[[int], None]]:
        """Where shards lie in a store, those of the next asks come meanwhile, of the next epoch's, too."""
        reader, window = self.dataset.readers[asks[0].split], self._loader.window
        if not reader.is_remote:
            yield lambda done: None
            return
        reach = reach_of(reader, self._length, window)
        later = self._plan(self._epoch + 1)[:reach] if asks[0].training else []
        with fetched_ahead(reader, [ask.request for ask in (*asks, *later)], reach) as advance:
            yield advance


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
        if config.num_workers and config.start_method == "forkserver":
            start_fork_server([__name__, type(task).__module__, "cv2"])
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
        return open_splits(self.folder, self.manifest, cache, window=self.config.window)

    @cached_property
    def _loader(self) -> BatchLoader:
        """One for training and validation: a second set of processes would cost as much again."""
        dataset = RequestDataset(self._readers, self.task, seed=self.seed, stages=self.config.stages)
        return BatchLoader(dataset, self.config, pin_memory=torch.cuda.is_available())

    def close(self) -> None:
        """End the loader processes."""
        self._loader.close()

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

    @property
    def _train_lengths(self) -> np.ndarray | None:
        """Of each training sample, where the task asks for batches of like length."""
        column = self.task.length_column
        return None if column is None else self.reader("train").count(column)

    def train_plan(self, epoch: int) -> list[Ask]:
        """What this rank asks for in an epoch."""
        reader, usable = self.reader("train"), self._usable("train", self.task.requires)
        sizes = np.bincount(reader.columns["shard"][usable], minlength=len(reader.shards))
        order = epoch_order(
            sizes.tolist(),
            seed=self.seed,
            epoch=epoch,
            window=self.config.window,
            batch_size=self.batch_size,
            nodes=self.config.canonical_nodes,
            lengths=None if self._train_lengths is None else self._train_lengths[usable],
        )
        requests = train_requests(
            usable[order],
            epoch=epoch,
            batch_size=self.batch_size,
            world=self.world,
            rank=self.rank,
            accumulate=self.accumulate,
        )
        return [Ask("train", True, request) for request in requests]

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps: global batches of an epoch."""
        return num_batches(len(self._usable("train", self.task.requires)), self.batch_size)

    def train_dataloader(self) -> PlannedLoader:
        lengths = self._train_lengths

        def size(ask: Ask) -> tuple[int, int]:
            positions = ask.request.positions
            return len(positions), 0 if lengths is None else int(lengths[positions[0]])

        self._loader.largest = max(self.train_plan(0), key=size)
        self._loader.per_step = self.accumulate
        return PlannedLoader(self._loader, self.train_plan, self.steps_per_epoch, per_batch=self.accumulate)

    def eval_dataloader(self, split: str) -> PlannedLoader:
        usable = self._usable(split, self.task.eval_requires)
        requests = [
            replace(r, positions=tuple(usable[list(r.positions)].tolist()))
            for r in eval_requests(len(usable), batch_size=self.eval_batch_size, world=self.world, rank=self.rank)
        ]
        asks = [Ask(split, False, request) for request in requests]
        return PlannedLoader(self._loader, lambda epoch: asks, len(asks))

    def val_dataloader(self) -> PlannedLoader:
        return self.eval_dataloader("val")
