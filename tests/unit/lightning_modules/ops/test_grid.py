"""Cells, base boxes and both codings by hand; which object a cell stands for, and which cells count."""

import math

import pytest
import torch
from torchvision.ops import box_iou

from lightning_modules.ops.grid import (
    assign_cells,
    base_boxes,
    cell_boxes,
    cells_of,
    decode_in_cells,
    decode_on_base_boxes,
    encode_in_cells,
    paired_iou,
    shape_iou,
    swap_sides,
)

GRID, SIDE = 4, 64  # cells of 16 px


def target(boxes, labels=None, ignored=()):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    labels = torch.arange(1, len(boxes) + 1) if labels is None else torch.tensor(labels)
    return {"boxes": boxes, "labels": labels, "ignored": torch.tensor(ignored, dtype=torch.float32).reshape(-1, 4)}


def random_boxes(count):
    generator = torch.Generator().manual_seed(3)
    low = torch.rand(count, 2, generator=generator) * 50
    return torch.cat([low, low + 3 + torch.rand(count, 2, generator=generator) * 11], dim=1)


def test_cells_are_numbered_row_by_row():
    assert cell_boxes(2, 8).tolist() == [[0, 0, 4, 4], [4, 0, 8, 4], [0, 4, 4, 8], [4, 4, 8, 8]]
    boxes = torch.tensor([[0.0, 0, 2, 2], [5, 0, 7, 2], [0, 5, 2, 7], [2, 2, 6, 6], [7.9, 7.9, 8.5, 8.5]])
    assert cells_of(boxes, 2, 8).tolist() == [0, 1, 2, 3, 3]  # a centre on the line is the next cell's
    torch.testing.assert_close(cells_of(cell_boxes(7, 448), 7, 448), torch.arange(49))


def test_base_boxes_stand_at_the_centres_of_cells():
    base = base_boxes(2, 8, (0.25, 1.0), (1.0, 4.0))
    assert base.shape == (4, 4, 4)
    assert base[1, 0].tolist() == [5, 1, 7, 3]  # a quarter of 8 px
    assert base[1, 1].tolist() == [5.5, 0, 6.5, 4]  # of the same area, four times as high as wide
    assert base[2, 2].tolist() == [-2, 2, 6, 10]


def test_an_object_is_looked_for_in_the_cell_of_its_centre():
    objects = assign_cells([target([]), target([[0, 20, 40, 40], [50, 50, 60, 60]], [3, 1])], GRID, SIDE)
    assert (objects.image.tolist(), objects.cell.tolist(), objects.labels.tolist()) == ([1, 1], [5, 15], [3, 1])
    assert objects.boxes.tolist() == [[0, 20, 40, 40], [50, 50, 60, 60]]
    assert objects.counts.shape == (2, 16) and objects.counts.all()


def test_of_objects_that_share_a_cell_the_largest_counts_in_any_order():
    small, large, twin = [4, 4, 10, 10], [0, 0, 15, 15], [1, 1, 16, 16]
    for boxes, labels in (([small, large], [1, 2]), ([large, small], [2, 1]), ([large, twin], [2, 1])):
        objects = assign_cells([target(boxes, labels)], GRID, SIDE)
        assert objects.labels.tolist() == [2] and objects.boxes.tolist() == [large]


def test_boxes_of_the_right_image_after_one_that_lost_an_object():
    first = target([[4, 4, 10, 10], [0, 0, 15, 15]], [1, 2])
    objects = assign_cells([first, target([]), target([[32, 32, 60, 60]], [4])], GRID, SIDE)
    assert objects.image.tolist() == [0, 2] and objects.labels.tolist() == [2, 4]
    assert objects.boxes[1].tolist() == [32, 32, 60, 60]


def test_cells_centred_in_an_ignored_region_do_not_count():
    # Of centres at 8, 24, 40, 56 px: 8 and 24 in x (40 is the first outside), 24 alone in y.
    objects = assign_cells([target([], ignored=[[8, 20, 40, 40]]), target([])], GRID, SIDE)
    assert torch.where(~objects.counts[0])[0].tolist() == [4, 5]
    assert objects.counts[1].all()


def test_an_ignored_object_that_covers_no_cells_centre_takes_its_own_cell_out():
    objects = assign_cells([target([], ignored=[[1, 17, 5, 21]])], GRID, SIDE)
    assert torch.where(~objects.counts[0])[0].tolist() == [4]


def test_a_cell_with_an_object_counts_inside_an_ignored_region():
    objects = assign_cells([target([[4, 4, 12, 12]], ignored=[[0, 0, 32, 16]])], GRID, SIDE)
    assert torch.where(~objects.counts[0])[0].tolist() == [1]
    assert objects.cell.tolist() == [0]


def test_yolos_coding_by_hand():
    """A centre at (24, 52) is in the middle of column 1, a quarter into row 3; 16 of 64 px have the root .5."""
    box = torch.tensor([[16.0, 50, 32, 54]])
    coded = encode_in_cells(box, torch.tensor([13]), GRID, SIDE)
    torch.testing.assert_close(coded, torch.tensor([[0.5, 0.25, 0.5, 0.25]]))


@pytest.mark.parametrize("grid", [1, 4, 7])
def test_decoding_gives_back_what_was_encoded(grid):
    boxes = random_boxes(200)
    cells = cells_of(boxes, grid, SIDE)
    coded = encode_in_cells(boxes, cells, grid, SIDE)
    assert ((coded[:, :2] >= 0) & (coded[:, :2] <= 1)).all()
    torch.testing.assert_close(decode_in_cells(coded, cells, grid, SIDE), boxes, rtol=0, atol=1e-4)


def test_deltas_move_base_boxes_in_the_lectures_order():
    """dh before dw: twice as high, as wide as before; and shifts are shares of the base box, not of the cell."""
    base = base_boxes(2, 8, (0.5, 0.25))
    deltas = torch.zeros(1, 4, 2, 4)
    torch.testing.assert_close(decode_on_base_boxes(deltas, base)[0], base)
    deltas[0, 3, 0] = torch.tensor([0.25, -0.5, math.log(2), 0])
    moved = decode_on_base_boxes(deltas, base)
    torch.testing.assert_close(moved[0, 3, 0], torch.tensor([5.0, 0, 9, 8]))  # from [4, 4, 8, 8]
    torch.testing.assert_close(moved[0, 3, 1], base[3, 1])
    assert swap_sides(torch.tensor([1.0, 2, 3, 4])).tolist() == [1, 2, 4, 3]


def test_iou_of_pairs_is_the_diagonal_of_torchvisions():
    boxes, others = random_boxes(100), random_boxes(100).flip(0) + 2
    expected = box_iou(boxes, others).diagonal()
    assert (expected > 0).any() and (expected == 0).any()
    torch.testing.assert_close(paired_iou(boxes, others), expected)
    assert paired_iou(torch.zeros(1, 4), torch.zeros(1, 4)).tolist() == [0]


def test_iou_of_shapes_does_not_see_where_boxes_are():
    first, second = torch.tensor([[0.0, 0, 4, 2]]), torch.tensor([[50.0, 70, 52, 74]])
    torch.testing.assert_close(shape_iou(first, second), torch.tensor([4 / 12]))
    assert shape_iou(first, first + 40).tolist() == [1]
