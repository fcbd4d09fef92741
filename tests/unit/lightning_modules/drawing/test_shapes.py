"""Drawing: colours, sizes, nothing outside, inputs untouched."""

import numpy as np

from lightning_modules.drawing.shapes import class_color, draw_label_map, draw_objects, enlargement, legend, panels

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
