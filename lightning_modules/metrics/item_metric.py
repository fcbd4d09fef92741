"""What all official metrics of this folder are: a `torchmetrics.Metric` over items with ids.

Official scores are of a split, not of batches: CIDEr's word weights, AP's ranking and each rule on ties need all items.
So the state is what is kept of each item, with its id, and the number is computed once from all of them. What a
distributed sampler delivers twice is counted once, in any order, on any number of ranks: the same digits.

torchmetrics gathers tensors, so items are kept as bytes in uint8 tensors, which every `dist_sync_fn` can carry: its own
through the ranks' backend (NCCL takes them through the GPU's memory), `ops.gather.gather_tensors` through gloo.
"""

from __future__ import annotations

import io
import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors

from contracts.errors import ConfigError, DataError
from lightning_modules.metrics.groups import by_group
from lightning_modules.metrics.measurement import Measurement

Id = str | int
Item = Mapping[str, Any]
_Row = tuple[Id, Hashable, Any]
_NUM_NAMED = 5  # ids that an error lists
_PLAIN = (np.ndarray, np.generic, str, bytes, int, float, list, tuple, dict, type(None))
_ARRAYS = {
    ("numpy", "ndarray"), ("numpy", "dtype"), ("numpy._core.numeric", "_frombuffer"),
    ("numpy._core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "scalar"),
}  # fmt: skip


class ItemMetric(Metric, ABC):
    """Metrics that are computed together over the items of a split.

    `update(predictions, truths)` takes two lists of dicts with an `id` each, a text or a whole number; a truth may have
    a `group` (image, video, document), which is drawn as a whole for an interval. `compute()` gives every official
    number by name as a float64 tensor (), `measure()` what each is and how it changes when items are drawn again.
    Where there is nothing to measure, the number is left out.

    Args:
        value: the name of the one number that `compute` gives, as `LightningModule.log` wants it; None: all by name.
        **settings: of `torchmetrics.Metric`, such as `dist_sync_fn`.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True
    encoded: list[Tensor]

    def __init__(self, *, value: str | None = None, **settings: Any):
        super().__init__(**settings)
        self.value = value
        self._expected: frozenset[Id] | None = None
        self.add_state("encoded", default=[], dist_reduce_fx="cat")

    # for the metric at hand

    @property
    def layout(self) -> str:
        """What is kept of items. `MetricCollection` lets metrics that keep the same share it."""
        return type(self).__name__

    @abstractmethod
    def keep(self, prediction: Item, truth: Item) -> Any:
        """What is kept of an item: plain values and arrays; `part` reads them.

        Raises:
            DataError: a part that is missing or of another shape.
        """

    @abstractmethod
    def measure_kept(self, kept: Mapping[Id, Any], groups: Mapping[Id, Hashable]) -> list[Measurement]:
        """The numbers of all items, by rising id; `groups` has the group of each, its own id where it has none."""

    # torchmetrics

    def update(self, predictions: Sequence[Item], truths: Sequence[Item]) -> None:
        """Take some items in: each prediction with the truth of the same id, in any number and order.

        Raises:
            DataError: predictions and truths of different ids, or an item without what the metric needs.
        """
        if len(predictions) != len(truths):
            raise DataError(
                "there must be one prediction for each truth", value=len(predictions), allowed=str(len(truths))
            )
        rows = [self._row(prediction, truth) for prediction, truth in zip(predictions, truths, strict=True)]
        data = bytearray(pickle.dumps((self.layout, rows), protocol=5))
        self.encoded.append(torch.frombuffer(data, dtype=torch.uint8))

    def compute(self) -> Tensor | dict[str, Tensor]:
        """The official numbers of all items of all ranks; the one called `value`, if that was asked for.

        Raises:
            DataError: other items than `expect` was told of.
        """
        values = {name: v for measurement in self._measured() for name, v in measurement.values.items()}
        if self.value is None:
            return {name: self._number(v) for name, v in values.items() if v == v}
        if self.value not in values:
            raise ConfigError(
                f"{type(self).__name__} has no such number", value=self.value, allowed=", ".join(sorted(values))
            )
        return self._number(values[self.value])

    def measure(self) -> list[Measurement]:
        """The same with what each number is, and its resampling. Gathers the items anew: every rank calls it."""
        with self._gathered():
            return self._measured()

    def ids(self) -> list[Id]:
        """Of all items that all ranks have, once each, in order. Gathers: every rank calls it."""
        with self._gathered():
            return list(self._by_id())

    def expect(self, ids: Collection[Id] | None) -> None:
        """Let `compute` and `measure` refuse other items than these; None: any will do."""
        self._expected = None if ids is None else frozenset(ids)

    def measure_items(self, items: Iterable[tuple[Id, Hashable, Item, Item]]) -> list[Measurement]:
        """What `measure` says of these items alone, (id, group, prediction, truth) each, on this process. The state is
        not looked at; items are seen one by one."""
        rows = {
            key: (key, group, self.keep({**prediction, "id": key}, {**truth, "id": key}))
            for key, group, prediction, truth in items
        }
        return self._measured_rows({key: rows[key] for key in sorted(rows, key=_order)})

    def _number(self, value: float) -> Tensor:
        exact = torch.float32 if self.device.type == "mps" else torch.float64
        return torch.tensor(value, dtype=exact, device=self.device)

    def _row(self, prediction: Item, truth: Item) -> _Row:
        item_id = _plain(part(truth, "id", "truth"))
        if not isinstance(item_id, Id):
            raise DataError("an id is a text or a whole number", value=item_id)
        if prediction.get("id") != item_id:
            raise DataError("a prediction for another item", value=prediction.get("id"), allowed=f"id {item_id!r}")
        return item_id, truth.get("group", item_id), self.keep(prediction, truth)

    @contextmanager
    def _gathered(self) -> Iterator[None]:
        already = self._is_synced
        with self.sync_context(
            dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync and not already, should_unsync=not already
        ):
            yield

    def _sync_dist(
        self, dist_sync_fn: Callable[..., list[Tensor]] = gather_all_tensors, process_group: Any | None = None
    ) -> None:
        # torchmetrics would send float32 for a rank without items, which no other rank's bytes fit.
        own = torch.cat([torch.zeros(0, dtype=torch.uint8), *(one.cpu() for one in self.encoded)])
        through_backend = dist_sync_fn is gather_all_tensors
        self.encoded = [own.to(self.device) if through_backend else own]
        super()._sync_dist(dist_sync_fn, process_group)  # type: ignore[no-untyped-call]

    def rows(self) -> Iterator[tuple[Id, Hashable, Any]]:
        """Id, group and what was kept of all that was delivered to this rank, however often; between `sync` and
        `unsync`, to all."""
        encoded = self.encoded if isinstance(self.encoded, list) else [self.encoded]  # a synced state is one tensor
        for one in encoded:
            yield from _decoded(one)

    def _by_id(self) -> dict[Id, _Row]:
        """Each once, by rising id."""
        rows = {row[0]: row for row in self.rows()}
        return {key: rows[key] for key in sorted(rows, key=_order)}

    def _measured(self) -> list[Measurement]:
        rows = self._by_id()
        if self._expected is not None and self._expected != rows.keys():
            raise DataError(
                f"{type(self).__name__} saw {len(rows)} of {len(self._expected)} items",
                where=f"missing {_named(self._expected - rows.keys())}, "
                f"unexpected {_named(rows.keys() - self._expected)}",
            )
        return self._measured_rows(rows)

    def _measured_rows(self, rows: Mapping[Id, _Row]) -> list[Measurement]:
        return self.measure_kept(
            {key: kept for key, _, kept in rows.values()}, {key: group for key, group, _ in rows.values()}
        )


def by_groups(measurements: Iterable[Measurement], groups: Mapping[Id, Hashable]) -> list[Measurement]:
    """Each drawn again by the groups of the items, which `groups` has in the order of its columns."""
    return [by_group(measurement, list(groups), groups) for measurement in measurements]


def part(item: Item, name: str, side: Literal["prediction", "truth"]) -> Any:
    """What an item has under `name`, tensors as numpy arrays (bfloat16 as float32).

    Raises:
        DataError: nothing, or what is neither a plain value nor an array.
    """
    if name not in item:
        raise DataError(f"a {side} without {name!r}", value=sorted(item), where=f"item {item.get('id')!r}")
    return _plain(item[name])


def text(item: Item, name: str, side: Literal["prediction", "truth"]) -> str:
    """The same, which must be a text."""
    value = part(item, name, side)
    if not isinstance(value, str):
        raise DataError(f"{name!r} of a {side} is a text", value=value, where=f"item {item['id']!r}")
    return value


def texts(item: Item, name: str, side: Literal["prediction", "truth"]) -> list[str]:
    """The same, which must be several texts, or none: not one text, whose letters would be taken for them."""
    values = part(item, name, side)
    if isinstance(values, str) or not all(isinstance(value, str) for value in values):
        raise DataError(f"{name!r} of a {side} is a list of texts", value=values, where=f"item {item['id']!r}")
    return list(values)


def array(item: Item, name: str, side: Literal["prediction", "truth"], shape: tuple[int, ...]) -> np.ndarray:
    """The same as an array of `shape`, in which -1 is any length; empty ones are taken for `(0, ..)`.

    Raises:
        DataError: of another shape.
    """
    values = np.asarray(part(item, name, side))
    if not values.size and shape[0] < 0 and min(shape[1:], default=0) >= 0:
        return values.reshape(0, *shape[1:])
    if values.ndim != len(shape) or any(a not in (-1, b) for a, b in zip(shape, values.shape, strict=True)):
        sides = ", ".join("any" if length < 0 else str(length) for length in shape)
        raise DataError(
            f"{name!r} of a {side} has another shape", value=values.shape, where=f"item {item['id']!r}",
            allowed=f"({sides})",
        )  # fmt: skip
    return values


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    if not isinstance(value, _PLAIN):
        raise DataError("metrics take plain values, arrays and tensors", value=type(value).__name__)
    return value


class _ArrayUnpickler(pickle.Unpickler):
    """A state can come from another's checkpoint: nothing in it is run."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ARRAYS:
            raise DataError("the state of a metric holds what is neither a plain value nor an array", value=name)
        return super().find_class(module, name)


def _decoded(encoded: Tensor) -> Iterator[_Row]:
    data = encoded.cpu().numpy().tobytes()
    stream = io.BytesIO(data)
    while stream.tell() < len(data):
        yield from _ArrayUnpickler(stream).load()[1]


def _named(ids: Collection[Id]) -> list[Id]:
    return sorted(ids, key=_order)[:_NUM_NAMED]


def _order(item_id: Id) -> tuple[bool, Id]:
    """Numbers before texts."""
    return isinstance(item_id, str), item_id
