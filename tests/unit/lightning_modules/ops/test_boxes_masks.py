"""Pure functions on boxes and masks."""

import numpy as np
import torch
from torchvision.models.detection.roi_heads import project_masks_on_boxes

from lightning_modules.ops.boxes import covered_fraction, to_original, to_xywh
from lightning_modules.ops.masks import decode_masks, encode_masks, fill_boxes, paste_masks


def test_covered_fraction_is_of_the_boxs_own_area():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 2, 2], [50, 50, 60, 60]])
    regions = torch.tensor([[5.0, 0, 100, 10], [0, 0, 1, 2]])
    torch.testing.assert_close(covered_fraction(boxes, regions), torch.tensor([0.5, 0.5, 0.0]))
    assert covered_fraction(boxes, torch.zeros(0, 4)).tolist() == [0, 0, 0]
    assert covered_fraction(torch.zeros(0, 4), regions).shape == (0,)


def test_to_original_undoes_a_letterbox_and_clips():
    boxes = np.array([[0, 0, 64, 32], [10, 8, 20, 40]], np.float32)
    out = to_original(boxes, (32, 64), (100, 300))
    np.testing.assert_allclose(out, [[0, 0, 300, 100], [46.875, 25, 93.75, 100]], rtol=1e-6)
    assert out.dtype == np.float32 and to_original(np.zeros((0, 4)), (1, 1), (1, 1)).shape == (0, 4)


def test_to_xywh():
    assert to_xywh(np.array([1, 2, 4, 8], np.float32)) == [1.0, 2.0, 3.0, 6.0]


def test_run_lengths_come_back():
    masks = (np.random.default_rng(0).random((3, 17, 23)) > 0.6).astype(np.uint8)
    counts = encode_masks(masks)
    assert all(isinstance(text, str) for text in counts)
    np.testing.assert_array_equal(decode_masks(counts, (17, 23)), masks)
    assert decode_masks([], (4, 5)).shape == (0, 4, 5) and encode_masks(np.zeros((0, 4, 5), np.uint8)) == []


def test_fill_boxes_sets_pixels_whose_centre_is_inside():
    mask = fill_boxes(np.array([[1.0, 0.6, 3.4, 2.0]]), (3, 5))[0]
    np.testing.assert_array_equal(mask, [[0, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0]])


def test_pasting_undoes_the_projection_of_mask_targets():
    rng = np.random.default_rng(0)
    overlaps = []
    for _ in range(20):
        x, y, radius = rng.uniform(30, 70), rng.uniform(30, 70), rng.uniform(9, 25)
        ys, xs = np.mgrid[:100, :100] + 0.5
        mask = ((xs - x) ** 2 + (ys - y) ** 2 < radius**2).astype(np.float32)
        box = torch.tensor([[x, y, x, y]]) + torch.tensor([-1.0, -1, 1, 1]) * (radius + rng.uniform(0, 2))
        target = project_masks_on_boxes(torch.from_numpy(mask)[None], box.float(), torch.zeros(1), 28)
        pasted = paste_masks(target[:, None], box.float(), (100, 100))[0]
        overlaps.append((pasted * mask).sum() / np.maximum(pasted, mask).sum())
    assert min(overlaps) > 0.95


def test_pasted_masks_lie_in_their_boxes():
    probs = torch.ones(2, 1, 28, 28)
    probs[1, :, :, :14] = 0  # the right half
    masks = paste_masks(probs, torch.tensor([[2.0, 3, 12, 9], [20, -4, 40, 10]]), (20, 50))
    np.testing.assert_array_equal(np.argwhere(masks[0]).min(0), [3, 2])
    np.testing.assert_array_equal(np.argwhere(masks[0]).max(0), [8, 11])
    assert masks[0].sum() == 60
    assert masks[1, :10, 31:40].all() and not masks[1, :, :29].any() and not masks[1, :, 40:].any()
    outside = paste_masks(probs[:1], torch.tensor([[60.0, 30, 70, 40]]), (20, 50))
    assert not outside.any()
    assert paste_masks(torch.zeros(0, 1, 28, 28), torch.zeros(0, 4), (5, 6)).shape == (0, 5, 6)
