"""Shards of an object store come to this machine before they are read: those of the next window while one is read.

Whoever reads a shard that is not there yet waits for it, so nothing depends on this but time. Several ranks of a
machine share a cache, which fetches once what they all ask for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import numpy as np

from contracts.errors import DataError
from pipeline.loading.sampling import Request
from pipeline.shards.reader import SplitReader
from pipeline.shards.stores import patience

THREADS = 4  # shards under way at once
_PATIENCE_S = 10.0  # the reader itself is patient, and tells what fails


@contextmanager
def fetched_ahead(reader: SplitReader, requests: Sequence[Request], reach: int) -> Iterator[Callable[[int], None]]:
    """In this block, shards of an object store are fetched before their turn.

    Args:
        requests: those to come, in order.
        reach: how many requests to look ahead (`reach_of`).

    Yields:
        what is to be told how many requests are done.
    """
    waiting = deque(_first_uses(reader, requests))
    pool = ThreadPoolExecutor(THREADS, "shards-ahead")

    def fetch(shard: int) -> None:
        with suppress(DataError), patience(_PATIENCE_S):
            reader.fetch(shard)

    def advance(done: int) -> None:
        while waiting and waiting[0][0] <= done + reach:
            pool.submit(fetch, waiting.popleft()[1])

    try:
        advance(0)
        yield advance
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def reach_of(reader: SplitReader, num_requests: int, window: int) -> int:
    """Of an epoch's requests those that a window of shards takes, or as much of one as the cache has room for beside
    the window that is read."""
    room = reader.shards_held / window - 1
    return int(num_requests * window / len(reader.shards) * min(1.0, max(0.0, room)))


def _first_uses(reader: SplitReader, requests: Sequence[Request]) -> list[tuple[int, int]]:
    """Which request is the first to need a shard, for each of these in the order of need."""
    positions = np.array([position for request in requests for position in request.positions], np.int64)
    numbers = np.repeat(np.arange(len(requests)), [len(request.positions) for request in requests])
    shards, firsts = np.unique(reader.columns["shard"][positions], return_index=True)
    return sorted(zip(numbers[firsts].tolist(), shards.tolist(), strict=True))
