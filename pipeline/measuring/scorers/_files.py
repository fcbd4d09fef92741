"""What scorers share: files read whole, and checks that name the file, the position and the id.

Ids are compared as they are written, except that 25.0 is 25; COCO's scorers join "25" with 25, as the sources do.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from contracts.errors import DataError
from pipeline.ingest.sources._files import whole_number

BYTE_ORDER_MARK = "\ufeff"
_NUM_SHOWN = 5  # ids that an error lists
_MISSING = object()


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        DataError: there is no such file, or it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read this file ({error.strerror})", value=str(path)) from None


def read_text(path: Path, *, keep_mark: bool = False) -> str:
    """The content of a UTF-8 file, by default without a byte order mark at its start.

    Raises:
        DataError: there is no such file, or it is not UTF-8.
    """
    data = read_bytes(path)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            "this file is not UTF-8 text", value=data[error.start : error.start + 10], where=f"{path}, line {line}"
        ) from None
    return text if keep_mark else text.removeprefix(BYTE_ORDER_MARK)


def read_lines(path: Path, *, keep_mark: bool = False) -> list[str]:
    r"""Lines of a text file, split at "\n" and nowhere else: some texts hold U+2028 or a vertical tab.

    A "\r" goes where every line ends in one, as editors of Windows write them.

    Raises:
        DataError: no such file, not UTF-8, or nothing in it.
    """
    text = read_text(path, keep_mark=keep_mark)
    if not text:
        raise DataError("this file is empty", where=str(path), allowed="at least one line")
    lines = text.removesuffix("\n").split("\n")
    return [line[:-1] for line in lines] if all(line.endswith("\r") for line in lines) else lines


def read_json(path: Path) -> Any:
    """A JSON document; a byte order mark is accepted.

    Raises:
        DataError: there is no such file, or it is not JSON; says where.
    """
    data = read_bytes(path).removeprefix(BYTE_ORDER_MARK.encode())
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        rest = error.doc[error.pos : error.pos + 20]
        raise DataError(
            f"broken JSON ({error.msg})",
            value=rest,
            where=f"{path}, line {error.lineno} column {error.colno}",
            allowed="JSON in UTF-8, without NaN and Infinity",
        ) from None


@dataclass(frozen=True)
class Entries:
    """A list of JSON objects with what errors need to say about each: its file, position and id."""

    path: Path
    name: str  # of the list in its document; "" for a document that is a list
    id_name: str  # the key of an entry's id
    items: list[dict[str, Any]]

    def __len__(self) -> int:
        return len(self.items)

    def where(self, position: int) -> str:
        """File, position and id of an entry."""
        entry_id = self.items[position].get(self.id_name, _MISSING)
        place = f"{self.path}: {self.name}[{position}]"
        return place if entry_id is _MISSING else f"{place}, {self.id_name} {entry_id!r}"

    def get(self, position: int, key: str, allowed: str) -> Any:
        """A value that must be there.

        Raises:
            DataError: it is not.
        """
        value = self.items[position].get(key, _MISSING)
        if value is _MISSING:
            raise DataError(f"{key!r} is missing", where=self.where(position), allowed=f"{key}: {allowed}")
        return value

    def wrong(self, position: int, key: str, allowed: str) -> DataError:
        """The error for a value that is there and cannot be used."""
        return DataError(
            f"{key!r} has a wrong value",
            value=self.items[position].get(key),
            where=self.where(position),
            allowed=allowed,
        )

    def text(self, position: int, key: str) -> str:
        """A value that must be a text."""
        value = self.get(position, key, "a text")
        if not isinstance(value, str):
            raise self.wrong(position, key, "a text")
        return value

    def number(self, position: int, key: str) -> float:
        """A value that must be a finite number."""
        value = self.get(position, key, "a number")
        if not is_number(value):
            raise self.wrong(position, key, "a finite number")
        return float(value)

    def id(self, position: int, key: str) -> int | str:
        """A value that must be an id: a whole number or a text that is not empty."""
        allowed = "a whole number or a text that is not empty"
        value = self.get(position, key, allowed)
        number = whole_number(value)
        if number is not None:
            return number
        if not isinstance(value, str) or not value:
            raise self.wrong(position, key, allowed)
        return value

    def ids(self) -> list[int | str]:
        """The id of every entry, no two alike.

        Raises:
            DataError: an id is missing, of a wrong type or there twice.
        """
        first: dict[int | str, int] = {}
        for position in range(len(self)):
            entry_id = self.id(position, self.id_name)
            if first.setdefault(entry_id, position) != position:
                raise DataError(
                    f"duplicate {self.id_name}",
                    value=entry_id,
                    where=f"{self.path}: {self.name}[{first[entry_id]}] and {self.name}[{position}]",
                    allowed=f"each {self.id_name} once",
                )
        return list(first)


def read_entries(path: Path, *, id_name: str, name: str = "") -> Entries:
    """The list of JSON objects that is the document of `path`, or is called `name` in it.

    Raises:
        DataError: no such file, not JSON, or not such a list.
    """
    return entries_of(read_json(path), path, id_name=id_name, name=name)


def entries_of(document: Any, path: Path, *, id_name: str, name: str = "") -> Entries:
    """The same for a document that was read before."""
    shape = f'an object with a list "{name}": {{"{name}": [{{..}}, ..]}}' if name else "a list of objects: [{..}, ..]"
    if name and isinstance(document, dict) and name not in document:
        raise DataError(f"{name!r} is missing", value=sorted(document)[:10], where=f"{path}: top level", allowed=shape)
    items = document.get(name) if name and isinstance(document, dict) else document if not name else None
    if not isinstance(items, list):
        found = document if items is None else items
        raise DataError("this file has another shape", value=short(found), where=str(path), allowed=shape)
    for position, item in enumerate(items):
        if not isinstance(item, dict):
            raise DataError(
                "an entry must be a JSON object", value=item, where=f"{path}: {name}[{position}]", allowed="{..}"
            )
    return Entries(path, name, id_name, items)


def short(value: Any) -> Any:
    """What an error shows of a JSON value that may be large."""
    if isinstance(value, dict):
        return f"an object with the keys {', '.join(map(repr, list(value)[:6]))}" if value else "{}"
    return f"a list of {len(value)}" if isinstance(value, list) else value


def is_number(value: Any) -> bool:
    """Whether a JSON value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def check_same_ids(
    truth: Collection[Hashable], given: Collection[Hashable], *, name: str, truth_file: Path, given_file: Path
) -> None:
    """Check that every id of the truth is given, and no other.

    Args:
        name: what the ids are: "image_id".

    Raises:
        DataError: names the file, how many ids are wrong and the first of them.
    """
    known, present = set(truth), set(given)
    unknown = [entry_id for entry_id in given if entry_id not in known]
    missing = [entry_id for entry_id in truth if entry_id not in present]
    if unknown:
        raise DataError(
            f"unknown {name} ({len(unknown)} of {len(given)})",
            value=unknown[:_NUM_SHOWN],
            where=str(given_file),
            allowed=f"the {len(truth)} that {truth_file} has",
        )
    if missing:
        raise DataError(
            f"missing {name} ({len(missing)} of {len(truth)})",
            value=missing[:_NUM_SHOWN],
            where=str(given_file),
            allowed=f"an entry for each one of {truth_file}: leaving some out would change the score",
        )


def list_files(folder: Path, suffix: str) -> dict[str, Path]:
    """Files of a folder that end in `suffix` (in either case), by stem in sorted order; hidden ones are left out.

    Raises:
        DataError: no such folder, or no such file in it.
    """
    if not folder.is_dir():
        raise DataError("no such folder", value=str(folder), allowed=f"a folder with {suffix} files")
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() == suffix and not p.name.startswith("."))
    if not paths:
        raise DataError(f"no {suffix} file in this folder", value=str(folder))
    return {path.stem: path for path in paths}
