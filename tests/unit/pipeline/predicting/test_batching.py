"""Batches: how large they become, in which order, and that one bad record spoils no other's answer."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from contracts.records import Record
from pipeline.predicting.batching import Answers, Batcher


class Model:
    """Answers with the record's key; waits in front of the first batch until it is let go; refuses the key `bad`."""

    def __init__(self) -> None:
        self.go, self.started = threading.Event(), threading.Event()
        self.batches: list[list[str]] = []

    def __call__(self, records: Sequence[Record]) -> list[Answers]:
        self.started.set()
        assert self.go.wait(10)
        self.batches.append([record.key for record in records])
        if "bad" in self.batches[-1]:
            raise ValueError("bad")
        return [[{"key": record.key}] for record in records]


def record(key: Any) -> Record:
    return Record(key=str(key), image_id=0)


@pytest.fixture
def model():
    model = Model()
    yield model
    model.go.set()


def test_what_comes_meanwhile_becomes_full_batches_in_order(model: Model) -> None:
    batcher = Batcher(model, size=4, wait_s=0.0)
    futures = [batcher.submit(record(0))]
    assert model.started.wait(10)
    futures += [batcher.submit(record(i)) for i in range(1, 11)]
    model.go.set()
    assert [future.result(10) for future in futures] == [[{"key": str(i)}] for i in range(11)]
    assert [len(batch) for batch in model.batches] == [1, 4, 4, 2]
    assert (batcher.num_records, batcher.num_batches) == (11, 4)
    batcher.close()


def test_the_first_of_a_batch_waits_for_others(model: Model) -> None:
    model.go.set()
    batcher = Batcher(model, size=2, wait_s=30.0)
    first = batcher.submit(record("a"))
    with pytest.raises(TimeoutError):
        first.result(0.05)
    second = batcher.submit(record("b"))  # it is full: nobody waits 30 s
    assert (first.result(5), second.result(5)) == ([{"key": "a"}], [{"key": "b"}])
    assert model.batches == [["a", "b"]]
    batcher.close()


def test_one_that_cannot_be_answered_fails_alone(model: Model) -> None:
    batcher = Batcher(model, size=3, wait_s=30.0)
    futures = [batcher.submit(record(key)) for key in ("a", "bad", "c")]
    model.go.set()
    assert futures[0].result(10) == [{"key": "a"}] and futures[2].result(10) == [{"key": "c"}]
    with pytest.raises(ValueError, match="bad"):
        futures[1].result(10)
    batcher.close()


def test_what_was_submitted_is_answered_before_it_closes(model: Model) -> None:
    batcher = Batcher(model, size=2, wait_s=30.0)
    futures = [batcher.submit(record(i)) for i in range(3)]
    model.go.set()
    batcher.close()
    assert [future.result(0) for future in futures] == [[{"key": str(i)}] for i in range(3)]


def test_nobody_computes_what_nobody_waits_for(model: Model) -> None:
    batcher = Batcher(model, size=1, wait_s=0.0)
    first, second, third = (batcher.submit(record(i)) for i in range(3))
    assert model.started.wait(10)
    assert second.cancel()
    model.go.set()
    first.result(10), third.result(10)
    assert model.batches == [["0"], ["2"]]
    batcher.close()
