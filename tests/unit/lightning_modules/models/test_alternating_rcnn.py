"""The four steps of Faster R-CNN: what each learns, whose proposals it reads, and what is left of them in the end."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from contracts.errors import ConfigError
from lightning_modules.base.families import DetectorSpec
from lightning_modules.models import alternating_rcnn, faster_rcnn
from lightning_modules.models.alternating_rcnn import LOSSES, Model

SETTINGS = {
    "levels": ("c4",),
    "pyramid": False,
    "anchors": (0.25, 0.5),
    "rpn_batch": 16,
    "roi_batch": 8,
    "box_head": 16,
}
SPEC = DetectorSpec(num_foreground_classes=2, image_size=64)
FROZEN = {
    1: ("backbone", "rpn", "roi_heads"),
    2: ("proposer", "rpn"),
    3: ("proposer", "backbone", "roi_heads"),
    4: ("proposer", "backbone", "rpn"),
}
TARGETS = [
    {
        "boxes": torch.tensor([[8.0, 8.0, 40.0, 40.0]]), "labels": torch.tensor([1]), "ignored": torch.zeros(0, 4),
    }
]  # fmt: skip


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randint(0, 256, (1, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def made(*frozen: str) -> Model:
    torch.manual_seed(0)
    model = Model(alternating_rcnn.Config(**SETTINGS), SPEC).train()
    for name in frozen:
        model.get_submodule(name).requires_grad_(False)
    return model


def losses_of(model: Model, images: Tensor) -> dict[str, Tensor]:
    torch.manual_seed(1)
    losses, detections = model(images, TARGETS)
    assert list(losses) == list(LOSSES) and not detections
    return losses


@pytest.mark.parametrize("step", FROZEN)
def test_a_step_learns_by_its_own_losses_alone(step: int, images: Tensor) -> None:
    model = made(*FROZEN[step])
    losses = losses_of(model, images)
    ours = LOSSES[:2] if step in (1, 3) else LOSSES[2:]
    assert all((name in ours) == bool(value) for name, value in losses.items() if "box" not in name)
    torch.stack(list(losses.values())).sum().backward()
    reached = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {"proposer", "backbone", "rpn", "roi_heads"} - set(FROZEN[step])


@pytest.mark.parametrize(("step", "source"), [(2, "proposer.rpn"), (4, "rpn")])
def test_whose_proposals_the_box_head_learns_from(step: int, source: str, images: Tensor) -> None:
    model = made(*FROZEN[step])
    before = losses_of(model, images)["loss_classifier"]
    other = {"proposer.rpn": "rpn", "rpn": "proposer.rpn"}[source]
    torch.nn.init.normal_(model.get_submodule(other).head.bbox_pred.weight, std=0.5)
    assert losses_of(model, images)["loss_classifier"] == before
    torch.nn.init.normal_(model.get_submodule(source).head.bbox_pred.weight, std=0.5)
    assert losses_of(model, images)["loss_classifier"] != before


def test_in_the_end_it_is_one_faster_rcnn(images: Tensor) -> None:
    model = made().eval()
    plain = faster_rcnn.Model(faster_rcnn.Config(**SETTINGS), SPEC).eval()
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("proposer.")}
    plain.load_state_dict(state)
    with torch.no_grad():
        (losses, found), (expected, wanted) = (one(images, TARGETS, detect=True) for one in (model, plain))
    assert losses.keys() == set(LOSSES)
    torch.testing.assert_close(losses, expected, rtol=0, atol=0)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("frozen", [(), ("proposer",), ("proposer", "backbone", "rpn", "roi_heads")])
def test_parts_of_no_step_are_refused(frozen: tuple[str, ...], images: Tensor) -> None:
    with pytest.raises(ConfigError, match="none of the four steps"):
        losses_of(made(*frozen), images)
