"""The published archives that `origin: download` can fetch, its settings, and safe extraction."""

from __future__ import annotations

import contextlib
import difflib
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

from contracts.errors import ConfigError, DataError
from pipeline.reading import on_this_host

_MAX_RATIO = 60  # extracted bytes per archive byte; VQA's answers, the most repetitive of these, have about 20
_MAX_FILES = 1_000_000
# What the readers raise for damage, each of its own kind; ValueError includes names that are not UTF-8.
_DAMAGED = (
    zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, struct.error, RuntimeError, ValueError,
    OverflowError, LookupError,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Archive:
    """One published file. `checksum` is "md5:..." or "sha256:...", None where none is certain (the size is checked).

    It is extracted below the data set's folder, in `folder`.
    """

    url: str
    size: int | None
    checksum: str | None
    folder: str = ""

    @property
    def file_name(self) -> str:
        return self.url.rsplit("/", 1)[-1]


# The COCO host has no valid TLS certificate for its name, so its URLs are http; the checksums protect the content.
_COCO = "http://images.cocodataset.org"
_VOC = "https://thor.robots.ox.ac.uk/pascal/VOC"
_VQA = "https://s3.amazonaws.com/cvmlp/vqa/mscoco/vqa"

# Sizes and md5 of COCO: cocodataset.org's own files (S3 headers); md5 of VOC: torchvision.datasets.voc; sha256 of VQA
# v2: ParlAI's vqa_v2 task.
ARCHIVES: dict[str, Archive] = {
    "coco_train2017": Archive(
        url=f"{_COCO}/zips/train2017.zip", size=19336861798, checksum="md5:cced6f7f71b7629ddf16f17bbcfab6b2"
    ),
    "coco_val2017": Archive(
        url=f"{_COCO}/zips/val2017.zip", size=815585330, checksum="md5:442b8da7639aecaf257c1dceb8ba8c80"
    ),
    "coco_annotations2017": Archive(
        url=f"{_COCO}/annotations/annotations_trainval2017.zip",
        size=252907541,
        checksum="md5:f4bbac642086de4f52a3fdda2de5fa2c",
    ),
    "coco_train2014": Archive(
        url=f"{_COCO}/zips/train2014.zip", size=13510573713, checksum="md5:0da8c0bd3d6becc4dcb32757491aca88"
    ),
    "coco_val2014": Archive(
        url=f"{_COCO}/zips/val2014.zip", size=6645013297, checksum="md5:a3d79f5ed8d289b7a7554ce06a5782b3"
    ),
    "coco_annotations2014": Archive(
        url=f"{_COCO}/annotations/annotations_trainval2014.zip",
        size=252872794,
        checksum="md5:0a379cfc70b0e71301e0f377548639bd",
    ),
    "voc2007_trainval": Archive(
        url=f"{_VOC}/voc2007/VOCtrainval_06-Nov-2007.tar",
        size=460032000,
        checksum="md5:c52e279531787c972589f7e41ab4ae64",
    ),
    "voc2007_test": Archive(
        url=f"{_VOC}/voc2007/VOCtest_06-Nov-2007.tar", size=451020800, checksum="md5:b6e924de25625d8de591ea690078ad9f"
    ),
    "voc2012_trainval": Archive(
        url=f"{_VOC}/voc2012/VOCtrainval_11-May-2012.tar",
        size=1999639040,
        checksum="md5:6cd6e144f989b92b3379bac3b3de84fd",
    ),
    "vqa_v2_questions_train": Archive(
        url=f"{_VQA}/v2_Questions_Train_mscoco.zip",
        size=7239401,
        checksum="sha256:05a64b6e2582d06d7585f5429674a9a33851878be1bff9f8668cdcf792df611e",
        folder="vqa",
    ),
    "vqa_v2_questions_val": Archive(
        url=f"{_VQA}/v2_Questions_Val_mscoco.zip",
        size=3494929,
        checksum="sha256:e71f6c5c3e97a51d050f28243e262b28cd0c48d11a6b4632d769d30d3f93222a",
        folder="vqa",
    ),
    "vqa_v2_annotations_train": Archive(
        url=f"{_VQA}/v2_Annotations_Train_mscoco.zip",
        size=21708861,
        checksum="sha256:fb101bcefe91422c543c2bb6d70af11eb3119d0ff745ae283d09acdf66250853",
        folder="vqa",
    ),
    "vqa_v2_annotations_val": Archive(
        url=f"{_VQA}/v2_Annotations_Val_mscoco.zip",
        size=10518930,
        checksum="sha256:0caae7c8d1dafd852727f5ac046bc1efca9b72026bd6ffa34fc489f3a7b3291e",
        folder="vqa",
    ),
}


@dataclass(frozen=True, kw_only=True)
class DownloadConfig:
    """`archives` are names of `ARCHIVES`. `mirrors` are URLs of folders that are asked before the
    publisher, by file name."""

    archives: tuple[str, ...]
    mirrors: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.archives:
            raise ConfigError("archives is empty", allowed=", ".join(ARCHIVES))
        for name in self.archives:
            if name not in ARCHIVES:
                near = difflib.get_close_matches(name, ARCHIVES, n=1)
                raise ConfigError(
                    "unknown archive",
                    value=name,
                    allowed=", ".join(ARCHIVES),
                    fix=f"did you mean {near[0]!r}?" if near else "use `origin: local` for files of your own",
                )
        for mirror in self.mirrors:
            if not mirror.startswith(("http://", "https://")):
                raise ConfigError("a mirror must be an http(s) URL of a folder", value=mirror)


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
