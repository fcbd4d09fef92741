"""Writing to disks that may be full or refuse, and folders that take their place only when they are whole."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from contracts.errors import DataError
from pipeline.system.removal import remove_tree

_AGAIN = "then run the same command again"
_FIX = {
    errno.ENOSPC: f"make room on this disk, {_AGAIN}",
    errno.EDQUOT: f"ask for a larger quota or delete files of yours, {_AGAIN}",
    errno.EFBIG: f"raise the limit of a file's size (`ulimit -f`), {_AGAIN}",
    errno.EROFS: f"mount this disk for writing, {_AGAIN}",
    errno.EACCES: f"give yourself the right to write there, {_AGAIN}",
    errno.EPERM: f"give yourself the right to write there, {_AGAIN}",
}


def file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _told(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def free_room(path: Path) -> str:
    """What is free for this user on the disk that holds `path` or would hold it."""
    disk = os.statvfs(next(place for place in (path, *path.absolute().parents) if place.exists()))
    no_files = ", but no inodes" if disk.f_files and not disk.f_favail else ""
    return f"{_told(disk.f_bavail * disk.f_frsize)} free{no_files}"


@contextmanager
def writing(path: Path, *, needed: Callable[[], int] | None = None, fix: str = "") -> Iterator[None]:
    """Around what writes `path`, and nothing else: the system's refusal becomes an error that names it.

    Args:
        needed: tells how many bytes are to be written in all; asked only when there was no room for them.
        fix: what to do about a disk without room, where the user can name another one.

    Raises:
        DataError: no room, a quota, a disk that is read-only, no right to write.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        room = free_room(path)
        if full and needed is not None:
            room += f", {_told(needed())} needed for this file"
        usual = _FIX.get(error.errno or 0, f"see to this disk, {_AGAIN}")
        raise DataError(
            "cannot write here",
            value=os.strerror(error.errno) if error.errno else str(error),
            where=f"{path} ({room})",
            fix=f"{usual}; {fix}" if fix else usual,
        ) from error


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a text file, whole or not at all.

    Raises:
        DataError: the disk refuses; what was there before stays.
    """
    part = path.with_name(f".{path.name}.part")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(part, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.writelines(f"{line}\n" for line in lines)
            publish(part, path)
        finally:
            part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a small UTF-8 file, whole or not at all, in a folder that is there. What the disk refuses is an OSError."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    publish(part, path)


def publish(part: Path, target: Path, *, flushed_later: bool = False) -> None:
    """Give a finished temporary file, or folder, its name: after a crash there is the old one or the new, whole.

    Args:
        flushed_later: the caller brings all files of a new folder to the disk at once, before that takes its place.
    """
    if not flushed_later:
        sync(part)
    os.replace(part, target)
    if not flushed_later:
        sync(target.parent)


def sync(path: Path) -> None:
    """Bring a file, or a folder's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush(folder: Path) -> None:
    """Bring a folder's files to the disk itself: what they replace is deleted next, and power may fail after that."""
    for path in (folder, *folder.iterdir()):
        with writing(path):
            sync(path)


@contextmanager
def renewed(folder: Path, *, inside: Path) -> Iterator[Path]:
    """A new, empty folder beside `folder`, to be filled in the block: it takes the place of `folder` when the block has
    ended. Where the block fails, `folder` is what it was.

    What killed processes left of this is cleared first. One that was killed between the two renames left no `folder`,
    but its old content under a name of its own: that is put back.

    Args:
        inside: the project's folder that `folder` must lie below.

    Raises:
        ConfigError: it does not; nothing was written or deleted.
        DataError: the disk refuses.
    """
    new, old = (folder.with_name(f".{folder.name}.{age}") for age in ("new", "old"))
    with writing(new):
        remove_tree(new, inside=inside)
        _put_back(old, folder)
        remove_tree(old, inside=inside)
        new.mkdir(parents=True)
    try:
        yield new
        with writing(folder):
            if folder.exists():
                os.rename(folder, old)
            os.rename(new, folder)
    except BaseException:
        _put_back(old, folder)
        with suppress(OSError):  # the first error is the one to tell
            remove_tree(new, inside=inside)
        raise
    with writing(old):
        remove_tree(old, inside=inside)


def _put_back(old: Path, folder: Path) -> None:
    if old.exists() and not folder.exists():
        os.rename(old, folder)
