"""Visual7W's pointing: an LSTM reads the question, and the region that fits it best is the answer (1511.03416, 5.2).

Score of a box: the LSTM's last state times a linear map of what is in the box and where it is. The paper takes fc7 of
each cropped box; here `roi_align` (1703.06870) cuts all boxes out of one map of features, 7 x 7 places of which the
mean counts, and five numbers say where the box is: its sides and its area as shares of the image.

Shapes: B images, Q questions, T words, N boxes of all questions, D feature channels, H hidden units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from contracts.ranges import COUNT, check_ranges
from lightning_modules.base.families import PointerSpec
from lightning_modules.blocks.backbones import BackboneName, build_backbone, check_backbone
from lightning_modules.blocks.language import RecurrentEncoder
from lightning_modules.blocks.norms import NormName
from lightning_modules.blocks.pixels import PixelNorm

_BINS = 7
_PLACE = 5  # x1, y1, x2, y2, area


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    Attributes:
        features: the backbone level that boxes are cut out of; c3 has stride 8, c4 16.
        blind_to: the controls: "image" zeroes all that is known of a box, "question" the question's vector.
    """

    backbone: BackboneName = "small"
    pretrained: bool = False
    norm: NormName = "batch"
    features: Literal["c3", "c4", "c5"] = "c4"
    embedding_channels: int = 64
    hidden_channels: int = 128
    blind_to: Literal["nothing", "image", "question"] = "nothing"

    def __post_init__(self) -> None:
        check_ranges(self, embedding_channels=COUNT, hidden_channels=COUNT)
        check_backbone(self.backbone, pretrained=self.pretrained, norm=self.norm)


class Model(nn.Module):
    """A `Pointer` (`base/families.py`)."""

    spec_class: ClassVar[type] = PointerSpec

    def __init__(self, config: Config, spec: PointerSpec):
        super().__init__()
        self.normalise = PixelNorm()
        self.backbone = build_backbone(config.backbone, pretrained=config.pretrained, norm=config.norm)
        self.level, self.blind_to = config.features, config.blind_to
        self.embed = nn.Embedding(spec.vocabulary_size, config.embedding_channels)
        self.question = RecurrentEncoder(config.embedding_channels, config.hidden_channels)
        self.region = nn.Linear(self.backbone.channels[config.features] + _PLACE, config.hidden_channels)

    def forward(
        self,
        images: Tensor,
        questions: Tensor,
        lengths: Sequence[int],
        question_image: Tensor,
        boxes: Tensor,
        box_question: Tensor,
    ) -> Tensor:
        """Scores (N,) float32 of boxes (N, 4): see `Pointer`."""
        _, (hidden, _) = self.question(self.embed(questions), lengths)
        asked = hidden[:, -1]  # (Q, H)
        if self.blind_to == "question":
            asked = torch.ones_like(asked)
        regions = self.region(self._regions(images, boxes, question_image.index_select(0, box_question)))  # (N, H)
        return (asked.index_select(0, box_question).float() * regions.float()).sum(dim=1)

    def _regions(self, images: Tensor, boxes: Tensor, box_image: Tensor) -> Tensor:
        """(N, D + 5): what is in each box and where it is."""
        if self.blind_to == "image":
            return self.region.weight.new_zeros(len(boxes), self.region.in_features)
        grid = self.backbone(self.normalise(images))[self.level].float()
        height, width = images.shape[-2:]
        rois = torch.cat([box_image.unsqueeze(1).to(boxes.dtype), boxes], dim=1)
        cut = roi_align(grid, rois, _BINS, spatial_scale=grid.shape[-1] / width, aligned=True).mean(dim=(2, 3))
        x1, y1, x2, y2 = (boxes / boxes.new_tensor([width, height, width, height])).unbind(dim=1)
        return torch.cat([cut, torch.stack([x1, y1, x2, y2, (x2 - x1) * (y2 - y1)], dim=1)], dim=1)
