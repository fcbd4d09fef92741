"""What is loaded of weights, what a network is built of, and settings that cannot work. Against torchvision's own
forward: `models/test_torchvision_detector.py`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from contracts.errors import ConfigError, DataError
from lightning_modules.blocks.backbones import Backbone, build_backbone
from lightning_modules.blocks.torchvision_detectors import load_all_but_heads
from tests.torchvision_models import (
    MOBILE,
    NAMES,
    NUM_CLASSES,
    all_but_heads,
    build,
    config_of,
    sample,
    size_of,
    torchvisions,
    unfilled,
)

# The numbers that torchvision publishes; of v1 and MobileNet norms are frozen, which have no parameters.
PARAMETERS = {
    "fasterrcnn_resnet50_fpn": 41_755_286,
    "fasterrcnn_resnet50_fpn_v2": 43_712_278,
    MOBILE: 19_386_354,
    "retinanet_resnet50_fpn": 34_014_999,
    "retinanet_resnet50_fpn_v2": 38_198_935,
    "ssd300_vgg16": 35_641_826,
    "maskrcnn_resnet50_fpn": 44_401_393,
    "maskrcnn_resnet50_fpn_v2": 46_359_409,
}


@pytest.mark.parametrize("name", NAMES)
def test_number_of_parameters(name):
    norm = "batch" if name.endswith("_v2") else "frozen"
    model = unfilled(name, 91 if "retina" in name else 90, norm=norm)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]
    assert PARAMETERS[name] == torchvision.models.get_model_weights(name).DEFAULT.meta["num_params"]


@pytest.mark.parametrize("name", NAMES)
def test_frozen_norms_divide_as_the_weights_are_used_to(name):
    """torchvision sets 0 where the weights are Detectron's; a running variance of 1e-6 shows the difference."""
    found = {m.eps for m in unfilled(name, NUM_CLASSES).modules() if isinstance(m, FrozenBatchNorm2d)}
    without = name in ("fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn", "retinanet_resnet50_fpn")
    assert found == (set() if "ssd" in name else {0.0 if without else 1e-5})
    learning = {m.eps for m in unfilled(name, NUM_CLASSES, norm="batch").modules() if isinstance(m, nn.BatchNorm2d)}
    assert learning == (set() if "ssd" in name else {1e-5})


@pytest.mark.parametrize("name", [name for name in NAMES if name != MOBILE])
def test_the_backbone_is_one_of_ours(name):
    """So `freeze_until` and `init: {part: backbone}` work, and give the same maps."""
    own = unfilled(name, NUM_CLASSES, norm="batch").backbone
    assert isinstance(own, Backbone)
    if "resnet50" in name:
        with torch.device("meta"):
            other = build_backbone("resnet50")
        assert {k: v.shape for k, v in own.state_dict().items()} == {k: v.shape for k, v in other.state_dict().items()}
        assert own.channels == other.channels


@pytest.mark.parametrize("name", ["fasterrcnn_resnet50_fpn", MOBILE, "maskrcnn_resnet50_fpn"])
def test_the_pooling_knows_its_strides(name):
    """Whatever the first image was; MobileNet's two maps both have stride 32, and the finer depth is read."""
    heads = unfilled(name, NUM_CLASSES).roi_heads
    strides = [32, 32] if name == MOBILE else [4, 8, 16, 32]
    for pool in filter(None, (heads.box_roi_pool, heads.mask_roi_pool)):
        assert [1 / scale for scale in pool.scales] == strides
        levels = pool.map_levels([torch.tensor([[0.0, 0, side, side]]) for side in (16, 111, 113, 225, 449, 900)])
        assert levels.tolist() == ([0] * 6 if name == MOBILE else [0, 0, 1, 2, 3, 3])


@pytest.fixture(scope="module")
def mobile(tmp_path_factory) -> Path:
    """A file of torchvision's smallest one, as its training scripts leave it."""
    file = tmp_path_factory.mktemp("mobile") / "model.pth"
    torch.save({"model": torchvisions(MOBILE, 5).state_dict(), "epoch": 3}, file)
    return file


def test_a_checkpoint_of_torchvisions_scripts_is_taken(mobile):
    """And one with other classes than COCO's."""
    model = build(MOBILE, pretrained=str(mobile))
    expected = torch.load(mobile, weights_only=True)["model"]
    key = "roi_heads.box_head.fc6.weight"
    assert torch.equal(model.state_dict()[key], expected[key])


def test_a_checkpoint_needs_no_file_of_weights(mobile):
    """A trained model is built without the wish for pretrained weights (`load_module`), and is the same then."""
    model, again = build(MOBILE, pretrained=str(mobile)).eval(), build(MOBILE, pretrained=False).eval()
    again.load_state_dict(model.state_dict())
    images = sample(size_of(MOBILE))[0]
    with torch.no_grad():
        torch.testing.assert_close(again(images, detect=True), model(images, detect=True), rtol=0, atol=0)


def damaged(path: Path, change) -> str:
    state = torch.load(path, weights_only=True)["model"]
    change(state)
    other = path.with_name("other.pth")
    torch.save(state, other)
    return str(other)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop("roi_heads.box_head.fc7.bias"), "fc7.bias is missing"),
        (lambda s: s.update({"roi_heads.mask_head.w": torch.zeros(1)}), "roi_heads.mask_head.w is too much"),
        (lambda s: s.update({"roi_heads.box_head.fc7.bias": torch.zeros(9)}), r"size mismatch for .*fc7\.bias"),
        (lambda s: s.update({"epoch": 3}), "not a file of weights"),
        (lambda s: [s.pop(key) for key in list(s) if "fpn" in key], "is missing; and 4 more"),
    ],
)
def test_other_weights_are_refused(mobile, change, said):
    with pytest.raises(DataError, match=said) as refused:
        build(MOBILE, pretrained=damaged(mobile, change))
    assert "other.pth" in str(refused.value)
    assert "fasterrcnn_mobilenet_v3_large_320_fpn-907ea3f9.pth" in str(refused.value), "what is expected"


def test_a_file_that_is_no_torch_file_is_refused(tmp_path):
    file = tmp_path / "weights.pth"
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(DataError, match="the file of weights cannot be read"):
        build(MOBILE, pretrained=str(file))


def test_weights_under_their_old_names_are_understood():
    """Published RetinaNets and Mask R-CNNs number their convolutions as older torchvisions did; and have no counts of
    batches, their norms being frozen."""
    name = "retinanet_resnet50_fpn"
    model, state = (torchvisions(name, NUM_CLASSES + i) for i in range(2))
    state = {key: value + 1 for key, value in state.state_dict().items() if "num_batches" not in key}
    old = {}
    for key, value in state.items():
        parts = key.split(".")
        if parts[:2] == ["backbone", "fpn"] and "blocks.p" not in key:
            parts.pop(4)
        elif parts[0] == "head" and parts[2] == "conv":
            parts[3:5] = [str(2 * int(parts[3]))]
        old[".".join(parts)] = value
    assert "head.regression_head.conv.6.bias" in old and "backbone.fpn.inner_blocks.2.bias" in old
    load_all_but_heads(model, old, config_of(name), "here")
    for key, value in all_but_heads(model, name).items():
        assert "num_batches" in key or torch.equal(value, state[key]), key


def test_published_weights_come_from_torchs_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    weights = torchvision.models.get_model_weights(MOBILE).DEFAULT
    asked = []

    def fetch(self, **options):
        asked.append((self, options["check_hash"]))
        raise OSError("no network here")

    monkeypatch.setattr(type(weights), "get_state_dict", fetch)
    with pytest.raises(ConfigError, match="pretrained weights are not available") as refused:
        build(MOBILE, pretrained=True)
    assert str(tmp_path / "checkpoints" / "fasterrcnn_mobilenet_v3_large_320_fpn-907ea3f9.pth") in str(refused.value)
    state = torchvisions(MOBILE, 91).state_dict()
    monkeypatch.setattr(type(weights), "get_state_dict", lambda self, **options: state)
    key = "rpn.head.cls_logits.weight"
    assert torch.equal(build(MOBILE, pretrained=True).state_dict()[key], state[key])
    assert asked == [(weights, True)]


@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        (MOBILE, {"pretrained": "no/such.pth"}, r"not there: 'no/such.pth'\n.*/no/such.pth"),
        (MOBILE, {"pretrained": True, "norm": "group"}, "belong to batch norms"),
        ("ssd300_vgg16", {"norm": "group"}, "no batch norms"),
        ("ssd300_vgg16", {"norm": "sync"}, "no batch norms"),
        ("retinanet_resnet50_fpn", {"roi_batch": 8}, "samples nothing"),
        ("ssd300_vgg16", {"rpn_batch": 8}, "samples nothing"),
        (MOBILE, {"score_threshold": 1.5}, "score_threshold must be"),
        (MOBILE, {"max_detections": 0}, "max_detections must be"),
    ],
)
def test_settings_that_cannot_work(name, wrong, said):
    with pytest.raises(ConfigError, match=said):
        config_of(name, **wrong)


def test_image_sizes_that_cannot_work():
    with pytest.raises(ConfigError, match=r"takes images of 300 px: 128\n.*task.image_size"):
        build("ssd300_vgg16", image_size=128)
    with pytest.raises(ConfigError, match=r"takes images of more than 64 px: 64\n.*task.image_size"):
        build("retinanet_resnet50_fpn", image_size=64)
    assert unfilled("retinanet_resnet50_fpn", NUM_CLASSES, image_size=65) is not None


def test_settings_reach_the_network():
    """And are torchvision's own where none are set."""
    chosen = {"score_threshold": 0.3, "nms_threshold": 0.4, "max_detections": 7}
    for name in (MOBILE, "retinanet_resnet50_fpn", "ssd300_vgg16"):
        own, set_ = (unfilled(name, NUM_CLASSES, **settings) for settings in ({}, chosen))
        if name == MOBILE:
            numbers = [(r.score_thresh, r.nms_thresh, r.detections_per_img) for r in (own.roi_heads, set_.roi_heads)]
            assert (own.rpn_batch, own.roi_batch) == (256, 512)
        else:
            configs = (own.config, set_.config)
            numbers = [(c.score_threshold, c.nms_threshold, c.max_detections) for c in configs]
        with torch.device("meta"):
            theirs = torchvision.models.get_model(name, weights=None, weights_backbone=None)
        heads = getattr(theirs, "roi_heads", theirs)
        assert numbers == [(heads.score_thresh, heads.nms_thresh, heads.detections_per_img), (0.3, 0.4, 7)]
        if name != MOBILE:
            assert own.config.candidates == theirs.topk_candidates
