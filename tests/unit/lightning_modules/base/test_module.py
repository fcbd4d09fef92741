"""Validation over several processes: real gloo groups of one, two and three give the same digits."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from contracts.errors import DataError
from contracts.seeds import derive_seed
from lightning_modules.base.module import TaskModule
from lightning_modules.base.optimizer import OptimizerConfig, Phase
from lightning_modules.base.task import BaseTask, Batch, Item, Mean
from pipeline.loading.datamodule import TarDataModule
from pipeline.settings.params import Params, load_params
from pipeline.settings.sections import LoaderConfig
from pipeline.system.project import Project
from pipeline.training.checkpoints import build_task
from pipeline.training.reports import build_report
from pipeline.training.runs import load_run
from tests.ranks import call
from tests.shipped import SHIPPED

WORLDS = (1, 2, 3)
PER_BATCH = 3


class Replay:
    """A task whose predictions and losses stand in the batch."""

    def __init__(self, task: BaseTask):
        self.score, self.measure = task.score, task.measure

    def evaluate_batch(self, model: torch.nn.Module, batch: Batch) -> tuple[dict[str, Mean], list[Any]]:
        totals, counts = (sum(column) for column in zip(*batch["losses"], strict=True))
        return {"part": Mean(torch.tensor(totals), counts)}, batch["predictions"]


def loss_of(key: str) -> tuple[float, int]:
    """Sum and count of an item's loss: more to count, more of each."""
    count = 1 + derive_seed("count", key) % 50
    return float(count * count), count


def build(project: Project, run: str):
    """A run's task, and (item, prediction, truth) of its validation split: what `constant` predicts."""
    data = load_run(project, Params({**load_params(project.root).document, "runs": SHIPPED}), run)
    task = build_task(data.run.to_dict(), data.spec)
    folder = project.shards(data.run.dataset)
    loaded = TarDataModule(folder, task, LoaderConfig(), batch_size=4, micro_batch_size=None, eval_batch_size=4, seed=0)
    keys = loaded.eval_keys("val")
    records = [loaded.record("val", key) for key in keys]
    items = [item for record in records for item in task.items(record)]
    truths = dict(zip((i.id for i in items), (t for r in records for t in task.truths(r)), strict=True))
    constant = build_report(data.run.to_dict(), task).constant(truths)
    return task, [(item, constant[item.id], truths[item.id]) for item in items], list(keys)


def module_of(task, keys: list[str]) -> tuple[TaskModule, list[dict[str, float]]]:
    module = TaskModule(Replay(task), torch.nn.Identity(), [Phase(1, OptimizerConfig())])  # type: ignore[arg-type]
    module._trainer = SimpleNamespace(datamodule=SimpleNamespace(eval_keys=lambda split: keys))
    logged: list[dict[str, float]] = []
    module.log_dict = lambda values, **_: logged.append(dict(values))
    return module, logged


def validate(module: TaskModule, items: list[Any], stand_ins: list[Any] = ()) -> None:
    module.on_validation_epoch_start()
    groups = [(items[i : i + PER_BATCH], False) for i in range(0, len(items), PER_BATCH)]
    for index, (part, is_stand_in) in enumerate([*groups, *(([item], True) for item in stand_ins)]):
        items, predictions, truths = (list(column) for column in zip(*part, strict=True))
        batch = {"items": items, "predictions": predictions, "truths": truths, "is_stand_in": is_stand_in}
        batch["keys"] = list(dict.fromkeys(item.key for item in items))
        module.validation_step({**batch, "losses": [loss_of(item.id) for item in items]}, index)
    module.on_validation_epoch_end()


def share(items: list[Any], rank: int, world: int) -> tuple[list[Any], list[Any]]:
    """Uneven parts in another order, and every fifth item of another rank as a stand-in."""
    order = np.random.default_rng(world).permutation(len(items))
    cuts = np.sort(np.random.default_rng(world + 10).integers(0, len(items) + 1, world - 1))
    parts = np.split(order, cuts)
    return [items[i] for i in parts[rank]], [items[i] for i in parts[(rank + 1) % world][::5]]


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    cases = pickle.loads((Path(folder) / "cases.pkl").read_bytes())
    results: dict[Any, Any] = {}
    for world in WORLDS:
        if rank >= world:
            continue
        store = dist.FileStore(f"{folder}/store{world}", world)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
        for run, (task, items, keys) in cases.items():
            module, logged = module_of(task, keys)
            validate(module, *share(items, rank, world))
            results[world, run] = logged[0]
        dist.destroy_process_group()
    (Path(folder) / f"rank{rank}.pkl").write_bytes(pickle.dumps(results))


@pytest.fixture(scope="module")
def cases(tiny_project):
    return {run: build(tiny_project, run) for run in SHIPPED}


@pytest.fixture(scope="module")
def results(cases, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gloo")
    (folder / "cases.pkl").write_bytes(pickle.dumps(cases))
    call(folder, work, str(folder), world=max(WORLDS))
    return [pickle.loads((folder / f"rank{rank}.pkl").read_bytes()) for rank in range(max(WORLDS))]


@pytest.mark.parametrize("run", SHIPPED)
def test_every_world_size_gives_the_same_digits_on_every_rank(cases, results, run):
    task, items, _ = cases[run]
    expected = task.score({i.id: p for i, p, _ in items}, {i.id: t for i, _, t in items})
    assert task.metric in expected and len(expected) >= 2
    totals, counts = zip(*(loss_of(item.id) for item, _, _ in items), strict=True)
    loss = sum(totals) / sum(counts)
    assert abs(loss - np.mean(np.divide(totals, counts))) > 0.05 * loss, "a mean of means would be told from it"
    for world in WORLDS:
        for rank in range(world):
            values = results[rank][world, run]
            scores = {name.removeprefix("val/"): value for name, value in values.items()}
            assert scores.pop("part") == scores.pop("loss") == pytest.approx(loss, rel=1e-12)
            assert scores == expected  # to the last digit


def test_a_missing_or_a_foreign_sample_stops_the_validation(cases):
    task, items, keys = next(iter(cases.values()))
    module, _ = module_of(task, keys)
    with pytest.raises(DataError, match=f"(?s)saw {len(keys) - 1} of the {len(keys)}.*missing.*{items[3][0].key}"):
        validate(module, items[:3] + items[4:])
    with pytest.raises(DataError, match=r"(?s)unexpected \['foreign'\]"):
        validate(module, [*items, (Item("foreign", "foreign", "x"), *items[0][1:])])


def test_every_item_of_a_record_is_predicted_once(cases):
    task, items, keys = cases["vqa_lstm"]
    module, _ = module_of(task, keys)
    first = [row for row in items if row[0].key == keys[0]]
    assert len(first) > 1, "several questions of one image"

    def step(predictions, items=tuple(item for item, _, _ in first), truths=tuple(truth for _, _, truth in first)):
        batch = {"items": list(items), "truths": list(truths), "keys": keys[:1], "is_stand_in": False}
        module.on_validation_epoch_start()
        module.validation_step({**batch, "predictions": predictions, "losses": [(1.0, 1)]}, 0)

    predictions = [prediction for _, prediction, _ in first]
    step(predictions)
    with pytest.raises(DataError, match=f"(?s){len(first) - 1} predictions and {len(first)} truths.*{keys[0]}"):
        step(predictions[1:])
    with pytest.raises(DataError, match=f"(?s)of which twice: .'{first[0][0].id}'"):
        step(predictions, items=[first[0][0], *(item for item, _, _ in first[:-1])])


def test_two_records_do_not_share_an_items_id(cases):
    task, items, keys = next(iter(cases.values()))
    module, _ = module_of(task, keys)
    alike = items[1][0]._replace(id=items[0][0].id)
    with pytest.raises(DataError, match=f"(?s)one id.*{items[0][0].id}.*{keys[0]} and {keys[1]}"):
        validate(module, [items[0], (alike, *items[1][1:]), *items[2:]])


def test_predictions_are_kept_by_item_and_found_by_record(cases):
    task, items, keys = cases["vqa_lstm"]
    module, _ = module_of(task, keys)
    validate(module, items)
    assert list(module.items) == sorted(keys)
    assert module.groups == {item.id: item.group for item, _, _ in items}
    predictions, truths = module.of_record(keys[0])
    assert [p["question_id"] for p in predictions] == [t["question_id"] for t in truths]
    assert truths == [truth for item, _, truth in items if item.key == keys[0]], "in the record's order"


def test_the_tasks_scores_are_a_metric_of_what_was_collected(cases):
    task, items, keys = cases["vqa_lstm"]
    module, _ = module_of(task, keys)
    module.scores.collect(items)
    (measured,) = module.scores.measure()
    assert measured.num_clusters == len(keys), "images are drawn with all their questions"
    expected = task.score({i.id: p for i, p, _ in items}, {i.id: t for i, _, t in items})
    assert {name: float(value) for name, value in module.scores.compute().items()} == expected
    assert not module.state_dict(), "a checkpoint holds weights"


@pytest.mark.parametrize(("losses", "mean"), [([(0.0, 0)], 0.0), ([(float("nan"), 3)], float("nan"))])
def test_a_loss_of_nothing_is_0_and_one_that_is_not_finite_is_told(cases, losses, mean):
    task, items, keys = next(iter(cases.values()))
    module, logged = module_of(task, keys)
    for _ in range(2):  # one validation does not add to the next
        module.on_validation_epoch_start()
        batch = {"items": [i for i, _, _ in items], "predictions": [p for _, p, _ in items], "is_stand_in": False}
        module.validation_step({**batch, "truths": [t for _, _, t in items], "keys": keys, "losses": losses}, 0)
        module.on_validation_epoch_end()
    for values in logged:
        assert values["val/part"] == pytest.approx(mean, nan_ok=True)


def test_sums_of_losses_are_exact(cases):
    """In float32 a million and one would be lost in it."""
    task, items, keys = next(iter(cases.values()))
    module, logged = module_of(task, keys)
    module.on_validation_epoch_start()
    first, rest = items[:1], items[1:]
    for part, losses in ((first, (2.0**24, 1)), (rest, (1.0, 1))):
        batch = {"items": [i for i, _, _ in part], "predictions": [p for _, p, _ in part], "is_stand_in": False}
        keys_of_part = [i.key for i, _, _ in part]
        batch |= {"truths": [t for _, _, t in part], "keys": keys_of_part, "losses": [losses]}
        module.validation_step(batch, 0)
    module.on_validation_epoch_end()
    assert logged[0]["val/part"] == (2**24 + 1) / 2
