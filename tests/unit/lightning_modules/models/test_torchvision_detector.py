"""torchvision's detectors by name against its own forward on the same weights, which come from a file."""

from __future__ import annotations

import copy
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torchvision.models.detection.roi_heads import paste_masks_in_image

from tests.torchvision_models import (
    NAMES,
    NUM_CLASSES,
    all_but_heads,
    build,
    config_of,
    louder,
    sample,
    size_of,
    torchvisions,
)

ALL = 100_000  # more than there are: nothing is drawn


def few_proposals(model: nn.Module) -> None:
    """The heads of v2 cost 0.2 GFLOP a proposal."""
    if hasattr(model, "rpn"):
        model.rpn._pre_nms_top_n = model.rpn._post_nms_top_n = {"training": 40, "testing": 40}


@pytest.fixture(scope="module", params=NAMES)
def case(request, tmp_path_factory, one_thread) -> SimpleNamespace:
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
