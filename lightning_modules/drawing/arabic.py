"""Right-to-left text for a drawer that only sets one letter after another from left to right.

An Arabic letter has up to four forms, by whether its neighbours join it. Unicode has each as a character of its own
(presentation forms), and says in its decomposition which letter and which form it is; a font that has these characters
needs no shaping engine. The engine of Pillow's wheels (raqm) loads a library of the system, which may not be there.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import cache
from itertools import groupby

_FIRST, _LAST = 0xFE70, 0xFEFC  # Arabic presentation forms B
_LAM = "\u0644"
_TATWEEL, _JOINER = "\u0640", "\u200d"  # these join on both sides and look the same everywhere
_MIRRORED = dict(zip("()[]{}<>\u00ab\u00bb", ")(][}{><\u00bb\u00ab", strict=True))
_INSIDE_NUMBERS = (("EN", "ES"), ("EN", "CS"), ("AN", "CS"))


def visual(text: str) -> str:
    """A line of text in the order and the forms in which it is drawn from left to right.

    The Unicode bidirectional algorithm (UAX 9) without explicit embeddings: the line runs as its first letter does.
    """
    letters = (char for char in _shaped(text) if unicodedata.category(char) != "Cf")  # joiners have done their work
    clusters = _clusters(letters)
    kinds = [unicodedata.bidirectional(cluster[0]) for cluster in clusters]
    strong = ["R" if kind in ("R", "AL") else "L" for kind in kinds if kind in ("L", "R", "AL")]
    if "R" not in strong:
        return "".join(clusters)
    base = strong[0]
    # An even level runs from left to right; numbers inside right-to-left text do, too.
    depth = {"L": 0, "R": 1, "EN": 2, "AN": 2} if base == "L" else {"R": 1, "L": 2, "EN": 2, "AN": 2}
    levels = [depth[kind] for kind in _without_neutrals(_weak(kinds, base), base)]
    clusters = [_turned(c) if level % 2 else c for c, level in zip(clusters, levels, strict=True)]
    places = list(range(len(levels)))
    for level in (2, 1):  # rule L2: what is deepest is reversed first, then again with what is around it
        runs = [list(run) for _, run in groupby(places, lambda place, level=level: levels[place] >= level)]  # type: ignore[misc]
        places = [place for run in runs for place in (run[::-1] if levels[run[0]] >= level else run)]
    return "".join(clusters[place] for place in places)


def _turned(cluster: str) -> str:
    """As it is drawn from right to left: brackets mirrored, marks before their letter, over which the font has them."""
    letter, marks = cluster[0], cluster[1:]
    return marks + _MIRRORED.get(letter, letter)


def _weak(kinds: list[str], base: str) -> list[str]:
    """Kinds as `L`, `R`, `EN` or `AN`, numbers inside right-to-left text, and `ON`, which has no direction (W1-W7)."""
    out: list[str] = []
    strong = base
    for kind in kinds:
        if kind in ("L", "R", "AL"):
            strong = kind
        out.append("AN" if kind == "EN" and strong == "AL" else kind)
    for i in range(1, len(out) - 1):  # the mark in 1.5 and 12:30
        if out[i] in ("CS", "ES") and out[i - 1] == out[i + 1] and (out[i - 1], out[i]) in _INSIDE_NUMBERS:
            out[i] = out[i - 1]
    for order in (range(1, len(out)), range(len(out) - 2, -1, -1)):  # the mark of 5 %
        for i in order:
            if out[i] == "ET" and out[i - order.step] == "EN":
                out[i] = "EN"
    strong = base
    for i, kind in enumerate(out):
        if kind in ("L", "R", "AL"):
            strong = out[i] = "L" if kind == "L" else "R"
        elif kind == "EN" and strong == "L":
            out[i] = "L"
        elif kind not in ("EN", "AN"):
            out[i] = "ON"
    return out


def _without_neutrals(kinds: list[str], base: str) -> list[str]:
    """What has no direction goes with its neighbours, where they agree, else with the line (N1, N2)."""
    out: list[str] = []
    for kind, run in groupby(kinds):
        length = len(list(run))
        if kind == "ON":
            around = [
                base if found is None else "L" if found == "L" else "R"
                for found in _neighbours(kinds, len(out), length)
            ]
            kind = around[0] if around[0] == around[1] else base
        out += [kind] * length
    return out


def _neighbours(kinds: list[str], start: int, length: int) -> tuple[str | None, str | None]:
    end = start + length
    return kinds[start - 1] if start else None, kinds[end] if end < len(kinds) else None


def _clusters(text: Iterable[str]) -> list[str]:
    """Letters with the marks that stand on them, which follow their letter in every direction."""
    out: list[str] = []
    for char in text:
        if out and unicodedata.category(char)[0] == "M":
            out[-1] += char
        else:
            out.append(char)
    return out


def _shaped(text: str) -> str:
    """Each Arabic letter in the form that its neighbours give it, and lam with alef as one; the order is as before."""
    forms = _forms()
    letters = [i for i, char in enumerate(text) if unicodedata.category(char)[0] != "M"]  # marks join nothing
    shaped = list(text)
    skipped = -1
    for n, i in enumerate(letters):
        if i <= skipped or text[i] not in forms:
            continue
        joined_before = n > 0 and _joins_after(text[letters[n - 1]])
        letter, last = text[i], n
        pair = text[i] + text[letters[n + 1]] if n + 1 < len(letters) else ""
        if pair in forms:
            letter, last, skipped = pair, n + 1, letters[n + 1]
            shaped[letters[n + 1]] = ""
        after = text[letters[last + 1]] if last + 1 < len(letters) else ""
        joined_after = _joins_after(letter) and _joins_before(after)
        name = ("isolated", "initial", "final", "medial")[2 * joined_before + joined_after]
        shaped[i] = forms[letter].get(name, letter)
    return "".join(shaped)


def _joins_after(letter: str) -> bool:
    """Whether the next letter is joined to this one: it has an initial form."""
    return letter in (_TATWEEL, _JOINER) or "initial" in _forms().get(letter, {})


def _joins_before(letter: str) -> bool:
    return letter in (_TATWEEL, _JOINER) or "final" in _forms().get(letter, {})


@cache
def _forms() -> dict[str, dict[str, str]]:
    """Letter (or lam with alef) -> form -> character."""
    out: dict[str, dict[str, str]] = {}
    for code in range(_FIRST, _LAST + 1):
        form, *letters = unicodedata.decomposition(chr(code)).split() or [""]
        letter = "".join(chr(int(part, 16)) for part in letters)
        if len(letter) == 1 or letter.startswith(_LAM):  # not the marks, which have a blank to stand on
            out.setdefault(letter, {})[form.strip("<>")] = chr(code)
    return out
