"""Random changes of an image or a clip with all that lies on it, and resizing, in one pass over the pixels.

Two steps: `draw` says what happens to a sample, all random numbers of it; `apply` does it to pixels and annotations.

Shapes: N boxes (N, 4) float32 `(x1, y1, x2, y2)` in pixels of the frame, the record's height H and width W; N masks
(N, H, W) uint8 0/1; semantic (H, W) uint8 labels, 255 ignored; Q quads (Q, 4, 2) float32, the corners of texts, x
before y; P proposals (P, 4). T frames of a clip. Output size h x w.

Everything of ours that moves pixels is one map (`View`) and everything that changes colors is one matrix, so a JPEG is
decoded no larger than needed, and each pixel is interpolated once. albumentations' transforms follow, one by one.

Filters. Without a seed: exact decoding, and the area of an output pixel is averaged where the image shrinks
(antialiased). With a seed: decoded at 1/2, 1/4 or 1/8 as long as that is no smaller than what is shown (which
averages), and then bilinear, not antialiased, for the factor below 2 that is left. Labels and masks: nearest neighbor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np

from contracts.errors import DataError
from lightning_modules.augment.config import AugmentConfig, ResizeMode
from lightning_modules.augment.draw import Draw, centers_inside, content_size, draw_sample
from lightning_modules.augment.images import decode_image, image_size
from lightning_modules.augment.named import NEEDS_MASK, make_transforms
from lightning_modules.augment.shown import (
    NO_BOXES,
    Annotations,
    chosen,
    given_annotations,
    under_transform,
    under_view,
)
from lightning_modules.augment.view import Motion, Size, View
from lightning_modules.blocks.pixels import new_row
from lightning_modules.ops.boxes import mask_boxes

_NOWHERE = np.arange(0)


@dataclass(frozen=True, kw_only=True)
class Augmented:
    """The changed image and what lies on it. `boxes`, `masks` and `indices` have one entry per object that is left;
    K objects show too little to be told and too much to be background.

    Attributes:
        image: (h, w, 3) uint8; of a clip (T, h, w, 3).
        boxes: (M, 4) float32, `0 <= x1 < x2 <= w`, M <= N.
        masks: (M, h, w) uint8, or None if none were given.
        semantic: (h, w) uint8, or None.
        indices: (M,) int64, which of the N inputs each one is: look ids, labels and flags up by it.
        hidden: (K, 4) float32, what shows of those, as `boxes`.
        quads: (M', 4, 2) float32, not cut: corners may lie outside. Their order stays, in a mirrored image too.
        quad_indices: (M',) int64, which of the Q.
        proposals: (M'', 4) float32, as `boxes`; proposal_indices: (M'',) int64, which of the P.
        content_size: (height, width) of the part that is image where nothing was moved; the rest is padding.
    """

    image: np.ndarray
    boxes: np.ndarray
    masks: np.ndarray | None
    semantic: np.ndarray | None
    indices: np.ndarray
    hidden: np.ndarray
    quads: np.ndarray
    quad_indices: np.ndarray
    proposals: np.ndarray
    proposal_indices: np.ndarray
    content_size: Size


class Augment:
    """Resizes to `size` and, given a seed, augments. The result depends on the arguments of the call alone.

    Args:
        config: what may change at random.
        size: height and width of the output, or one number for both.
        mode: "stretch" to exactly that size; "letterbox" keeps the aspect ratio, fills right and below with grey;
            "cover" shows the middle: without a random crop, `center` of the largest part with the output's aspect;
            "line" is for text: that height, the width by the aspect up to the output's, grey to the right.
        center: share of the sides, in mode "cover"; 0.875 is 224 of 256.
    """

    def __init__(self, config: AugmentConfig, *, size: int | Size, mode: ResizeMode = "stretch", center: float = 0.875):
        self.config = config
        self.size = (size, size) if isinstance(size, int) else size
        self.mode = mode
        self.center = center

    @cached_property
    def _transforms(self) -> list[Any]:
        # Made when the first is needed: validation and serving never import the library.
        return make_transforms(self.config.albumentations)

    def __call__(
        self,
        image: bytes | Sequence[bytes],
        frame: Size,
        *,
        seed: int | None,
        mirror: bool | None = None,
        boxes: np.ndarray | None = None,
        masks: np.ndarray | None = None,
        semantic: np.ndarray | None = None,
        quads: np.ndarray | None = None,
        proposals: np.ndarray | None = None,
    ) -> Augmented:
        """`draw` and `apply` at once; their arguments."""
        draw = self.draw(seed, frame, mirror=mirror, boxes=boxes)
        return self.apply(draw, image, boxes=boxes, masks=masks, semantic=semantic, quads=quads, proposals=proposals)

    def draw(
        self, seed: int | None, frame: Size, *, mirror: bool | None = None, boxes: np.ndarray | None = None
    ) -> Draw:
        """What happens to the sample of this seed.

        Args:
            seed: None resizes only and drops no object.
            frame: the record's (height, width).
            mirror: whether left and right are exchanged, for a caller who must know; None: as `horizontal_flip` says.
            boxes: (N, 4), for a crop that shall meet objects.
        """
        return draw_sample(
            self.config, seed, frame, size=self.size, mode=self.mode, center=self.center, mirror=mirror,
            boxes=NO_BOXES if boxes is None else boxes,
        )  # fmt: skip

    def apply(
        self,
        draw: Draw,
        image: bytes | Sequence[bytes],
        *,
        boxes: np.ndarray | None = None,
        masks: np.ndarray | None = None,
        semantic: np.ndarray | None = None,
        quads: np.ndarray | None = None,
        proposals: np.ndarray | None = None,
    ) -> Augmented:
        """
        Args:
            image: encoded, as in a record; of a clip the frames, which all change alike. Annotations of any of the
                frames may be given together: `indices` says which are left.
            masks: need `boxes` of the same length.

        Raises:
            DataError: an image cannot be decoded, or the frames of a clip differ in size.
        """
        frames = [image] if isinstance(image, bytes) else list(image)
        view, shrink = self._view(draw, frames)
        pixels = new_row((*([] if isinstance(image, bytes) else [len(frames)]), *self.size, 3), np.uint8)
        shown = pixels[None] if isinstance(image, bytes) else pixels
        for data, out in zip(frames, shown, strict=True):
            view.show_image(decode_image(data, shrink=shrink), out, antialias=not draw.is_random)
            if draw.colors:
                cv2.transform(out, np.array(draw.colors), dst=out)
        given = given_annotations(boxes, masks, semantic, quads, proposals)
        on = under_view(view, given, clip=draw.is_random)
        if draw.is_random and self.config.object_crop:
            left, top, right, bottom = draw.motion.crop
            height, width = draw.frame
            window = np.array([left * width, top * height, right * width, bottom * height])
            on.box_shares[~centers_inside(given.boxes, window)] = -1
        if draw.seeds:
            on = self._transform(draw, shown, on)
        return self._choose(draw, pixels, on)

    def content_size(self, height: float, width: float) -> Size:
        """(height, width) that an image of this size has in the output before it is moved; the rest is padding."""
        return content_size((height, width), (0, 0, 1, 1), self.size, self.mode)

    def _view(self, draw: Draw, frames: Sequence[bytes]) -> tuple[View, int]:
        """Where stored pixels go, and how much smaller the images are decoded."""
        stored = image_size(frames[0])
        if other := [size for size in map(image_size, frames[1:]) if size != stored]:
            raise DataError(
                "the frames of a clip differ in size", value=[stored, other[0]], allowed="one height and width",
                fix="run the shard stage again on frames of one size",
            )  # fmt: skip
        shrink = _shrink(draw.motion, stored, draw.content) if draw.is_random else 1
        # Not the decoded array's size, whose last pixels may be partial.
        height, width = stored[0] / shrink, stored[1] / shrink
        view = View(draw.motion, frame=draw.frame, stored=(height, width), content=draw.content, output=self.size)
        return view, shrink

    def _transform(self, draw: Draw, shown: np.ndarray, on: Annotations) -> Annotations:
        """albumentations' transforms, in their order, on pixels (T, h, w, 3), which are written to."""
        frames = shown
        for seed, transform in zip(draw.seeds, self._transforms, strict=True):
            transform.set_random_seed(seed)  # its own state is of unknown age
            if not hasattr(transform, "apply_to_bboxes"):  # it changes no more than pixels
                data = {"image": frames[0]} | ({"images": frames[1:]} if len(frames) > 1 else {})
                out = transform(**data)
                frames = out["image"][None] if len(frames) == 1 else np.concatenate([out["image"][None], out["images"]])
                continue
            name = type(transform).__name__
            frames, on = under_transform(transform, frames, on, needs_mask=name in NEEDS_MASK)
        size = frames.shape[1:3]
        if size == self.size:
            shown[:] = frames
            return on
        # It came back in another size: fitted to the output as an image is.
        view = View(Motion(), frame=size, stored=size, content=self.content_size(*size), output=self.size)
        for frame, out in zip(frames, shown, strict=True):
            view.show_image(frame, out, antialias=False)
        return under_view(view, on, clip=True)

    def _choose(self, draw: Draw, pixels: np.ndarray, on: Annotations) -> Augmented:
        """What is left; without a seed all of it. The boxes of objects hardly seen are told apart."""
        boxes, hidden, least = on.boxes, on.boxes[:0], self.config.min_visibility
        kept, quads, proposals = (_places(len(each)) for each in (on.boxes, on.quads, on.proposals))
        if draw.is_random and len(kept):
            enough = chosen(on.boxes, on.box_shares, least)
            if on.masks is not None:
                boxes = mask_boxes(on.masks)  # around what is seen of it; a box that was turned is larger
            there = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
            kept, hidden = np.flatnonzero(enough & there), boxes[there & ~enough]
        if draw.is_random and len(quads):
            quads = np.flatnonzero((on.quad_shares > 0) & (on.quad_shares >= least))
        if draw.is_random and len(proposals):
            proposals = np.flatnonzero(chosen(on.proposals, on.proposal_shares, least))
        return Augmented(
            image=pixels,
            boxes=boxes[kept] if len(kept) < len(boxes) else boxes,
            masks=on.masks[kept] if on.masks is not None and len(kept) < len(boxes) else on.masks,
            semantic=on.semantic,
            indices=kept,
            hidden=hidden,
            quads=on.quads[quads] if len(quads) else on.quads[:0],
            quad_indices=quads,
            proposals=on.proposals[proposals] if len(proposals) else on.proposals[:0],
            proposal_indices=proposals,
            content_size=self.content_size(*draw.frame),
        )


def _places(count: int) -> np.ndarray:
    return np.arange(count) if count else _NOWHERE


def _shrink(motion: Motion, stored: Size, content: Size) -> int:
    """The largest of 1, 2, 4, 8 that leaves no less pixels than will be shown."""
    left, top, right, bottom = motion.crop
    spare = min(
        stored[0] * (bottom - top) / (content[0] * motion.zoom), stored[1] * (right - left) / (content[1] * motion.zoom)
    )
    return next(k for k in (8, 4, 2, 1) if k == 1 or spare >= k)
