"""A matrix of weights between words."""

import numpy as np

from lightning_modules.drawing.heat import CELL_PX, heat_map


def test_cells_are_grey_and_marked_ones_framed():
    weights = np.array([[0.0, 1.0, 0.5], [2.0, 0.25, 0.0]])
    image = heat_map(["la", "européenne"], ["the", "European", "<eos>"], weights, {(1, 1)})
    assert image.dtype == np.uint8
    height, width = image.shape[0] - 1, image.shape[1] - 1
    centers = [
        [image[height - (2 - i) * CELL_PX + 10, width - (3 - j) * CELL_PX + 10] for j in range(3)] for i in range(2)
    ]
    assert [[int(c[0]) for c in row] for row in centers] == [[0, 255, 128], [255, 64, 0]], "cut to 0..1"
    corners = [
        [tuple(image[height - (2 - i) * CELL_PX, width - (3 - j) * CELL_PX]) for j in range(3)] for i in range(2)
    ]
    framed = [(i, j) for i in range(2) for j in range(3) if corners[i][j] == (230, 120, 0)]
    assert framed == [(1, 1)]
    left = image[:, : width - 3 * CELL_PX]
    assert left.min() < 100, "rows have names"
    assert image[: height - 2 * CELL_PX, -2 * CELL_PX :].min() < 100, "columns, too"


def test_nothing_to_draw_is_no_error():
    assert heat_map([], [], np.zeros((0, 0))).size
