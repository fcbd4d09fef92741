"""What lies on an image, on its way to the output: moved by a view, moved by a named transform, and chosen at the end.

Shapes: N boxes of objects (N, 4); N masks (N, H, W) uint8 0/1; Q quads (Q, 4, 2), P proposals (P, 4); all float32 in
pixels, x before y, as boxes are: pixel i covers [i, i + 1). All of them keep their places until the end, so that the
place is the id; `*_shares` say how much of each is left, by area, below 0 where it shall not be learnt. Boxes are cut
at each step, so their shares multiply; quads are never cut, and the least share of all steps counts.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from contracts.records import IGNORE_INDEX
from lightning_modules.augment.view import Size, View
from lightning_modules.blocks.pixels import new_row
from lightning_modules.ops.boxes import box_areas, clip_boxes, quad_areas, quad_boxes

# Of images without any, of which there are many: made once. Nothing can be written to them.
NO_BOXES, _NO_SHARES = np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
_NO_QUADS = np.zeros((0, 4, 2), np.float32)


@dataclass(frozen=True, kw_only=True)
class Annotations:
    """Everything of one image, or of the frames of a clip, that moves with its pixels."""

    boxes: np.ndarray
    box_shares: np.ndarray
    masks: np.ndarray | None
    semantic: np.ndarray | None
    quads: np.ndarray
    quad_shares: np.ndarray
    proposals: np.ndarray
    proposal_shares: np.ndarray


def given_annotations(
    boxes: np.ndarray | None,
    masks: np.ndarray | None,
    semantic: np.ndarray | None,
    quads: np.ndarray | None,
    proposals: np.ndarray | None,
) -> Annotations:
    """As a record has them, all of them whole."""
    assert masks is None or len(masks) == len(boxes if boxes is not None else ()), "masks need boxes of the same length"
    boxes, box_shares = (NO_BOXES, _NO_SHARES) if boxes is None else (boxes, np.ones(len(boxes), np.float32))
    quads, quad_shares = (_NO_QUADS, _NO_SHARES) if quads is None else (quads, np.ones(len(quads), np.float32))
    if proposals is None:
        proposals, proposal_shares = NO_BOXES, _NO_SHARES
    else:
        proposal_shares = np.ones(len(proposals), np.float32)
    return Annotations(
        boxes=boxes, box_shares=box_shares, masks=masks, semantic=semantic, quads=quads, quad_shares=quad_shares,
        proposals=proposals, proposal_shares=proposal_shares,
    )  # fmt: skip


def under_view(view: View, on: Annotations, *, clip: bool) -> Annotations:
    """Where a view shows all of it.

    Args:
        clip: boxes to what is shown.
    """
    if on.masks is None and on.semantic is None and not len(on.boxes) + len(on.quads) + len(on.proposals):
        return on
    masks = None
    if on.masks is not None:
        masks = np.empty((len(on.masks), *view.output), np.uint8)
        for mask, out in zip(on.masks, masks, strict=True):
            view.show_labels(mask, out)
    quads, quad_shares = on.quads, on.quad_shares
    if len(quads):
        quads = view.move_points(quads)
        quad_shares = np.minimum(quad_shares, _quad_shares(quads, view.output))
    boxes, box_shares = _moved_boxes(view, on.boxes, on.box_shares, clip)
    proposals, proposal_shares = _moved_boxes(view, on.proposals, on.proposal_shares, clip)
    return Annotations(
        boxes=boxes,
        box_shares=box_shares,
        masks=masks,
        semantic=None if on.semantic is None else _show_semantic(view, on.semantic),
        quads=quads,
        quad_shares=quad_shares,
        proposals=proposals,
        proposal_shares=proposal_shares,
    )


def _moved_boxes(view: View, boxes: np.ndarray, shares: np.ndarray, clip: bool) -> tuple[np.ndarray, np.ndarray]:
    if not len(boxes):
        return boxes.astype(np.float32), shares
    whole = view.move_boxes(boxes, clip=False)
    if not clip:
        return whole, shares
    seen = view.move_boxes(boxes, clip=True)
    return seen, shares * (box_areas(seen) / np.maximum(box_areas(whole), 1e-9))


def _quad_shares(quads: np.ndarray, size: Size) -> np.ndarray:
    """The share of each quad's area that lies in an image of this size."""
    return quad_areas(quads, size) / np.maximum(quad_areas(quads), 1e-9)


def _show_semantic(view: View, semantic: np.ndarray) -> np.ndarray:
    # Ignored (255) is 0 on the way, so that what is filled in from outside is ignored too.
    out = new_row(view.output, np.uint8)
    view.show_labels(semantic + np.uint8(1), out)
    out -= np.uint8(1)
    return out


def under_transform(
    transform: Any, frames: np.ndarray, on: Annotations, *, needs_mask: bool
) -> tuple[np.ndarray, Annotations]:
    """Pixels (T, H, W, 3) and all that lies on them after one of albumentations' transforms that moves them.

    The transform gets arrays in its own inner form, so that boxes come back unclipped and how much of them shows can be
    told. What it drops itself, as dropouts do with boxes that they cover, has a share of 0.
    """
    height, width = frames.shape[1:3]
    boxes = clip_boxes(np.concatenate([on.boxes, quad_boxes(on.quads), on.proposals]), (height, width))
    there = np.flatnonzero(box_areas(boxes) > 0)
    scale = np.array([width, height] * 2, np.float32)
    # Places, not ids, whose digits would go through float32.
    rows = np.hstack([boxes[there] / scale, there[:, None].astype(np.float32)])
    data: dict[str, Any] = {"image": frames[0], "bboxes": rows}
    if len(frames) > 1:
        data["images"] = frames[1:]
    if len(on.quads):
        data["keypoints"] = _to_keypoints(on.quads)
    if on.semantic is not None or needs_mask:
        data["mask"] = _foreground(on, (height, width)) if on.semantic is None else on.semantic
    # The last mask says where there is picture.
    masks = np.zeros((0, height, width), np.uint8) if on.masks is None else on.masks
    data["masks"] = np.concatenate([masks, np.ones((1, height, width), np.uint8)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice, such as that there is no box to keep
        out = transform(**data)
    if not transform.params:
        return frames, on  # it was not its turn
    image = np.asarray(out["image"])
    shown = image[None] if len(frames) == 1 else np.concatenate([image[None], out["images"]])
    return shown, _read(out, on, image.shape[:2])


def _read(out: dict[str, Any], on: Annotations, size: Size) -> Annotations:
    """What came back, at the places that it had."""
    num_rows = len(on.boxes) + len(on.quads) + len(on.proposals)
    found = np.asarray(out["bboxes"], np.float32).reshape(-1, 5)
    places = found[:, 4].round().astype(int)
    whole = np.zeros((num_rows, 4), np.float32)
    whole[places] = found[:, :4] * np.array([size[1], size[0]] * 2, np.float32)
    seen = clip_boxes(whole, size)
    shares = box_areas(seen) / np.maximum(box_areas(whole), 1e-9)
    first, last = len(on.boxes), len(on.boxes) + len(on.quads)
    quads, quad_shares = on.quads, on.quad_shares
    if len(quads):
        quads, whole_quads = _from_keypoints(out["keypoints"], len(quads))
        left = (shares[first:last] > 0) & whole_quads
        quad_shares = np.minimum(quad_shares, _quad_shares(quads, size)) * left
    masks, picture = out["masks"][:-1], out["masks"][-1]
    semantic = None if on.semantic is None else np.where(picture == 1, out["mask"], np.uint8(IGNORE_INDEX))
    return Annotations(
        boxes=seen[:first],
        box_shares=on.box_shares * shares[:first],
        masks=None if on.masks is None else np.ascontiguousarray(masks),
        semantic=semantic,
        quads=quads,
        quad_shares=quad_shares,
        proposals=seen[last:],
        proposal_shares=on.proposal_shares * shares[last:],
    )


def _foreground(on: Annotations, size: Size) -> np.ndarray:
    """(H, W) uint8: 1 where objects are, by their masks or else their boxes."""
    out = np.zeros(size, np.uint8)
    if on.masks is not None:
        return on.masks.max(axis=0, initial=0)
    for x1, y1, x2, y2 in on.boxes.round().astype(int):
        out[y1:y2, x1:x2] = 1
    return out


def _to_keypoints(quads: np.ndarray) -> np.ndarray:
    """(Q, 4, 2) -> (4Q, 6): x and y from pixels' centers; height, angle and size, which nothing reads; the place."""
    points = np.zeros((4 * len(quads), 6), np.float32)
    points[:, :2] = quads.reshape(-1, 2) - np.float32(0.5)
    points[:, 5] = np.arange(len(points))
    return points


def _from_keypoints(points: np.ndarray, num_quads: int) -> tuple[np.ndarray, np.ndarray]:
    """(K, 6) -> (Q, 4, 2), and (Q,) bool which have all corners: some transforms drop points that leave the image."""
    quads: np.ndarray = np.zeros((4 * num_quads, 2), np.float32)
    found: np.ndarray = np.zeros(4 * num_quads, bool)
    points = np.asarray(points, np.float32).reshape(-1, 6)
    places = points[:, 5].round().astype(int)
    quads[places], found[places] = points[:, :2] + np.float32(0.5), True
    return quads.reshape(-1, 4, 2), np.asarray(found.reshape(-1, 4).all(axis=1))


def chosen(boxes: np.ndarray, shares: np.ndarray, least: float) -> np.ndarray:
    """(N,) bool: at least a pixel wide and high, and with enough of its area left."""
    return (boxes[:, 2:] - boxes[:, :2] >= 1).all(axis=1) & (shares >= least)
