"""Safe extraction of archives."""

from __future__ import annotations

import contextlib
import errno
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from contracts.errors import DataError
from pipeline.system.reading import on_this_host

_MAX_RATIO = 60  # extracted bytes per archive byte; VQA's answers, the most repetitive of these, have about 20
_MAX_FILES = 1_000_000
# What the readers raise for damage, each of its own kind; ValueError includes names that are not UTF-8.
_DAMAGED = (
    zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, struct.error, RuntimeError, ValueError,
    OverflowError, LookupError,
)  # fmt: skip


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    open: Callable[[], IO[bytes]]


def extract(archive: Path, target: Path, advance: Callable[[int], None]) -> dict[str, int]:
    """Extract a zip or tar (plain or compressed) below `target`; returns the files' names and sizes.

    Only plain files and folders are accepted, with default permissions. `advance` gets 1 for each file.

    Raises:
        DataError: the archive is damaged, or a member has an absolute path, `..`, is a link or a device, or the whole
            is far larger than such an archive can be. Names are checked before anything is written.
    """
    limit = archive.stat().st_size * _MAX_RATIO + (64 << 20)
    try:
        with _members(archive) as members:
            if len(members) > _MAX_FILES or sum(member.size for member in members) > limit:
                raise _unsafe(archive, f"{len(members)} files of {sum(m.size for m in members)} bytes")
            target.mkdir(parents=True, exist_ok=True)
            inside = target.resolve()
            for member in members:
                _extract_one(archive, member, target / member.name, inside)
                advance(1)
            return {member.name: member.size for member in members}
    except _DAMAGED as error:
        raise _damaged(archive, error) from error
    except OSError as error:
        if error.errno in (None, errno.EINVAL):  # BadGzipFile; a position before the file's start
            raise _damaged(archive, error) from error
        raise DataError(
            "cannot extract an archive", value=str(error.filename or target), where=f"{archive}; {on_this_host(error)}",
            fix="make room or mend the disk, then run the stage again",
        ) from error  # fmt: skip


def _extract_one(archive: Path, member: _Member, path: Path, inside: Path) -> None:
    """Write one member; never more than the archive says that it has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.parent.resolve().is_relative_to(inside) or path.is_symlink():
        raise _unsafe(archive, f"{member.name} would be written through a link")
    size = 0
    path.unlink(missing_ok=True)  # it may be a link to a file that another name stands for
    with member.open() as source, open(path, "wb") as out:
        while size <= member.size and (block := source.read(1 << 20)):
            size += len(block)
            try:
                out.write(block)
            except OSError as error:  # a full disk does not say whose
                raise OSError(error.errno, error.strerror, str(path)) from error
    if size != member.size:
        raise DataError(
            "an archive member has another size than the archive says", value=member.name, where=str(archive),
            fix="delete this file and run the stage again",
        )  # fmt: skip


def _damaged(archive: Path, error: Exception) -> DataError:
    return DataError(
        "damaged archive", value=str(error), where=str(archive), fix="delete this file and run the stage again"
    )


@contextlib.contextmanager
def _members(archive: Path) -> Iterator[list[_Member]]:
    """The plain files of an archive, every name and kind checked."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            yield [_zip_member(archive, file, info) for info in file.infolist() if not info.is_dir()]
    else:
        with tarfile.open(archive) as tar:
            members = [_tar_member(archive, tar, info) for info in tar.getmembers()]
            yield [member for member in members if member is not None]


def _zip_member(archive: Path, file: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise _unsafe(archive, f"{info.filename} is not a regular file")
    return _Member(_checked_name(archive, info.filename), info.file_size, lambda: file.open(info))


def _tar_member(archive: Path, tar: tarfile.TarFile, info: tarfile.TarInfo) -> _Member | None:
    name = _checked_name(archive, info.name)
    if info.isdir():
        return None
    if not info.isreg():
        raise _unsafe(archive, f"{info.name} is a link or a device")
    tarfile.data_filter(info, "/")

    def open_member() -> IO[bytes]:
        file = tar.extractfile(info)
        assert file is not None
        return file

    return _Member(name, info.size, open_member)


def _checked_name(archive: Path, name: str) -> str:
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or ":" in path.parts[0]:
        raise _unsafe(archive, f"{name!r} leaves the folder")
    return name


def _unsafe(archive: Path, what: str) -> DataError:
    return DataError(
        "this archive is not safe to extract", value=what, where=str(archive),
        allowed="plain files with relative names, of a plausible size",
        fix="check where the archive came from; nothing of an untrusted archive should be used",
    )  # fmt: skip
