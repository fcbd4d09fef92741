"""What sources share: path templates, record keys, ids, streamed JSON, and annotations grouped on disk."""

from __future__ import annotations

import array
import contextlib
import hashlib
import marshal
import os
import posixpath
import re
import reprlib
import tempfile
import unicodedata
from collections.abc import Callable, Container, Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from string import Formatter
from typing import Any, TypeVar, overload

import ijson
import numpy as np

from contracts.errors import ConfigError, DataError
from pipeline.system.reading import PatientFile, on_this_host

T = TypeVar("T")

MAX_ID = 2**63 - 1
_MAX_DEPTH = 200
_NO_MARKS = bytes(set(range(256)) - set(b'"[]{}'))
_NESTING = np.zeros(256, np.int8)
_NESTING[list(b"[{")], _NESTING[list(b"]}")] = 1, -1
_SHOWN = reprlib.Repr()
_SHOWN.maxlevel, _SHOWN.maxdict, _SHOWN.maxlist = 4, 20, 20
_SHOWN.maxstring = _SHOWN.maxother = _SHOWN.maxlong = 200
# Files that the door can read; others that lie beside images are none.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
# Names that some tools list as classes and that mean none.
NOT_CLASSES = {"_background_", "__ignore__", "__background__", "background"}


_MAX_KEY = 80  # with `.semantic.png` it must fit the 100 characters of a tar's header
_PLAIN_NAME = re.compile(r"[a-z0-9_]+(/[a-z0-9_]+)*\.jpg")


def record_key(name: str) -> str:
    """The key of an image: its path below the data set's folder, in letters, digits, `_` and `-`.

    `train2017/000000000009.jpg` is `train2017-000000000009`. Where this form loses something (capitals, blanks, other
    scripts, another suffix, a long path) eight digits of the path's SHA-256 are put behind it: two paths have two keys.
    """
    path = unicodedata.normalize("NFC", posixpath.normpath(forward_slashes(name))).lstrip("/")
    slug = re.sub(r"[^a-z0-9_]+", "-", str(PurePosixPath(path).with_suffix("")).lower()).strip("-")
    if _PLAIN_NAME.fullmatch(path) and len(slug) <= _MAX_KEY:
        return slug
    digest = hashlib.sha256(path.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{slug[-(_MAX_KEY - 9) :].strip('-')}-{digest}".lstrip("-")


def image_key(image: Path, root: Path) -> str:
    """The key of an image of the data set in `root`."""
    return record_key(os.path.relpath(image, root))


def forward_slashes(name: str) -> str:
    """A file name as it is written on Windows, `images\\a.png`, as it is written everywhere else."""
    return name.replace("\\", "/")


_WIDTH = re.compile(r"0?[0-9]{0,2}[ds]?")  # a larger one would fill the memory


def check_template(key: str, template: str, **fields: object) -> None:
    """Raise ConfigError unless `template` can be filled with `fields`, by name and width alone: `{image_id:012d}`."""
    try:
        for _, name, width, conversion in Formatter().parse(template):
            if name is not None and (name not in fields or conversion or not _WIDTH.fullmatch(width or "")):
                raise ValueError(f"{{{name}}} is not one of these, or its width is not a two-digit number")
        template.format(**fields)
    except ValueError as error:
        raise ConfigError(
            f"{key} cannot be filled in",
            value=template,
            allowed="a path with " + ", ".join(f"{{{name}}}" for name in fields),
            fix=f"{type(error).__name__}: {error}",
        ) from None


def check_classes(names: Sequence[str]) -> None:
    """Raise ConfigError for a class list of a source's settings that names one twice."""
    if len(set(names)) != len(names):
        raise ConfigError("a class is listed twice", value=names)


def check_folders(folders: Sequence[str]) -> None:
    """Raise ConfigError unless these are folders below the data set's, each once; "." is that folder itself."""
    if not folders or len({posixpath.normpath(folder) for folder in folders}) != len(folders):
        raise ConfigError("folders is empty or has one twice", value=folders, allowed="folders, each once")
    outside = [folder for folder in folders if folder != "." and not (folder.strip() and is_inside(folder))]
    if outside:
        raise ConfigError(
            "not folders below the data set's", value=outside, allowed='folders below `input`, or "." for itself'
        )


def shown(value: Any, length: int = 100) -> str:
    """What stands in a file, as text for a message; cut where it is long or deep."""
    return (str(value) if isinstance(value, str | int | float) else _SHOWN.repr(value))[:length]


def is_inside(name: str) -> bool:
    """Whether a relative file name stays below the folder it is joined to."""
    path = PurePosixPath(name.replace("\\", "/"))
    if not path.parts or "\0" in name or path.is_absolute():
        return False
    return ".." not in path.parts and ":" not in path.parts[0]


def whole_number(value: Any) -> int | None:
    """`value` as an int if it is a whole number that fits 64 bits (25 or 25.0), else None."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and -MAX_ID <= value <= MAX_ID else None


def item_id(value: Any) -> int | str | None:
    """`value` as an id: a whole number from 0 on (25.0 is 25), or a text that is not empty; else None."""
    if isinstance(value, str):
        return value or None
    number = whole_number(value)
    return number if number is not None and number >= 0 else None


def find_id(value: Any, known: Container[int | str]) -> int | str | None:
    """The id of `known` that `value` means: itself, else the same number as text, or the same text as number."""
    if isinstance(value, float):
        value = whole_number(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    if value in known:
        return value
    if isinstance(value, str):
        number = int(value) if re.fullmatch(r"\s*-?[0-9]{1,18}\s*", value, re.ASCII) else None
        return number if number is not None and number in known else None
    return str(value) if str(value) in known else None


def number(value: Any) -> tuple[float | None, bool]:
    """`value` as a float, and whether it was written as text: ("20.5" -> 20.5, True); None if it is no number."""
    if isinstance(value, str):
        try:
            return (float(value), True) if len(value) < 40 and "_" not in value else (None, False)
        except ValueError:
            return None, False
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value), False
    return None, False


def stream_list(path: Path, name: str) -> Iterator[Any]:
    """The entries of list `name` of a JSON object, one at a time; numbers are int and float.

    NaN and Infinity, which Python writes and JSON does not know, are read as null.

    Raises:
        DataError: the file is missing, cannot be read here or is no JSON object; says where.
    """
    try:
        file = PatientFile(path)
    except (OSError, ValueError) as error:
        raise DataError("cannot read an annotation file", value=str(path), where=str(error)) from None
    with file:
        start = 3 if file.read(3) == b"\xef\xbb\xbf" else 0  # a byte order mark
        file.seek(start)
        head = file.read(4096).lstrip()
        if head[:1] != b"{":
            raise DataError(
                "this file is not a JSON object", value=head[:20], where=f"{path}, byte {start}", allowed="{...}"
            )
        has_nan = _scan(file, start)
        file.seek(start)
        try:
            yield from ijson.items(_NoNaN(file) if has_nan else file, f"{name}.item", use_float=True)
        except (ijson.JSONError, ValueError, OverflowError, RecursionError) as error:
            raise DataError(
                "broken JSON",
                value=" ".join(str(error).split())[:200],
                where=f"{path}, in the 64 KiB before byte {file.tell()} of {file.size}",
                fix="fetch the file again; a file that ends early was not copied whole",
            ) from None


def _scan(file: PatientFile, start: int) -> bool:
    """Whether "NaN" or "Infinity" stand anywhere in the file; reads it to its end.

    Raises:
        DataError: lists or objects are nested more than `_MAX_DEPTH` deep, for which the parser's time grows with the
            square of the depth.
    """
    has_nan, held, before, depth, in_text = False, b"", b"", 0, 0
    file.seek(start)
    while block := file.read(1 << 20):
        block = held + block
        cut = (
            len(block) - (len(block) - len(block.rstrip(b"\\"))) % 2
        )  # what a backslash escapes may be in the next block
        block, held = block[:cut], block[cut:]
        text = before + block
        has_nan = has_nan or b"NaN" in text or b"Infinity" in text
        before = text[1 - len(b"Infinity") :]
        plain = block.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, delete=_NO_MARKS)
        marks = np.frombuffer(plain, np.uint8)
        inside = (in_text + np.cumsum(marks == ord('"'), dtype=np.int32)) & 1
        depths = depth + np.cumsum(np.where(inside, 0, _NESTING[marks]), dtype=np.int32)
        if depths.max(initial=0) > _MAX_DEPTH:
            raise DataError(
                "lists or objects are nested too deeply", where=f"{file.path}, before byte {file.tell()}",
                allowed=f"{_MAX_DEPTH} levels",
            )  # fmt: skip
        if len(marks):
            depth, in_text = int(depths[-1]), int(inside[-1])
    return has_nan


class _NoNaN:
    """A JSON file with null in place of NaN and Infinity outside strings."""

    _TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?Infinity|NaN|"', re.DOTALL)
    _LONGEST = len(b"-Infinity")

    def __init__(self, file: PatientFile):
        self._file = file
        self._rest = b""

    def read(self, size: int) -> bytes:
        if size == 0:
            return b""
        while True:
            chunk = self._file.read(max(size, 1 << 16, len(self._rest)))  # doubled: a long text is searched anew
            text, cut = self._rest + chunk, len(self._rest) + len(chunk)
            if chunk:  # a token may go on in the next chunk
                cut = max(0, cut - self._LONGEST)
                for match in self._TOKEN.finditer(text):
                    if match.group() == b'"' or match.start() < cut < match.end():
                        cut = min(cut, match.start())
                        break
            out, self._rest = text[:cut], text[cut:]
            if out or not chunk:
                return self._TOKEN.sub(self._replace, out)

    @staticmethod
    def _replace(match: re.Match[bytes]) -> bytes:
        return match.group() if match.group()[:1] == b'"' else b"null"


def _as_number(value: int | str) -> int:
    """An id in 64 bits; texts by their digest, as negative numbers, which no id is."""
    if isinstance(value, int):
        return value
    return -1 - int.from_bytes(hashlib.blake2b(value.encode("utf-8", "surrogatepass"), digest_size=7).digest())


class Spool:
    """Items grouped by an id, kept in one temporary file: memory is 32 bytes an item, whatever its size.

    First `add` everything, then `seal`, then `of`. Of several items with one id the first counts.
    """

    def __init__(self) -> None:
        try:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed by __exit__)
        except OSError as error:
            raise _no_room(error) from error
        self._groups, self._ids, self._offsets = array.array("q"), array.array("q"), array.array("q")
        self._end = 0
        self._sorted_groups = self._sorted_offsets = self._lengths = np.zeros(0, np.int64)

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # what could not be written is of no use any more
            self._file.close()

    def add(self, group: int | str, item_id: int | str, item: Any) -> None:
        """Keep `item`: None, numbers, texts, lists and dicts of them."""
        data = marshal.dumps((item_id, item))  # for this run of the stage only
        try:
            self._file.write(data)
        except OSError as error:
            raise _no_room(error) from error
        self._groups.append(_as_number(group))
        self._ids.append(_as_number(item_id))
        self._offsets.append(self._end)
        self._end += len(data)

    def seal(self) -> list[int | str]:
        """Group what was added; returns the id of every item that is dropped because its id was there before."""
        try:
            self._file.flush()
        except OSError as error:
            raise _no_room(error) from error
        groups, ids = np.array(self._groups, np.int64), np.array(self._ids, np.int64)
        offsets = np.array([*self._offsets, self._end], np.int64)
        by_id = np.argsort(ids, kind="stable")
        repeated = np.zeros(len(ids), bool)
        repeated[by_id[1:]] = ids[by_id[1:]] == ids[by_id[:-1]]
        rows = np.flatnonzero(~repeated)
        rows = rows[np.argsort(groups[rows], kind="stable")]
        self._sorted_groups, self._sorted_offsets = groups[rows], offsets[rows]
        self._lengths = offsets[rows + 1] - offsets[rows]
        return [self._read(offsets[row], offsets[row + 1])[0] for row in np.flatnonzero(repeated)]

    def _read(self, start: int, stop: int) -> Any:
        self._file.seek(int(start))
        return marshal.loads(self._file.read(int(stop - start)))

    @property
    def groups(self) -> np.ndarray:
        """Distinct groups that are numbers, ascending, int64; texts as negative numbers."""
        return np.unique(self._sorted_groups)

    def of(self, group: int | str) -> list[Any]:
        """The items of a group in the order they were added."""
        return [marshal.loads(data)[1] for data in self._bytes(group)]

    def unread(self, group: int | str, make: Callable[[Any], T]) -> Unread[T]:
        """`make(item)` of each item of a group, not before somebody asks for it."""
        return Unread(self._bytes(group), make)

    def _bytes(self, group: int | str) -> list[bytes]:
        number = _as_number(group)
        start = int(np.searchsorted(self._sorted_groups, number, side="left"))
        stop = int(np.searchsorted(self._sorted_groups, number, side="right"))
        offsets, lengths = self._sorted_offsets[start:stop].tolist(), self._lengths[start:stop].tolist()
        file = self._file.fileno()
        return [os.pread(file, length, offset) for offset, length in zip(offsets, lengths, strict=True)]


class Unread(Sequence[T]):
    """What items of a spool stand for, as a sequence that is made when it is first looked at, and pickles as it lies.

    The one process that reads a source would otherwise parse and pickle for all that write shards. They run the same
    Python, as Ray wants it, so they know its `marshal`.
    """

    def __init__(self, items: Sequence[bytes], make: Callable[[Any], T]):
        self._items, self._make = items, make

    @cached_property
    def _made(self) -> tuple[T, ...]:
        return tuple(self._make(marshal.loads(item)[1]) for item in self._items)

    def __getstate__(self) -> dict[str, Any]:
        return {"_items": self._items, "_make": self._make}

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[T, ...]: ...

    def __getitem__(self, index: int | slice) -> T | tuple[T, ...]:
        return self._made[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._made == tuple(other)

    __hash__ = None  # type: ignore[assignment]


def _no_room(error: OSError) -> DataError:
    folder = tempfile.gettempdir() if tempfile.tempdir else "TMPDIR"
    return DataError(
        "cannot keep the annotations in a temporary file", value=folder, where=on_this_host(error),
        fix="make room there, or set TMPDIR to a folder with room",
    )  # fmt: skip
