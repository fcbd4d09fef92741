"""Text rules shared by the vocab stage, the tasks and the metrics, so that all of them count the same words."""

from __future__ import annotations

import re

_WORD = re.compile(r"[a-z0-9]+(?:'[a-z]+)?")

PAD, UNK, BOS, EOS = "<pad>", "<unk>", "<bos>", "<eos>"
SPECIALS = (PAD, UNK, BOS, EOS)


def words(text: str) -> list[str]:
    """Lower-case words and numbers without punctuation: the tokens a model reads and writes."""
    return _WORD.findall(text.lower())


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
