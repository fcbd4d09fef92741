"""What a mirrored clip shows: "left" becomes "right", and what turns clockwise turns counterclockwise."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Inside of names too ("MoveLeft", "turn_left_hand"): whoever asks checks that there is such a class.
_WORDS = re.compile(r"left|right|(?P<anti>anti|counter)?(?P<hyphen>-?)clockwise", re.IGNORECASE)
_OTHER = {"left": "right", "right": "left"}


def mirror_motion(text: str) -> str:
    """`text` of the mirrored picture, capitals as they were: "MoveLeft" -> "MoveRight"."""
    return _WORDS.sub(_other, text)


def _other(match: re.Match[str]) -> str:
    word = match[0]
    if match["anti"]:
        clockwise = word[len(match["anti"]) + len(match["hyphen"]) :]
        return clockwise.capitalize() if word[0].isupper() else clockwise
    if word.lower().endswith("clockwise"):
        return match["hyphen"] + ("Counterclockwise" if word.lstrip("-")[0].isupper() else "counterclockwise")
    other = _OTHER[word.lower()]
    return other.upper() if word.isupper() else other.capitalize() if word[0].isupper() else other


def mirrored_classes(names: Sequence[str]) -> list[int]:
    """Of each class the one that its mirrored clips belong to: the one of the mirrored name, or else itself."""
    places = {name: i for i, name in enumerate(names)}
    return [places.get(mirror_motion(name), i) for i, name in enumerate(names)]
