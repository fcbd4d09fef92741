"""Drawing: colours, sizes, nothing outside, inputs untouched."""

import numpy as np
import pytest

from lightning_modules.drawing.shapes import (
    class_color,
    draw_label_map,
    draw_objects,
    enlargement,
    legend,
    panels,
    text_scale,
)

IMAGE = np.full((100, 128, 3), 60, np.uint8)


def test_colours_depend_on_the_label_alone_and_differ():
    colors = [class_color(label) for label in range(81)]
    assert colors[0] == (0, 0, 0) and len(set(colors)) == 81
    assert colors == [class_color(label) for label in range(81)]


def test_small_images_are_enlarged_and_photographs_are_not():
    assert enlargement(IMAGE) == 3 and enlargement(np.zeros((480, 640, 3), np.uint8)) == 1


def test_objects_are_drawn_on_a_copy():
    boxes = np.array([[10, 20, 50, 60], [0, 0, 128, 100]], np.float32)
    masks = np.zeros((2, 100, 128), np.uint8)
    masks[0, 30:50, 20:40] = 1
    drawn = draw_objects(IMAGE, boxes, np.array([1, 2]), ["square 0.91", "a long name at the border"], masks)
    assert drawn.shape == (300, 384, 3) and (IMAGE == 60).all()
    assert tuple(drawn[3 * 40, 3 * 10]) == class_color(1)
    assert (drawn[3 * 40, 3 * 30] != 60).any()
    nothing = draw_objects(IMAGE, np.zeros((0, 4)), np.zeros(0, np.int64), [])
    assert (nothing == 60).all()


def test_label_maps_leave_the_background():
    labels = np.zeros((100, 128), np.uint8)
    labels[:10], labels[90:] = 3, 255
    drawn = draw_label_map(IMAGE, labels, 255)
    assert (drawn[150] == 60).all() and (drawn[5] != 60).any() and len(set(drawn[295, 5])) == 1


def test_panels_and_legend_fit_together():
    picture = panels([IMAGE, IMAGE], ["one", "two"])
    assert picture.shape == (120, 260, 3)
    strip = legend(260, [(i, f"class number {i}") for i in range(1, 9)])
    assert strip.shape[1] == 260 and strip.shape[0] >= 40
    assert any((strip == class_color(8)).all(axis=2).ravel())


@pytest.mark.parametrize(("height", "width", "scale"), [(48, 64, 1), (480, 640, 1), (1000, 700, 1), (2000, 3000, 3)])
def test_lines_and_letters_grow_with_a_photograph(height, width, scale):
    """Looked at on a screen, a photograph of any size has lines and letters of one size."""
    image = np.full((height, width, 3), 60, np.uint8)
    assert text_scale(image) == scale
    box = np.array([[0.2 * width, 0.5 * height, 0.8 * width, 0.9 * height]], np.float32)
    factor, color = enlargement(image), np.array(class_color(1))
    drawn = draw_objects(image, box, np.array([1]), [""])
    left = (drawn[round(0.7 * height * factor)] == color).all(axis=1)[: width * factor // 2].sum()
    assert left in ((2, 3) if scale == 1 else (6, 7)), "OpenCV rounds an even thickness up"
    titled = panels([drawn], ["title"])
    assert titled.shape[0] - drawn.shape[0] == 20 * scale
    ink = np.flatnonzero((titled[: 20 * scale] > 200).any(axis=(1, 2)))
    assert 8 * scale <= ink[-1] - ink[0] + 1 <= 13 * scale, "the letters fill the bar as they do on a small picture"
    assert legend(width * factor, [(1, "one")], scale).shape[0] == 20 * scale
