"""Fast R-CNN: the paper's numbers, torchvision's own head on the same weights, and where it differs on purpose."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import box_iou

from contracts.errors import ConfigError
from lightning_modules.base.families import RegionDetectorSpec
from lightning_modules.blocks.detectors import BOX_WEIGHTS
from lightning_modules.models import fast_rcnn
from lightning_modules.models.fast_rcnn import Config, Model, distinct, head_losses, match_regions, pooled_cells
from lightning_modules.ops.matching import BACKGROUND, NEITHER

SIZE = 64
SPEC = RegionDetectorSpec(num_foreground_classes=3, image_size=SIZE)
SMALL = Config(head_channels=32, dropout=0.0, score_threshold=0.0)
ALL = replace(SMALL, background_low=0.0, roi_batch=10_000)  # nothing is drawn
PAPER = Config(backbone="vgg16", head_channels=4096)


def build(config: Config = SMALL) -> Model:
    torch.manual_seed(0)
    return Model(config, SPEC)


def random_boxes(count: int, seed: int) -> torch.Tensor:
    """Whole pixels, as proposals are."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randint(0, SIZE - 8, (count, 2), generator=generator)
    sides = torch.randint(8, SIZE, (count, 2), generator=generator)
    return torch.cat([corners, (corners + sides).clamp(max=SIZE)], dim=1).float()


def sample(num_images: int = 3, num_regions: int = 30):
    generator = torch.Generator().manual_seed(5)
    images = torch.randint(0, 256, (num_images, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    regions = [random_boxes(num_regions, seed) for seed in range(num_images)]
    boxes = [torch.tensor([[6.0 + i, 4, 40, 30], [20, 30, 50, 60]]) for i in range(num_images)]
    return images, regions, [{"boxes": b, "labels": torch.tensor([1, 3]), "ignored": torch.zeros(0, 4)} for b in boxes]


def target_of(boxes: list[list[float]], ignored: list[list[float]] | None = None):
    return {
        "boxes": torch.tensor(boxes).view(-1, 4),
        "labels": torch.ones(len(boxes), dtype=torch.int64),
        "ignored": torch.tensor(ignored or []).view(-1, 4),
    }


def torchvisions(model: Model) -> RoIHeads:
    """Around the same parts."""
    config = model.config
    head = nn.Sequential(nn.Flatten(), model.head)
    return RoIHeads(
        model.pool, head, model.predictor, 0.5, 0.5, config.roi_batch, 0.25, BOX_WEIGHTS,
        config.score_threshold, config.nms_threshold, config.max_detections,
    )  # fmt: skip


def features_of(model: Model, images: torch.Tensor) -> dict[str, torch.Tensor]:
    return model.backbone(model.pixel_norm(images))


# The paper's numbers


def test_the_papers_network_has_its_parameters():
    """VGG-16 and 20 classes; conv5_3 of 512 channels, 7 x 7 of it, at a stride of 16."""
    with torch.device("meta"):
        model = Model(PAPER, RegionDetectorSpec(num_foreground_classes=20, image_size=600))
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_690_729
    assert model.pool.scale == 1 / 16 and model.head[0].in_features == 512 * 7 * 7


def test_the_last_layers_begin_small():
    predictor = build(replace(SMALL, head_channels=1024)).predictor
    for layer, std in ((predictor.cls_score, 0.01), (predictor.bbox_pred, 0.001)):
        assert layer.weight.std().item() == pytest.approx(std, rel=0.1) and not layer.bias.any()


def test_fc6_and_fc7_begin_with_those_of_imagenet(monkeypatch):
    class FC(nn.Module):
        def __init__(self, *, pretrained: bool):
            super().__init__()
            assert pretrained
            self.classifier = nn.Sequential(
                nn.Linear(25088, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout()
            )
            made.append(self)

    made: list[FC] = []
    build_backbone = fast_rcnn.build_backbone
    monkeypatch.setattr(fast_rcnn, "VGG16FC7", FC)
    monkeypatch.setattr(fast_rcnn, "build_backbone", lambda name, pretrained, norm: build_backbone(name, norm=norm))
    with torch.device("meta"):
        for settings in ({}, {"head_channels": 1024}, {"roi_size": 5}, {"level": "c3"}):
            Model(replace(PAPER, pretrained=True, **settings), SPEC)
    assert len(made) == 1, "and no others, whose shapes differ"
    assert not PAPER.has_pretrained_head


def test_a_ramp_is_pooled_by_its_largest_values():
    """Cells 1 to 5 across and 2 to 6 down, in two bins each that share the middle one; values 10 row + column."""
    ramp = 10 * torch.arange(8.0)[:, None] + torch.arange(8.0)
    pool = build(replace(SMALL, roi_size=2)).pool
    pooled = pool({"c4": ramp[None, None]}, [torch.tensor([[16.0, 32, 79, 96]])], ())
    assert pooled.flatten().tolist() == [43, 45, 63, 65]
    assert pooled_cells(torch.tensor([[16.0, 32, 79, 96]]), pool.scale).tolist() == [[1, 2, 5, 6]]


def test_a_ramp_is_read_between_its_cells_by_roi_align():
    """A cell's value stands at its middle: at pixel x the ramp is x / 16."""
    ramp = (torch.arange(8.0) + 0.5).expand(8, 8)
    pool = build(replace(SMALL, roi_size=2, pooling="align")).pool
    pooled = pool({"c4": ramp[None, None]}, [torch.tensor([[16.0, 16, 80, 80], [20, 16, 84, 80]])], ())
    torch.testing.assert_close(pooled.view(2, 4), torch.tensor([[2.0, 4, 2, 4], [2.25, 4.25, 2.25, 4.25]]))


def test_smooth_l1_and_its_divisor_by_hand():
    """Two regions of one image, one of another: errors of 0.5 and 2 cost 0.125 and 1.5; three classes alike log 3."""
    deltas = torch.full((3, 12), 50.0)  # of the other classes, which do not count
    deltas[0, 4:8] = torch.tensor([0.5, -2.0, 0.0, 0.0])
    deltas[2, 8:12] = torch.tensor([0.0, 0.0, 1.0, 0.0])
    labels, wanted = [torch.tensor([1, 0]), torch.tensor([2])], [torch.zeros(2, 4), torch.zeros(1, 4)]
    class_loss, box_loss = head_losses(torch.zeros(3, 3), deltas, labels, wanted)
    assert class_loss.item() == pytest.approx(2 * math.log(3))
    assert box_loss.item() == pytest.approx((0.125 + 1.5) / 2 + 0.5)


# What is learnt from


@pytest.mark.parametrize(("low", "far"), [(0.1, NEITHER), (0.0, BACKGROUND)])
def test_background_overlaps_a_little(low, far):
    """IoUs of 0.05, 0.1, 0.3, 0.49 and 0.5 with the object."""
    candidates = torch.tensor([[0.0, 0, 10, height] for height in (0.5, 1, 3, 4.9, 5)])
    matches = match_regions(candidates, target_of([[0.0, 0, 10, 10]]), low)
    assert matches.tolist() == [far, BACKGROUND, BACKGROUND, BACKGROUND, 0]


def test_the_best_overlap_counts_not_that_with_the_first_object():
    target = target_of([[0.0, 0, 10, 10], [20.0, 0, 30, 10]])
    assert match_regions(torch.tensor([[20.0, 0, 30, 3], [20, 0, 30, 8]]), target, 0.1).tolist() == [BACKGROUND, 1]


@pytest.mark.parametrize(
    ("num_foreground", "num_background", "sampled"), [(40, 200, (16, 48)), (40, 5, (16, 5)), (3, 200, (4, 60))]
)
def test_a_quarter_is_foreground_and_too_few_are_fewer(num_foreground, num_background, sampled):
    """Of 64; the true box is one more of the foreground."""
    heights = torch.cat([torch.linspace(22, 39, num_foreground), torch.linspace(6, 18, num_background)])
    regions = torch.stack([*torch.zeros(2, len(heights)), torch.full_like(heights, 40), heights], dim=1)
    boxes, labels, wanted = build()._sample(regions, target_of([[0.0, 0, 40, 40]]))
    assert ((labels == 1).sum().item(), (labels == 0).sum().item()) == sampled
    assert ((box_iou(boxes, torch.tensor([[0.0, 0, 40, 40]]))[:, 0] >= 0.5) == (labels == 1)).all()
    assert len(boxes) == len(wanted) == sum(sampled)


def test_a_true_box_is_learnt_from_without_any_region():
    boxes, labels, wanted = build()._sample(torch.zeros(0, 4), target_of([[8.0, 8, 40, 40]]))
    assert boxes.tolist() == [[8, 8, 40, 40]] and labels.tolist() == [1] and not wanted.any()


def test_wanted_deltas_are_divided_by_their_deviations():
    """Up by a tenth of the height, which shrinks to 0.8 of it: -0.1 / 0.1 and log(0.8) / 0.2."""
    _, labels, wanted = build()._sample(torch.tensor([[0.0, 0, 10, 20]]), target_of([[0.0, 0, 10, 16]]))
    assert labels.tolist() == [1, 1]
    torch.testing.assert_close(wanted[0], torch.tensor([0.0, -1.0, 0.0, 5 * math.log(0.8)]))


def test_ignored_regions_are_not_background():
    candidates = torch.tensor([[0.0, 0, 40, 12], [0, 30, 40, 46], [0, 0, 40, 30]])
    target = target_of([[0.0, 0, 40, 40]])
    assert match_regions(candidates, target, 0.1).tolist() == [BACKGROUND, BACKGROUND, 0]
    target["ignored"] = torch.tensor([[0.0, 0, 40, 38]])
    assert match_regions(candidates, target, 0.1).tolist() == [NEITHER, NEITHER, 0], "what matches still counts"


@pytest.mark.parametrize("pooling", ["max", "align"])
def test_images_without_regions_or_objects(pooling):
    images, regions, targets = sample(2)
    none = {name: value[:0] for name, value in targets[0].items()}
    nowhere = torch.zeros(0, 4)
    for given, known in (
        ([regions[0], nowhere], targets),
        ([nowhere, nowhere], targets),
        ([regions[0], nowhere], [targets[0], none]),
        ([nowhere, regions[0]], [none, none]),
    ):
        model = build(replace(SMALL, pooling=pooling))
        losses, _ = model.train()(images, given, known)
        total = sum(losses.values())
        total.backward()
        assert torch.isfinite(total) and (total > 0) == any(len(one["boxes"]) for one in known)
        with torch.no_grad():
            losses, found = model.eval()(images, given, known, detect=True)
        assert all(torch.isfinite(loss) for loss in losses.values())
        assert [len(one["boxes"]) > 0 for one in found] == [len(one) > 0 for one in given]


def test_an_images_losses_do_not_depend_on_its_neighbours():
    images, regions, targets = sample()
    regions[1], targets[1] = regions[1][:7], {name: value[:1] for name, value in targets[1].items()}
    model = build(ALL).eval()
    with torch.no_grad():
        together = model(images, regions, targets)[0]
        alone = [model(images[i : i + 1], regions[i : i + 1], targets[i : i + 1])[0] for i in range(3)]
    for name, value in together.items():
        torch.testing.assert_close(value, sum(one[name] for one in alone), rtol=1e-4, atol=1e-5)


def test_validation_losses_do_not_touch_or_read_the_random_state():
    images, regions, targets = sample()
    model = build(replace(SMALL, roi_batch=8, dropout=0.5)).eval()
    losses = []
    for seed in (3, 4):
        torch.manual_seed(seed)
        losses.append(model(images, regions, targets)[0]["loss_classifier"])
        after = torch.rand(1)
        torch.manual_seed(seed)
        assert torch.equal(after, torch.rand(1))
    assert torch.equal(*losses)
    model.train()
    assert len({model(images, regions, targets)[0]["loss_classifier"].item() for _ in range(4)}) == 4


# Beside torchvision's


@pytest.mark.parametrize("pooling", ["max", "align"])
def test_losses_equal_torchvisions(pooling, monkeypatch):
    """Whose smooth L1 turns at 1/9, and which divides by the regions of all images: as many of each here."""
    monkeypatch.setattr(fast_rcnn, "BOX_BETA", 1 / 9)
    images, regions, targets = sample()
    model = build(replace(ALL, pooling=pooling, norm="group"))
    theirs = torchvisions(model).train()
    _, expected = theirs(features_of(model, images), list(regions), [(SIZE, SIZE)] * 3, targets)
    losses = model.train()(images, regions, targets)[0]
    assert losses.keys() == expected.keys()
    for name, value in losses.items():
        torch.testing.assert_close(value / 3, expected[name], rtol=1e-4, atol=1e-6)
    assert min(expected.values()) > 0.1


@pytest.mark.parametrize("pooling", ["max", "align"])
@pytest.mark.parametrize("settings", [{}, {"max_detections": 5}, {"score_threshold": 0.25}, {"nms_threshold": 0.7}])
def test_detections_equal_torchvisions(pooling, settings):
    images, regions, _ = sample()
    sizes = [(SIZE, SIZE), (40, SIZE), (SIZE, 50)]
    regions = [box.clamp(max=torch.tensor([size[1], size[0]] * 2)) for box, size in zip(regions, sizes, strict=True)]
    regions = [box[(box[:, 2:] - box[:, :2]).amin(dim=1) > 2] for box in regions]
    model = build(replace(SMALL, pooling=pooling, **settings)).eval()
    with torch.no_grad():
        nn.init.normal_(model.predictor.cls_score.weight, std=0.5)  # else all scores are nearly one
        nn.init.normal_(model.predictor.bbox_pred.weight, std=0.5)
        expected, _ = torchvisions(model).eval()(features_of(model, images), regions, sizes)
        losses, found = model(images, regions, sizes=sizes, detect=True)
    assert losses == {}
    for ours, theirs, (height, width) in zip(found, expected, sizes, strict=True):
        assert len(theirs["boxes"]) > 2 and ours.keys() == theirs.keys()
        assert torch.equal(ours["labels"], theirs["labels"])
        torch.testing.assert_close(ours["boxes"], theirs["boxes"], rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(ours["scores"], theirs["scores"], rtol=1e-4, atol=1e-6)
        assert ours["boxes"].min() >= 0 and ours["boxes"][:, 2].max() <= width and ours["boxes"][:, 3].max() <= height


def test_bf16_autocast_leaves_boxes_scores_and_losses_in_float32():
    images, regions, targets = sample()
    model = build().eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        losses, found = model(images, regions, targets, detect=True)
    assert all(value.dtype == torch.float32 for value in losses.values())
    boxes = torch.cat([one["boxes"] for one in found])
    assert boxes.dtype == torch.float32 and (boxes.bfloat16().float() != boxes).any()
    assert all(one["scores"].dtype == torch.float32 for one in found)


# One look for all


class Counter:
    """Counts how often a module is called, and with how many rows."""

    def __init__(self, module: nn.Module):
        self.rows: list[int] = []
        module.register_forward_hook(lambda module, given, out: self.rows.append(len(given[0])))


def test_the_backbone_runs_once():
    images, regions, targets = sample()
    model = build().eval()
    backbone = Counter(model.backbone)
    model(images, regions, targets, detect=True)
    assert backbone.rows == [3]


def test_regions_of_equal_cells_are_pooled_alike():
    """Every rounding that there is: whole pixels at cells of 16, halves of a cell among them."""
    model = build()
    regions = torch.tensor([[x, 0.0, x + w, 16.0] for x in range(48) for w in (1, 8, 9, 16)])
    features = {"c4": torch.rand(1, 2, 4, 4, generator=torch.Generator().manual_seed(0))}
    first, index = distinct(pooled_cells(regions, model.pool.scale))
    assert len(first) < len(regions) / 5
    pooled = model.pool(features, [regions], ())
    assert torch.equal(pooled[first][index], pooled)


@pytest.mark.parametrize("pooling", ["max", "align"])
def test_what_is_read_alike_is_judged_once(pooling, monkeypatch):
    """Each box keeps its own place; RoIAlign reads all but equal boxes differently."""
    images, _, _ = sample(1)
    once = torch.tensor([[0.0, 0, 32, 32], [16, 16, 64, 64], [32, 0, 64, 48]])
    nearby = once + torch.tensor([1.0, 2, -1, 0])
    model = build(replace(SMALL, pooling=pooling, nms_threshold=1.0)).eval()
    nn.init.normal_(model.predictor.cls_score.weight, std=0.5)
    head = Counter(model.head)
    with torch.no_grad():
        found = model(images, [torch.cat([once, nearby, once])], detect=True)[1][0]
        model(images, [once], detect=True)
        monkeypatch.setattr(fast_rcnn, "distinct", lambda rows: (torch.arange(len(rows)),) * 2)
        expected = model(images, [torch.cat([once, nearby, once])], detect=True)[1][0]
    assert head.rows == ([3, 3, 9] if pooling == "max" else [6, 3, 9])
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_distinct_rows():
    first, index = distinct(torch.tensor([[3, 3], [1, 1], [3, 3], [2, 2], [1, 1]]))
    assert first.tolist() == [0, 1, 3] and index.tolist() == [0, 1, 0, 2, 1]


# Learning, settings


@pytest.mark.parametrize("pooling", ["max", "align"])
def test_it_learns_a_batch(pooling):
    torch.manual_seed(0)
    model = Model(replace(SMALL, pooling=pooling, score_threshold=0.05), SPEC)
    images = torch.full((2, 3, SIZE, SIZE), 90, dtype=torch.uint8)
    images[0, 0, 8:40, 8:40] = 255
    images[1, 2, 20:60, 10:50] = 255
    objects = [([8.0, 8, 40, 40], 1), ([10.0, 20, 50, 60], 3)]
    targets = [
        {"boxes": torch.tensor([box]), "labels": torch.tensor([label]), "ignored": torch.zeros(0, 4)}
        for box, label in objects
    ]
    regions = [random_boxes(60, 7)] * 2
    assert all(box_iou(t["boxes"], regions[0]).max() < 0.8 for t in targets), "boxes must be learnt to be moved"
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(60):
        losses = model(images, regions, targets)[0]
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    found = model.eval()(images, regions, detect=True)[1]
    for one, target in zip(found, targets, strict=True):
        assert one["labels"][0] == target["labels"][0] and one["scores"][0] > 0.6
        assert box_iou(one["boxes"][:1], target["boxes"]) > 0.6


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"background_low": 0.5}, "no region could be background"),
        ({"background_low": -0.1}, "background_low must be"),
        ({"dropout": 1.1}, "dropout must be"),
        ({"roi_batch": 0}, "roi_batch must be"),
        ({"head_channels": 0}, "head_channels must be"),
        ({"pretrained": True}, "trained from scratch"),
    ],
)
def test_settings_that_cannot_work(wrong, said):
    with pytest.raises(ConfigError, match=said):
        Config(**wrong)
