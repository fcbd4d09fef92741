"""Text rules shared by the vocab stage, the tasks and the metrics, so that all of them count the same words.

A word is a run of letters, marks and digits of any script, NFC and in small letters, with what follows an apostrophe.
Scripts that put no blanks between words (Han, Kana, Thai, Lao, Khmer, Burmese) are read by characters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache

_WORD = re.compile(r"[a-z0-9]+(?:'[a-z]+)?")  # what `_word_pattern` finds in ASCII, several times as fast
# Ranges of a character class: Thai and Lao, Burmese, Khmer, iteration marks, Kana, Han with its extensions, half-width
# Kana. Korean has blanks; Tibetan has a mark after each syllable.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\uff66-\uff9f\U00020000-\U0003ffff"
)
_APOSTROPHES = str.maketrans(dict.fromkeys("\u2019\u02bc\uff07", "'"))

PAD, UNK, BOS, EOS = "<pad>", "<unk>", "<bos>", "<eos>"
SPECIALS = (PAD, UNK, BOS, EOS)


def words(text: str) -> list[str]:
    """Lower-case words and numbers without punctuation: the tokens a model reads and writes."""
    if text.isascii():
        return _WORD.findall(text.lower())
    plain = unicodedata.normalize("NFC", text).translate(_APOSTROPHES).lower()
    return _word_pattern().findall(plain)


@cache
def _word_pattern() -> re.Pattern[str]:
    letter = rf"(?:(?![{_UNSPACED}])[^\W_][{_marks()}]*)"
    return re.compile(rf"{_character_pattern().pattern}|{letter}+(?:'(?:(?!\d){letter})+)?")


@cache
def _character_pattern() -> re.Pattern[str]:
    return re.compile(rf"(?=\w)[{_UNSPACED}][{_marks()}]*")


@cache
def _marks() -> str:
    r"""What belongs to the letter before it and yet is no \w: vowels of Hindi, accents that no letter has, joiners."""
    marks = (c for c in map(chr, range(0x300, 0x1F000)) if unicodedata.category(c)[0] == "M")
    return "".join(marks) + "\u200c\u200d"


def joined(tokens: Iterable[str]) -> str:
    """The text of `words`: a blank between two of them, none between characters of scripts without blanks."""
    out, last_unspaced = "", False
    for token in tokens:
        unspaced = not token.isascii() and _character_pattern().match(token) is not None
        out += token if not out or (unspaced and last_unspaced) else f" {token}"
        last_unspaced = unspaced
    return out


def spaced(text: str) -> str:
    """`text` with blanks around each character of a script without blanks, so that a tokenizer takes it for a word."""
    return text if text.isascii() else _character_pattern().sub(r" \g<0> ", text)


class Vocabulary:
    """Words to ids and back. Ids 0..3 are `<pad> <unk> <bos> <eos>`; then words by falling count.

    `counted` is a list of [word, count], most frequent first, as the vocab stage writes it.
    """

    def __init__(self, counted: list[list], *, min_count: int = 1, max_size: int | None = None):
        kept = [word for word, count in counted if count >= min_count]
        self.words: list[str] = [*SPECIALS, *(kept if max_size is None else kept[:max_size])]
        self.ids: dict[str, int] = {word: i for i, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, text: str, *, max_length: int | None = None) -> list[int]:
        """Ids of the words of `text`, unknown ones as `<unk>`; no `<bos>` or `<eos>` is added."""
        return [self.ids.get(word, 1) for word in words(text)[:max_length]]

    def decode(self, ids: list[int]) -> list[str]:
        """Words up to the first `<eos>`; `<pad>` and `<bos>` are left out."""
        out: list[str] = []
        for i in ids:
            if i == 3:
                break
            if i not in (0, 2):
                out.append(self.words[i])
        return out
