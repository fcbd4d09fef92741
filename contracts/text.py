"""Text rules shared by the vocab stage, the tasks and the metrics, so that all of them count the same tokens.

Three tokenizers, by name (`TOKENIZERS`):

- `words`: a word is a run of letters, marks and digits of any script, NFC and in small letters, with what follows an
  apostrophe. Scripts that put no blanks between words (Han, Kana, Thai, Lao, Khmer, Burmese) are read by characters.
  Capitals and punctuation are lost: what captions and answers are compared by.
- `pieces`: words, numbers and punctuation marks as they are written, a piece with the blank before it as "\u2581".
- `characters`: the characters as they are written, blanks too.

The last two lose nothing: their tokens joined are the text again, `plain`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import NamedTuple

_WORD = re.compile(r"[a-z0-9]+(?:'[a-z]+)?")  # what `_word_pattern` finds in ASCII, several times as fast
# Ranges of a character class: Thai and Lao, Burmese, Khmer, iteration marks, Kana, Han with its extensions, half-width
# Kana. Korean has blanks; Tibetan has a mark after each syllable.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\uff66-\uff9f\U00020000-\U0003ffff"
)
_APOSTROPHES = str.maketrans(dict.fromkeys("\u2019\u02bc\uff07", "'"))

_PIECE = re.compile(r" ?\w+| ?[^\w\s]")
_BLANK = "\u2581"

# Ids that every vocabulary begins with: padding, a token that it does not have, the begin and the end of a text.
PAD, UNKNOWN, BEGIN, END = range(4)
SPECIALS = ("<pad>", "<unk>", "<bos>", "<eos>")  # no tokenizer makes one of these


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


def plain(text: str) -> str:
    """`text` in NFC, each run of blanks, line ends and tabs one blank, none at its ends."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def pieces(text: str) -> list[str]:
    """Words and punctuation marks, each with its leading blank, if it has one, as U+2581."""
    return [_BLANK + piece[1:] if piece[0] == " " else piece for piece in _PIECE.findall(plain(text))]


def joined_pieces(tokens: Iterable[str]) -> str:
    """The text of `pieces`. A U+2581 alone is one that stood in the text: a blank never stands alone."""
    return "".join(f" {token[1:]}" if token[0] == _BLANK and len(token) > 1 else token for token in tokens).lstrip()


def characters(text: str) -> list[str]:
    """The code points of `plain(text)`."""
    return list(plain(text))


class Tokenizer(NamedTuple):
    """How a text is cut into tokens, and tokens become a text."""

    split: Callable[[str], list[str]]
    join: Callable[[Iterable[str]], str]


TOKENIZERS: Mapping[str, Tokenizer] = {
    "words": Tokenizer(words, joined),
    "pieces": Tokenizer(pieces, joined_pieces),
    "characters": Tokenizer(characters, "".join),
}


class Vocabulary:
    """Tokens to ids and back. Ids 0..3 are `PAD`, `UNKNOWN`, `BEGIN` and `END`; then `tokens` in their order.

    Args:
        tokenizer: a key of `TOKENIZERS`.
        tokens: no two alike.

    Attributes:
        tokens: by id, with `SPECIALS` in front.
        ids: of each token.
    """

    def __init__(self, tokenizer: str, tokens: Iterable[str]):
        self.tokenizer = tokenizer
        self._split, self._join = TOKENIZERS[tokenizer]
        self.tokens: list[str] = [*SPECIALS, *tokens]
        self.ids: dict[str, int] = {token: i for i, token in enumerate(self.tokens)}
        assert len(self.ids) == len(self.tokens), "a token is there twice"

    @classmethod
    def of_counts(
        cls, tokenizer: str, counted: Sequence[Sequence], *, min_count: int = 1, max_size: int | None = None
    ) -> Vocabulary:
        """Of [token, count], most frequent first, as the vocab stage writes it.

        Args:
            min_count: rarer tokens are left out.
            max_size: so many are kept at most.
        """
        return cls(tokenizer, [token for token, count in counted if count >= min_count][:max_size])

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, text: str, *, max_length: int | None = None) -> list[int]:
        """Ids of the tokens of `text`, `UNKNOWN` for those it does not have; no `BEGIN` or `END` is added.

        Args:
            max_length: what is longer is cut.
        """
        return [self.ids.get(token, UNKNOWN) for token in self._split(text)[:max_length]]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Tokens up to the first `END`; `PAD` and `BEGIN` are left out."""
        return [self.tokens[i] for i in _up_to_end(ids) if i not in (PAD, BEGIN)]

    def text(self, ids: Iterable[int]) -> str:
        """The text that `ids` write."""
        return self._join(self.decode(ids))


def _up_to_end(ids: Iterable[int]) -> Iterator[int]:
    for i in ids:
        if i == END:
            return
        yield i
