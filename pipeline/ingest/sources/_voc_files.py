"""Pascal VOC's small files, read alike by the source and by the scorer."""

from __future__ import annotations

import re
from collections.abc import Container
from pathlib import Path

from contracts.errors import DataError
from contracts.raw import Color
from contracts.records import IGNORE_INDEX
from pipeline.ingest.sources._files import IMAGE_SUFFIXES, NOT_CLASSES
from pipeline.system.reading import listed, read_text

_FLAGGED = re.compile(r"(.*\S)\s+(?:-1|0|1)")
_LABEL_COLOR = re.compile(r"(?P<name>[^:]+):(?:(?P<color>\d+,\d+,\d+))?(?::.*)?")
_BORDER = (224, 224, 192)  # of VOC's own masks: the colour of 255


def listed_name(line: str, known: Container[str]) -> str:
    """The image that a line of ImageSets names, which may have blanks.

    Only a last column of -1, 0 or 1, as lists of one class have, is cut off, and not where `known` has the whole line.
    """
    name = line.strip()
    flagged = _FLAGGED.fullmatch(name)
    return flagged[1] if flagged and name not in known else name


def is_flag(text: str) -> bool:
    """Whether a flag such as `difficult` is set. Tools also write true, and Unspecified where nobody said."""
    return text.strip().lower() in ("1", "true", "yes")


def images_by_stem(folder: Path, first: str = ".jpg") -> dict[str, str]:
    """Names of the image files of a folder by their stems; of several with one stem the one that ends in `first`."""
    paths = [path for path in listed(folder) if path.suffix.lower() in IMAGE_SUFFIXES]
    return {path.stem: path.name for path in sorted(paths, key=lambda path: path.suffix.lower() == first)}


def read_label_colors(path: Path) -> dict[str, Color | None]:
    """CVAT's labelmap.txt, lines `name:r,g,b:parts:actions`: the colour of each name, in order; None for no colour.

    Raises:
        DataError: another line, a colour that is none, or one that two names have.
    """
    colors: dict[str, Color | None] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        where, match = f"{path}, line {number}", _LABEL_COLOR.fullmatch(line.strip())
        values = tuple(map(int, match["color"].split(","))) if match and match["color"] else None
        if match is None or (values is not None and max(values) > 255):
            raise DataError("this is no label with its colour", value=line[:100], where=where, allowed="name:r,g,b::")
        name = match["name"].strip()
        if name in colors or (values is not None and values in colors.values()):
            raise DataError("a name or a colour is there twice", value=line[:100], where=where)
        colors[name] = None if values is None else (values[0], values[1], values[2])
    return colors


def color_labels(colors: dict[str, Color | None], classes: tuple[str, ...]) -> dict[Color, int]:
    """What the colours of label masks stand for. Black is background, VOC's border is ignored, unless they are used."""
    labels = {(0, 0, 0): 0, _BORDER: IGNORE_INDEX}
    for name, color in colors.items():
        if color is None:
            continue
        if name in classes:
            labels[color] = classes.index(name) + 1
        elif name.lower() in NOT_CLASSES:
            labels[color] = IGNORE_INDEX if "ignore" in name.lower() else 0
    return labels
