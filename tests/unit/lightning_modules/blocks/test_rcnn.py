"""The one-pass detector against torchvision's own forward, and where it differs on purpose."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FasterRCNN
from torchvision.models.detection.mask_rcnn import MaskRCNN, MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import maskrcnn_loss
from torchvision.ops import roi_align

from contracts.errors import ConfigError
from lightning_modules.base.families import DetectorSpec
from lightning_modules.blocks.detectors import RCNNConfig, detector_arguments, rcnn_backbone, roi_pool
from lightning_modules.blocks.rcnn import RCNN
from lightning_modules.blocks.rcnn_losses import mask_loss
from lightning_modules.models import faster_rcnn

SIZE = 64
SPEC = DetectorSpec(num_foreground_classes=3, image_size=SIZE)
CONFIG = RCNNConfig(
    channels=16, box_head=32, rpn_pre_nms_eval=200, rpn_post_nms_train=50, rpn_post_nms_eval=50, score_threshold=0.0
)
STRIDES = (("c3", 8), ("c4", 16))
LOSSES = {"loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"}


def sample(num_images: int = 3):
    generator = torch.Generator().manual_seed(5)
    images = torch.randint(0, 256, (num_images, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    targets = []
    for i in range(num_images):
        masks = torch.zeros(2, SIZE, SIZE, dtype=torch.uint8)
        masks[0, 4:30, 6 + i : 40] = 1
        masks[1, 30:60, 20:50] = 1
        targets.append(
            {
                "boxes": torch.tensor([[6.0 + i, 4, 40, 30], [20, 30, 50, 60]]),
                "labels": torch.tensor([1, 3]),
                "ignored": torch.zeros(0, 4),
                "masks": masks,
            }
        )
    return images, targets


def detectors(kind, **settings):
    """torchvision's detector with a transform that changes nothing, and ours around the same parts."""
    torch.manual_seed(0)
    config = replace(CONFIG, **settings)
    backbone = rcnn_backbone(config)
    arguments = detector_arguments(config, backbone.channels, SPEC)
    arguments |= {"rpn_batch_size_per_image": config.rpn_batch, "box_batch_size_per_image": config.roi_batch}
    if kind is MaskRCNN:
        arguments["mask_roi_pool"] = roi_pool(CONFIG, 14, SIZE)
        arguments["mask_head"] = MaskRCNNHeads(CONFIG.channels, [8], dilation=1)
        arguments["mask_predictor"] = MaskRCNNPredictor(8, 8, 4)
    detector = kind(**arguments, min_size=SIZE, max_size=SIZE, image_mean=[0, 0, 0], image_std=[1, 1, 1])
    detector.transform.torch_choice = lambda sizes: sizes[0]  # its own draws from the global generator
    ours = RCNN(config, backbone, detector)
    detector.backbone = nn.Sequential(backbone, detector.backbone)
    return detector, ours


@pytest.mark.parametrize("num_images", [1, 3])
@pytest.mark.parametrize("kind", [FasterRCNN, MaskRCNN])
def test_losses_equal_torchvisions(kind, num_images):
    """Where as much is sampled of each image; its mask targets lie half a pixel beside ours."""
    detector, ours = detectors(kind)
    images, targets = sample(num_images)
    detector.train()
    torch.manual_seed(1)
    expected = detector(list(ours.pixel_norm(images)), targets)
    torch.manual_seed(1)
    losses, detections = ours.train()(images, targets)
    assert losses.keys() == expected.keys() and not detections
    for name in LOSSES:
        torch.testing.assert_close(losses[name] / num_images, expected[name], rtol=1e-4, atol=1e-5)


def test_mask_loss_is_torchvisions_with_pixels_at_their_centers():
    """A pixel's value at i in place of i + 0.5 is boxes that lie half a pixel further up and left."""
    _, targets = sample(2)
    boxes = [torch.tensor([[6.0, 4, 40, 30], [15, 22, 51, 58.5]]), torch.tensor([[20.0, 30, 50, 60]])]
    matches = [torch.tensor([0, 1]), torch.tensor([1])]
    logits = torch.randn(3, 4, 28, 28, generator=torch.Generator().manual_seed(0))

    def torchvisions(shift: float) -> Tensor:
        parts = zip(logits.split([2, 1]), boxes, targets, matches, strict=True)
        return sum(maskrcnn_loss(p, [b + shift], [t["masks"]], [t["labels"]], [m]) for p, b, t, m in parts)

    torch.testing.assert_close(mask_loss(logits, boxes, matches, targets), torchvisions(-0.5))
    assert abs(torchvisions(-0.5) - torchvisions(0)) > 1e-3, "the half pixel must count"


def test_an_images_losses_do_not_depend_on_its_neighbours():
    _, ours = detectors(MaskRCNN, rpn_batch=10_000, roi_batch=10_000)  # all of them: nothing is drawn
    images, targets = sample()
    targets[1] = {name: value[:0] for name, value in targets[1].items()}
    targets[2]["ignored"] = torch.tensor([[0.0, 0, SIZE, 40]])
    ours.eval()
    with torch.no_grad():
        together = ours(images, targets)[0]
        alone = [ours(images[i : i + 1], targets[i : i + 1])[0] for i in range(3)]
    assert alone[1]["loss_mask"] == alone[1]["loss_box_reg"] == 0 < min(alone[0].values())
    for name, value in together.items():
        torch.testing.assert_close(value, sum(one[name] for one in alone), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [FasterRCNN, MaskRCNN])
def test_detections_equal_torchvisions(kind):
    detector, ours = detectors(kind)
    images, _ = sample()
    with torch.no_grad():
        expected = detector.eval()(list(ours.pixel_norm(images)))
        losses, detections = ours.eval()(images, detect=True)
    assert not losses and len(detections) == 3
    for ours_one, theirs in zip(detections, expected, strict=True):
        assert len(theirs["boxes"]) > 0
        for name in ("boxes", "labels", "scores"):
            torch.testing.assert_close(ours_one[name], theirs[name], rtol=1e-4, atol=1e-3)


def test_one_pass_in_validation_gives_the_training_losses():
    _, ours = detectors(MaskRCNN)
    images, targets = sample()
    ours.train()
    for module in ours.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    with torch.no_grad():
        torch.manual_seed(0)
        expected, _ = ours(images, targets)
        losses, detections = ours.eval()(images, targets, detect=True)
        alone = ours(images, detect=True)[1]
    assert set(losses) == LOSSES | {"loss_mask"}
    for name, value in losses.items():
        torch.testing.assert_close(value, expected[name])
    for both, one in zip(detections, alone, strict=True):
        torch.testing.assert_close(both, one)


def test_validation_losses_do_not_touch_or_read_the_random_state():
    _, ours = detectors(FasterRCNN)
    images, targets = sample()
    ours.eval()
    with torch.no_grad():
        torch.manual_seed(3)
        first = ours(images, targets)[0]
        after = torch.rand(1)
        torch.manual_seed(3)
        assert torch.equal(after, torch.rand(1))
        second = ours(images, targets)[0]
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_bf16_autocast_leaves_boxes_scores_and_losses_in_float32():
    _, ours = detectors(MaskRCNN)
    images, targets = sample()
    ours.eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        losses, detections = ours(images, targets, detect=True)
    assert all(value.dtype == torch.float32 for value in losses.values())
    boxes = torch.cat([d["boxes"] for d in detections])
    assert boxes.dtype == torch.float32 and (boxes.bfloat16().float() != boxes).any()
    assert all(d["scores"].dtype == d["masks"].dtype == torch.float32 for d in detections)


@pytest.mark.parametrize("kind", [FasterRCNN, MaskRCNN])
def test_images_without_objects(kind):
    _, ours = detectors(kind)
    images, targets = sample(2)
    targets[1] = {name: value[:0] for name, value in targets[1].items()}
    for some in (targets, [targets[1], targets[1]]):
        losses, _ = ours.train()(images, some)
        total = sum(losses.values())
        assert torch.isfinite(total)
        total.backward()


def test_images_that_are_ignored_altogether():
    _, ours = detectors(FasterRCNN)
    images, targets = sample(2)
    everything = torch.tensor([[0.0, 0, SIZE, SIZE]])
    targets = [{**{n: v[:0] for n, v in t.items()}, "ignored": everything} for t in targets]
    losses, _ = ours.train()(images, targets)
    assert all(torch.isfinite(value) for value in losses.values())


def test_ignored_regions_are_not_background():
    _, ours = detectors(FasterRCNN)
    _, targets = sample(1)
    target = targets[0]
    boxes = [torch.tensor([[20.0, 30, 50, 60], [0, 40, 14, 60], [52, 0, 64, 20]])]
    free = ours._sample(list(boxes), targets)[2][0]
    assert (free == 0).sum() == 2
    masked = ours._sample(list(boxes), [{**target, "ignored": torch.tensor([[0.0, 36, 20, 64]])}])[2][0]
    assert (masked == 0).sum() == 1
    covered = ours._sample(list(boxes), [{**target, "ignored": torch.tensor([[0.0, 0, 64, 64]])}])[2][0]
    assert (covered == 0).sum() == 0 and (covered == 3).sum() == 2  # objects inside still count


def test_images_of_different_sizes():
    _, ours = detectors(FasterRCNN)
    images = [torch.zeros(3, 50, 64, dtype=torch.uint8), torch.zeros(3, 33, 30, dtype=torch.uint8)]
    with torch.no_grad():
        _, detections = ours.eval()(images, detect=True)
    for image, detection in zip(images, detections, strict=True):
        assert detection["boxes"][:, 2].max() <= image.shape[2] and detection["boxes"][:, 3].max() <= image.shape[1]


def test_anchors_follow_the_image_size():
    for size in (64, 128):
        model = faster_rcnn.Model(faster_rcnn.Config(), DetectorSpec(num_foreground_classes=2, image_size=size))
        sides = [s for level in model.rpn.anchor_generator.sizes for s in level]
        assert sides == pytest.approx([f * size for f in faster_rcnn.Config().anchors])


@pytest.mark.parametrize("size", [64, 128, 512])
def test_heads_read_every_level_at_every_image_size(size):
    """Which one depends on a box's share of the image, as the anchors' sizes do."""
    config = CONFIG
    pool = roi_pool(config, 7, size)
    features = {
        level: torch.ones(1, 4, size // stride, size // stride, requires_grad=True)
        for level, stride in zip(config.levels, (8, 16), strict=True)
    }
    for level, anchors in zip(config.levels, (config.anchors[:2], config.anchors[2:]), strict=True):
        for anchor in anchors:
            box = torch.tensor([[size / 8, size / 8, size / 8 + anchor * size, size / 8 + anchor * size]])
            pooled = pool(features, [box], [(size, size)]).sum()
            gradients = torch.autograd.grad(pooled, list(features.values()), allow_unused=True)
            read = [name for name, g in zip(features, gradients, strict=True) if g is not None and g.abs().sum() > 0]
            assert read == [level]


def test_the_papers_levels_at_the_papers_size():
    pool = roi_pool(RCNNConfig(levels=("c2", "c3", "c4", "c5")), 7, 800)
    sides = torch.tensor([30.0, 111, 113, 223, 225, 447, 449, 800])
    boxes = torch.stack([torch.zeros(8), torch.zeros(8), sides, sides], dim=1)
    assert pool.map_levels([boxes]).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert pool.scales == [1 / 4, 1 / 8, 1 / 16, 1 / 32]


def test_the_heads_may_read_fewer_levels_than_have_anchors():
    pool = roi_pool(replace(CONFIG, head_levels=("c3",)), 7, SIZE)
    features = {level: torch.full((1, 4, SIZE // stride, SIZE // stride), float(stride)) for level, stride in STRIDES}
    pooled = pool(features, [torch.tensor([[0.0, 0, 60, 60], [0, 0, 9, 9]])], [(SIZE, SIZE)])
    torch.testing.assert_close(pooled, torch.full_like(pooled, 8.0))
    with pytest.raises(ConfigError, match="cannot read a level that is not there"):
        RCNNConfig(levels=("c4", "c5"), head_levels=("c3",), anchors=(0.1, 0.2))
    with pytest.raises(ConfigError, match="wrong pyramid levels"):
        RCNNConfig(head_levels=())


def test_a_wide_image_alone_is_read_at_the_right_places():
    """torchvision would infer the strides from the first batch's content: 40 rows of maps made for 64."""
    images, _ = sample(1)
    torch.manual_seed(0)
    fresh = detectors(FasterRCNN)[1].eval()
    with torch.no_grad():
        first = fresh(images, sizes=[(40, 64)], detect=True)[1][0]
        fresh(images, detect=True)
        again = fresh(images, sizes=[(40, 64)], detect=True)[1][0]
        feature = fresh.pyramid(fresh.backbone(fresh.pixel_norm(images)))
        box = torch.tensor([[8.0, 8, 24, 24]])
        pooled = fresh.roi_heads.box_roi_pool(feature, [box], [(40, 64)])
        expected = roi_align(feature["c3"], [box], 7, 1 / 8, 2)
    torch.testing.assert_close(first, again)
    torch.testing.assert_close(pooled, expected)


@pytest.mark.parametrize("wrong", [{"anchors": (0.1, 0.2, 0.3)}, {"anchors": ()}, {"anchors": (0.0, 0.1)}])
def test_anchors_that_do_not_fit_the_levels(wrong):
    with pytest.raises(ConfigError, match="anchor"):
        RCNNConfig(levels=("c3", "c4"), **wrong)
