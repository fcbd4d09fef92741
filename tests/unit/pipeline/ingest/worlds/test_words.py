"""Pictures of made-up words: which words, how they are drawn, and that val's are new."""

import unicodedata

import numpy as np
import pytest

from contracts.errors import ConfigError
from contracts.raw import RawRecord
from contracts.scripts import script
from pipeline.ingest.sources import word_images
from pipeline.ingest.worlds import words
from pipeline.ingest.worlds._output import SplitSizes
from pipeline.ingest.worlds.words import Config, draw_word, is_of_val, words_of

SMALL = Config(num_records=SplitSizes(train=24, val=8))


def test_a_world_is_read_by_its_source(tmp_path):
    done = []
    words.generate(tmp_path, SMALL, done.append)
    assert sum(done) == 32
    source = word_images.Config()
    assert word_images.splits(tmp_path, source) == ("train", "val")
    for split, number in (("train", 24), ("val", 8)):
        records = list(word_images.read(tmp_path, split, source))
        assert len(records) == number and all(isinstance(one, RawRecord) and one.image.is_file() for one in records)
        found = [record.transcript for record in records]
        assert [one.direction for one in found] == ["ltr", "rtl"] * (number // 2), "one script after the other"
        assert all(is_of_val(one.text) == (split == "val") for one in found), "no word is in both"


def test_words_are_of_their_script_and_length():
    rng = np.random.default_rng(0)
    for of, name in (("latin", "Latin"), ("arabic", "Arabic")):
        found = [draw_word(rng, of, (2, 8)) for _ in range(300)]
        assert {len(word) for word in found} == set(range(2, 9))
        assert {script(word) for word in found if not word.isdigit()} == {name}
        assert all(unicodedata.normalize("NFC", word) == word for word in found)
    assert sum(draw_word(rng, "latin", (2, 8)).isdigit() for _ in range(500)) in range(25, 80)


def test_a_word_depends_on_its_place_alone_and_can_be_read():
    first = list(words_of(SMALL, "train"))
    again = list(words_of(Config(num_records=SplitSizes(train=5, val=1)), "train"))
    for (word, picture), (other, same) in zip(first, again, strict=False):
        assert word == other
        np.testing.assert_array_equal(picture, same)
    for _, picture in first:
        assert picture.shape[0] == 32 and picture.dtype == np.uint8
        grey = picture.mean(axis=2)
        middle, edge = grey[8:24], np.concatenate([grey[:3], grey[-3:]])
        assert middle.std() > 1.5 * edge.std(), "ink in the middle"


def test_settings_that_cannot_be_are_told():
    with pytest.raises(ConfigError, match="smaller first"):
        Config(letters=(5, 2))
    with pytest.raises(ConfigError, match="scripts"):
        Config(scripts=())
