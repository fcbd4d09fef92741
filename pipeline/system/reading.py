"""Reading raw files that may lie on a network: what may pass is tried again, what stays stops the stage.

An error of the machine says nothing about the data, so it must never make a record look unusable. Only a name that
leads to no file is the data's own fault, and only while the data set's folder itself is there on this host.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar, cast

from contracts.errors import DataError
from pipeline.system.backoff import Backoff, GaveUp

T = TypeVar("T")
_elsewhere: tuple[Path, Callable[[Path], bytes | None]] | None = None

ATTEMPTS = 5
_BACKOFF = Backoff(first_s=0.5, attempts=ATTEMPTS)
# There is no such file, or it is none: a link to itself, a name that the file system cannot hold, a folder, a socket.
ABSENT = {
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EILSEQ, errno.ENXIO, errno.ENODEV,
}  # fmt: skip
_FORBIDDEN = {errno.EACCES, errno.EPERM}  # waiting grants nothing


def patiently(action: Callable[[], T], path: Path) -> T:
    """`action()`, which reads `path`, tried again after each pause while the operating system reports an error.

    Raises:
        OSError: one of `ABSENT`, at once: what that means is the caller's to say.
        DataError: the error stays, or this user may not read the file; names the file, the host and the error.
    """
    try:
        return _BACKOFF.run(action, passes=_may_pass)
    except GaveUp as end:
        raise _unreadable(path, cast(OSError, end.error)) from end.error
    except OSError as error:
        if error.errno in ABSENT:
            raise
        raise _unreadable(path, error) from error


def _may_pass(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno not in ABSENT and error.errno not in _FORBIDDEN


def read_bytes(path: Path) -> bytes:
    """The whole file; errors as `patiently` has them."""
    data = patiently(path.read_bytes, path)
    if not data and _elsewhere is not None and path.is_relative_to(_elsewhere[0]):
        return _elsewhere[1](path) or b""
    return data


@contextmanager
def elsewhere(folder: Path, bytes_of: Callable[[Path], bytes | None]) -> Iterator[None]:
    """In this block, what is empty below `folder` is only a name, and `bytes_of` has its content."""
    global _elsewhere
    before, _elsewhere = _elsewhere, (folder, bytes_of)
    try:
        yield
    finally:
        _elsewhere = before


def read_text(path: Path) -> str:
    """The whole file, UTF-8 with or without a byte order mark.

    Raises:
        DataError: there is no such file, this host cannot read it, or it is not UTF-8.
    """
    try:
        return read_bytes(path).decode("utf-8-sig")
    except OSError as error:
        raise _unreadable(path, error) from error
    except UnicodeDecodeError as error:
        raise DataError(
            "this text file is not UTF-8", value=error.object[error.start : error.start + 20],
            where=f"{path}, byte {error.start}", fix="save it as UTF-8",
        ) from None  # fmt: skip


def listed(folder: Path) -> list[Path]:
    """What a folder holds, sorted, without what a person does not see: `._x.jpg` and the folder `__MACOSX` are a Mac's.

    (`Path.glob` passes over what it may not read.)

    Raises:
        DataError: there is no such folder, or this host cannot read it.
    """
    try:
        paths = patiently(lambda: list(folder.iterdir()), folder)
        return sorted(path for path in paths if not path.name.startswith(".") and path.name != "__MACOSX")
    except OSError as error:
        raise _unreadable(folder, error) from error


def is_file(path: Path) -> bool:
    """Whether there is such a file; DataError where this host cannot say."""
    return _is(path.is_file, path)


def is_folder(path: Path) -> bool:
    """Whether there is such a folder; DataError where this host cannot say."""
    return _is(path.is_dir, path)


def _is(question: Callable[[], bool], path: Path) -> bool:
    try:
        return patiently(question, path)
    except OSError:  # one of `ABSENT`
        return False


def check_folder(folder: Path) -> None:
    """Raise DataError unless a data set's folder is there on this host, with something in it.

    An empty folder is what is left of a file system that is not mounted.
    """
    try:
        found = patiently(lambda: _has_entry(folder), folder)
    except OSError:
        found = False
    if not found:
        raise DataError(
            "the data set's folder is not on this host", value=str(folder), where=f"host {socket.gethostname()}",
            fix="mount or copy it to every node under this path; its files are not counted as missing",
        )  # fmt: skip


def _has_entry(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return next(entries, None) is not None


def on_this_host(error: OSError) -> str:
    """The operating system's words for an error, and whose words they are."""
    name = errno.errorcode.get(error.errno or 0, "")
    return f"{error.strerror or error} {f'({name}) ' if name else ''}on host {socket.gethostname()}"


def _unreadable(path: Path, error: OSError) -> DataError:
    absent, forbidden = error.errno in ABSENT, error.errno in _FORBIDDEN
    tried = "" if absent or forbidden else f"; tried {ATTEMPTS} times"
    fix = "look at the disk, the mount or the network"
    if absent or forbidden:
        fix = "put it there" if absent else "give this user the right to read it"
    return DataError(
        "this host cannot read a file of the data set", value=str(path), where=on_this_host(error) + tried,
        fix=f"{fix}, then run the stage again; nothing was quarantined because of it",
    )  # fmt: skip


class PatientFile:
    """A file read from start to end; a failed read is tried again on a newly opened file, as a handle may be stale."""

    def __init__(self, path: Path):
        self.path = path
        self._position = 0
        self._descriptor = patiently(lambda: os.open(path, os.O_RDONLY), path)
        self.size = os.fstat(self._descriptor).st_size

    def __enter__(self) -> PatientFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def fileno(self) -> int:
        return self._descriptor

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> None:
        self._position = position

    def read(self, size: int) -> bytes:
        data = patiently(lambda: self._read(size), self.path)
        self._position += len(data)
        return data

    def _read(self, size: int) -> bytes:
        if self._descriptor < 0:
            self._descriptor = os.open(self.path, os.O_RDONLY)
        try:
            return os.pread(self._descriptor, size, self._position)
        except OSError:
            self.close()
            raise
