"""`FrameClassifier`: two graphs, frames to features, and the features of clips to logits of each frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.predicting.graphs._family import BaseFamily, Graph, Run, Size, Value, images_like
from pipeline.predicting.graphs.classifier import IMAGES

FRAMES = replace(IMAGES, name="frames", axes={0: "frames"})
FEATURES = Value(name="features", meaning="of each frame by itself", axes={0: "frames"})
CLIPS = (
    Value(name="clips", meaning="the features of each clip's frames, 0 behind its end", axes={0: "batch", 1: "steps"}),
    Value(name="lengths", meaning="frames of each clip", axes={0: "batch"}),
)


class Family(BaseFamily):
    @staticmethod
    def graphs(model: Any, size: Size) -> list[Graph]:
        encoder, features = frame_encoder(model, size)
        logits = Value(name="logits", meaning="a number for each class at each frame", axes={0: "batch", 1: "steps"})
        classify = Graph(
            name="classify",
            function=lambda clips, lengths: (model.classify(clips, lengths),),
            example=clips_like(features),
            inputs=CLIPS,
            outputs=(logits,),
        )
        return [encoder, classify]

    class Stand(nn.Module):
        def __init__(self, runs: Mapping[str, Run]):
            super().__init__()
            self.encoder, self.classifier = runs["encoder"], runs["classify"]

        def encode(self, frames: Tensor) -> Tensor:
            """As `FrameClassifier`."""
            return self.encoder(frames)[0]

        def classify(self, features: Tensor, lengths: Sequence[int]) -> Tensor:
            """As `FrameClassifier`."""
            return self.classifier(features, torch.tensor(lengths))[0]


def frame_encoder(model: Any, size: Size) -> tuple[Graph, Tensor]:
    """Frames to features, and features (2, D)."""
    frames = images_like(size)
    with torch.no_grad():
        features = model.encode(frames)
    encoder = Graph(
        name="encoder",
        function=lambda frames: (model.encode(frames),),
        example=(frames,),
        inputs=(FRAMES,),
        outputs=(FEATURES,),
    )
    return encoder, features


def clips_like(features: Tensor) -> tuple[Tensor, Tensor]:
    """Two clips of up to three frames."""
    return features.new_zeros(2, 3, features.shape[1]), torch.tensor([3, 2])
