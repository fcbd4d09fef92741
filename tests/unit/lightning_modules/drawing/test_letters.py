"""Letters of any script: in the right form, in the right order, where they should stand."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont, features

from lightning_modules.drawing import letters
from lightning_modules.drawing.arabic import visual

BLACK = (0, 0, 0)


def ink(text: str, x: int = 4, baseline: int = 20, shape: tuple[int, int] = (32, 260)) -> np.ndarray:
    """Where a line is dark, 0..1."""
    canvas = np.full((*shape, 3), 255, np.uint8)
    letters.write(canvas, text, x, baseline, BLACK)
    return 1 - canvas[..., 0] / 255


def test_letters_have_the_form_that_their_neighbours_give_them():
    """beh: alone, first, between, last; dal joins the letter before it only."""
    assert visual("\u0628") == "\ufe8f"
    assert visual("\u0628\u0628\u0628") == "\ufe90\ufe92\ufe91"  # drawn from left to right: the last letter first
    assert visual("\u062f\u0628") == "\ufe8f\ufea9"
    assert visual("\u0628\u062f") == "\ufeaa\ufe91"
    assert visual("\u0628 \u0628") == "\ufe8f \ufe8f"
    assert visual("\u0628\u0640") == "\u0640\ufe91"  # the stroke joins
    assert visual("\u0628\u200d") == "\ufe91" and visual("\u0628\u200c\u0628") == "\ufe8f\ufe8f"  # joiner, non-joiner
    assert visual("\u0644\u0627") == "\ufefb" and visual("\u0628\u0644\u0627\u0628") == "\ufe8f\ufefc\ufe91"
    assert visual("\u0628\u064e\u0628") == "\ufe90\u064e\ufe91"  # a mark joins nothing and stays with its letter


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        ("plain - text", "plain - text"),
        ("\u05d0\u05d1 \u05d2", "\u05d2 \u05d1\u05d0"),
        ("\u05d0\u05d1 12 \u05d2", "\u05d2 12 \u05d1\u05d0"),
        ("\u05d0 1.5% \u05d1", "\u05d1 1.5% \u05d0"),
        ("see \u05d0\u05d1 \u05d2, ok", "see \u05d2 \u05d1\u05d0, ok"),
        ("\u05d0 abc def \u05d1", "\u05d1 abc def \u05d0"),
        ("\u05d0 (\u05d1)!", "!(\u05d1) \u05d0"),
        ("a (\u05d1) c", "a (\u05d1) c"),
        ("\u0627 3-4", "4-3 \ufe8d"),  # after Arabic letters the minus parts two numbers (W2)
        ("\u05d0 3-4", "3-4 \u05d0"),
        ("\u05d0\u200f!", "!\u05d0"),
        ("a 1 2 \u05d0", "a 1 2 \u05d0"),
        ("", ""),
    ],
)
def test_lines_are_in_the_order_of_the_bidirectional_algorithm(text, drawn):
    assert visual(text) == drawn


@given(st.text("ab1 .%\u05d0\u05d1\u0628\u0644\u0627\u062f\u064e\u0662\u0640", max_size=12))
def test_nothing_is_lost_or_made_up(text):
    found, given_ = (sorted(unicodedata.normalize("NFKD", line)) for line in (visual(text), text))
    assert found == given_


@given(st.text(max_size=12))
def test_any_text_can_be_drawn(text):
    assert letters.text_width(text) >= 0
    ink(text)


MIXED = (
    "السلام عليكم",
    "كتاب",
    "بيت 123 شارع",
    "سعر 5% (خصم)",
    "the word كتاب means book",
    "العدد 12.5 و abc def نهاية",
    "كتاب, سلام!",
    "שלום עולם",
    "٣٤٥ كتاب",
    "رقم 3-4 و 10:30",
    "a (كتاب) b",
    "ABC عربي 12 XYZ",
)


@pytest.mark.skipif(not features.check("raqm"), reason="Pillow has no raqm here (libfribidi is not installed)")
@pytest.mark.parametrize("text", MIXED)
def test_equals_a_shaping_engine(text):
    """Ink on ink, within a few pixels: an engine also moves letters nearer to each other."""
    drawn = []
    for layout, line in ((ImageFont.Layout.BASIC, visual(text)), (ImageFont.Layout.RAQM, text)):
        font = ImageFont.truetype(letters._font().path, 26, layout_engine=layout)
        image = Image.new("L", (400, 48))
        ImageDraw.Draw(image).text((4, 32), line, font=font, fill=255, anchor="ls")
        drawn.append(np.stack([np.convolve(row, np.ones(9) / 9, "same") for row in np.asarray(image) / 255]))
    assert np.minimum(*drawn).sum() / np.maximum(*drawn).sum() > 0.75


@pytest.mark.parametrize("text", ["Männer", "élégant", "Кошка", "Ελληνικά", "كتاب", "שלום", "Ⅷ → ½"])
def test_scripts_are_drawn_in_their_own_letters(text):
    box = ink("\U0001f9ff")[:, 4:11]  # what the font has not got
    assert box.sum() > 5
    drawn = ink(text)
    assert drawn.sum() > 20
    assert all(np.abs(drawn[:, x : x + 7] - box).sum() > 1 for x in range(100)), "a box"
    assert not np.array_equal(drawn, ink(text.encode("ascii", "replace").decode()))


def test_letters_stand_on_the_line_and_are_cut_at_the_borders():
    canvas = np.full((30, 60, 3), 255, np.uint8)
    letters.write(canvas, "HEH", 5, 20, (200, 30, 30))
    rows, columns = np.nonzero((canvas != 255).any(axis=2))
    assert rows.max() == 19 and columns.min() in (5, 6) and columns.max() < 5 + letters.text_width("HEH")
    assert (canvas.reshape(-1, 3) == (200, 30, 30)).all(axis=1).any(), "full ink"
    whole = ink("Hamburg", x=10)
    assert np.array_equal(ink("Hamburg", x=-5)[:, :200], whole[:, 15:215])
    assert np.array_equal(ink("Hamburg", x=10, baseline=2)[:10], whole[18:28])
    for x, baseline in ((500, 20), (4, -30), (4, 90)):
        assert ink("Hamburg", x=x, baseline=baseline).sum() == 0
    assert np.array_equal(ink("a\nb\u2028c\x00\ud800"), ink("a b c  "))


def test_lines_are_shaped_before_they_are_measured_and_drawn():
    text = "لا كتاب"
    image = Image.new("L", (260, 32))
    ImageDraw.Draw(image).text((4, 20), visual(text), font=letters._font(), fill=255, anchor="ls")
    np.testing.assert_allclose(ink(text), np.asarray(image) / 255, atol=1e-6)
    assert letters.text_width(text) < letters._font().getlength(text) - 5  # lam and alef are one, and letters join
