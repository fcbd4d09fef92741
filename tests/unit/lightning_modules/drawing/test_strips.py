"""Pictures of clips: which frames are shown, and bands in the classes' colors."""

import numpy as np

from lightning_modules.drawing.shapes import class_color
from lightning_modules.drawing.strips import bands, curves, film


def test_the_first_and_the_last_frame_are_shown() -> None:
    frames = [np.full((10, 10, 3), 10 * i, np.uint8) for i in range(20)]
    shown = film(frames, 200, most=5)
    assert shown.shape == (37, 200, 3)
    assert (shown[:, :37] == 0).all() and (shown[:, 160:197] == 190).all()
    assert film(frames[:1], 200, most_height=60).shape == (60, 200, 3), "one frame is no wall"


def test_bands_have_the_colors_of_their_labels() -> None:
    drawn = bands([("truth", [1, 1, 2]), ("found", [1, 0, 2])], 300)
    assert drawn.shape == (40, 300, 3)
    assert tuple(drawn[10, 290]) == class_color(2) == tuple(drawn[30, 290])
    assert tuple(drawn[30, 170]) == (255, 255, 255), "no class"


def test_a_curve_goes_from_left_to_right_and_up() -> None:
    drawn = curves([("x", [0.0, 1.0], (200, 30, 30))], 200, 60, below="steps")
    ys, xs = np.nonzero((drawn == (200, 30, 30)).all(axis=2) & (np.arange(len(drawn)) > 24)[:, None])
    assert xs.max() > 180 and ys[xs.argmax()] < ys[xs.argmin()]
    assert curves([("one", [0.5], (0, 0, 0))] * 5, 200, 60, below="").shape == (180, 200, 3)
