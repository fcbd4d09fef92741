"""Which sample is read by whom and when: pure functions of numbers.

The order of an epoch depends on (seed, epoch, shard sizes) alone, and, where a task asks for batches of like length, on
lengths and batch size. Global batch b takes samples [bB, (b+1)B) of it.
World size, rank, accumulation and loader workers only decide who reads which part, so any number of them sees
the same batches, and a position is one number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from contracts.seeds import derive_seed

POOL = 20  # batches that are sorted by length together


def split_range(length: int, parts: int, index: int) -> tuple[int, int]:
    """The half-open range of part `index` when `length` items are cut into `parts` that differ by at most one."""
    return length * index // parts, length * (index + 1) // parts


def epoch_order(shard_sizes: Sequence[int], *, seed: int, epoch: int, window: int) -> np.ndarray:
    """The order in which an epoch reads samples, as positions in the concatenation of all shards.

    Shards are shuffled, then samples inside each window of `window` consecutive shards, so a reader has at most
    `window` shards open and reading stays nearly sequential.

    Returns:
        (N,) int64 permutation of `range(sum(shard_sizes))`.
    """
    rng = np.random.default_rng(derive_seed("epoch_order", seed, epoch))
    starts = np.concatenate([[0], np.cumsum(shard_sizes)]).astype(np.int64)
    shards = rng.permutation(len(shard_sizes))
    parts = []
    for first in range(0, len(shards), max(1, window)):
        positions = np.concatenate(
            [np.arange(starts[s], starts[s + 1]) for s in shards[first : first + max(1, window)]]
        )
        parts.append(rng.permutation(positions))
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def like_lengths(order: np.ndarray, lengths: np.ndarray, *, batch_size: int, seed: int, epoch: int) -> np.ndarray:
    """The same samples in an order whose global batches are of similar length, so that little of them is padding.

    `POOL` batches at a time are sorted by length together, as 1409.0473 does, cut up, and put in a random order.
    Samples stay near their place in `order`, so reading stays nearly sequential; those of equal length keep its order,
    which is random. Inside a batch they ascend, so its micro-batches are of still more similar length. A short batch
    stays the last one, with lengths of a random place of its pool: the longest are not always in it.

    Args:
        order: (N,) int64, an epoch's.
        lengths: (N,) int64, of the samples in `order`.
    """
    rng = np.random.default_rng(derive_seed("like_lengths", seed, epoch))
    parts = []
    for first in range(0, len(order), POOL * batch_size):
        pool = np.s_[first : first + POOL * batch_size]
        ranked = order[pool][np.argsort(lengths[pool], kind="stable")]
        num_full, num_left = divmod(len(ranked), batch_size)
        cut = batch_size * int(rng.integers(num_full + 1))
        full = np.delete(ranked, np.s_[cut : cut + num_left]).reshape(num_full, batch_size)
        parts += [rng.permutation(full).ravel(), ranked[cut : cut + num_left]]
    return np.concatenate(parts) if parts else order


@dataclass(frozen=True, slots=True)
class Request:
    """One micro-batch of one rank: what a loader worker is asked for.

    Attributes:
        positions: samples to read, in order.
        epoch: seeds the augmentation of these samples.
        num_step_images: samples of the whole global batch that it is a part of; 0 in validation.
        is_stand_in: a rank for which no sample was left repeats one, which counts for nothing.
    """

    positions: tuple[int, ...]
    epoch: int
    num_step_images: int = 0
    is_stand_in: bool = False


def num_batches(num_samples: int, batch_size: int) -> int:
    """Global batches of an epoch; the last one may be short, no sample is dropped."""
    return -(-num_samples // batch_size)


def micro_batches(batch_size: int, world: int, micro_batch_size: int | None) -> int:
    """Accumulation steps of each rank: as few as keep a rank's part of the global batch within `micro_batch_size`."""
    share = -(-batch_size // world)
    return 1 if micro_batch_size is None else -(-share // micro_batch_size)


def train_requests(
    order: np.ndarray, *, epoch: int, batch_size: int, world: int, rank: int, accumulate: int, start: int = 0
) -> Iterator[Request]:
    """The micro-batches of one rank from global batch `start` on, `accumulate` for each global batch.

    A global batch is cut into `world * accumulate` parts; part `a * world + rank` is the a-th micro-batch of `rank`.
    """
    parts = world * accumulate
    for b in range(start, num_batches(len(order), batch_size)):
        batch = order[b * batch_size : (b + 1) * batch_size]
        for a in range(accumulate):
            lo, hi = split_range(len(batch), parts, a * world + rank)
            chosen = batch[lo:hi] if hi > lo else batch[:1]
            yield Request(tuple(chosen.tolist()), epoch, len(batch), is_stand_in=hi == lo)


def eval_requests(num_samples: int, *, batch_size: int, world: int, rank: int) -> Iterator[Request]:
    """Every sample exactly once over all ranks, in order; a rank without any has a stand-in."""
    lo, hi = split_range(num_samples, world, rank)
    if lo == hi and num_samples:
        yield Request((0,), epoch=0, is_stand_in=True)
    for first in range(lo, hi, batch_size):
        yield Request(tuple(range(first, min(first + batch_size, hi))), epoch=0)
