"""Pictures and videos of raw data that lies in an object store, for whoever shards them (`raw_listing.py`)."""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from contracts.errors import DataError
from contracts.raw import ImagePart, RawRecord
from contracts.redact import redact
from pipeline.ingest.door import DoorConfig
from pipeline.ingest.door.images import MAX_FILE_BYTES, from_base64, other_forms
from pipeline.ingest.door.rules import Refused
from pipeline.shards import stores
from pipeline.shards.raw_listing import STREAMS
from pipeline.system.disk import writing
from pipeline.system.reading import elsewhere

AHEAD = 32  # files read before their record's turn
_Key = tuple[Path, ImagePart | None]


class FromStore:
    """Reads the files of a stand-in where they are (`pipeline.ingest.door.config.Elsewhere`).

    Args:
        root: the stand-in's path, which need not be on this machine.
    """

    def __init__(self, url: str, root: Path):
        self._url, self._root = url.rstrip("/"), root
        self._here: dict[_Key, Future[bytes | None]] = {}

    def ahead(self, raws: Sequence[RawRecord], pool: ThreadPoolExecutor) -> Iterator[RawRecord]:
        """The records, each with its pictures on their way, and those of the next ones behind it."""
        waiting, rest, num_files = deque[tuple[RawRecord, dict[_Key, Future[bytes | None]]]](), iter(raws), 0
        while True:
            while num_files < AHEAD and (raw := next(rest, None)) is not None:
                files = {key: pool.submit(self.bytes_of, *key) for key in _pictures(raw)}
                num_files += len(files)
                waiting.append((raw, files))
            if not waiting:
                return
            raw, self._here = waiting.popleft()
            num_files -= len(self._here)
            yield raw

    def read(self, path: Path, missing: str, part: ImagePart | None = None) -> bytes:
        """As `pipeline.ingest.door.images.read_bytes`.

        Raises:
            DataError: the store cannot be asked, or no longer has the data set's folder.
        """
        coming = self._here.pop((path, part), None)
        data = self.bytes_of(path, part) if coming is None else coming.result()
        if data is None:
            if not stores.is_folder(self._url):
                raise DataError(
                    "the data set's folder is not in the store", value=redact(self._url),
                    fix="put it there; its files are not counted as missing",
                )  # fmt: skip
            raise Refused(missing, str(path))
        return from_base64(data) if part is not None and part.is_base64 else data

    @contextmanager
    def local(self, path: Path) -> Iterator[Path]:
        """A copy, for what can read no bytes; of a file that `read` has found."""
        if (found := self._found(path)) is None:
            raise Refused("missing_video", str(path))
        with tempfile.TemporaryDirectory(prefix="sightline-") as folder:
            copy = Path(folder) / f"file{path.suffix}"
            with writing(copy):
                stores.save(found[0], copy)
            yield copy

    def bytes_of(self, path: Path, part: ImagePart | None = None) -> bytes | None:
        """A file's bytes, or those of a part of it; None: there is no such object."""
        if (found := self._found(path)) is None:
            return None
        url, size = found
        start, end = (0, size) if part is None else (min(size, part.offset), min(size, part.offset + part.size))
        if end - start > MAX_FILE_BYTES:
            raise Refused("file_too_large", f"{end - start} bytes")
        return stores.read_range(url, start, end) if end > start else b""

    def _found(self, path: Path) -> tuple[str, int] | None:
        """Url and size of the object that a file is, in whichever of Unicode's forms the store has its name."""
        for form in (path, *other_forms(path)):
            if (size := stores.size_if_there(url := self._url_of(form))) is not None:
                return url, size
        return None

    def _url_of(self, path: Path) -> str:
        """Raises:
        Refused: the path leads out of the data set's folder.
        """
        plain = Path(os.path.normpath(path))
        if not plain.is_relative_to(self._root):
            raise Refused("outside_folder", str(path))
        return f"{self._url}/{plain.relative_to(self._root).as_posix()}"


def _pictures(raw: RawRecord) -> list[_Key]:
    """The files of a record that are read whole, in the order of use."""
    masks = (raw.semantic_mask, raw.instance_mask)
    return [
        *((path, None) for path in (*masks, *raw.frames) if path),
        *([(raw.image, raw.image_part)] if raw.image else []),
    ]


@contextmanager
def opened(door: DoorConfig, raws: Sequence[RawRecord]) -> Iterator[tuple[DoorConfig, Iterator[RawRecord]]]:
    """The door and the records that come to it, whose files may lie in `door.store`."""
    if door.store is None or door.root is None:
        yield door, iter(raws)
        return
    pool = ThreadPoolExecutor(STREAMS, "raw-store")
    try:
        files = FromStore(door.store, door.root)
        yield replace(door, elsewhere=files), files.ahead(raws, pool)
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def readable(url: str | None, root: Path) -> Iterator[None]:
    """In this block, sources that read a picture of a stand-in get what lies in the store."""
    if url is None:
        yield
        return
    with elsewhere(root, FromStore(url, root).bytes_of):
        yield
