import numpy as np
import pytest

from lightning_modules.drawing import text as draw


def test_wrapped_lines_fit_and_keep_every_word():
    text = "a very long question about the small yellow triangle on the left of the large circle"
    lines = draw.wrap(text, 150)
    assert " ".join(lines) == text
    assert len(lines) > 2
    assert all(draw.text_width(line) <= 150 for line in lines)


def test_text_of_any_script_is_wrapped_by_its_words():
    assert draw.wrap("café  犬", 200) == ["café 犬"]
    assert draw.wrap("السلام عليكم", 50) == ["السلام", "عليكم"]
    assert draw.wrap("", 200) == [""]


def test_text_block_uses_its_colour_and_width():
    block = draw.text_block([("hello", draw.RED), ("world", draw.GREEN)], 120)
    assert block.shape[1:] == (120, 3)
    pixels = block.reshape(-1, 3).tolist()
    assert list(draw.RED) in pixels
    assert list(draw.GREEN) in pixels


def test_longer_bars_for_larger_values():
    canvas = draw.bars([("a", 0.9, draw.BLUE), ("b", 0.3, draw.BLUE)], 300)
    is_bar = (canvas == draw.BLUE).all(-1)
    first, second = is_bar[: draw.LINE_PX, 150:].sum(), is_bar[draw.LINE_PX :, 150:].sum()
    assert first / second == pytest.approx(3, rel=0.15)


def test_overlay_is_bright_where_the_weight_is():
    image = np.full((60, 90, 3), 200, np.uint8)
    weights = np.zeros((2, 3), np.float16)
    weights[1, 2] = 1
    shown = draw.overlay(image, weights).astype(int).sum(-1)
    assert shown.shape == (60, 90)
    assert shown[45, 75] > 1.5 * shown[10, 10]
    assert draw.overlay(image, np.zeros((2, 3))).shape == image.shape


def test_fit_keeps_the_aspect_ratio():
    assert draw.fit(np.zeros((50, 100, 3), np.uint8), 300).shape == (150, 300, 3)
    assert draw.fit(np.zeros((50, 100, 3), np.uint8), 20).shape == (10, 20, 3)


def test_grid_and_stack_place_tiles():
    tiles = [np.full((10, 20, 3), v, np.uint8) for v in (1, 2, 3)]
    sheet = draw.grid(tiles, 2, gap=0)
    assert sheet.shape == (20, 40, 3)
    assert (sheet[0, 0, 0], sheet[0, 25, 0], sheet[15, 0, 0], sheet[15, 25, 0]) == (1, 2, 3, 255)
    assert draw.stack([tiles[0], sheet]).shape == (30, 40, 3)
