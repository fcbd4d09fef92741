"""Faster R-CNN trained in the four steps of its paper (1506.01497, 3.2), in place of with all four losses at once.

1. A region proposal network learns, on a backbone of its own, the `proposer`.
2. A second backbone and the box head learn from its proposals: Fast R-CNN. No weight is shared so far.
3. That backbone stays as it is, and the RPN that will be used learns on it.
4. The box head learns from its proposals.

Which step it is follows from which parts train, so the run's `train.stages` say it, the epochs of each, and anew its
optimizer and schedule, as the authors' (`train_faster_rcnn_alt_opt.py`):

    stages:
      - {epochs: 2, freeze: [backbone, rpn, roi_heads]}
      - {epochs: 2, freeze: [proposer, rpn]}
      - {epochs: 2, freeze: [proposer, backbone, roi_heads]}
      - {epochs: 2, freeze: [proposer, backbone, rpn]}

Proposals are made when they are needed by the network that is frozen, which are those that the authors store. Otherwise
than there: the box head of step 4 goes on from step 2's, its last layers, too. Losses of parts that do not train are 0
in training; validation and prediction are the last step's, of one network with one backbone. See `blocks/rcnn.py`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FasterRCNN

from contracts.errors import ConfigError
from lightning_modules.base.families import DetectorSpec
from lightning_modules.blocks.backbones import Backbone
from lightning_modules.blocks.detectors import RCNNConfig, detector_arguments, rcnn_backbone
from lightning_modules.blocks.rcnn import RCNN, Detection, Losses, Sizes, Target
from lightning_modules.blocks.single_map import Trunk

LOSSES = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg")
_STEPS = {("proposer",): 1, ("backbone", "roi_heads"): 2, ("rpn",): 3, ("roi_heads",): 4}  # by what trains
_STAGES = (
    "four stages, with freeze: [backbone, rpn, roi_heads], then [proposer, rpn], then [proposer, backbone, roi_heads], "
    "then [proposer, backbone, rpn]"
)


@dataclass(frozen=True, kw_only=True)
class Config(RCNNConfig):
    """Nothing beside the shared settings. A pyramid is a part, too, `pyramid`, to be frozen with its backbone."""


class Model(RCNN):
    """Boxes with class and score.

    Raises:
        ConfigError: in training, where it is not said by `train.stages` which step it is.
    """

    spec_class: ClassVar[type] = DetectorSpec

    def __init__(self, config: Config, spec: DetectorSpec):
        super().__init__(config, *_network(config, spec))
        self.proposer = RCNN(config, *_network(config, spec))
        del self.proposer.roi_heads

    def forward(
        self,
        images: Tensor | Sequence[Tensor],
        targets: list[Target] | None = None,
        *,
        sizes: Sizes | None = None,
        detect: bool = False,
    ) -> tuple[Losses, list[Detection]]:
        """As `RCNN`; in training the losses of the step, without detections."""
        if not self.training or targets is None:
            return super().forward(images, targets, sizes=sizes, detect=detect)
        step = self._step()
        batch = self._batch(images, sizes)
        source = self.proposer if step <= 2 else self
        features = _maps(source, batch.tensors)
        proposals, losses = source._propose(batch, features, targets if step in (1, 3) else None)
        if step in (2, 4):
            features = features if step == 4 else _maps(self, batch.tensors)
            losses = self._roi_losses(features, proposals, batch.image_sizes, targets)
        return dict.fromkeys(LOSSES, batch.tensors.new_zeros(())) | losses, []

    def _step(self) -> int:
        """1 to 4, by what trains."""
        parts = {"proposer": self.proposer, "backbone": self.backbone, "rpn": self.rpn, "roi_heads": self.roi_heads}
        trains = tuple(name for name, part in parts.items() if _trains(part))
        if (step := _STEPS.get(trains)) is None:
            raise ConfigError(
                "the parts that train are those of none of the four steps", value=", ".join(trains),
                where="train.stages", allowed=_STAGES,
            )  # fmt: skip
        return step


def _network(config: Config, spec: DetectorSpec) -> tuple[Backbone | Trunk, FasterRCNN]:
    backbone = rcnn_backbone(config)
    return backbone, FasterRCNN(**detector_arguments(config, backbone.channels, spec))


def _maps(network: RCNN, images: Tensor) -> OrderedDict[str, Tensor]:
    return OrderedDict((name, x.float()) for name, x in network.pyramid(network.backbone(images)).items())


def _trains(part: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in part.parameters())
