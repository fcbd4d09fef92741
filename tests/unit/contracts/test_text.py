"""Words of every script, and English ones as they always were."""

from __future__ import annotations

import gzip
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.text import (
    BEGIN,
    END,
    PAD,
    TOKENIZERS,
    UNKNOWN,
    Vocabulary,
    characters,
    joined,
    joined_pieces,
    pieces,
    plain,
    spaced,
    words,
)

HINDI = "\u0932\u0921\u093c\u0915\u0940 \u0939\u093f\u0902\u0926\u0940"  # two words with vowel signs and a dot below


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A dog's 2nd bone, isn't it?", ["a", "dog's", "2nd", "bone", "isn't", "it"]),
        ("Ein Mädchen läuft über die Straße!", ["ein", "mädchen", "läuft", "über", "die", "straße"]),
        ("u\u0308ber", ["über"]),  # written with a mark of its own
        ("Кошка сидит на столе.", ["кошка", "сидит", "на", "столе"]),
        ("一只猫坐在2张桌子上。", ["一", "只", "猫", "坐", "在", "2", "张", "桌", "子", "上"]),
        ("猫cat犬", ["猫", "cat", "犬"]),
        ("ネコがいる", ["ネ", "コ", "が", "い", "る"]),
        ("แมว กิน", ["แ", "ม", "ว", "กิ", "น"]),
        ("고양이가 앉아 있다", ["고양이가", "앉아", "있다"]),
        (HINDI, HINDI.split()),
        ("L\u2019homme et l'été", ["l'homme", "et", "l'été"]),
        ("«¿…?» 🐱 --", []),
        ("snake_case a_b", ["snake", "case", "a", "b"]),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


ASCII = st.text(st.characters(max_codepoint=127), max_size=30) | st.text("ab1' _-.", max_size=12)


@given(ASCII)
def test_english_stays_as_it_is_beside_other_scripts_too(text: str) -> None:
    expected = re.findall(r"[a-z0-9]+(?:'[a-z]+)?", text.lower())
    assert words(text) == expected
    assert words(f"ü {text}") == ["ü", *expected]


def test_written_text_has_blanks_where_its_script_has_them() -> None:
    assert joined(words("A cat sits.")) == "a cat sits"
    assert joined(words("一只猫坐在 2 张桌子上。")) == "一只猫坐在 2 张桌子上"
    assert joined(words("แมว")) == "แมว"
    assert joined([]) == ""
    assert spaced("a cat") == "a cat"
    assert spaced("一只 cat").split() == ["一", "只", "cat"]


def test_a_vocabulary_of_any_script_reads_what_it_wrote() -> None:
    text = "über 猫 кошка"
    vocabulary = Vocabulary("words", words(text))
    assert vocabulary.decode(vocabulary.encode(text)) == words(text)
    assert vocabulary.text(vocabulary.encode(text)) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Two young, White males.", ["Two", "▁young", ",", "▁White", "▁males", "."]),
        ("Ein  Mädchen\tläuft –\n«hier»", ["Ein", "▁Mädchen", "▁läuft", "▁–", "▁«", "hier", "»"]),
        ("l'été u\u0308ber", ["l", "'", "été", "▁über"]),
        ("الغلام كتب، ٣", ["الغلام", "▁كتب", "،", "▁٣"]),
        (" ▁ a▁ ▁b ", ["▁", "▁a", "▁", "▁▁", "b"]),
        ("", []),
    ],
)
def test_pieces(text: str, expected: list[str]) -> None:
    assert pieces(text) == expected
    assert joined_pieces(expected) == plain(text)
    assert joined_pieces(["▁White", "▁males"]) == "White males"  # as a model may begin


ANY = st.text(max_size=40) | st.text("a1 _.,\t\u00a0\u2028▁é\u0301\u0308ع-", max_size=12)


@given(ANY)
def test_pieces_and_characters_lose_nothing_but_how_blanks_are_written(text: str) -> None:
    for name in ("pieces", "characters"):
        split, join = TOKENIZERS[name]
        assert join(split(text)) == plain(text)
        assert split(plain(text)) == split(text)
    vocabulary = Vocabulary("pieces", dict.fromkeys(pieces(text)))
    assert vocabulary.text([BEGIN, *vocabulary.encode(text), END, UNKNOWN]) == plain(text)


@pytest.mark.parametrize(
    ("language", "kinds", "share"), [("en", 6295, 0.987), ("de", 8293, 0.970), ("fr", 6782, 0.988)]
)
def test_multi30k_comes_back_whole(shared_dir: Path, language: str, kinds: int, share: float) -> None:
    file = shared_dir / f"data/multi30k/data/task1/raw/train.{language}.gz"
    if not file.is_file():
        pytest.skip(f"{file} is not there: Multi30k (github.com/multi30k/dataset) lies in the shared folder only")
    lines = gzip.decompress(file.read_bytes()).decode().split("\n")
    counts = Counter(piece for line in lines for piece in pieces(line))
    assert [line for line in lines if joined_pieces(pieces(line)) != plain(line)] == []
    frequent = [count for count in counts.values() if count >= 2]
    assert len(frequent) == kinds
    assert sum(frequent) / counts.total() == pytest.approx(share, abs=5e-4)


def test_ids_have_names_and_stand_first() -> None:
    vocabulary = Vocabulary("words", ["cat", "dog"])
    assert vocabulary.tokens == ["<pad>", "<unk>", "<bos>", "<eos>", "cat", "dog"]
    assert (PAD, UNKNOWN, BEGIN, END) == (0, 1, 2, 3) and len(vocabulary) == 6
    assert vocabulary.encode("Dog, bird & cat") == [5, UNKNOWN, 4]
    assert vocabulary.encode("dog bird cat", max_length=2) == [5, UNKNOWN]
    assert vocabulary.decode([BEGIN, 5, PAD, UNKNOWN, END, 4]) == ["dog", "<unk>"]
    assert characters("A\u0308  b") == ["Ä", " ", "b"]
    with pytest.raises(AssertionError, match="twice"):
        Vocabulary("words", ["cat", "cat"])


def test_a_vocabulary_of_counts_keeps_the_frequent() -> None:
    counted = [["a", 5], ["b", 3], ["c", 1]]
    assert Vocabulary.of_counts("words", counted).tokens[4:] == ["a", "b", "c"]
    assert Vocabulary.of_counts("words", counted, min_count=2).tokens[4:] == ["a", "b"]
    assert Vocabulary.of_counts("words", counted, max_size=1).tokens[4:] == ["a"]
