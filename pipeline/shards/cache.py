"""A cache of an object store's shards on the local disk, shared by all processes of a machine."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from contracts.errors import DataError
from pipeline.shards import stores
from pipeline.system.disk import publish, writing

VERIFIED_S = 86_400.0  # how long a digest holds for an untouched file: disks rot, and 50 GiB take a minute to digest
_FIX = "lower loader.cache_gib, or name a folder on another disk in SIGHTLINE_CACHE"
_OURS = re.compile(
    r"(?P<object>[0-9a-f]{64})|\.(?P<verified>[0-9a-f]{64})\.ok|(?P<part>\.[0-9a-f]{64}-[0-9a-f]{32}\.part)"
)


class ShardCache:
    """Objects of a store in a folder of the local disk, named by the sha256 of their content; those used longest ago
    are removed beyond `limit` bytes. Any number of processes share it; what several ask for is fetched once.

    A file is digested before its first use and again after `VERIFIED_S`; a small file `.<sha256>.ok` beside it tells
    the other processes. A damaged file is fetched again. Files that are open stay readable after removal, and take
    their room until they are closed.
    """

    def __init__(self, limit: int = 50 << 30, folder: Path | None = None):
        default = os.environ.get("SIGHTLINE_CACHE") or "~/.cache/sightline/shards"
        self.folder = folder or Path(default).expanduser()
        self.limit = limit
        self._unswept = limit  # bytes fetched since the last look at the folder; the first fetch looks

    def fetch(self, url: str, sha256: str) -> Path:
        """The local file of an object. It may go the moment another process makes room: `open` minds that.

        Raises:
            DataError: the store's object is not that of `sha256`, cannot be had, or the disk is full.
        """
        path = self.folder / sha256
        if not _known(path):
            with writing(self.folder, fix=_FIX):
                self.folder.mkdir(parents=True, exist_ok=True)
            with self._alone(sha256):
                if not (_known(path) or _whole(path)):  # another process may have brought or digested it meanwhile
                    self._bring(url, path)
        _use(path)
        return path

    def open(self, url: str, sha256: str) -> int:
        """A descriptor for reading the object, fetched if need be."""
        while True:
            try:
                return os.open(self.fetch(url, sha256), os.O_RDONLY)
            except FileNotFoundError:  # another process removed it in between
                continue

    def read(self, url: str, sha256: str) -> bytes:
        """All bytes of a small object."""
        with os.fdopen(self.open(url, sha256), "rb") as file:
            return file.read()

    @contextmanager
    def _alone(self, sha256: str) -> Iterator[None]:
        """One process at a time for objects with this beginning. The kernel frees the lock of a process that dies."""
        lock = self.folder / f".{sha256[:2]}.lock"
        with writing(lock, fix=_FIX):
            descriptor = os.open(lock, os.O_WRONLY | os.O_CREAT, 0o666)
        with os.fdopen(descriptor, "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _bring(self, url: str, path: Path) -> None:
        arrived, found = path.with_name(f".{path.name}-{uuid.uuid4().hex}.part"), ""
        try:
            for _ in range(2):  # bytes may be damaged on the way: once more before the store is blamed
                with writing(self.folder, fix=_FIX):
                    found = stores.save(url, arrived)
                if found == path.name:
                    self._unswept += arrived.stat().st_size
                    publish(arrived, path)
                    _remember(path)
                    self._make_room(path)
                    return
        finally:
            arrived.unlink(missing_ok=True)
        raise DataError(
            "an object of the store has other content than the manifest says",
            value=f"sha256 {found}",
            where=url,
            allowed=f"sha256 {path.name}",
            fix="run the shard stage again (sightline stage shard <data set>): it sends anew what is damaged",
        )

    def _make_room(self, keep: Path) -> None:
        """Remove what was not used for longest, and what killed processes left. Looks again only after a 64th of the
        limit was fetched: thousands of small index files must not each list the folder."""
        if self._unswept < self.limit // 64:
            return
        self._unswept = 0
        files: list[tuple[float, int, Path]] = []
        for path in self.folder.iterdir():
            name = _OURS.fullmatch(path.name)
            if name is None:  # a lock, or no file of ours: the folder is the user's choice
                continue
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            if name["object"]:
                files.append((status.st_atime, status.st_size, path))
            elif name["verified"]:
                if not (self.folder / name["verified"]).exists():
                    path.unlink(missing_ok=True)
            elif time.time() - status.st_mtime > 86_400:
                path.unlink(missing_ok=True)
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self.limit:
                return
            if path != keep:
                path.unlink(missing_ok=True)
                _note(path).unlink(missing_ok=True)
                total -= size


def _note(path: Path) -> Path:
    return path.with_name(f".{path.name}.ok")


def _identity(path: Path) -> str:
    """Changes with every writing of a file."""
    status = path.stat()
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns}"


def _known(path: Path) -> bool:
    """Whether this very file was found whole within `VERIFIED_S`, by any process."""
    try:
        recent = abs(time.time() - _note(path).stat().st_mtime) < VERIFIED_S
        return recent and _note(path).read_text() == _identity(path)
    except FileNotFoundError:
        return False


def _remember(path: Path) -> None:
    with suppress(OSError):  # without the note the file is only digested once more, and the file may be gone
        _note(path).write_text(_identity(path))


def _whole(path: Path) -> bool:
    """Whether the file is there and has the digest that is its name; a damaged one is removed."""
    try:
        before = _identity(path)
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return False
    if found == path.name and before == _identity(path):
        _remember(path)
        return True
    print(f"shard cache: {path} is damaged (its sha256 is {found}); it is fetched again", flush=True)
    path.unlink(missing_ok=True)
    return False


def _use(path: Path) -> None:
    """Note the time of use as the file's atime: its mtime tells whether it was written to."""
    with suppress(OSError):
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
