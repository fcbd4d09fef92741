"""`origin: download`: published archives -> data/raw/<dataset>. Resumes, verifies, extracts; idempotent.

An archive is written to `<file>.part`, verified, and only then gets its name; a broken connection goes on from the
bytes that are there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import requests
import urllib3

from contracts.errors import DataError
from pipeline.ingest.extract import extract
from pipeline.settings.archives import ARCHIVES, Archive, DownloadConfig
from pipeline.system.backoff import Backoff, GaveUp
from pipeline.system.disk import publish, write_text
from pipeline.system.progress import progress_bar
from pipeline.system.reading import on_this_host

Advance = Callable[[int], None]
ProgressBar = Callable[[str, int | None], AbstractContextManager[Advance]]

ATTEMPTS = 5  # in a row without a single new byte
BACKOFF_S = 1.0  # doubled after each of them
MAX_WAIT_S = 60.0
TIMEOUT_S = (15, 60)  # to connect, and between two reads
_BLOCK = 1 << 20
_RETRY_STATUS = {408, 425, 429, 500, 502, 503, 504}


def download(
    archives: Sequence[str],
    root: Path,
    cache: Path,
    mirrors: Sequence[str] = (),
    progress: ProgressBar = progress_bar,
) -> None:
    """Fetch archives into `cache` and extract them below `root`.

    A marker in `root` says which archives are extracted, so that a second call does nothing, even if `cache` is gone.

    Raises:
        ConfigError: an archive is not known.
        DataError: it cannot be had, is not what was published, or is not safe to extract.
    """
    config = DownloadConfig(archives=tuple(archives), mirrors=tuple(mirrors))
    for name in config.archives:
        archive = ARCHIVES[name]
        marker = root / f".{name}.done"
        if marker.is_file() and _is_of(_read_json(marker), archive):
            continue
        file = fetch(name, archive, cache, config.mirrors, progress)
        with progress(f"extract {name}", None) as advance:
            files = extract(file, root / archive.folder, advance)
        write_text(marker, json.dumps({**_identity(archive), "files": files}))


def keep_extracted(old: Path, new: Path, archives: Sequence[str]) -> None:
    """Link what earlier calls extracted in `old` into the empty folder `new`, markers included, so that only what is
    not there is fetched and extracted. Nothing is kept where one of them is not asked for any more, is another one
    now, or has lost a file: files that several archives wrote cannot be told apart."""
    markers = {path: _read_json(path) for path in old.glob(".*.done")}
    for path, marker in markers.items():
        name = path.name.removeprefix(".").removesuffix(".done")
        if name not in archives or not _is_of(marker, ARCHIVES[name]):
            return
        files, folder = marker.get("files"), old / ARCHIVES[name].folder
        if not isinstance(files, dict) or any(_size(folder / file) != size for file, size in files.items()):
            return
    if markers:
        shutil.copytree(old, new, copy_function=_link, dirs_exist_ok=True)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() and not path.is_symlink() else -1


def _identity(archive: Archive) -> dict[str, object]:
    return {"url": archive.url, "size": archive.size, "checksum": archive.checksum}


def _is_of(marker: Mapping[str, object], archive: Archive) -> bool:
    return _identity(archive).items() <= marker.items()


def fetch(name: str, archive: Archive, cache: Path, mirrors: Sequence[str], progress: ProgressBar) -> Path:
    """The verified file of one archive in `cache`, fetched if it is not there."""
    cache.mkdir(parents=True, exist_ok=True)
    file = cache / archive.file_name
    if file.is_file() and archive.size in (None, file.stat().st_size):  # it got its name after it was verified
        return file
    urls = [f"{mirror.rstrip('/')}/{archive.file_name}" for mirror in mirrors] + [archive.url]
    failures: list[str] = []
    with progress(f"fetch {name} (MiB)", archive.size and archive.size >> 20) as advance:
        for url in urls:
            transfer = _Transfer(url, archive, cache, advance)
            try:
                transfer.run()
                transfer.verify()
            except _Failed as failed:
                failures.append(f"{url}: {failed}")
                continue
            publish(transfer.part, file)
            transfer.state.unlink(missing_ok=True)
            return file
    raise DataError(
        f"cannot fetch {name}",
        value="\n    ".join(failures),
        where=str(file),
        fix=f"put {archive.file_name} there yourself, or name a mirror in datasets.<name>.download.mirrors; "
        "what has arrived is kept and the next run goes on from there",
    )


def _cannot_write(path: Path, error: OSError) -> DataError:
    return DataError(
        "cannot write what was fetched", value=str(path), where=on_this_host(error),
        fix="make room or mend the disk, then run the stage again: it goes on from the bytes that are there",
    )  # fmt: skip


class _Failed(Exception):
    """This URL does not give the archive; another may."""


class _Broken(Exception):
    """The transfer stopped; trying again may go on. `wait_s` is what the server asked for."""

    def __init__(self, why: str, wait_s: float = 0.0):
        super().__init__(why)
        self.wait_s = wait_s


class _Transfer:
    """One archive from one URL into `<file>.part`; `<file>.part.json` remembers which version of it that is."""

    def __init__(self, url: str, archive: Archive, cache: Path, advance: Advance):
        self.url, self.archive = url, archive
        self.part = cache / f"{archive.file_name}.part"
        self.state = cache / f"{archive.file_name}.part.json"
        self._bar = _MebiBytes(advance)

    def run(self) -> None:
        """Get every byte, going on after breaks."""
        self._check_space()
        backoff = Backoff(first_s=BACKOFF_S, longest_s=MAX_WAIT_S, attempts=ATTEMPTS)
        try:
            backoff.run(
                self._request,
                passes=lambda error: isinstance(error, _Broken),
                least_s=lambda error: getattr(error, "wait_s", 0.0),
                progress=self._have,
            )
        except GaveUp as end:
            raise _Failed(f"gave up after {ATTEMPTS} attempts: {end.error}") from end.error

    def verify(self) -> None:
        """Compare size and checksum with what was published; what is wrong is deleted, so that a retry starts clean."""
        size = self._have()
        wrong = ""
        if self.archive.size not in (None, size):
            wrong = f"{size} bytes, published are {self.archive.size}"
        elif self.archive.checksum is not None:
            kind, _, expected = self.archive.checksum.partition(":")
            with open(self.part, "rb") as file:
                actual = hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()
            if actual != expected:
                wrong = f"{kind} is {actual}, published is {expected}"
        if wrong:
            self._forget()
            raise _Failed(f"wrong content: {wrong}; deleted")

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _forget(self) -> None:
        self.part.unlink(missing_ok=True)
        self.state.unlink(missing_ok=True)

    def _check_space(self) -> None:
        if self.archive.size is not None:
            needed, free = self.archive.size - self._have(), shutil.disk_usage(self.part.parent).free
            if needed > free:
                raise DataError(
                    "not enough disk space", value=f"{free} bytes free, {needed} needed", where=str(self.part)
                )

    def _request(self) -> None:
        """One request: from the first missing byte if the file is known to be the same one, else from the start."""
        headers = {"Accept-Encoding": "identity"}
        start = self._have()
        if start:
            state = _read_json(self.state)
            if state.get("url") == self.url and state.get("etag"):
                headers["If-Range"] = str(state["etag"])
            elif self.archive.checksum is None:  # nothing would show a mixture of two versions
                self._forget()
                start = 0
        if start and start == self.archive.size:
            return
        if start:
            headers["Range"] = f"bytes={start}-"
        try:
            with requests.get(self.url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
                self._receive(response, start)
        except requests.exceptions.InvalidURL as error:
            raise _Failed(str(error)) from error
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise _Broken(f"{type(error).__name__}: {error}") from error

    def _receive(self, response: requests.Response, start: int) -> None:
        status = response.status_code
        if status in _RETRY_STATUS:
            raise _Broken(f"HTTP {status}", _seconds(response.headers.get("Retry-After")))
        if status == 416:  # we hold more than there is
            self._forget()
            raise _Broken("the server has fewer bytes than were here already")
        if status not in (200, 206):
            raise _Failed(f"HTTP {status}")
        if status == 200:
            start = 0  # the server ignores ranges, or the file has changed since
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            self._forget()
            raise _Broken(f"asked for byte {start} on, got {response.headers.get('Content-Range')!r}")
        length = response.headers.get("Content-Length", "")
        total = start + int(length) if length.isdigit() else None
        if self.archive.size is not None and total not in (None, self.archive.size):
            raise _Failed(f"the file there has {total} bytes, published are {self.archive.size}")
        self.state.write_text(json.dumps({"url": self.url, "etag": _strong(response.headers.get("ETag"))}))
        self._bar.set(start)
        with open(self.part, "r+b" if start else "wb") as out:
            out.seek(start)
            while block := response.raw.read1(_BLOCK):  # iter_content would lose what a cut block already has
                try:
                    out.write(block)
                    out.flush()
                except OSError as error:
                    raise _cannot_write(self.part, error) from error
                self._bar.set(out.tell())
        if total is not None and self._have() != total:
            raise _Broken(f"the connection ended at byte {self._have()} of {total}")


class _MebiBytes:
    """Tells a progress bar the whole MiB that have arrived."""

    def __init__(self, advance: Advance):
        self._advance, self._done = advance, 0

    def set(self, num_bytes: int) -> None:
        step = (num_bytes >> 20) - self._done
        if step:
            self._advance(step)
            self._done += step


def _strong(etag: str | None) -> str | None:
    """Only a strong ETag may be used with If-Range (RFC 9110, 13.1.5)."""
    return etag if etag and not etag.startswith("W/") else None


def _seconds(value: str | None) -> float:
    return float(value) if value and value.isdigit() else 0.0


def _read_json(path: Path) -> Mapping[str, object]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
