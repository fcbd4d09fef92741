"""A step is the mean over the global batch, however it is cut into micro-batches and among workers.

Every shipped task and model, real steps of `fit` in one process and in two with gloo between them. What mixes images or
draws at random by place in the batch is turned off: norms over images, dropout, sampled anchors and proposals.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import yaml
from pytorch_lightning.plugins.environments import TorchElasticEnvironment
from pytorch_lightning.strategies import DDPStrategy

from lightning_modules.base.module import TaskModule
from pipeline.settings.params import load_params
from pipeline.stages.fetch import fetch
from pipeline.stages.shard import shard
from pipeline.stages.vocab import vocab
from pipeline.system.project import Project
from pipeline.training.fit import Placement, fit
from pipeline.training.runs import load_run
from pipeline.training.stopping import Stopped
from tests.ranks import call
from tests.shipped import SHIPPED, tiny_datasets

pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.usefixtures("one_thread")]

BATCH, MICRO = 8, (1, 2, 8)
IMAGES = 11  # two steps: of eight images and of three, where some have only a stand-in
ALL = 100_000
EVEN = {  # where a model has such a setting; the second line is for speed
    "norm": "group", "dropout": 0.0, "rpn_batch": ALL, "roi_batch": ALL, "rpn_nms_threshold": 1.0,
    "channels": 16, "box_head": 32, "mask_channels": (8,), "rpn_post_nms_train": 16,
}  # fmt: skip
Steps = list[dict[str, torch.Tensor]]


class Environment(TorchElasticEnvironment):
    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        pass


def gradients(arguments: dict[str, Any], micro: int, placement: Placement, state: Path) -> Steps:
    """The gradients of both steps as the optimizer would get them."""
    steps: Steps = []

    def record(module: TaskModule, optimizer: Any, **_: Any) -> None:
        named = module.model.named_parameters()
        steps.append({name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in named})
        for group in optimizer.param_groups:
            group["lr"] = 0.0  # the second step with the same weights
        if len(steps) == 2:
            raise Stopped

    run = {**arguments["run"], "train": {**arguments["run"]["train"], "micro_batch_size": micro}}
    state.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TaskModule, "configure_gradient_clipping", record)
        with pytest.raises(Stopped):
            fit(run, arguments["data"], arguments["shards"], str(state), placement)
    return steps


def work(rank: int, folder: Path, cases: dict[str, dict[str, Any]]) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "GROUP_RANK": str(rank), "LOCAL_RANK": "0", "WORLD_SIZE": "2"}
    os.environ["TORCHELASTIC_RUN_ID"] = "tests"
    dist.init_process_group("gloo", store=dist.FileStore(str(folder / "store"), 2), rank=rank, world_size=2)
    found = {}
    for name, arguments in cases.items():
        for micro in MICRO:
            placement = Placement(2, rank, DDPStrategy(find_unused_parameters=True), (Environment(),), False)
            found[name, micro] = gradients(arguments, micro, placement, folder / f"{name}-{micro}")
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> dict[str, dict[str, Any]]:
    """Arguments of `fit` for every shipped run."""
    folder = tmp_path_factory.mktemp("eleven")
    train = {"max_epochs": 1, "batch_size": BATCH, "gradient_clip_norm": None, "precision": "32-true"}
    document = {"datasets": tiny_datasets(IMAGES, 2), "runs": SHIPPED, "train": train, "cluster": {"engine": "local"}}
    (folder / "params.yaml").write_text(yaml.safe_dump(document))
    project, params = Project(folder), load_params(folder)
    for dataset in params.document["datasets"]:
        for stage in (fetch, shard, vocab):
            stage(project, params, dataset)
    found = {}
    for name in SHIPPED:
        data = load_run(project, params, name)
        run = data.run.to_dict()
        run["model"] |= {key: value for key, value in EVEN.items() if key in run["model"]}
        found[name] = {"run": run, "data": data.spec.to_dict(), "shards": str(project.shards(data.run.dataset))}
    return found


@pytest.fixture(scope="module")
def of_two(cases, tmp_path_factory) -> list[dict[tuple[str, int], Steps]]:
    """What each of two ranks found."""
    folder = tmp_path_factory.mktemp("two")
    call(folder, work, folder, cases, world=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Length of the difference of two gradients, as a share of the first's."""
    a, b = (torch.cat([value.flatten() for value in each.values()]) for each in (one, other))
    return float((a - b).norm() / a.norm())


@pytest.mark.parametrize("run", SHIPPED)
def test_gradients_do_not_depend_on_micro_batches_and_workers(cases, of_two, tmp_path, run):
    whole = gradients(cases[run], BATCH, Placement(), tmp_path / "whole")
    assert difference(*whole) > 0.1, "both steps are alike"
    found = {("1 worker", m): gradients(cases[run], m, Placement(), tmp_path / str(m)) for m in MICRO[:-1]}
    for m in MICRO:
        assert [difference(*pair) for pair in zip(of_two[0][run, m], of_two[1][run, m], strict=True)] == [0, 0]
        found["2 workers", m] = of_two[0][run, m]
    for how, steps in found.items():
        for expected, step in zip(whole, steps, strict=True):
            assert difference(expected, step) < 5e-5, how
