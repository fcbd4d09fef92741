"""What sources of loose files share: those below a folder, their record keys, and the size that a viewer shows."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from PIL import Image

from contracts.records import Problem
from pipeline.door.images import FORMATS
from pipeline.reading import is_folder, listed, patiently
from pipeline.sources._files import record_key

_ORIENTATION_TAG = 0x0112
_ON_ITS_SIDE = {5, 6, 7, 8}


def is_hidden(path: Path) -> bool:
    """Whether a person does not see it: `.DS_Store`, `._photo.jpg`, and the folder that macOS puts into archives."""
    return path.name.startswith(".") or path.name == "__MACOSX"


def files_below(folder: Path, suffixes: Collection[str]) -> Iterator[Path]:
    """Files with one of these endings (small letters) in a folder and those below it, sorted in each; no hidden ones.

    Links to folders are followed, each folder once.

    Raises:
        DataError: there is no such folder, or this host cannot read one.
    """
    entered: set[str] = set()

    def walk(folder: Path) -> Iterator[Path]:
        real = os.path.realpath(folder)
        if real in entered:  # a link to a folder above it
            return
        entered.add(real)
        for path in listed(folder):
            if is_hidden(path):
                continue
            if path.suffix.lower() in suffixes:
                yield path
            elif is_folder(path):
                yield from walk(path)

    return walk(folder)


def keyed(files: Iterable[Path], root: Path) -> tuple[list[tuple[str, Path]], list[Problem]]:
    """(record key, file) in ascending order of key, and a Problem for each file whose key another one has."""
    found: dict[str, Path] = {}
    problems: list[Problem] = []
    for path in files:
        name = path.relative_to(root).as_posix()
        key = record_key(name)
        if found.setdefault(key, path) != path:
            problems.append(Problem(reason="duplicate_key", kind="record", file=str(path), item_id=name, key=key))
    return sorted(found.items()), problems


def upright_size(path: Path) -> tuple[int, int] | None:
    """(width, height) of an image as a viewer shows it, turned by its EXIF orientation; only the header is read.

    None where it is no image that can be opened: the door says why.
    """
    try:
        return patiently(lambda: _upright_size(path), path)
    except OSError:  # one of `ABSENT`
        return None


def _upright_size(path: Path) -> tuple[int, int] | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of size and metadata; the door has its own limits
            with Image.open(path, formats=FORMATS) as image:
                width, height = image.size
                on_its_side = image.getexif().get(_ORIENTATION_TAG) in _ON_ITS_SIDE
    except OSError as error:
        if error.errno is not None:
            raise
        return None  # Pillow's own
    except Exception:  # a damaged header makes Pillow raise errors of a dozen types
        return None
    return (height, width) if on_its_side else (width, height)
