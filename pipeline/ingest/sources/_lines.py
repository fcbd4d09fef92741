"""Lines of text files, plain or zipped. A line ends at a line feed, with or without a carriage return before it, and
nowhere else; a byte order mark is no text.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from contracts.errors import DataError
from pipeline.system.reading import PatientFile, is_file

_BLOCK = 1 << 20


def is_there(path: Path) -> bool:
    """Whether there is such a file, or one with `.gz` behind its name."""
    return is_file(path) or is_file(_zipped(path))


def _zipped(path: Path) -> Path:
    return path.with_name(f"{path.name}.gz")


def lines_of(path: Path) -> Iterator[bytes]:
    """The lines of a plain or zipped file without their ends, as bytes.

    Raises:
        DataError: there is no such file, this host cannot read it, or it is damaged.
    """
    rest, at_start = b"", True
    for block in _blocks(path):
        if at_start:
            block, at_start = block.removeprefix(b"\xef\xbb\xbf"), False
        *whole, rest = (rest + block).split(b"\n")
        yield from (line.removesuffix(b"\r") for line in whole)
    if rest:
        yield rest.removesuffix(b"\r")


def _blocks(path: Path) -> Iterator[bytes]:
    try:
        if is_file(path):
            with PatientFile(path) as file:
                yield from iter(lambda: file.read(_BLOCK), b"")
        else:
            with PatientFile(_zipped(path)) as raw, gzip.GzipFile(fileobj=raw) as file:  # type: ignore[call-overload]
                yield from iter(lambda: file.read(_BLOCK), b"")
    except FileNotFoundError as error:
        raise DataError(
            "a text file is missing", value=str(path), where=f"{path} or {path.name}.gz",
            fix="put it there, or correct the names of files of this source",
        ) from error  # fmt: skip
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            "a zipped file is damaged", value=str(error), where=str(_zipped(path)), fix="fetch it again"
        ) from error
