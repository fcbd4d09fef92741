"""LRCN: the paper's sizes, what may depend on what, and what the controls cannot see."""

from __future__ import annotations

import pytest
import torch

from contracts.errors import ConfigError
from lightning_modules.base.families import FrameClassifierSpec
from lightning_modules.models.lrcn import Config, Model

SPEC = FrameClassifierSpec(num_classes=5)
SMALL = {"backbone": "tiny", "features": 12, "hidden": 7}


def model(**settings: object) -> Model:
    torch.manual_seed(0)
    return Model(Config(**{**SMALL, **settings}), SPEC).eval()  # type: ignore[arg-type]


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_papers_sizes() -> None:
    """lisa-caffe-public, examples/LRCN_activity_recognition: an LSTM of 256 on fc6 and 101 classes."""
    net = Model(Config(backbone="tiny", features=4096, hidden=256), FrameClassifierSpec(num_classes=101))
    assert count(net.reader) - 4 * 256 == 4_457_472, "caffe has one bias a gate, torch two"
    assert count(net.classes) == 25_957


@pytest.mark.parametrize(
    ("settings", "sees_before", "sees_after"),
    [
        ({"mode": "frame"}, False, False),
        ({"mode": "pool"}, True, False),
        ({"mode": "lstm", "layers": 2}, True, False),
        ({"mode": "lstm", "bidirectional": True}, True, True),
    ],
)
def test_what_each_step_depends_on(settings: dict, sees_before: bool, sees_after: bool) -> None:
    """The Jacobian of the step-by-step wiring: zero above the diagonal unless it reads from the end, too."""
    net = model(**settings)
    features = torch.randn(1, 4, 12)
    jacobian = torch.autograd.functional.jacobian(lambda x: net.classify(x, [4]).sum(dim=(0, 2)), features)
    depends = jacobian[:, 0].abs().sum(dim=2) > 0  # (step, frame)
    assert depends.diagonal().all()
    assert bool(depends.tril(-1).any()) == bool(depends[3, 0]) == sees_before
    assert bool(depends.triu(1).any()) == bool(depends[0, 3]) == sees_after


def test_the_mean_of_all_frames_knows_no_order() -> None:
    features = torch.randn(1, 4, 12)
    backwards = features.flip(1)
    for mode, same in (("pool", True), ("lstm", False)):
        net = model(mode=mode)
        last, other = net.classify(features, [4])[0, -1], net.classify(backwards, [4])[0, -1]
        assert torch.allclose(last, other, atol=1e-6) == same
    assert torch.allclose(
        model(mode="pool").classify(features, [4])[0, 0], model(mode="pool").classify(features[:, :1], [1])[0, 0]
    )


def test_settings_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ConfigError, match="only an LSTM has directions"):
        Config(mode="pool", bidirectional=True)
    with pytest.raises(ConfigError, match="'tiny' is trained from scratch"):
        Config(backbone="tiny", pretrained=True)
    with pytest.raises(ConfigError, match="unknown backbone"):
        Config(backbone="huge")  # type: ignore[arg-type]
