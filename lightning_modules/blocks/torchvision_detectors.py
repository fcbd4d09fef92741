"""torchvision's whole detectors by name, with the weights that it publishes for COCO, as parts for `blocks/rcnn.py` and
`blocks/dense.py`.

torchvision's constructor makes the network, with as many classes as the data set has; weights of 91 classes are loaded
into all of it but the class heads; then it is taken apart. Its `forward` and its transform are not used: images come
resized, and losses and detections come of one pass.

Shapes: images (B, 3, H, W) float, normalised; maps "c2" .. "c5" of strides 4, 8, 16 and 32, of a ResNet and of VGG-16.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.faster_rcnn import FasterRCNN
from torchvision.ops.poolers import initLevelMapper

from contracts.errors import ConfigError, DataError
from contracts.ranges import COUNT, SHARE, check_ranges
from lightning_modules.blocks.backbones import LEVELS, Backbone, _state_dict
from lightning_modules.blocks.detectors import RCNNConfig
from lightning_modules.blocks.norms import NormName, set_norms
from lightning_modules.blocks.rcnn import RCNN

DetectorName = Literal[
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "retinanet_resnet50_fpn",
    "retinanet_resnet50_fpn_v2",
    "ssd300_vgg16",
]
InstanceSegmenterName = Literal["maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2"]
RESNET_CHANNELS = (256, 512, 1024, 2048)
_SHOWN = 4  # tensors that an error names


class Family(NamedTuple):
    """What the architectures of one kind have in common: where their class heads are, and torchvision's numbers."""

    heads: tuple[str, ...]
    score_threshold: float
    nms_threshold: float
    max_detections: int


# Of R-CNN the deltas, too, are each class's own; those of the others serve all classes, and stay.
_RCNN_HEADS = ("roi_heads.box_predictor.", "roi_heads.mask_predictor.mask_fcn_logits.")
FAMILIES = {
    "fasterrcnn": Family(_RCNN_HEADS, 0.05, 0.5, 100),
    "maskrcnn": Family(_RCNN_HEADS, 0.05, 0.5, 100),
    "retinanet": Family(("head.classification_head.cls_logits.",), 0.05, 0.5, 300),
    "ssd300": Family(("head.classification_head.",), 0.01, 0.45, 200),
}
# Weights that come from Detectron, whose norms divide by the deviation without anything added to it.
_WITHOUT_EPS = ("fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn", "retinanet_resnet50_fpn")
_RPN_BATCH, _ROI_BATCH = 256, 512


@dataclass(frozen=True, kw_only=True)
class TorchvisionConfig:
    """Not set (null), a number is the one that torchvision has for the architecture.

    Attributes:
        pretrained: whether to start from torchvision's COCO weights, all but the class heads; or a file of weights of
            the same layout, such as a published `.pth` or what torchvision's training scripts leave under `model`. A
            name that does not begin with / is one below the project's folder. A training depends on the file's name,
            not on what is in it: give other weights another name.
        norm: which statistics the norms use (`blocks/norms.py`). frozen suits pretrained weights; without them choose
            batch, sync or group.
        score_threshold: detections that do not reach more are dropped, 0 to 1 (0.05; SSD 0.01).
        nms_threshold: of two boxes of one class whose IoU is larger, 0 to 1, only the one with the better score stays
            (0.5; SSD 0.45).
        max_detections: of an image (R-CNN 100, RetinaNet 300, SSD 200).
        rpn_batch, roi_batch: of R-CNN alone, anchors and proposals sampled for the losses, per image (256, 512).
    """

    pretrained: bool | str = False
    norm: NormName = "frozen"
    score_threshold: float | None = None
    nms_threshold: float | None = None
    max_detections: int | None = None
    rpn_batch: int | None = None
    roi_batch: int | None = None

    def __post_init__(self) -> None:
        check_ranges(
            self, score_threshold=SHARE, nms_threshold=SHARE, max_detections=COUNT, rpn_batch=COUNT, roi_batch=COUNT
        )
        if not self.is_rcnn and (self.rpn_batch or self.roi_batch):
            raise ConfigError(
                f"{self.name} samples nothing",
                value={"rpn_batch": self.rpn_batch, "roi_batch": self.roi_batch},
                where="model",
                fix="take them out: every anchor counts",
            )
        if self.name.startswith("ssd") and self.norm not in ("batch", "frozen"):
            raise ConfigError(
                "ssd300_vgg16 has no batch norms", value=self.norm, where="model.norm", fix="leave it out"
            )
        if self.pretrained and self.norm == "group":
            raise ConfigError(
                "pretrained weights belong to batch norms",
                value={"pretrained": self.pretrained, "norm": self.norm},
                where="model.norm",
                allowed="norm: batch, sync or frozen; or pretrained: false",
            )
        if isinstance(self.pretrained, str) and not Path(self.pretrained).is_file():
            raise ConfigError(
                "the file of weights is not there",
                value=self.pretrained,
                where=str(Path(self.pretrained).absolute()),
                allowed="true, false, or a file on every machine that trains, named from the project's folder or /",
                fix=f"put the weights of torchvision's {self.name} there, or set pretrained: true to fetch them",
            )

    @property
    def name(self) -> str:
        """The architecture, as torchvision calls it."""
        return str(self.architecture)  # type: ignore[attr-defined]  # each model's Config has its own choices

    @property
    def family(self) -> Family:
        return FAMILIES[self.name.partition("_")[0]]

    @property
    def is_rcnn(self) -> bool:
        return "rcnn" in self.name

    def own(self, setting: Literal["score_threshold", "nms_threshold", "max_detections"]) -> Any:
        """The setting, or the family's number where none is set."""
        value = getattr(self, setting)
        return getattr(self.family, setting) if value is None else value


def build_torchvision(config: TorchvisionConfig, num_outputs: int) -> Any:
    """torchvision's detector with `num_outputs` classes, as its constructor counts them, and `config`'s norms; with
    pretrained weights all of it has them but the class heads, which are new.

    Raises:
        ConfigError: published weights that cannot be had.
        DataError: a file that does not hold this architecture's weights.
    """
    numbers = {}
    if config.is_rcnn:
        numbers = {
            "box_score_thresh": config.own("score_threshold"),
            "box_nms_thresh": config.own("nms_threshold"),
            "box_detections_per_img": config.own("max_detections"),
        }
    model = torchvision.models.get_model(
        config.name, weights=None, weights_backbone=None, num_classes=num_outputs, **numbers
    )
    if config.pretrained is True:
        weights = torchvision.models.get_model_weights(config.name).DEFAULT
        load_all_but_heads(model, _state_dict(config.name, weights), config, weights.url)
    elif config.pretrained:
        path = Path(config.pretrained)
        load_all_but_heads(model, _read(path, config), config, str(path))
    set_norms(model, config.norm)
    if config.name in _WITHOUT_EPS:
        overwrite_eps(model, 0.0)  # of frozen norms alone
    return model


def _read(path: Path, config: TorchvisionConfig) -> Mapping[str, Tensor]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the bytes lead it to
        raise DataError(
            "the file of weights cannot be read", value=str(error)[:200], where=str(path), allowed=_expected(config)
        ) from error
    found = found.get("model", found) if isinstance(found, dict) else found
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise DataError("not a file of weights", where=str(path), allowed=_expected(config))
    return found


def load_all_but_heads(model: nn.Module, state: Mapping[str, Tensor], config: TorchvisionConfig, where: str) -> None:
    """Put a detector's weights into `model`, whatever number of classes they are for.

    Args:
        model: torchvision's detector, its norms batch norms.
        state: a state dict of it; old names of its tensors are understood, as torchvision does.

    Raises:
        DataError: tensors that are missing, too much, or of another shape.
    """
    heads = config.family.heads
    # A plain dict has no versions: torch then takes it for old, whose norms may lack their count of batches.
    given = {name: value for name, value in state.items() if not name.startswith(heads)}
    differing: list[str] = []
    try:
        result = model.load_state_dict(given, strict=False)
    except RuntimeError as error:
        differing = [line.strip() for line in str(error).splitlines()[1:]]
    else:
        missing = [name for name in result.missing_keys if not name.startswith(heads)]
        differing = [f"{name} is missing" for name in missing] + [
            f"{name} is too much" for name in result.unexpected_keys
        ]
    if differing:
        more = f"; and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
        raise DataError(
            f"these are not the weights of torchvision's {config.name}",
            value="; ".join(differing[:_SHOWN]) + more,
            where=where,
            allowed=_expected(config),
        )


def _expected(config: TorchvisionConfig) -> str:
    url = torchvision.models.get_model_weights(config.name).DEFAULT.url
    return f"a state dict of {config.name}, such as {Path(url).name} of {url}, for any number of classes"


def resnet_backbone(body: Mapping[str, nn.Module]) -> Backbone:
    """torchvision's ResNet in the four stages, and under the names, that `blocks/backbones.py` has it in."""
    stem = nn.Sequential(*(body[name] for name in ("conv1", "bn1", "relu", "maxpool", "layer1")))
    return Backbone([stem, body["layer2"], body["layer3"], body["layer4"]], RESNET_CHANNELS)


class NamedPyramid(nn.Module):
    """torchvision's pyramid on maps by our names: gives all of its maps, "0" the finest.

    Args:
        levels: the names of the maps that it is made of, finest first.
    """

    def __init__(self, fpn: nn.Module, levels: tuple[str, ...]):
        super().__init__()
        self.fpn, self.levels = fpn, levels

    def forward(self, maps: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
        out: OrderedDict[str, Tensor] = self.fpn(OrderedDict((str(i), maps[x]) for i, x in enumerate(self.levels)))
        return out


class TorchvisionRCNN(RCNN):
    """torchvision's Faster or Mask R-CNN. Anchors are its own, 32 to 512 px whatever the size of the images: the
    proposals' weights know these.

    Of MobileNet the backbone is torchvision's, in which both maps have stride 32; of the others it is a `Backbone`.
    """

    def __init__(self, config: TorchvisionConfig, num_foreground_classes: int):
        detector: FasterRCNN = build_torchvision(config, num_foreground_classes + 1)
        body, fpn = detector.backbone.body, detector.backbone.fpn
        is_resnet = "layer1" in body
        backbone = resnet_backbone(body) if is_resnet else body
        levels, exponents = (LEVELS, (2, 3, 4, 5)) if is_resnet else (("0", "1"), (5, 5))
        detector.backbone = NamedPyramid(fpn, levels)
        _fix_scales(detector.roi_heads, exponents)
        sampling = RCNNConfig(rpn_batch=config.rpn_batch or _RPN_BATCH, roi_batch=config.roi_batch or _ROI_BATCH)
        super().__init__(sampling, backbone, detector)


def _fix_scales(heads: Any, exponents: tuple[int, ...]) -> None:
    """Tell the poolings the strides of their maps, which they would infer from the first images' content: from then on
    a wide one in its letterbox makes them read the wrong places."""
    for pool in (heads.box_roi_pool, heads.mask_roi_pool):
        if pool is not None:
            pool.scales = [2.0**-exponent for exponent in exponents]
            pool.map_levels = initLevelMapper(exponents[0], exponents[-1], canonical_scale=pool.canonical_scale)
