"""Batches of like length: less padding, and still one order for all, with every sample once."""

from __future__ import annotations

import gzip
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import ConfigError
from contracts.text import pieces
from pipeline.loading.datamodule import TarDataModule
from pipeline.loading.sampling import POOL, epoch_order, like_lengths, num_batches, train_requests
from pipeline.settings.params import load_params
from pipeline.settings.sections import LoaderConfig
from pipeline.training.checkpoints import build_task
from pipeline.training.runs import load_run
from tests.unit.pipeline.loading.test_sampling import global_batches

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=150)
SHAPES = [(world, accumulate) for world in (1, 2, 3) for accumulate in (1, 2, 5)]


def plan(lengths: np.ndarray, batch_size: int, *, seed: int = 3, epoch: int = 0) -> np.ndarray:
    order = epoch_order([len(lengths)], seed=seed, epoch=epoch, window=1, batch_size=batch_size)
    return like_lengths(order, lengths[order], batch_size=batch_size, seed=seed, epoch=epoch)


@given(LENGTHS, st.integers(1, 9), st.integers(0, 3), st.integers(0, 3))
def test_every_sample_once_near_its_place_and_the_same_each_time(lengths, batch_size, seed, epoch):
    lengths = np.array(lengths)
    order = epoch_order([len(lengths)], seed=seed, epoch=epoch, window=1, batch_size=batch_size)
    found = plan(lengths, batch_size, seed=seed, epoch=epoch)
    np.testing.assert_array_equal(found, plan(lengths, batch_size, seed=seed, epoch=epoch))
    for first in range(0, len(order), POOL * batch_size):
        pool = np.s_[first : first + POOL * batch_size]
        assert sorted(found[pool]) == sorted(order[pool])


@given(LENGTHS, st.integers(1, 9), st.integers(0, 3))
def test_no_two_batches_of_a_pool_share_lengths_but_at_their_borders(lengths, batch_size, epoch):
    lengths = np.array(lengths)
    found = lengths[plan(lengths, batch_size, epoch=epoch)]
    for first in range(0, len(found), POOL * batch_size):
        pool = found[first : first + POOL * batch_size]
        full = [pool[b : b + batch_size] for b in range(0, len(pool) - batch_size + 1, batch_size)]
        ranges = sorted((int(batch[0]), int(batch[-1])) for batch in full)
        assert all(one[1] <= next_[0] for one, next_ in pairwise(ranges))
        assert all((np.diff(batch) >= 0).all() for batch in full)


@given(LENGTHS, st.integers(1, 9), st.sampled_from(SHAPES), st.integers(0, 2))
def test_global_batches_do_not_depend_on_world_size_or_micro_batches(lengths, batch_size, shape, epoch):
    order = plan(np.array(lengths), batch_size, epoch=epoch)
    expected = [order[i : i + batch_size].tolist() for i in range(0, len(order), batch_size)]
    world, accumulate = shape
    assert global_batches(order, batch_size, world, accumulate) == expected
    assert len(expected) == num_batches(len(lengths), batch_size)
    for rank in range(world):  # from the middle on is the rest of the whole
        options = {"epoch": epoch, "batch_size": batch_size, "world": world, "rank": rank, "accumulate": accumulate}
        whole, start = list(train_requests(order, **options)), len(expected) // 2
        assert list(train_requests(order, **options, start=start)) == whole[start * accumulate :]


def test_epochs_differ_in_batches_in_their_order_and_in_the_short_one():
    lengths = np.arange(4 * 7 + 3) % 13
    epochs = [plan(lengths, 4, epoch=epoch) for epoch in range(30)]
    assert len({tuple(order) for order in epochs}) == 30
    assert len({int(lengths[order[0]]) for order in epochs}) > 3, "not from the shortest to the longest"
    short = [lengths[order[-3:]].max() for order in epochs]
    assert min(short) < 4 and max(short) > 9, "the short batch has any lengths"
    assert len({tuple(sorted(order[-3:])) for order in epochs}) > 10


@pytest.mark.parametrize(("batch_size", "before", "after"), [(32, 0.435, 0.06), (64, 0.48, 0.07), (128, 0.518, 0.08)])
def test_padding_of_multi30k(shared_dir: Path, batch_size: int, before: float, after: float) -> None:
    file = shared_dir / "data/multi30k/data/task1/raw/train.de.gz"
    if not file.is_file():
        pytest.skip(f"{file} is not there: Multi30k (github.com/multi30k/dataset) lies in the shared folder only")
    lines = gzip.decompress(file.read_bytes()).decode().split("\n")[:29_000]
    lengths = np.array([len(pieces(line)) + 2 for line in lines])

    def padding(order: np.ndarray) -> float:
        batches = [lengths[order[i : i + batch_size]] for i in range(0, len(order), batch_size)]
        return 1 - lengths.sum() / sum(len(batch) * batch.max() for batch in batches)

    assert padding(epoch_order([1000] * 29, seed=3, epoch=0, window=8, batch_size=batch_size)) == pytest.approx(
        before, abs=0.01
    )
    assert padding(plan(lengths, batch_size)) < after


def module(project, *, column: str | None = "num_objects", world: int = 1, rank: int = 0, micro: int | None = None):
    """Of samples with as many "words" as they have objects."""
    data = load_run(project, load_params(project.root), "instances")
    task = build_task(data.run.to_dict(), data.spec)
    task.length_column = column
    sizes = {"batch_size": 8, "micro_batch_size": micro, "eval_batch_size": 4}
    config = LoaderConfig()
    return TarDataModule(project.shards(data.run.dataset), task, config, seed=3, world=world, rank=rank, **sizes)


def test_a_task_asks_by_a_column_of_the_index(tiny_project):
    data = module(tiny_project)
    objects = data.reader("train").count("num_objects")
    plain, alike = (module(tiny_project, column=column).train_plan(0) for column in (None, "num_objects"))
    assert sorted(p for ask in plain for p in ask.request.positions) == sorted(
        p for ask in alike for p in ask.request.positions
    )

    def spread(asks) -> float:
        return float(np.mean([np.ptp(objects[list(ask.request.positions)]) for ask in asks]))

    assert spread(alike) < 0.6 * spread(plain)
    data.train_dataloader()
    largest = data._loader.largest.request.positions
    assert objects[largest[0]] == max(objects[a.request.positions[0]] for a in alike if len(a.request.positions) == 8)
    data.close()


def test_two_ranks_go_on_where_one_stopped(tiny_project):
    whole = [batch["keys"] for batch in module(tiny_project).train_dataloader()]
    first = module(tiny_project).train_dataloader()
    batches = iter(first)
    assert [next(batches)["keys"] for _ in range(2)] == whole[:2]
    state = first.state_dict()
    assert state == {"epoch": 0, "batches": 2}
    ranks = []
    for rank in range(2):
        loader = module(tiny_project, world=2, rank=rank, micro=2).train_dataloader()
        loader.load_state_dict(state)
        ranks.append([batch["keys"] for batch in loader])
    assert len(ranks[0]) == len(ranks[1]) == 2 * (len(whole) - 2)
    for b, keys in enumerate(whole[2:]):
        assert list(chain.from_iterable(ranks[rank][2 * b + a] for rank in range(2) for a in range(2))) == keys


def test_a_length_that_no_record_tells_is_refused_by_name(tiny_project):
    with pytest.raises(ConfigError, match=r"(?s)nothing of a record is counted.*'num_words'.*length.*length_column"):
        module(tiny_project, column="num_words").train_plan(0)
