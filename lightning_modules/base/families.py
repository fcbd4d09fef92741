"""What joins a task and a model, which never import each other: how the one is called by the other.

A task names the family it needs (`Task.family`), a model the one it belongs to (`Model.family`), and `make check`
compares the two of a run before anything is done.

    captioner    `encode(images)`, `decode(..)`, `start(..)`, `step(..)`: `Captioner` of `tasks/captioning.py`
    answerer     `model(images, questions, lengths, question_image)` -> answer logits (Q, K)
    classifier   `model(images)` -> class logits (B, C)
    segmenter    `model(images)` -> class logits (B, K, H, W)
    detector     `model(images, targets, sizes=.., detect=..)` -> losses, boxes: `RCNN` of `blocks/rcnn.py`
    instance segmenter    the same, with masks in targets and detections
"""

from __future__ import annotations

from typing import Literal

Family = Literal["captioner", "answerer", "classifier", "segmenter", "detector", "instance segmenter"]
