"""Whether an exported model says what the trained one says: both are asked the same, and every output is compared.

The exported one stands in the model's place (`BaseFamily.Stand`), so that the task itself makes predictions of what it
says, by the same decoding, and measures both by the official metric. Beside it, how long each takes.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from contracts.errors import ConfigError, DataError
from contracts.records import Record
from lightning_modules.base.module import TaskModule
from lightning_modules.base.task import BaseTask, Batch
from pipeline.predicting.graphs._family import BaseFamily, Size, family_of
from pipeline.predicting.graphs._parts import exportable
from pipeline.predicting.graphs._refused import reason_for
from pipeline.predicting.graphs._writing import quiet, write_graphs
from pipeline.shards.manifest import load_manifest
from pipeline.shards.reader import open_splits
from pipeline.training.checkpoints import load_module

BATCH_SIZE = 8
LATENCY_BATCHES = (1, 8)
TOLERANCE = 1e-3
_WARM_UPS, _REPEATS = 2, 7


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A model's graphs, loaded.

    Attributes:
        stand: called as the model is, and runs the graphs.
        sessions: by the graph's name.
    """

    family: BaseFamily
    stand: nn.Module
    sessions: Mapping[str, Any]
    graphs: Sequence[Any]


@dataclass(frozen=True, kw_only=True)
class Parity:
    """
    Attributes:
        differences: largest absolute difference of each output over all samples.
        metrics: (of torch, of ONNX) by the official name; `metric` is the task's own.
    """

    split: str
    num_samples: int
    num_items: int
    metric: str
    differences: Mapping[str, float]
    metrics: Mapping[str, tuple[float, float]]

    def holds(self, tolerance: float = TOLERANCE) -> bool:
        """Whether the task's metric differs by no more than `tolerance`, of a metric above 1 of so large a share."""
        if self.metric not in self.metrics:
            return not self.metrics
        own, other = self.metrics[self.metric]
        return abs(own - other) <= tolerance * max(1.0, abs(own))


def export_model(module: TaskModule, name: str, folder: Path) -> Exported:
    """Write the graphs of a model to `folder` and load them.

    Args:
        name: of the model's file in `lightning_modules/models`.

    Raises:
        ConfigError: this model is not exported, and why.
        ExportFailed: torch's exporter does not take it, or ONNX Runtime the file.
    """
    refuse(module, name)
    family = family_of(module.task.spec_class.protocol)
    assert family is not None
    model = exportable(module.model)
    with quiet():
        graphs = family.graphs(model, image_size(module.task))
    sessions = write_graphs(graphs, model, folder)
    return Exported(family=family, stand=family.Stand(sessions), sessions=sessions, graphs=graphs)


def refuse(module: TaskModule, name: str) -> None:
    """Raises:
    ConfigError: the model called `name` is not exported, and why.
    """
    if (reason := reason_for(name, module.task.spec_class, module.model)) is not None:
        raise ConfigError(f"the model {name} cannot be exported to ONNX: {reason}", fix="docs/export.md lists all")


def image_size(task: BaseTask) -> Size:
    """(height, width) of the images that the task makes; (0, 0) of one that reads texts alone."""
    config: Any = task.config
    if hasattr(config, "image_height"):
        return config.image_height, config.image_width
    return (config.image_size, config.image_size) if hasattr(config, "image_size") else (0, 0)


def export_parity(
    checkpoint: Path, shards: Path, split: str, metric: str | None = None, *, samples: int | None = None
) -> tuple[float, float]:
    """The official metric of a checkpoint by torch and by ONNX Runtime, for a gate to compare.

    Args:
        shards: the data set's folder. metric: the task's own, if not given. samples: the first so many; None: all.

    Raises:
        ConfigError: the model is not exported, or the task has no such metric.
        ExportFailed: it should be, and cannot.
        DataError: there is nothing to measure.
    """
    module, document = load_module(checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        exported = export_model(module, document["run"]["model_name"], Path(folder))
        parity = compare(module, exported, read_records(shards, split, module.task, samples), split)
    name = metric or parity.metric
    if name not in parity.metrics:
        raise ConfigError("no such metric", value=name, allowed=", ".join(parity.metrics) or "nothing was measured")
    return parity.metrics[name]


def read_records(shards: Path, split: str, task: BaseTask, samples: int | None) -> Iterator[Record]:
    """The first `samples` records of a split that the task can be measured on; None: all.

    Raises:
        DataError: there is no such split, or nothing in it.
    """
    readers = open_splits(shards, load_manifest(shards))
    if split not in readers:
        raise DataError("no such split", value=split, where=str(shards), allowed=", ".join(readers))
    positions = readers[split].select(task.eval_requires)
    if not len(positions):
        raise DataError(f"split {split!r} has no sample that this task can use", where=str(shards))
    return (readers[split].read(int(position)) for position in positions[:samples])


@torch.inference_mode()
def compare(module: TaskModule, exported: Exported, records: Iterable[Record], split: str) -> Parity:
    """Ask both for every record, by the task's own encoding and decoding, and measure both."""
    task, twice = module.task, Twice(module.model, exported)
    own: dict[str, Any] = {}
    other: dict[str, Any] = {}
    truths: dict[str, Any] = {}
    groups: dict[str, str] = {}
    num_samples, rest = 0, iter(records)
    while some := list(islice(rest, BATCH_SIZE)):
        num_samples += len(some)
        items = [item for record in some for item in task.items(record)]
        truths |= {item.id: t for item, t in zip(items, (t for r in some for t in task.truths(r)), strict=True)}
        groups |= {item.id: item.group for item in items}
        for predictions, model in ((own, module.model), (other, twice)):
            found = task.predict(model, batch_of(task, some))
            predictions |= {item.id: one for item, one in zip(items, found, strict=True)}
    values = [task.score(predictions, truths) for predictions in (own, other)]
    return Parity(
        split=split,
        num_samples=num_samples,
        num_items=len(truths),
        metric=task.metric,
        differences=twice.differences,
        metrics={name: (value, values[1][name]) for name, value in values[0].items() if name in values[1]},
    )


def batch_of(task: BaseTask, records: Sequence[Record]) -> Batch:
    """Encoded as in validation."""
    batch = task.collate([task.encode(record, None) for record in records])
    batch["keys"] = [record.key for record in records]
    return batch


class _Proxy(nn.Module):
    """Has the methods of a protocol that `model` has; each calls `_called(name, *arguments)`."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self._model = (model,)  # in a tuple: not a part of this one
        for name in vars(type(model)):
            if not name.startswith("_") and callable(getattr(model, name)) and name != "forward":
                object.__setattr__(self, name, partial(self._called, name))

    def forward(self, *arguments: Any, **named: Any) -> Any:
        return self._called("__call__", *arguments, **named)

    def _called(self, name: str, *arguments: Any, **named: Any) -> Any:
        raise NotImplementedError


class Twice(_Proxy):
    """Stands for the model: each call goes to the graphs and to the model, and the graphs' answer is handed on.

    Attributes:
        differences: the largest so far, by output: of a method `<method>.<output>`.
    """

    def __init__(self, model: nn.Module, exported: Exported):
        super().__init__(exported.stand)
        self._own, self._family = (model,), exported.family
        self._only = exported.graphs[0].outputs[-1].name  # of a call that gives one tensor
        self.differences: dict[str, float] = {}

    def _called(self, name: str, *arguments: Any, **named: Any) -> Any:
        (model,), (stand,) = self._own, self._model
        answer = getattr(stand, name)(*arguments, **named)
        if answer is not None:
            found = self._family.differences(getattr(model, name)(*arguments, **named), answer)
            for output, value in found.items():
                label = f"{name}{output.removeprefix('output')}" if name != "__call__" else output
                label = self._only if label == "output" else label
                self.differences[label] = max(value, self.differences.get(label, 0.0))
        return answer


class Timed(_Proxy):
    """Stands for the model and counts the seconds that its calls take: what the task does besides is not counted."""

    def __init__(self, model: nn.Module):
        super().__init__(model)
        self.seconds = 0.0

    def _called(self, name: str, *arguments: Any, **named: Any) -> Any:
        (model,) = self._model
        begin = time.perf_counter()
        try:
            return getattr(model, name)(*arguments, **named)
        finally:
            self.seconds += time.perf_counter() - begin


@torch.inference_mode()
def latencies(module: TaskModule, exported: Exported, records: Sequence[Record]) -> list[dict[str, float]]:
    """Milliseconds a record on this machine's CPU, of both, at batches of `LATENCY_BATCHES`: the median of several.

    Args:
        records: repeated where there are fewer than a batch has.
    """
    out = []
    for size in LATENCY_BATCHES:
        batch = batch_of(module.task, list(islice(cycle(records), size)))
        row: dict[str, float] = {"batch": size}
        for name, model in (("torch_ms", module.model), ("onnx_ms", exported.stand)):
            row[name] = round(1000 * _median_s(partial(_seconds, module.task, model, batch)) / size, 3)
        out.append(row)
    return out


def _seconds(task: BaseTask, model: nn.Module, batch: Batch) -> float:
    timed = Timed(model)
    task.predict(timed, batch)
    return timed.seconds


def _median_s(seconds: Callable[[], float]) -> float:
    for _ in range(_WARM_UPS):
        seconds()
    return statistics.median(seconds() for _ in range(_REPEATS))
