"""torchvision's detectors by name against its own forward on the same weights, and what is loaded of a file."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.ops import FrozenBatchNorm2d

from contracts.errors import ConfigError, DataError
from lightning_modules.base.families import DetectorSpec, InstanceSegmenterSpec
from lightning_modules.blocks.backbones import Backbone, build_backbone
from lightning_modules.blocks.torchvision_detectors import (
    DetectorName,
    InstanceSegmenterName,
    TorchvisionConfig,
    load_all_but_heads,
)
from lightning_modules.models import torchvision_detector, torchvision_instances

NAMES = (*get_args(DetectorName), *get_args(InstanceSegmenterName))
MOBILE = "fasterrcnn_mobilenet_v3_large_320_fpn"
NUM_CLASSES = 3
ALL = 100_000  # more than there are: nothing is drawn


def config_of(name: str, **settings) -> TorchvisionConfig:
    return (torchvision_instances if "mask" in name else torchvision_detector).Config(architecture=name, **settings)


def build(name: str, num_classes: int = NUM_CLASSES, image_size: int = 0, **settings) -> nn.Module:
    torch.manual_seed(0)
    module, spec = torchvision_detector, DetectorSpec
    if "mask" in name:
        module, spec = torchvision_instances, InstanceSegmenterSpec
    sizes = {"num_foreground_classes": num_classes, "image_size": image_size or size_of(name)}
    return module.Model(config_of(name, **settings), spec(**sizes))


def size_of(name: str) -> int:
    return 300 if "ssd" in name else 128


def torchvisions(name: str, num_outputs: int, **settings) -> nn.Module:
    """torchvision's own, random, its norms neither new nor those of a network that blows up."""
    torch.manual_seed(1)
    model = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=num_outputs, **settings)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.2, 0.6)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            module.num_batches_tracked.fill_(7)
    for part in filter(None, (getattr(model, key, None) for key in ("head", "rpn", "roi_heads"))):
        louder(part.parameters())
    if "ssd" in name:  # its pixels are not divided by a deviation
        model.backbone.features[0].weight.data *= 0.02
    return model.eval()


def louder(parameters: Iterable[Tensor]) -> None:
    """torchvision starts them so small that every place and class has the same score."""
    for parameter in parameters:
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
        elif parameter.mean() < -1:  # RetinaNet's prior
            nn.init.constant_(parameter, -1.0)


def sample(size: int) -> tuple[Tensor, list[dict[str, Tensor]]]:
    squares = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(5))  # of noise little is left in c5
    images = (255 * nn.functional.interpolate(squares, (size, size))).byte()
    # The last one is so thin that no anchor reaches an IoU of 0.5 with it.
    boxes = torch.tensor([[0.1, 0.05, 0.6, 0.5], [0.35, 0.4, 0.95, 0.9], [0.62, 0.07, 0.99, 0.12]]) * size
    masks = torch.zeros(3, size, size, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    return images, [{"boxes": boxes, "labels": torch.tensor([1, 3, 2]), "ignored": torch.zeros(0, 4), "masks": masks}]


def all_but_heads(model: nn.Module, name: str) -> dict[str, Tensor]:
    heads = config_of(name).family.heads
    return {key: value for key, value in model.state_dict().items() if not key.startswith(heads)}


def few_proposals(model: nn.Module) -> None:
    """The heads of v2 cost 0.2 GFLOP a proposal."""
    if hasattr(model, "rpn"):
        model.rpn._pre_nms_top_n = model.rpn._post_nms_top_n = {"training": 40, "testing": 40}


@pytest.fixture(scope="module", params=NAMES)
def case(request, tmp_path_factory) -> SimpleNamespace:
    """Ours from a file of torchvision's weights for 91 classes, and torchvision's with these and our class heads."""
    name, size = request.param, size_of(request.param)
    published = torchvisions(name, 91)
    file = tmp_path_factory.mktemp("weights") / f"{name}.pth"
    torch.save(published.state_dict(), file)
    sampling = {"rpn_batch": ALL, "roi_batch": ALL} if "rcnn" in name else {}
    ours = build(name, pretrained=str(file), norm="batch", score_threshold=0.0, max_detections=200, **sampling).eval()
    file.unlink()
    fresh = {key: value.clone() for key, value in ours.state_dict().items()}
    heads = [p for key, p in ours.named_parameters() if key.startswith(config_of(name).family.heads)]
    assert heads
    louder(heads)

    thresholds = {"score_thresh": 0.0, "detections_per_img": 200}
    settings = {f"box_{key}": value for key, value in thresholds.items()} if "rcnn" in name else thresholds
    if "rcnn" in name:
        settings |= {"rpn_batch_size_per_image": ALL, "box_batch_size_per_image": ALL}
    if "ssd" not in name:
        settings |= {"min_size": size, "max_size": size}
    theirs = torchvisions(name, NUM_CLASSES + ("retina" not in name), **settings)
    missing = theirs.load_state_dict(all_but_heads(published, name), strict=False).missing_keys
    theirs.load_state_dict({key: ours.state_dict()[key] for key in missing}, strict=False)
    few_proposals(ours)
    few_proposals(theirs)
    images, targets = sample(size)
    losses, detections = ours(images, targets, detect=True)
    return SimpleNamespace(
        name=name, size=size, published=published, fresh=fresh, ours=ours, theirs=theirs,
        images=images, targets=targets, losses=losses, detections=detections,
    )  # fmt: skip


def contents(tensors) -> Counter:
    return Counter((tuple(value.shape), value.double().sum().item()) for value in tensors)


def test_all_but_the_heads_is_loaded(case):
    heads = config_of(case.name).family.heads
    given = contents(all_but_heads(case.published, case.name).values())
    taken = contents(value for key, value in case.fresh.items() if not key.startswith(heads))
    assert taken == given
    new = {key: value for key, value in case.fresh.items() if key.startswith(heads)}
    old = {key: value for key, value in case.published.state_dict().items() if key.startswith(heads)}
    assert new.keys() == old.keys()
    for key, value in new.items():
        assert value.shape != old[key].shape and value.shape[1:] == old[key].shape[1:], key
        assert torch.isfinite(value).all()


def test_detections_equal_torchvisions(case):
    with torch.no_grad():
        expected = case.theirs.eval()(list(case.images / 255))[0]
    has_area = (expected["boxes"][:, 2:] - expected["boxes"][:, :2]).amin(dim=1) > 0.01  # RetinaNet's keeps all
    expected = {key: value[has_area] for key, value in expected.items()}
    expected["labels"] += int("retina" in case.name)  # labels are the columns there
    num = len(expected["boxes"])
    found = {key: value[:num].detach() for key, value in case.detections[0].items()}
    assert num > 10 and len(set(expected["labels"].tolist())) > 1
    torch.testing.assert_close(found["scores"], expected["scores"], rtol=1e-3, atol=1e-5)
    # The order of what differs in the last digit may be another.
    far = (found["boxes"][:, None] - expected["boxes"]).abs().amax(dim=2)
    far += 1e3 * (found["scores"][:, None] - expected["scores"]).abs()
    far += size_of(case.name) * (found["labels"][:, None] != expected["labels"])
    nearest = far.argmin(dim=1)
    assert far.amin(dim=1).amax() < 0.03 and len(set(nearest.tolist())) == num
    if "mask" in case.name:
        pasted = paste_masks_in_image(found["masks"], found["boxes"], (case.size, case.size))
        torch.testing.assert_close(pasted, expected["masks"][nearest], rtol=1e-3, atol=5e-3)


def test_losses_equal_torchvisions(case):
    """The mask loss is another: torchvision's mask targets lie half a pixel beside ours (`test_rcnn.py`)."""
    theirs = case.theirs.train()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    targets = [{**target, "labels": target["labels"] - int("retina" in case.name)} for target in case.targets]
    with torch.no_grad():
        expected = theirs(list(case.images / 255), targets)
    names = {"classification": "loss_classifier", "bbox_regression": "loss_box_reg"}
    expected = {names.get(key, key): value for key, value in expected.items()}
    assert case.losses.keys() == expected.keys()
    for key in expected.keys() - {"loss_mask"}:
        assert expected[key] > 1e-4
        torch.testing.assert_close(case.losses[key].detach(), expected[key], rtol=1e-3, atol=1e-5)


def test_an_ignored_region_is_not_background(case):
    target = {**case.targets[0], "ignored": torch.tensor([[0.0, 0.0, case.size, case.size]])}
    with torch.no_grad():
        losses = case.ours.eval()(case.images, [target])[0]
    assert abs(losses["loss_classifier"] - case.losses["loss_classifier"]) > 1e-3
    if "rcnn" in case.name:
        assert abs(losses["loss_objectness"] - case.losses["loss_objectness"]) > 1e-4
    else:  # positives alone
        torch.testing.assert_close(losses["loss_box_reg"], case.losses["loss_box_reg"].detach())


def test_a_step_lowers_the_loss(case):
    model = copy.deepcopy(case.ours)
    assert type(model) is type(case.ours)
    before = sum(model(case.images, case.targets)[0].values())
    before.backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 3e-4 / norm * parameter.grad
        after = sum(model(case.images, case.targets)[0].values())
    assert torch.isfinite(after) and after < before


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


def unfilled(name: str, num_classes: int, **settings) -> nn.Module:
    with torch.device("meta"):
        return build(name, num_classes, **settings)


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
