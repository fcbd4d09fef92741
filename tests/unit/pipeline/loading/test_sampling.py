"""The plan: the same global batches for every world size, nothing lost, nothing twice."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.loading.sampling import (
    epoch_order,
    eval_requests,
    micro_batches,
    num_batches,
    shares,
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
        parts = [streams[r][b * accumulate + a] for r in range(world) for a in range(accumulate)]
        batches.append([p for part in parts if not part.is_stand_in for p in part.positions])
    return batches


@given(LAYOUTS, st.integers(0, 5), st.integers(0, 5), st.integers(1, 8), st.integers(1, 9))
def test_order_is_a_permutation_that_depends_on_its_arguments_alone(sizes, seed, epoch, window, nodes):
    settings = {"seed": seed, "epoch": epoch, "window": window, "batch_size": 7, "nodes": nodes}
    order = epoch_order(sizes, **settings)
    assert sorted(order) == list(range(sum(sizes)))
    np.testing.assert_array_equal(order, epoch_order(sizes, **settings))


def test_epochs_and_seeds_differ():
    orders = [
        epoch_order([50, 50], seed=s, epoch=e, window=2, batch_size=8).tolist() for s in range(3) for e in range(3)
    ]
    assert len({tuple(order) for order in orders}) == 9


@pytest.mark.parametrize(("machines", "per_machine"), [(1, 1), (2, 1), (4, 1), (8, 1), (2, 4)])
@pytest.mark.parametrize("micro_batch_size", [None, 1])
def test_a_machine_reads_the_shards_of_its_canonical_nodes_alone(machines, per_machine, micro_batch_size):
    """Eight canonical nodes: the plan is one, whatever the number of machines, and each reads its part of the shards,
    of which those at its ends are a neighbor's, too; in the next epoch the same ones."""
    sizes, batch_size, nodes = [13] * 160, 48, 8
    world, accumulate = machines * per_machine, micro_batches(batch_size, machines * per_machine, micro_batch_size)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    read: list[set[int]] = [set() for _ in range(machines)]
    for epoch in range(3):
        order = epoch_order(sizes, seed=1, epoch=epoch, window=16, batch_size=batch_size, nodes=nodes)
        for rank in range(world):
            options = {"batch_size": batch_size, "world": world, "rank": rank, "accumulate": accumulate}
            for request in train_requests(order, epoch=epoch, **options):
                read[rank // per_machine].update(owner[list(request.positions)].tolist())
    assert max(map(len, read)) <= 160 / machines + 2
    assert sum(map(len, read)) <= 160 + machines - 1


def test_a_window_is_mixed_in_each_part_and_no_other():
    """Four canonical nodes and a window of eight: two shards at a time of each."""
    order = epoch_order([10] * 40, seed=1, epoch=0, window=8, batch_size=4, nodes=4)
    for number in range(4):
        shards = order[number::4] // 10
        for first in range(0, 100, 20):
            assert len(set(shards[first : first + 20].tolist())) == 2
    assert len(set((order[0::4] // 10).tolist())) == 10


@given(LAYOUTS, st.integers(1, 20), st.integers(2, 6), st.data())
def test_batches_of_like_length_have_their_share_of_each_part(sizes, batch_size, nodes, data):
    lengths = np.array(data.draw(st.lists(st.integers(1, 30), min_size=sum(sizes), max_size=sum(sizes))))
    settings = {"seed": 1, "window": 4, "batch_size": batch_size, "nodes": nodes}
    one, other = (epoch_order(sizes, epoch=epoch, lengths=lengths, **settings) for epoch in (0, 1))
    assert sorted(one) == sorted(other) == list(range(sum(sizes)))
    bounds = np.cumsum([0, *shares(batch_size, min(nodes, batch_size))])
    for lo, hi in itertools.pairwise(bounds):  # what comes from a part is of that part in each epoch
        full = len(one) // batch_size * batch_size
        taken = [set(order[:full].reshape(-1, batch_size)[:, lo:hi].ravel().tolist()) for order in (one, other)]
        assert len(taken[0] ^ taken[1]) <= 2 * batch_size  # the last batch, which is short, may have others


def test_no_more_than_window_shards_are_mixed():
    order = epoch_order([10] * 12, seed=1, epoch=0, window=3, batch_size=8)
    shards = order // 10
    for first in range(0, 120, 30):
        assert len(set(shards[first : first + 30].tolist())) == 3


@given(LAYOUTS, st.integers(1, 17), st.sampled_from(SHAPES), st.integers(0, 3), st.integers(1, 4))
def test_global_batches_do_not_depend_on_world_size_or_accumulation(sizes, factor, shape, epoch, nodes):
    world, accumulate = shape
    order = epoch_order(sizes, seed=3, epoch=epoch, window=4, batch_size=factor, nodes=nodes)
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
