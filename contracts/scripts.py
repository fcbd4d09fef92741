"""Of a text: its script, the direction in which that is read, and the order in which its characters stand in a picture.

Directions are those of the Unicode bidirectional algorithm (UAX 9). The order here is of whole lines without explicit
embeddings, and its own inverse, so that what is read from left to right becomes the text again.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

from contracts.annotations import Direction

NO_SCRIPT = "no letters"
_RUN = re.compile("[ln](?:[ln]|s(?=[ln]))*")  # left-to-right letters and numbers with a mark between two of them
_KINDS = {"L": "l", "EN": "n", "AN": "n", "CS": "s", "ES": "s"}


def script(text: str) -> str:
    """The script of most letters as Unicode names it, `Latin` or `Arabic`; of equal ones the first. `NO_SCRIPT` of
    digits and signs."""
    counts = Counter(unicodedata.name(char, "").partition(" ")[0].title() for char in text if char.isalpha())
    return max(counts, key=counts.__getitem__) if counts else NO_SCRIPT


def direction(text: str) -> Direction:
    """`rtl` where more letters run from right to left than from left to right."""
    kinds = Counter(map(unicodedata.bidirectional, text))
    return "rtl" if kinds["R"] + kinds["AL"] > kinds["L"] else "ltr"


def as_drawn(text: str) -> str:
    """The characters of a line from left to right as they stand in a picture, each still written as in the text; of
    what is drawn, the text."""
    return "".join(text[place] for place in drawn_places(text))


def drawn_places(text: str) -> list[int]:
    """The places of the characters of a text in the order of `as_drawn`.

    A text that runs from left to right is as it is written. Of one that does not, letters with their marks are turned
    around, but not within numbers and words that run the other way.
    """
    if direction(text) == "ltr":
        return list(range(len(text)))
    clusters: list[list[int]] = []
    for place, char in enumerate(text):
        if clusters and unicodedata.category(char)[0] == "M":
            clusters[-1].append(place)
        else:
            clusters.append([place])
    clusters.reverse()
    kinds = "".join(_KINDS.get(unicodedata.bidirectional(text[cluster[0]]), "r") for cluster in clusters)
    for run in _RUN.finditer(kinds):
        clusters[run.start() : run.end()] = clusters[run.start() : run.end()][::-1]
    return [place for cluster in clusters for place in cluster]
