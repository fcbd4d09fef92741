"""Histograms: where bins begin, how high bars are, and what stands at them."""

from __future__ import annotations

import pytest

from pipeline.measuring.viewing.histograms import HEIGHT, WIDTH, histogram


def test_bars_are_shares_of_their_own_split_side_by_side():
    one = histogram("Words", "words", {"train": {1: 30, 3: 10}, "val": {1: 1, 2: 1}, "test": {}})
    assert [(bar.split, bar.height) for bar in one.bars] == [
        ("train", HEIGHT), ("train", 43.3), ("val", 86.7), ("val", 86.7),
    ]  # fmt: skip
    assert one.top == "75%" and one.medians == [("train", "1"), ("val", "1")]
    assert [text for _, text in one.ticks] == ["1", "2", "3"]
    assert one.bars[0].told == "train, 1 words: 30 (75.0%)"
    assert one.bars[0].x + one.bars[0].width <= one.bars[2].x and one.bars[-1].x < 2 * WIDTH / 3


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ((0, 23), ["0", "4", "8", "12", "16", "20"]),
        ((3, 5, 100), ["0-4", "20-24", "40-44", "60-64", "80-84", "100+"]),
        ((480, 640), ["480-489", "510-519", "540-549", "570-579", "600-609", "630-639"]),
        ((7,), ["7"]),
    ],
)
def test_bins_have_round_borders(values, names):
    one = histogram("", "", {"train": dict.fromkeys(values, 1)})
    assert [text for _, text in one.ticks] == names
    assert sum(bar.told.count(": 1 ") for bar in one.bars) == len(values)


def test_given_borders_are_open_at_both_ends():
    one = histogram("", "", {"train": {0.1: 1, 0.5: 2, 9.0: 3}}, (0.4, 0.5, 1.0), whole=False)
    assert [bar.told for bar in one.bars] == [
        "train, 0.4-0.5: 1 (16.7%)", "train, 0.5-1: 2 (33.3%)", "train, 1+: 3 (50.0%)",
    ]  # fmt: skip
