"""Which sample is read by whom and when: pure functions of numbers.

The order of an epoch depends on (seed, epoch, shard sizes, batch size) and the number of canonical nodes alone, and,
where a task asks for batches of like length, on lengths. Global batch b takes samples [bB, (b+1)B) of it.
World size, rank, accumulation and loader workers only decide who reads which part, so any number of them sees
the same batches, and a position is one number.

Canonical nodes (MosaicML Streaming's word): the shards are cut into so many parts once and for all, and each global
batch takes its share of each part. Ranks follow each other in a global batch, so that where their machines divide the
canonical nodes, a machine reads the shards of its own parts and no others.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from contracts.seeds import derive_seed

POOL = 20  # batches that are sorted by length together


def split_range(length: int, parts: int, index: int) -> tuple[int, int]:
    """The half-open range of part `index` when `length` items are cut into `parts` that differ by at most one."""
    return length * index // parts, length * (index + 1) // parts


def shares(length: int, parts: int) -> list[int]:
    """The sizes of the parts that `split_range` cuts."""
    return [hi - lo for lo, hi in (split_range(length, parts, index) for index in range(parts))]


def epoch_order(
    shard_sizes: Sequence[int],
    *,
    seed: int,
    epoch: int,
    window: int,
    batch_size: int,
    nodes: int = 1,
    lengths: np.ndarray | None = None,
) -> np.ndarray:
    """The order in which an epoch reads samples, as positions in the concatenation of all shards.

    In each canonical node's part shards are shuffled, then samples inside each window of consecutive shards, so a
    reader has at most `window` shards open and reading stays nearly sequential.

    Args:
        window: shards that are mixed, those of all parts together; at least one of each.
        batch_size: samples of a global batch, which takes its share of each part.
        nodes: canonical nodes.
        lengths: (N,) int64, of each sample, where global batches are to be of like length.

    Returns:
        (N,) int64 permutation of `range(sum(shard_sizes))`.
    """
    nodes = min(nodes, batch_size)  # a batch has something of each
    rng = np.random.default_rng(derive_seed("epoch_order", seed, epoch))
    parts = []
    for share, pieces in zip(shares(batch_size, nodes), _pieces(shard_sizes, seed, batch_size, nodes), strict=True):
        part = _mixed(pieces, rng, max(1, window // nodes))
        if lengths is not None:
            part = like_lengths(part, lengths[part], batch_size=share, seed=seed, epoch=epoch)
        parts.append(part)
    return _in_batches(parts, batch_size)


def _pieces(shard_sizes: Sequence[int], seed: int, batch_size: int, nodes: int) -> list[list[np.ndarray]]:
    """For each canonical node the shards of its part, each as its positions: the same ones in every epoch. A shard
    between two parts is cut, so that each part has just what all global batches take of it."""
    sizes = np.asarray(shard_sizes, np.int64)
    starts, shards = np.cumsum(sizes) - sizes, np.flatnonzero(sizes)
    if nodes > 1:  # else the epoch's own shuffling does it
        shards = np.random.default_rng(derive_seed("canonical_nodes", seed)).permutation(shards)
    order = np.concatenate([np.arange(starts[s], starts[s] + sizes[s]) for s in shards])
    full, last = divmod(len(order), batch_size)
    of_each = zip(shares(batch_size, nodes), shares(last, nodes), strict=True)
    borders = np.cumsum([0, *(full * of_full + of_last for of_full, of_last in of_each)])
    ends = np.cumsum(sizes[shards])
    return [
        np.split(order[lo:hi], ends[(lo < ends) & (ends < hi)] - lo) for lo, hi in itertools.pairwise(borders.tolist())
    ]


def _mixed(pieces: Sequence[np.ndarray], rng: np.random.Generator, window: int) -> np.ndarray:
    """The pieces shuffled, and the positions inside each window of so many."""
    order = rng.permutation(len(pieces))
    windows = [[pieces[i] for i in order[first : first + window]] for first in range(0, len(order), window)]
    return np.concatenate([rng.permutation(np.concatenate(together)) for together in windows])


def _in_batches(parts: Sequence[np.ndarray], batch_size: int) -> np.ndarray:
    """Global batches one after another, in each the shares of the parts, in their order."""
    full, last = divmod(sum(len(part) for part in parts), batch_size)
    owners = [np.repeat(np.arange(len(parts)), shares(size, len(parts))) for size in (batch_size, last)]
    owner = np.concatenate([np.tile(owners[0], full), owners[1]])
    order = np.empty(len(owner), np.int64)
    for number, part in enumerate(parts):
        order[owner == number] = part
    return order


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

    A global batch is cut into `world * accumulate` parts; part `rank * accumulate + a` is the a-th micro-batch of
    `rank`.
    """
    parts = world * accumulate
    for b in range(start, num_batches(len(order), batch_size)):
        batch = order[b * batch_size : (b + 1) * batch_size]
        for a in range(accumulate):
            lo, hi = split_range(len(batch), parts, rank * accumulate + a)
            chosen = batch[lo:hi] if hi > lo else batch[min(lo, len(batch) - 1) :][:1]  # what neighbors read, too
            yield Request(tuple(chosen.tolist()), epoch, len(batch), is_stand_in=hi == lo)


def eval_requests(num_samples: int, *, batch_size: int, world: int, rank: int) -> Iterator[Request]:
    """Every sample exactly once over all ranks, in order; a rank without any has a stand-in."""
    lo, hi = split_range(num_samples, world, rank)
    if lo == hi and num_samples:
        yield Request((0,), epoch=0, is_stand_in=True)
    for first in range(lo, hi, batch_size):
        yield Request(tuple(range(first, min(first + batch_size, hi))), epoch=0)
