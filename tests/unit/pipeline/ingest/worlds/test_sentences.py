"""The two kinds of sentences: what decides the last word, and how far from the end it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.errors import ConfigError
from pipeline.ingest.sources import labeled_text
from pipeline.ingest.worlds.sentences import (
    LANGUAGES,
    NEAR_TOKENS,
    PLACES,
    TOKENS_BESIDE_GAP,
    Config,
    SplitSizes,
    generate,
    sentence,
)


@pytest.mark.parametrize("gap", [5, 6, 7, 10, 20, 41])
def test_the_country_stands_the_gap_before_the_end_and_decides(gap):
    config = Config(gap=gap, near_share=0)
    seen = set()
    for index in range(60):
        label, *text = sentence(config, "train", index).split()
        assert text[:4] == ["i", "grew", "up", "in"] and text[-3:] == ["i", "speak", "fluent"]
        assert len(text) - 1 - 4 == gap and len(text) == gap + TOKENS_BESIDE_GAP
        assert label == f"__label__{LANGUAGES[text[4]]}"
        seen |= {word for word in text[5:] if word in LANGUAGES}
    assert len(seen) == 8, "the filler names other countries"


def test_near_sentences_are_decided_three_words_before_the_end():
    config = Config(near_share=1)
    for index in range(40):
        label, *text = sentence(config, "train", index).split()
        assert len(text) == NEAR_TOKENS and text[-3:] == ["are", "in", "the"]
        assert label == f"__label__{PLACES[text[-4]]}"


def test_shares_and_gaps():
    config = Config(gap=10, near_share=0.25, val_gaps=(5, 20))
    near = sum(len(sentence(config, "train", i).split()) == 1 + NEAR_TOKENS for i in range(800))
    assert 150 < near < 250
    lengths = [len(sentence(config, "val", i).split()) - 1 for i in range(6)]
    assert lengths == [5, 10, 25, 5, 10, 25], "near, then each gap, in equal shares"
    assert len({sentence(config, "val", i) for i in range(2, 600, 3)}) > 190, "hardly any sentence twice"


def test_the_source_reads_what_is_written(tmp_path: Path):
    done: list[int] = []
    generate(tmp_path, Config(num_records=SplitSizes(train=200, val=40), val_gaps=(5, 10)), done.append)
    assert sum(done) == 240
    source = labeled_text.Config()
    assert labeled_text.classes(tmp_path, source) == tuple(sorted([*LANGUAGES.values(), *PLACES.values()]))
    records = list(labeled_text.read(tmp_path, "val", source))
    assert len(records) == 40 and records[1].sentences[0].text.endswith("i speak fluent")


def test_a_gap_too_short_for_its_words_is_refused():
    with pytest.raises(ConfigError, match="gap must be 5 or more"):
        Config(gap=4)
