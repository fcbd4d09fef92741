"""What a loader process does with a request: a `webdataset.DataPipeline` from the plan's request to a batch.

Request -> reader (seeks by the index, compares the CRC) -> stages of the user's own -> encoder -> stages of the user's
own -> collation. A pipeline runs for one request, so that the plan alone says what is in which batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import torch
import webdataset as wds
from torch.utils.data import Dataset

from contracts.errors import DataError, SightlineError
from contracts.seeds import derive_seed
from lightning_modules.base.task import BaseTask, Batch
from lightning_modules.blocks.pixels import BatchRows, written_to
from pipeline.loading.batch_memory import BatchMemory
from pipeline.loading.sampling import Request
from pipeline.settings import own
from pipeline.settings.own import OwnStages
from pipeline.shards.reader import SplitReader

_SPARE_BYTES = 64 << 10  # a slot's room for small tensors that the first sample says little of

Sample = dict[str, Any]
_load = cache(own.load)  # a stage may be no object that travels to another process: each loads it


class Ask(NamedTuple):
    """What a loader worker is asked for: a request of a split, for training or not, and where to put its tensors."""

    split: str
    training: bool
    request: Request
    slot: int | None = None


@contextmanager
def encoding(key: str) -> Iterator[None]:
    """Says of an error which sample made it."""
    try:
        yield
    except Exception as error:
        error.add_note(f"while sample {key!r} was encoded")
        raise


class RequestDataset(Dataset):
    """Turns an `Ask` into a batch; what a loader worker runs.

    Args:
        seed: of what is random in training.
        stages: of the user's own; training samples go through them.
    """

    def __init__(
        self,
        readers: Mapping[str, SplitReader],
        task: BaseTask,
        *,
        seed: int,
        stages: OwnStages = OwnStages(),  # noqa: B008  # frozen
    ):
        self.readers = readers
        self.task = task
        self.seed = seed
        self.stages = stages
        self.memory: BatchMemory | None = None

    def __getitem__(self, ask: Ask) -> tuple[Batch | SightlineError, int | None]:
        """The batch of a request. What is wrong with the data is handed over like one: a loader would raise it anew
        with its worker's traceback in the text."""
        try:
            if self.memory is not None and ask.slot is not None:
                return self.memory.fill(lambda: self._batch(ask), ask.slot, len(ask.request.positions)), ask.slot
            with written_to(BatchRows(len(ask.request.positions))):
                return self._batch(ask), ask.slot
        except SightlineError as error:
            return error, ask.slot

    def batch_bytes(self, ask: Ask) -> int:
        """What the tensors of this batch take, judged by its first sample; texts may be twice as long."""
        rows = BatchRows(1)
        with written_to(rows):
            batch = self._batch(ask._replace(request=replace(ask.request, positions=ask.request.positions[:1])))
        small = sum(value.nbytes for value in batch.values() if isinstance(value, torch.Tensor)) - rows.num_bytes
        return len(ask.request.positions) * (rows.num_bytes + 2 * max(0, small)) + _SPARE_BYTES

    def _batch(self, ask: Ask) -> Batch:
        stages = self.stages if ask.training else OwnStages()
        (batch,) = wds.DataPipeline(
            lambda: iter(ask.request.positions),
            lambda positions: self._read(positions, ask),
            *map(_load, stages.records),
            wds.map(self._encode),
            *map(_load, stages.examples),
            lambda samples: self._collate(samples, ask),
        )
        return batch

    # the stages

    def _read(self, positions: Iterable[int], ask: Ask) -> Iterator[Sample]:
        # All are read before the first is encoded: what is damaged is told before any work.
        for record in [self.readers[ask.split].read(position) for position in positions]:
            seed = derive_seed(self.seed, ask.request.epoch, record.key) if ask.training else None
            yield {"__key__": record.key, "record": record, "seed": seed}

    def _encode(self, sample: Sample) -> Sample:
        with encoding(sample["__key__"]):
            return {**sample, "example": self.task.encode(sample["record"], sample["seed"])}

    def _collate(self, found: Iterable[Sample], ask: Ask) -> Iterator[Batch]:
        samples = list(found)
        keys = [sample["__key__"] for sample in samples]
        if self.stages.names:
            self._check_stages(keys, ask)
        batch = self.task.collate([sample["example"] for sample in samples])
        batch["keys"] = keys
        batch["is_stand_in"], batch["num_step_images"] = ask.request.is_stand_in, ask.request.num_step_images
        if not ask.training:
            records = [sample["record"] for sample in samples]
            batch["items"] = [item for record in records for item in self.task.items(record)]
            batch["truths"] = [truth for record in records for truth in self.task.truths(record)]
        yield batch

    def _check_stages(self, keys: list[str], ask: Ask) -> None:
        planned = self.readers[ask.split].keys(ask.request.positions)
        if keys != planned:
            raise DataError(
                "a stage of your own lost, added or moved samples of a batch",
                value=f"{len(keys)} samples: {', '.join(keys[:3])} ...",
                where=f"loader.stages: {', '.join(self.stages.names)}",
                allowed=f"those that came in, in order: {len(planned)} samples: {', '.join(planned[:3])} ...",
            )
