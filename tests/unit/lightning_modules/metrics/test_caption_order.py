"""The order of what captions tell."""

import numpy as np
import pytest

from lightning_modules.metrics.caption_order import ThenOrder, is_in_order

REFERENCES = [
    "A red circle grows, then a blue square moves left.",
    "a red circle gets bigger then a blue square goes left",
]


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a red circle shrinks then a blue square vanishes", True),
        ("a blue square moves left then a red circle grows", False),
        ("a red circle grows", False),
        ("a green bar turns then a green bar turns", False),
        ("then a blue square moves left", True),
    ],
)
def test_a_caption_fits_its_halves_or_the_opposite_ones(caption: str, expected: bool) -> None:
    assert is_in_order(caption, REFERENCES) is expected


def test_what_has_no_order_counts_for_nothing() -> None:
    assert is_in_order("a then b", ["nothing follows"]) is None
    assert is_in_order("a then b", ["a then b then c"]) is None
    items = [
        ("a", "a", {"caption": "x then y"}, {"captions": ["x then y"]}),
        ("b", "b", {"caption": "y then x"}, {"captions": ["x then y"]}),
        ("c", "c", {"caption": "x"}, {"captions": ["x"]}),
    ]
    (measured,) = ThenOrder().measure_items(items)
    assert measured.values == {"then_order": 0.5} and measured.num_items == 2
    assert measured.resample is not None
    np.testing.assert_array_equal(measured.resample(np.array([[2.0, 1, 5]]))["then_order"], [2 / 3])
    (none,) = ThenOrder().measure_items(items[2:])
    assert np.isnan(none.values["then_order"])
