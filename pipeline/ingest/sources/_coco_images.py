"""The image entries of one split's COCO files: a row each, found by id."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from contracts.errors import DataError
from contracts.raw import Problem
from pipeline.ingest.sources._coco_json import Id, image_id, side
from pipeline.ingest.sources._files import find_id, forward_slashes, is_inside, record_key, shown, stream_list
from pipeline.ingest.sources._recognise import looks_like


class Images:
    """Rows of images, which an instances and a captions file describe together.

    Args:
        folder: of the images, below the data set's folder: keys are made of it and the file's name.
    """

    def __init__(self, folder: str = ""):
        self.ids: list[Id] = []
        self.files: list[str] = []
        self.keys: list[str] = []
        self.sizes: list[tuple[int, int]] = []
        self._folder = folder
        self._rows: dict[Id, int] = {}
        self._origin: list[Path] = []
        self._dropped: set[int] = set()
        self._fixes: dict[int, list[str]] = {}

    def row(self, value: Any) -> tuple[int | None, bool]:
        """The row of a usable image, None if there is none; whether its id was of another type (25 and "25")."""
        key = value if type(value) in (int, str) and value in self._rows else find_id(value, self._rows)
        row = self._rows[key] if key is not None else None
        if row is None or row in self._dropped:
            return None, False
        return row, key is not value and isinstance(key, str) != isinstance(value, str)

    def read(self, path: Path) -> Iterator[Problem]:
        """Add the entries of one file."""
        seen: set[int] = set()
        count = 0
        for count, item in enumerate(stream_list(path, "images"), start=1):
            problem = self._add(item, path, seen)
            if problem is not None:
                reason, detail = problem
                own = item.get("id") if isinstance(item, dict) else f"images[{count - 1}]"
                yield Problem(reason=reason, kind="record", file=str(path), item_id=shown(own), detail=detail)
        if not count:
            raise DataError("this file lists no images", where=f"{path}: images", fix=looks_like(path))

    def _add(self, item: Any, path: Path, seen: set[int]) -> tuple[str, str] | None:
        if not isinstance(item, dict):
            return "not_an_object", shown(item)
        key, name = image_id(item.get("id")), item.get("file_name")
        if key is None:
            return "bad_image_id", shown(item.get("id"))
        width, height = side(item.get("width")), side(item.get("height"))
        if not isinstance(name, str) or width is None or height is None:
            return "bad_image_entry", shown([name, item.get("width"), item.get("height")], 200)
        name = forward_slashes(name)
        if not is_inside(name):
            return "unsafe_path", name
        row = self._rows.get(key)
        if row is None:
            seen.add(len(self.ids))
            self._rows[key] = len(self.ids)
            self.ids.append(key)
            self.files.append(name)
            self.keys.append(record_key(f"{self._folder}/{name}"))
            self.sizes.append((width, height))
            self._origin.append(path)
        elif row in seen:
            return "duplicate_image_id", name
        else:
            seen.add(row)
            self._compare(row, name, (width, height))
        return None

    def _compare(self, row: int, name: str, size: tuple[int, int]) -> None:
        """Mark an image that an earlier file describes differently."""
        if self.sizes[row] == (0, 0):
            self.sizes[row] = size
        if name != self.files[row] or size not in ((0, 0), self.sizes[row]):
            self._dropped.add(row)

    def finish(self) -> Iterator[Problem]:
        """Problems that show only when all files are read; call once, before the first `row`."""
        for row in sorted(self._dropped):
            yield self._problem(row, "conflicting_image_entry", f"{self.files[row]}, {self.sizes[row]}")
        first: dict[str, int] = {}
        for row, key in enumerate(self.keys):
            if row not in self._dropped and first.setdefault(key, row) != row:
                self._dropped.add(row)
                yield self._problem(row, "duplicate_key", f"{self.files[row]} after {self.files[first[key]]}")

    def _problem(self, row: int, reason: str, detail: str) -> Problem:
        return Problem(
            reason=reason,
            kind="record",
            file=str(self._origin[row]),
            item_id=str(self.ids[row]),
            key=self.keys[row],
            detail=detail,
        )

    def note_fixes(self, row: int, fixes: list[str]) -> None:
        """Keep what was changed in annotations of an image, which are not looked at again until they are written."""
        if fixes:
            self._fixes.setdefault(row, []).extend(fixes)

    def fixes(self, row: int) -> tuple[str, ...]:
        return tuple(self._fixes.get(row, ()))

    def rows_by_key(self) -> list[int]:
        kept = (row for row in range(len(self.ids)) if row not in self._dropped)
        return sorted(kept, key=self.keys.__getitem__)
