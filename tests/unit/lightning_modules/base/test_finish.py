"""What is done after the last step: norms against means by hand, and a model's own pass."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lightning_modules.base.finish import finish
from lightning_modules.base.task import Mean
from lightning_modules.blocks.norms import BatchNorm, SyncNorm

BATCHES = [torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(seed)) * 2 + seed for seed in range(3)]
TASK = SimpleNamespace(losses=lambda model, batch: {"loss": Mean(model(batch["images"]).sum(), 1)})


def batches():
    return ({"images": images} for images in BATCHES)


class Plain(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.norm, self.dropout, self.second = norm(3), nn.Dropout(0.5), norm(3)

    def forward(self, x):
        return self.second(self.dropout(self.norm(x)))


class Fitted(Plain):
    """Its bias becomes the mean of what it is given, twice."""

    def __init__(self):
        super().__init__(nn.BatchNorm2d)
        self.register_buffer("mean", torch.zeros(3))

    def finish(self, batches):
        assert not self.training and not torch.is_grad_enabled()
        for _ in range(2):
            self.mean += torch.stack([batch["images"].mean(dim=(0, 2, 3)) for batch in batches()]).mean(dim=0)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, BatchNorm, SyncNorm])
def test_running_averages_become_the_means_over_the_batches(norm):
    torch.manual_seed(0)
    model = Plain(norm).train()
    for images in BATCHES * 3:
        model(images * 5)  # averages of something else
    weights = {name: value.clone() for name, value in model.named_parameters()}
    assert finish(TASK, model, batches, norms=True)
    torch.testing.assert_close(
        model.norm.running_mean, torch.stack([x.mean(dim=(0, 2, 3)) for x in BATCHES]).mean(dim=0)
    )
    variances = torch.stack([x.transpose(0, 1).flatten(1).var(dim=1) for x in BATCHES]).mean(dim=0)
    torch.testing.assert_close(model.norm.running_var, variances)
    # The first norm's output is of variance 1 by its batch, and dropout would double that.
    assert model.second.running_var == pytest.approx(torch.ones(3), abs=0.05)
    assert model.norm.momentum == 0.1 and not any(module.training for module in model.modules())
    assert all(torch.equal(value, weights[name]) for name, value in model.named_parameters())


def test_without_anything_to_do_nothing_is_read():
    def unread():
        raise AssertionError

    assert not finish(TASK, Plain(nn.BatchNorm2d).train(), unread, norms=False)


def test_a_models_own_pass_follows():
    model = Fitted()
    assert finish(TASK, model, batches, norms=False)
    torch.testing.assert_close(model.mean, 2 * torch.stack([x.mean(dim=(0, 2, 3)) for x in BATCHES]).mean(dim=0))
    assert model.norm.num_batches_tracked == 0, "norms are the setting's matter"
