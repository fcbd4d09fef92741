"""Requests of many clients become batches: a queue, and one thread that runs the model.

A batch is run as soon as it is full, or when its first record has waited `wait_s`. torch uses all cores for one batch,
so that a second thread would only take them away from the first.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from contracts.records import Record

Answers = list[dict[str, Any]]
PredictBatch = Callable[[Sequence[Record]], list[Answers]]  # N records -> of each, an answer for each of its items


@dataclass(frozen=True)
class _Job:
    record: Record
    future: Future[Answers] = field(default_factory=Future)


class Batcher:
    """Runs `predict` on batches of what is submitted, in the order in which it came."""

    def __init__(self, predict: PredictBatch, size: int, wait_s: float):
        """Args:
        size: records in a batch, at most.
        wait_s: how long the first record of a batch waits for others; 0: only what is there already joins it.
        """
        self.size, self.wait_s = size, wait_s
        self.num_records = self.num_batches = 0  # that were run
        self._predict = predict
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        # A daemon: a second Ctrl-C must not wait for a batch that hangs.
        self._thread = threading.Thread(target=self._work, name="batches", daemon=True)
        self._thread.start()

    def submit(self, record: Record) -> Future[Answers]:
        """The answers to come. What `predict` raises for this record alone is raised by the future."""
        job = _Job(record)
        self._jobs.put(job)
        return job.future

    def close(self) -> None:
        """Run what was submitted, then end the thread."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            batch, closing = self._fill(job)
            if live := [job for job in batch if job.future.set_running_or_notify_cancel()]:
                self._run(live)
            if closing:
                return

    def _fill(self, first: _Job) -> tuple[list[_Job], bool]:
        """A batch, and whether the queue was closed meanwhile."""
        batch, until = [first], time.monotonic() + self.wait_s
        while len(batch) < self.size:
            try:
                job = self._jobs.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if job is None:
                return batch, True
            batch.append(job)
        return batch, False

    def _run(self, batch: list[_Job]) -> None:
        """One that cannot be answered must not take the others with it: then each is run alone."""
        try:
            answers = self._predict([job.record for job in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0].future.set_exception(error)
            else:
                for job in batch:
                    self._run([job])
            return
        self.num_records += len(batch)
        self.num_batches += 1
        for job, answer in zip(batch, answers, strict=True):
            job.future.set_result(answer)
