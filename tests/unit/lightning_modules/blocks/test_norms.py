"""Norms: what each setting takes its statistics from, and what must not move them."""

import copy

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from contracts.errors import ConfigError
from lightning_modules.base.families import AnswererSpec
from lightning_modules.blocks.backbones import build_backbone
from lightning_modules.blocks.norms import BatchNorm, SyncNorm, group_norm, set_norms, unmoved
from lightning_modules.models import lstm_vqa

IMAGES = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def state_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def nets(name):
    """The same network with torch's own norms, which have seen something, and with ours."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, eps=1e-3, momentum=0.3), nn.Sequential(nn.BatchNorm2d(8)))
    net(IMAGES)
    ours = copy.deepcopy(net)
    assert set_norms(ours, name) == 2
    return net, ours


@pytest.mark.parametrize("name", ["batch", "sync"])
def test_batch_and_sync_are_torchs_batch_norm_in_one_process(name):
    net, ours = nets(name)
    for _ in range(2):
        torch.testing.assert_close(ours(IMAGES), net(IMAGES), rtol=0, atol=0)
    assert ours.state_dict().keys() == net.state_dict().keys()
    torch.testing.assert_close(ours.state_dict(), net.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(ours.eval()(IMAGES), net.eval()(IMAGES), rtol=0, atol=0)


def test_frozen_keeps_the_statistics():
    net, ours = nets("frozen")
    before = state_of(ours)
    torch.testing.assert_close(ours.train()(IMAGES), net.eval()(IMAGES))
    torch.testing.assert_close(state_of(ours), before, rtol=0, atol=0)
    assert [isinstance(m, FrozenBatchNorm2d) for m in (ours[1], ours[2][0])] == [True, True]
    assert {name.split(".")[0] for name, _ in ours.named_parameters()} == {"0"}


def test_group_looks_at_each_image_by_itself():
    _, ours = nets("group")
    together = ours.train()(IMAGES)
    torch.testing.assert_close(together, torch.cat([ours(image[None]) for image in IMAGES]), rtol=1e-4, atol=1e-5)
    assert [group_norm(n).num_groups for n in (8, 24, 48, 64, 224, 2048)] == [4, 4, 8, 32, 16, 32]


@pytest.mark.parametrize("name", ["batch", "sync"])
@pytest.mark.parametrize("backbone", ["small", "resnet18", "mobilenet_v3_large"])
def test_every_norm_of_a_backbone_is_the_one_asked_for(backbone, name):
    norms = [m for m in build_backbone(backbone, norm=name).modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert len(norms) > 5
    assert {type(norm) for norm in norms} == {BatchNorm if name == "batch" else SyncNorm}


@pytest.mark.parametrize("name", ["batch", "sync", "frozen", "group"])
def test_nothing_moves_within_unmoved(name):
    backbone = nn.Sequential(build_backbone("resnet18", norm=name), nn.Identity())
    extra = nn.BatchNorm1d(3)  # one that is none of ours
    model = nn.ModuleDict({"backbone": backbone, "extra": extra}).train()
    before = state_of(model)
    with unmoved(model):
        inside = backbone(IMAGES)["c5"]
        extra(IMAGES[..., 0, 0])
    torch.testing.assert_close(state_of(model), before, rtol=0, atol=0)
    assert all(module.training for module in model.modules())
    backbone(IMAGES)
    extra(IMAGES[..., 0, 0])
    moved = [key for key, value in state_of(model).items() if not torch.equal(value, before[key])]
    assert any("backbone" in key for key in moved) == (name in ("batch", "sync"))
    assert any("extra" in key for key in moved)
    if name in ("batch", "sync"):
        model.load_state_dict(before)
        torch.testing.assert_close(inside, model.eval()["backbone"](IMAGES)["c5"])


@pytest.mark.parametrize("name", ["batch", "sync", "group"])
def test_one_image_with_one_place_is_trained_on(name):
    """c5 of 32 px is 1 x 1: no variance can be told from one value, and torch raises."""
    torch.manual_seed(0)
    config = lstm_vqa.Config(features="c5", norm=name, dropout=0.0)
    model = lstm_vqa.Model(config, AnswererSpec(vocabulary_size=9, num_answers=4)).train()
    before = state_of(model)
    image = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    logits = model(image, torch.tensor([[4, 5]]), [2], torch.tensor([0]))
    logits.square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert model.from_image.weight.grad.abs().sum() > 0
    after = state_of(model)
    assert all(torch.isfinite(value).all() for value in after.values())
    if name != "group":
        for key in ("center.running_var", "backbone.stages.3.norm2.running_var"):
            torch.testing.assert_close(after[key], before[key], rtol=0, atol=0)
        assert not torch.equal(after["backbone.stages.0.1.running_var"], before["backbone.stages.0.1.running_var"])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"name": "small", "norm": "frozen"}, "from scratch"),
        ({"name": "resnet18", "norm": "group", "pretrained": True}, "belong to batch norms"),
        ({"name": "vgg16", "norm": "sync"}, "no batch norms"),
        ({"name": "convnext_tiny", "norm": "frozen"}, "no batch norms"),
    ],
)
def test_norms_that_make_no_sense(arguments, told):
    with pytest.raises(ConfigError, match=told):
        build_backbone(**arguments)
