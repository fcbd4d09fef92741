"""The plan: the same global batches for every world size, nothing lost, nothing twice."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.loading.sampling import (
    epoch_order,
    eval_requests,
    micro_batches,
    num_batches,
    split_range,
    train_requests,
)

SHAPES = [(1, 1), (2, 1), (1, 2), (3, 2), (8, 1), (64, 1)]  # workers, micro-batches
LAYOUTS = st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(sum)


def global_batches(order: np.ndarray, batch_size: int, world: int, accumulate: int) -> list[list[int]]:
    """What all ranks together read for each global batch, put back in the plan's order; stand-ins left out."""
    streams = [
        list(train_requests(order, epoch=0, batch_size=batch_size, world=world, rank=r, accumulate=accumulate))
        for r in range(world)
    ]
    assert len({len(stream) for stream in streams}) == 1, "every rank must take the same number of steps"
    batches = []
    for b in range(num_batches(len(order), batch_size)):
        parts = [streams[r][b * accumulate + a] for a in range(accumulate) for r in range(world)]
        batches.append([p for part in parts if not part.is_stand_in for p in part.positions])
    return batches


@given(LAYOUTS, st.integers(0, 5), st.integers(0, 5), st.integers(1, 8))
def test_order_is_a_permutation_that_depends_on_its_arguments_alone(sizes, seed, epoch, window):
    order = epoch_order(sizes, seed=seed, epoch=epoch, window=window)
    assert sorted(order) == list(range(sum(sizes)))
    np.testing.assert_array_equal(order, epoch_order(sizes, seed=seed, epoch=epoch, window=window))


def test_epochs_and_seeds_differ():
    orders = [epoch_order([50, 50], seed=s, epoch=e, window=2).tolist() for s in range(3) for e in range(3)]
    assert len({tuple(order) for order in orders}) == 9


def test_no_more_than_window_shards_are_mixed():
    order = epoch_order([10] * 12, seed=1, epoch=0, window=3)
    shards = order // 10
    for first in range(0, 120, 30):
        assert len(set(shards[first : first + 30].tolist())) == 3


@settings(deadline=None)
@given(
    LAYOUTS, st.integers(1, 17), st.sampled_from([(1, 1), (2, 1), (1, 2), (3, 2), (8, 1), (64, 1)]), st.integers(0, 3)
)
def test_global_batches_do_not_depend_on_world_size_or_accumulation(sizes, factor, shape, epoch):
    world, accumulate = shape
    order = epoch_order(sizes, seed=3, epoch=epoch, window=4)
    expected = [order[i : i + factor].tolist() for i in range(0, len(order), factor)]
    assert global_batches(order, factor, world, accumulate) == expected


@given(st.integers(1, 50), st.integers(1, 16), st.integers(1, 9), st.integers(1, 3))
def test_every_part_knows_how_many_samples_its_global_batch_has(num_samples, batch_size, world, accumulate):
    order = np.arange(num_samples)
    streams = [
        list(train_requests(order, epoch=0, batch_size=batch_size, world=world, rank=r, accumulate=accumulate))
        for r in range(world)
    ]
    for b in range(num_batches(num_samples, batch_size)):
        parts = [streams[r][b * accumulate + a] for a in range(accumulate) for r in range(world)]
        counted = sum(len(part.positions) for part in parts if not part.is_stand_in)
        assert {part.num_step_images for part in parts} == {counted}


@given(st.integers(1, 60), st.integers(1, 64), st.integers(1, 9))
def test_evaluation_reads_every_sample_once(num_samples, world, batch_size):
    ranks = [list(eval_requests(num_samples, batch_size=batch_size, world=world, rank=r)) for r in range(world)]
    assert all(ranks), "a rank without a batch would not take part in the gathering"
    assert [p for rank in ranks for request in rank if not request.is_stand_in for p in request.positions] == list(
        range(num_samples)
    )


@given(st.integers(0, 100), st.integers(1, 20))
def test_split_range_covers_and_balances(length, parts):
    ranges = [split_range(length, parts, i) for i in range(parts)]
    assert [i for lo, hi in ranges for i in range(lo, hi)] == list(range(length))
    assert max(hi - lo for lo, hi in ranges) - min(hi - lo for lo, hi in ranges) <= 1


def test_start_skips_whole_global_batches():
    order = np.arange(20)
    whole = list(train_requests(order, epoch=2, batch_size=4, world=2, rank=1, accumulate=2))
    assert list(train_requests(order, epoch=2, batch_size=4, world=2, rank=1, accumulate=2, start=3)) == whole[6:]


@given(st.integers(1, 100), st.integers(1, 64), st.integers(1, 40))
def test_no_micro_batch_is_larger_than_allowed(batch_size, world, limit):
    accumulate = micro_batches(batch_size, world, limit)
    for rank in range(world):
        requests = train_requests(
            np.arange(batch_size), epoch=0, batch_size=batch_size, world=world, rank=rank, accumulate=accumulate
        )
        assert max(len(request.positions) for request in requests) <= limit
    assert accumulate == 1 or micro_batches(batch_size, world, -(-batch_size // world)) == 1
    assert micro_batches(batch_size, world, None) == 1
