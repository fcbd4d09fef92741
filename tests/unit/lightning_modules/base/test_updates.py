"""Optimizers and schedules by name, rates by part, and what freezing leaves as it is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from contracts.errors import ConfigError
from lightning_modules.base.optimizer import OPTIMIZERS, OptimizerConfig, PartConfig, Phase, laid_over, lr_factor
from lightning_modules.base.updates import (
    find_part,
    freeze,
    frozen_modules,
    hold_norms,
    make_optimizer,
    make_schedules,
    step_plateau,
)
from lightning_modules.blocks.backbones import build_backbone


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = build_backbone("small")
        self.head = nn.Sequential(nn.Linear(224, 8), nn.LayerNorm(8), nn.Linear(8, 3))

    def forward(self, x):
        return self.head(self.backbone(x)["c5"].mean(dim=(2, 3)))


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    torch.manual_seed(0)
    return Tiny()


OWN = {
    "adamw": (torch.optim.AdamW, {"betas": (0.8, 0.9), "eps": 1e-5}),
    "adam": (torch.optim.Adam, {"betas": (0.8, 0.9), "eps": 1e-5}),
    "sgd": (torch.optim.SGD, {"momentum": 0.5, "nesterov": True}),
    "rmsprop": (torch.optim.RMSprop, {"alpha": 0.9, "eps": 1e-5, "momentum": 0.5, "centered": True}),
    "adadelta": (torch.optim.Adadelta, {"rho": 0.95, "eps": 1e-5}),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_is_torchs_with_its_own_settings(tiny, name):
    cls, settings = OWN[name]
    assert settings.keys() == OPTIMIZERS[name].keys()
    optimizer = make_optimizer(tiny, OptimizerConfig(name=name, lr=0.25, **settings))
    assert type(optimizer) is cls
    assert all(group[setting] == value for group in optimizer.param_groups for setting, value in settings.items())
    default = make_optimizer(tiny, OptimizerConfig(name=name)).param_groups[0]
    torchs = cls([nn.Parameter(torch.zeros(1))], lr=0.25).param_groups[0]
    expected = {"momentum": 0.9} if name == "sgd" else {}
    assert {s: default[s] for s in settings} == {s: torchs[s] for s in settings} | expected


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"momentum": 0.5}, "optimizer adamw has no setting momentum(?s:.*)betas, eps(?s:.*)sgd, rmsprop has it"),
        ({"name": "sgd", "betas": (0.9, 0.99)}, "optimizer sgd has no setting betas"),
        ({"name": "adadelta", "alpha": 0.9}, "optimizer adadelta has no setting alpha"),
        ({"schedule": "constant", "factor": 0.1}, "schedule constant has no setting factor(?s:.*)none of its own"),
        ({"schedule": "step", "milestones": (1.0,), "final_lr_fraction": 0.1}, "schedule step has no setting final_lr"),
        ({"schedule": "step"}, "schedule step needs milestones"),
        ({"patience": 3}, "schedule cosine has no setting patience"),
    ],
)
def test_a_setting_of_another_is_refused_by_name(settings, said):
    with pytest.raises(ConfigError, match=said):
        OptimizerConfig(**settings)


def test_what_another_optimizer_or_schedule_has_is_not_handed_on():
    shared = {"name": "sgd", "lr": 1, "momentum": 0.5, "final_lr_fraction": 0.1, "parts": {"a": {"lr": 2}}}
    own = {"name": "rmsprop", "schedule": "step", "milestones": [2], "parts": {"b": {"lr": "0.1x"}}}
    assert laid_over(shared, own) == {
        "lr": 1, "momentum": 0.5, "name": "rmsprop", "schedule": "step", "milestones": [2],
        "parts": {"a": {"lr": 2}, "b": {"lr": "0.1x"}},
    }  # fmt: skip
    assert "momentum" not in laid_over(shared, {"name": "adamw"})
    assert laid_over(shared, {"lr": 3}) == shared | {"lr": 3}
    assert laid_over(shared, {"name": "adamw", "momentum": 0.1})["momentum"] == 0.1, "said by the run: told"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"schedule": "linear", "final_lr_fraction": 0.5}, [0.25, 0.5, 0.75, 1, 1, 1 - 0.5 / 16, 1 - 1 / 16]),
        ({"schedule": "constant"}, [0.25, 0.5, 0.75, 1, 1, 1, 1]),
        ({"schedule": "step", "milestones": (1.0, 1.2), "factor": 0.5}, [0.25, 0.5, 0.75, 1, 1, 0.5, 0.25, 0.25]),
        ({"schedule": "plateau"}, [0.25, 0.5, 0.75, 1, 1, 1, 1]),
    ],
)
def test_rates_by_hand(settings, expected):
    config = OptimizerConfig(warmup_fraction=0.2, **settings)
    rates = [lr_factor(config, step, total_steps=20, steps_per_epoch=5) for step in range(len(expected))]
    assert rates == pytest.approx(expected)


def test_plateau_warms_up_then_follows_what_is_measured(tiny):
    config = OptimizerConfig(lr=0.8, schedule="plateau", factor=0.5, patience=2, warmup_fraction=0.4)

    def made():
        optimizer = make_optimizer(tiny, config)
        schedules = make_schedules(optimizer, Phase(2, config), steps_per_epoch=5, monitor="AP", mode="max")
        return optimizer, [schedule["scheduler"] for schedule in schedules]

    optimizer, (warmup, plateau) = made()
    rates = []
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        warmup.step()
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8])
    values = [0.5, 0.4, 0.50001, 0.3, 0.50001, 0.2, 0.1, 0.6]
    after = []
    for value in values:
        step_plateau([warmup, plateau], {"val/AP": torch.tensor(value)}, "AP")
        after.append(optimizer.param_groups[0]["lr"])
        # A new process: what a state keeps is enough to go on in the same way.
        again, (_, plateau_again) = made()
        again.load_state_dict(optimizer.state_dict())
        plateau_again.load_state_dict(plateau.state_dict())
        optimizer, plateau = again, plateau_again
    assert after == pytest.approx([0.8, 0.8, 0.8, 0.8, 0.4, 0.4, 0.2, 0.2])
    step_plateau([plateau], {}, "AP")  # an epoch without a validation
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.2)


def test_parts_have_their_own_rates_the_innermost_counts(tiny):
    parts = {"backbone": PartConfig(lr="0.1x"), "backbone.stages.3": PartConfig(lr=0.25), "head.0": PartConfig(lr="2x")}
    optimizer = make_optimizer(tiny, OptimizerConfig(lr=0.5, parts=parts, weight_decay=0.125))
    names = {id(p): name for name, p in tiny.named_parameters()}
    rates = {names[id(p)]: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    assert rates.keys() == set(names.values())
    assert rates["backbone.stages.0.0.weight"] == (pytest.approx(0.05), 0.125)
    assert rates["backbone.stages.3.norm1.bias"] == (0.25, 0.0)
    assert rates["head.0.weight"] == (1.0, 0.125)
    assert rates["head.2.weight"] == (0.5, 0.125) and rates["head.1.weight"] == (0.5, 0.0)


@pytest.mark.parametrize("lr", ["x", "0.1", "-1x", "1 x", 0, -0.5, "nanx"])
def test_no_rates(lr):
    with pytest.raises(ConfigError, match="lr"):
        PartConfig(lr=lr)


def test_freezing_up_to_a_level_and_back(tiny):
    config = OptimizerConfig(parts={"backbone": PartConfig(freeze_until="c3")})
    phase, given = Phase(1, config, freeze=("head.1",)), list(tiny.parameters())
    before = {name: value.clone() for name, value in tiny.state_dict().items()}
    freeze(tiny, phase, given)
    tiny.train()
    hold_norms(tiny, phase)
    optimizer = make_optimizer(tiny, config)
    tiny(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))).square().sum().backward()
    optimizer.step()
    still = {name for name, value in tiny.state_dict().items() if torch.equal(value, before[name])}
    assert still == {n for n in before if n.startswith(("backbone.stages.0", "backbone.stages.1", "head.1"))}
    freeze(tiny, Phase(1, OptimizerConfig(), freeze=("head.0",)), given)
    assert tiny.head[0].weight.grad is None and tiny.head[2].weight.grad is not None, "nothing old is left to step by"
    freeze(tiny, Phase(1, OptimizerConfig()), given)
    hold_norms(tiny, phase, held=False)
    assert all(p.requires_grad for p in given) and all(module.training for module in tiny.modules())


def test_names_that_are_no_parts(tiny):
    assert find_part(tiny, "backbone.stages.1", "x") is tiny.backbone.stages[1]
    with pytest.raises(ConfigError, match=r"(?s)no such part.*'backbon'.*backbone, head.*did you mean 'backbone'"):
        find_part(tiny, "backbon", "train.freeze")
    with pytest.raises(ConfigError, match=r"(?s)only a backbone.*allowed: backbone"):
        frozen_modules(tiny, Phase(1, OptimizerConfig(parts={"head": PartConfig(freeze_until="c2")})))


def test_nothing_left_to_train(tiny):
    given = list(tiny.parameters())
    freeze(tiny, Phase(1, OptimizerConfig(), freeze=("backbone", "head")), given)
    with pytest.raises(ConfigError, match="nothing is left to train"):
        make_optimizer(tiny, OptimizerConfig())
    freeze(tiny, Phase(1, OptimizerConfig()), given)
