"""torchvision's Faster / Mask R-CNN run in one pass that can give losses and detections together.

Shapes: B images (B, 3, H, W) uint8; targets of image i: `boxes` (N, 4) float32, `labels` (N,) int64 in 1..C,
`ignored` (K, 4) float32, and for Mask R-CNN `masks` (N, H, W) uint8. P proposals (P, 4). D detections.

torchvision's own `forward` gives losses in training mode and detections in evaluation mode, never both, and under
bf16 autocast makes its anchors and decodes its boxes in bf16 (8 bits: an error of 4 px at 1,000 px). Here the
backbone and the heads' convolutions run under autocast; anchors, decoding, matching, suppression and losses do not.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FasterRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads, maskrcnn_inference
from torchvision.models.detection.rpn import RegionProposalNetwork, concat_box_prediction_layers

from lightning_modules.blocks.backbones import Backbone
from lightning_modules.blocks.detectors import BOX_WEIGHTS, RCNNConfig
from lightning_modules.blocks.pixels import PixelNorm, pad_to_stride
from lightning_modules.blocks.rcnn_losses import box_head_losses, mask_loss, rpn_losses
from lightning_modules.blocks.single_map import RoIMaxPool, Trunk
from lightning_modules.ops.box_coding import decode_boxes, encode_boxes
from lightning_modules.ops.matching import MatchRule, assign
from lightning_modules.ops.sampling import sample_balanced

Target = dict[str, Tensor]
Detection = dict[str, Tensor]
Losses = dict[str, Tensor]
Features = OrderedDict[str, Tensor]
Sizes = list[tuple[int, int]]

# 1506.01497, 3.1.2 and 1504.08083, 2.3, whose lower limit of 0.1 for background later work left out.
RPN_MATCH, RPN_POSITIVES = MatchRule(high=0.7, low=0.3, keep_best=True), 0.5
ROI_MATCH, ROI_POSITIVES = MatchRule(high=0.5, low=0.5), 0.25


class RCNN(nn.Module):
    """Runs the parts of a torchvision detector. `detector.transform` is not used: images arrive resized.

    Objects that are not to be learnt (crowds, VOC difficult) come as `ignored` boxes: anchors and proposals that
    lie in one (half of their own area) and match no object are neither positive nor negative.
    """

    def __init__(self, config: RCNNConfig, backbone: Backbone | Trunk, detector: FasterRCNN):
        super().__init__()
        self.pixel_norm = PixelNorm()
        self.rpn_batch, self.roi_batch = config.rpn_batch, config.roi_batch
        self.backbone = backbone
        self.pyramid = detector.backbone
        self.rpn = cast(RegionProposalNetwork, detector.rpn)
        self.roi_heads = cast(RoIHeads, detector.roi_heads)
        if config.pooling == "max":  # torchvision's constructor takes no other pooling than its own
            self.roi_heads.box_roi_pool = RoIMaxPool((config.head_levels or config.levels)[0], config.roi_size)

    def forward(
        self,
        images: Tensor | Sequence[Tensor],
        targets: list[Target] | None = None,
        *,
        sizes: Sizes | None = None,
        detect: bool = False,
    ) -> tuple[Losses, list[Detection]]:
        """Losses if there are targets, detections if asked for; the backbone runs once.

        Args:
            images: (B, 3, H, W) uint8, or B tensors (3, H, W) uint8 of any sizes.
            targets: one dict per image, see the module's legend.
            sizes: (height, width) of each image's content, from its upper left corner; the whole image by default.
            detect: whether to return detections.

        Returns:
            losses: `loss_objectness`, `loss_rpn_box_reg`, `loss_classifier`, `loss_box_reg` (and `loss_mask`),
                float32 scalars, sums over images of each one's mean over its samples; empty without targets. In
                evaluation mode they do not depend on the random state.
            detections: per image `boxes` (D, 4) float32 in input pixels, `labels` (D,), `scores` (D,) falling,
                (and `masks` (D, 1, 28, 28) probabilities on the boxes); empty if not asked for.
        """
        batch = self._batch(images, sizes)
        maps = self.pyramid(self.backbone(batch.tensors))
        features = OrderedDict((name, x.float()) for name, x in maps.items())
        losses: Losses = {}
        detections: list[Detection] = []
        with contextlib.ExitStack() as stack:
            if targets is not None and not self.training:
                stack.enter_context(fixed_random(batch.tensors.device))
            proposals, losses = self._propose(batch, features, targets)
            if targets is not None:
                losses = {**losses, **self._roi_losses(features, proposals, batch.image_sizes, targets)}
        if detect:
            detections = self._detect(features, proposals, batch.image_sizes)
        return losses, detections

    def _batch(self, images: Tensor | Sequence[Tensor], sizes: Sizes | None) -> ImageList:
        """Normalises and pads below and right with zeros, ImageNet's mean colour, to one size."""
        if sizes is None:
            sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        if isinstance(images, Tensor):
            return ImageList(pad_to_stride(self.pixel_norm(images)), sizes)
        largest = max(image.shape[-2] for image in images), max(image.shape[-1] for image in images)
        x = torch.cat([pad_to_stride(self.pixel_norm(image[None]), largest) for image in images])
        return ImageList(x.contiguous(memory_format=torch.channels_last), sizes)

    def _propose(
        self, batch: ImageList, features: Features, targets: list[Target] | None
    ) -> tuple[list[Tensor], Losses]:
        """Proposals of the RPN (P, 4) per image, and its two losses if there are targets."""
        rpn = self.rpn
        maps = list(features.values())
        objectness_maps, delta_maps = rpn.head(maps)
        with full_precision(batch.tensors.device):
            objectness_maps = [x.float() for x in objectness_maps]
            delta_maps = [x.float() for x in delta_maps]
            anchors = rpn.anchor_generator(batch, maps)
            per_level = [x[0].numel() for x in objectness_maps]
            objectness, deltas = concat_box_prediction_layers(objectness_maps, delta_maps)
            boxes = decode_boxes(deltas.detach(), torch.cat(anchors)).view(len(anchors), -1, 4)
            proposals, _ = rpn.filter_proposals(boxes, objectness, batch.image_sizes, per_level)
            if targets is None:
                return proposals, {}
            matches = [
                assign(one, target["boxes"], target["ignored"], RPN_MATCH)
                for one, target in zip(anchors, targets, strict=True)
            ]
            samples = [sample_balanced(match, self.rpn_batch, RPN_POSITIVES) for match in matches]
            wanted = [
                encode_boxes(matched_objects(target["boxes"], match), one)
                for one, target, match in zip(anchors, targets, matches, strict=True)
            ]
            objectness_loss, box_loss = rpn_losses(objectness, deltas, samples, wanted)
        return proposals, {"loss_objectness": objectness_loss, "loss_rpn_box_reg": box_loss}

    def _classify(self, features: Features, boxes: list[Tensor], sizes: Sizes) -> tuple[Tensor, Tensor]:
        """Class logits (sum P, C + 1) and box deltas (sum P, 4 (C + 1)) of the boxes, float32."""
        roi = self.roi_heads
        logits, deltas = roi.box_predictor(roi.box_head(roi.box_roi_pool(features, boxes, sizes)))
        return logits.float(), deltas.float()

    def _mask_logits(self, features: Features, boxes: list[Tensor], sizes: Sizes) -> Tensor:
        """Mask logits (sum P, C + 1, 28, 28) of the boxes, float32."""
        roi = self.roi_heads
        return roi.mask_predictor(roi.mask_head(roi.mask_roi_pool(features, boxes, sizes))).float()

    def _roi_losses(self, features: Features, proposals: list[Tensor], sizes: Sizes, targets: list[Target]) -> Losses:
        with full_precision(proposals[0].device):
            boxes, matches, labels, regression = self._sample(proposals, targets)
        logits, deltas = self._classify(features, boxes, sizes)
        with full_precision(logits.device):
            class_loss, box_loss = box_head_losses(logits, deltas, labels, regression)
        losses = {"loss_classifier": class_loss, "loss_box_reg": box_loss}
        if self.roi_heads.has_mask():
            positive = [label > 0 for label in labels]
            mask_boxes = [box[p] for box, p in zip(boxes, positive, strict=True)]
            mask_matches = [match[p] for match, p in zip(matches, positive, strict=True)]
            mask_logits = self._mask_logits(features, mask_boxes, sizes)
            with full_precision(logits.device):
                losses["loss_mask"] = mask_loss(mask_logits, mask_boxes, mask_matches, targets)
        return losses

    def _sample(
        self, proposals: list[Tensor], targets: list[Target]
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
        """Of proposals and true boxes, those that the heads learn from: boxes, their objects, labels and deltas."""
        boxes, matches, labels, wanted = [], [], [], []
        for found, target in zip(proposals, targets, strict=True):
            candidates = torch.cat([found, target["boxes"]])
            match = assign(candidates, target["boxes"], target["ignored"], ROI_MATCH)
            positive, negative = sample_balanced(match, self.roi_batch, ROI_POSITIVES)
            chosen = torch.where(positive | negative)[0]
            box, match = candidates[chosen], match[chosen]
            label = torch.zeros_like(match)
            label[match >= 0] = target["labels"][match[match >= 0]]
            boxes.append(box)
            matches.append(match)
            labels.append(label)
            wanted.append(encode_boxes(matched_objects(target["boxes"], match), box, BOX_WEIGHTS))
        return boxes, matches, labels, wanted

    def _detect(self, features: Features, proposals: list[Tensor], sizes: Sizes) -> list[Detection]:
        logits, deltas = self._classify(features, proposals, sizes)
        with full_precision(logits.device):
            found = self.roi_heads.postprocess_detections(logits, deltas, proposals, sizes)
        detections = [{"boxes": b, "scores": s, "labels": n} for b, s, n in zip(*found, strict=True)]
        if self.roi_heads.has_mask():
            mask_logits = self._mask_logits(features, [d["boxes"] for d in detections], sizes)
            probs = maskrcnn_inference(mask_logits, [d["labels"] for d in detections])
            for detection, masks in zip(detections, probs, strict=True):
                detection["masks"] = masks
        return detections


def matched_objects(objects: Tensor, matches: Tensor) -> Tensor:
    """The object (A, 4) of each match; any box where there is none, whose deltas count in no loss."""
    return (objects if len(objects) else objects.new_tensor([[0.0, 0.0, 1.0, 1.0]]))[matches.clamp(min=0)]


def full_precision(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, enabled=False)


@contextlib.contextmanager
def fixed_random(device: torch.device) -> Iterator[None]:
    """The samplers draw from the global generator: a validation loss must not depend on what ran before it."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(0)
        yield
