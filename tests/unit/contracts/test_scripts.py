"""Scripts, directions, and the order in which characters stand in a picture."""

import pytest

from contracts.scripts import NO_SCRIPT, as_drawn, direction, drawn_places, script

BAB, LAM_ALEF = "\u0628\u0627\u0628", "\u0644\u0627"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("word", ("Latin", "ltr")),
        (BAB, ("Arabic", "rtl")),
        ("\u05d0\u05d1", ("Hebrew", "rtl")),
        ("42", (NO_SCRIPT, "ltr")),
        ("\u0434\u0430", ("Cyrillic", "ltr")),
        ("", (NO_SCRIPT, "ltr")),
        (f"a{BAB}", ("Arabic", "rtl")),
    ],
)
def test_script_and_direction_are_those_of_most_letters(text, expected):
    assert (script(text), direction(text)) == expected


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        ("word 12", "word 12"),
        (BAB, BAB[::-1]),
        (LAM_ALEF + "\u0628", "\u0628\u0627\u0644"),  # one sign in print, two characters in both orders
        ("\u0628\u064e\u062a", "\u062a\u0628\u064e"),  # a mark stays behind its letter
        (f"{BAB} 12.5", f"12.5 {BAB[::-1]}"),
        (f"{BAB} ab", f"ab {BAB[::-1]}"),
        (f"12, {BAB}", f"{BAB[::-1]} ,12"),
    ],
)
def test_what_is_drawn_is_the_text_turned_around_and_back_again(text, drawn):
    assert as_drawn(text) == drawn
    assert as_drawn(drawn) == text
    assert sorted(drawn_places(text)) == list(range(len(text)))
