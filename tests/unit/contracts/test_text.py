"""Words of every script, and English ones as they always were."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.text import Vocabulary, joined, spaced, words

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
    vocabulary = Vocabulary([[word, 1] for word in words(text)])
    assert vocabulary.decode(vocabulary.encode(text)) == words(text)
