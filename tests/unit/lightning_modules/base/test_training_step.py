"""What a training step takes in: the schedule's rates, the groups of parameters, and nothing from a stand-in."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from contracts.errors import ConfigError
from lightning_modules.base.module import TaskModule
from lightning_modules.base.optimizer import OptimizerConfig, Phase, lr_factor
from pipeline.loading.datamodule import TarDataModule, with_step_counts
from pipeline.settings.params import Params, load_params
from pipeline.settings.sections import LoaderConfig
from pipeline.training.checkpoints import build_module
from pipeline.training.runs import load_run
from tests.shipped import SHIPPED

SHORT = OptimizerConfig(lr=0.5, warmup_fraction=0.2, final_lr_fraction=0.1)


def rate(step: int, config: OptimizerConfig = SHORT, total_steps: int = 20) -> float:
    return lr_factor(config, step, total_steps=total_steps, steps_per_epoch=5)


def test_the_schedule_by_hand():
    """Four steps up, then half a cosine over the other sixteen: at its quarters (2 +- sqrt 2) / 4 and a half."""
    rates = [rate(step) for step in range(20)]
    assert rates[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert rates[8] == pytest.approx(0.1 + 0.9 * (2 + 2**0.5) / 4)
    assert rates[12] == pytest.approx(0.55)
    assert rates[16] == pytest.approx(0.1 + 0.9 * (2 - 2**0.5) / 4)
    assert rates[4:] == sorted(rates[4:], reverse=True) and 0.1 < rates[19] < 0.11
    assert rate(20) == rate(99) == pytest.approx(0.1)


def test_the_schedule_at_its_limits():
    steep = OptimizerConfig(warmup_fraction=0.0, final_lr_fraction=0.0)
    rates = [rate(step, steep, 4) for step in range(4)]
    assert rates[:2] == [1.0, 1.0], "the first step is never left out"
    assert rate(0, OptimizerConfig(warmup_fraction=1.0), 1) == 1.0


def module_with(optimizer: OptimizerConfig, steps_per_epoch: int = 5, epochs: int = 4) -> TaskModule:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2), nn.Linear(2, 2))
    model[3].requires_grad_(False)
    module = TaskModule(SimpleNamespace(), model, [Phase(epochs, optimizer)])
    module._trainer = SimpleNamespace(datamodule=SimpleNamespace(steps_per_epoch=steps_per_epoch))
    return module


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_weights_decay_biases_and_norms_do_not(name):
    config = OptimizerConfig(name=name, lr=0.5, weight_decay=0.25, **({"momentum": 0.75} if name == "sgd" else {}))
    module = module_with(config)
    [optimizer], _ = module.configure_optimizers()
    assert type(optimizer) is {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[name]
    names = {id(parameter): name for name, parameter in module.model.named_parameters()}
    decayed, plain = ([names[id(p)] for p in group["params"]] for group in optimizer.param_groups)
    assert decayed == ["0.weight", "2.weight"]
    assert plain == ["0.bias", "1.weight", "1.bias", "2.bias"]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.25, 0.0]
    assert [group["initial_lr"] for group in optimizer.param_groups] == [0.5, 0.5]
    if name == "sgd":
        assert [group["momentum"] for group in optimizer.param_groups] == [0.75, 0.75]


def test_the_optimizer_gets_the_schedules_rates():
    [optimizer], [made] = module_with(SHORT).configure_optimizers()
    schedule = made["scheduler"]
    assert made["interval"] == "step"
    for step in range(20):
        expected = 0.5 * rate(step)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([expected, expected])
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize("wrong", [{"lr": 0.0}, {"momentum": 1.0}, {"warmup_fraction": 1.5}])
def test_rates_that_make_no_sense(wrong):
    with pytest.raises(ConfigError):
        OptimizerConfig(**wrong)


@pytest.fixture
def training(tiny_project):
    """A run's module in training mode, and one batch of its first global batch."""

    def build(run: str):
        data = load_run(tiny_project, Params({**load_params(tiny_project.root).document, "runs": SHIPPED}), run)
        torch.manual_seed(0)
        module = build_module(data.run.to_dict(), data.spec).train()
        folder = tiny_project.shards(data.run.dataset)
        loaded = TarDataModule(
            folder, module.task, LoaderConfig(), batch_size=4, micro_batch_size=2, eval_batch_size=4, seed=0
        )
        module._trainer = SimpleNamespace(world_size=1, accumulate_grad_batches=2, current_epoch=0, global_rank=0)
        module.log = module.log_dict = lambda *_, **__: None
        return module, next(iter(loaded.train_dataloader()))

    return build


@pytest.mark.parametrize("run", SHIPPED)
def test_a_stand_in_leaves_no_trace(training, run):
    module, batch = training(run)
    names = [name for name, buffer in module.named_buffers() if "running" in name and not torch.isnan(buffer).any()]
    assert len(names) > 10
    before = {name: value.clone() for name, value in module.state_dict().items()}
    for is_stand_in in (True, False):
        module.on_train_batch_start({**batch, "is_stand_in": is_stand_in}, 0)
        module.training_step({**batch, "is_stand_in": is_stand_in}, 0).backward()
        moved = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
        gradients = [p.grad.abs().sum() for p in module.parameters() if p.grad is not None]
        if is_stand_in:
            assert not moved and sum(gradients) == 0
            module.zero_grad()
        else:
            assert moved >= set(names[:4]) and sum(gradients) > 0


def test_a_step_counts_all_its_micro_batches_but_no_stand_ins():
    def batch(count: int, is_stand_in: bool = False):
        return {"counts": {"a": count, "b": 2 * count}, "is_stand_in": is_stand_in}

    batches = [batch(3), batch(5), batch(7, True), batch(1), batch(2), batch(4)]
    counted = [one["step_counts"] for one in with_step_counts(iter(batches), 3)]
    assert counted == [{"a": 8, "b": 16}] * 3 + [{"a": 7, "b": 14}] * 3


def test_batches_that_count_images_alone_are_handed_on_one_by_one():
    def endless():
        while True:
            yield {"is_stand_in": False}

    assert next(with_step_counts(endless(), 1_000_000_000)) == {"is_stand_in": False, "step_counts": {}}
