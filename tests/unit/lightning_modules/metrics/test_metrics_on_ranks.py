"""Official metrics over several processes: real gloo groups give the digits of one process, with any gather, and in a
stranger's LightningModule."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader

from contracts.errors import DataError
from lightning_modules.metrics.caption_scores import CaptionScores
from lightning_modules.metrics.measurement import values_of
from lightning_modules.ops.gather import gather_tensors, gather_tensors_to_first
from pipeline.training.fit import quiet_lightning
from tests.metric_cases import cases
from tests.ranks import call
from tests.unit.lightning_modules.metrics.test_item_metric import NAMES, fill

WORLDS = (1, 2, 3)
MOST = 150  # items: more take long and show nothing else
GATHERS = {"torchmetrics": None, "ours": gather_tensors}


def some(case: Any, chosen: list[int]) -> tuple[list[Any], list[Any]]:
    return [case.predictions[i] for i in chosen], [case.truths[i] for i in chosen]


def share(count: int, rank: int, world: int) -> list[int]:
    """Uneven parts in another order, a fifth of them twice; of three ranks one has nothing."""
    order = [i * 7919 % count for i in range(count)] if count % 7919 else list(range(count))
    cut = count if world == 1 else 2 * count // 3
    if rank == 0:
        return order[:cut] + order[: cut // 5]
    return order[cut:] + order[: count // 5] if rank == world - 1 else []


def look(case: Any, rank: int, world: int, dist_sync_fn: Any) -> dict[str, float]:
    metric = case.build(dist_sync_fn=dist_sync_fn)
    mine = share(min(MOST, len(case.truths)), rank, world)
    for start in range(0, len(mine), 40):
        metric.update(*some(case, mine[start : start + 40]))
    values = {name: float(value) for name, value in metric.compute().items()}
    assert values_of(metric.measure()) == values
    assert len(metric.ids()) == min(MOST, len(case.truths))
    assert set(metric._by_id()) == {case.truths[i]["id"] for i in mine}, "its own again"
    metric.expect([*metric.ids(), "missing"])
    with pytest.raises(DataError, match=r"missing \['missing'\], unexpected \[\]"):
        metric.measure()
    return values


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    made = pickle.loads((Path(folder) / "cases.pkl").read_bytes())
    results: dict[Any, Any] = {}
    for world in WORLDS:
        if rank >= world:
            continue
        dist.init_process_group(
            "gloo", store=dist.FileStore(f"{folder}/store{world}", world), rank=rank, world_size=world
        )
        for name, case in made.items():
            for gather, dist_sync_fn in GATHERS.items():
                if gather == "ours" or world == 3:
                    results[world, name, gather] = look(case, rank, world, dist_sync_fn)
        metric = made["classes"].build(sync_on_compute=False)
        metric.update(*some(made["classes"], [rank]))
        metric.sync(dist_sync_fn=gather_tensors_to_first)
        results[world, "first"] = list(metric._by_id())
        metric.unsync()
        nothing = made["classes"].build()
        results[world, "nothing"] = nothing.ids()
        dist.destroy_process_group()
    (Path(folder) / f"rank{rank}.pkl").write_bytes(pickle.dumps(results))


@pytest.fixture(scope="module")
def made(shared_dir):
    return cases(shared_dir)


@pytest.fixture(scope="module")
def results(made, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gloo")
    (folder / "cases.pkl").write_bytes(pickle.dumps(made))
    call(folder, work, str(folder), world=max(WORLDS))
    return [pickle.loads((folder / f"rank{rank}.pkl").read_bytes()) for rank in range(max(WORLDS))]


@pytest.mark.parametrize("name", NAMES)
def test_every_rank_of_every_world_gives_the_digits_of_one_process(made, results, name):
    case = made[name]
    metric = case.build()
    metric.update(*some(case, list(range(min(MOST, len(case.truths))))))
    expected = {key: float(value) for key, value in metric.compute().items()}
    seen = 0
    for rank, of_rank in enumerate(results):
        for (world, case_name, *gather), values in of_rank.items():
            if case_name == name:
                assert values == expected, (rank, world, gather)  # to the last digit
                seen += 1
    assert seen == 1 + 2 + 3 + 3


def test_rank_0_alone_can_be_told_all_and_no_item_at_all_is_no_error(results):
    for world in WORLDS:
        assert results[0][world, "first"] == list(range(world))
        assert [results[rank][world, "first"] for rank in range(1, world)] == [[rank] for rank in range(1, world)]
        assert all(results[rank][world, "nothing"] == [] for rank in range(world))


class Stranger(pl.LightningModule):
    """What somebody else's module looks like: nothing of ours but the metric."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.cider = CaptionScores(value="CIDEr")
        self.scores = CaptionScores()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        predictions, truths = zip(*batch, strict=True)
        self.cider.update(predictions, truths)
        self.log("cider", self.cider, batch_size=len(batch))
        self.scores.update(predictions, truths)

    def on_validation_epoch_end(self) -> None:
        self.log_dict({f"val/{name}": value for name, value in self.scores.compute().items()})
        self.scores.reset()


def logged_of_stranger(rank: int, folder: Path, items: list[Any], devices: int) -> None:
    trainer = pl.Trainer(
        accelerator="cpu", devices=devices, strategy="ddp_fork" if devices > 1 else "auto", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip
    (logged,) = trainer.validate(Stranger(), DataLoader(items, batch_size=8, collate_fn=list), verbose=False)
    (folder / "logged.pkl").write_bytes(pickle.dumps(logged))


@pytest.mark.parametrize("devices", [1, 2])
def test_a_strangers_module_logs_the_official_numbers(made, tmp_path, devices):
    quiet_lightning()
    case = made["captions"]
    items = list(zip(*some(case, list(range(101))), strict=True))  # an odd number: a rank gets one twice
    if devices == 1:
        logged_of_stranger(0, tmp_path, items, devices)
    else:
        call(tmp_path, logged_of_stranger, tmp_path, items, devices, world=1)  # of which Lightning makes two
    logged = pickle.loads((tmp_path / "logged.pkl").read_bytes())
    metric = fill(case.build(), type(case)(case.metric, {}, *map(list, zip(*items, strict=True)), {}))
    expected = {name: float(value) for name, value in metric.compute().items()}
    assert logged["cider"] == pytest.approx(expected["CIDEr"], rel=1e-12)
    assert {name.removeprefix("val/"): value for name, value in logged.items() if name != "cider"} == pytest.approx(
        expected, rel=1e-12
    )
