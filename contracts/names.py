"""Names of data sets and runs. They become folders, parts of shell commands and file names: one rule keeps all safe."""

from __future__ import annotations

import re

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")  # file systems take 255 bytes; a name has an ending or a digest to it
NAME_RULE = "small letters a-z, digits, _ and -, with a letter or digit first, at most 64"


def is_name(value: object) -> bool:
    """Whether `value` may name a data set or a run."""
    return isinstance(value, str) and NAME.fullmatch(value) is not None
