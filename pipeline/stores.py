"""Object stores (s3:// above all) through fsspec, and a cache of their shards on the local disk.

A store fails now and then, and for a minute at a time: every request is repeated with growing pauses until `PATIENCE_S`
have passed without success. What no repetition mends (no such object, access denied, no credentials) stops at once.
Endpoint and credentials come from the environment as botocore reads it (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID,
AWS_PROFILE, a node's role); a public bucket is read with FSSPEC_S3_ANON=true. fsspec is imported at the first use.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import random
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

from contracts.errors import ConfigError, DataError

T = TypeVar("T")

PATIENCE_S = 120.0  # how long one request is repeated
BACKOFF_S = 0.5  # doubled after each attempt
MAX_WAIT_S = 15.0
TIMEOUT_S = (10, 30)  # to connect, and between two reads
BLOCK = 8 << 20  # of what is read
PART = 16 << 20  # of what is uploaded; S3 takes no smaller ones than 5 MiB
STREAMS = 4  # blocks or parts under way at once: one connection to S3 gives a fraction of the line
_S3 = ("s3://", "s3a://")
_RETRY_STATUS = {408, 409, 425, 429}
_RETRY_CODES = {"RequestTimeout", "IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch"}  # sent with status 400
_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE (FSSPEC_S3_ANON=true: public buckets)"
_ABSENT = "create the bucket, or run the stage again that writes the object"
_CACHED = re.compile(r"[0-9a-f]{64}|(?P<part>\.[0-9a-f]{64}-[0-9a-f]{32}\.part)")
_patience: ContextVar[float] = ContextVar("patience")
_random = random.SystemRandom()  # drawing from the shared generator would change what training draws


class _Short(Exception):
    """Fewer bytes came than were announced."""


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Requests of this thread within the block are repeated for so long in place of `PATIENCE_S`."""
    token = _patience.set(seconds)
    try:
        yield
    finally:
        _patience.reset(token)


def exists(url: str) -> bool:
    return _info(url) is not None


def size_of(url: str) -> int:
    """Bytes of an object.

    Raises:
        DataError: it is not there, or the store cannot be asked. So do all functions here.
    """
    info = _info(url)
    if info is None:
        raise DataError("no such object or bucket", where=url, fix=_ABSENT)
    return int(info["size"])


def read(url: str) -> bytes:
    """A whole object."""
    return b"".join(blocks(url))


def read_range(url: str, start: int, end: int) -> bytes:
    """Bytes [start, end) of an object that has them."""
    return _ranges(url, [(start, end)])[0]


def blocks(url: str) -> Iterator[bytes]:
    """A whole object in order, block by block: a broken connection costs the blocks under way, not the object."""
    size = size_of(url)
    for first in range(0, size, STREAMS * BLOCK):
        stop = min(size, first + STREAMS * BLOCK)
        yield from _ranges(url, [(start, min(stop, start + BLOCK)) for start in range(first, stop, BLOCK)])


def download(url: str, path: Path) -> str:
    """An object into a local file, whole or not at all; returns its sha256."""
    part = path.with_name(f".{path.name}-{uuid.uuid4().hex}.part")
    try:
        digest = _save(url, part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return digest


def _save(url: str, path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        for block in blocks(url):
            file.write(block)
            digest.update(block)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def upload(path: Path, url: str, sha256: str = "") -> None:
    """A local file into the store, whole or not at all; `sha256` is kept as metadata of an S3 object."""
    fs, target = _open(url)

    def put() -> None:
        if url.startswith(_S3):
            metadata = {"sha256": sha256} if sha256 else {}
            fs.put_file(str(path), target, chunksize=PART, max_concurrency=STREAMS, Metadata=metadata)
        elif url.startswith("file://"):
            part = f"{target}.{uuid.uuid4().hex}.part"
            try:
                fs.put_file(str(path), part)
                os.replace(part, target)
            finally:
                Path(part).unlink(missing_ok=True)
        else:
            fs.put_file(str(path), target)

    _retried("upload", url, put)


def holds(url: str, size: int, sha256: str) -> bool:
    """Whether the store has an object of this content already: by the sha256 in its metadata, else by reading it."""
    info = _info(url)
    if info is None or info["size"] != size:
        return False
    stored = None
    if url.startswith(_S3):
        fs, path = _open(url)
        stored = _retried("find", url, lambda: fs.metadata(path)).get("sha256")
    if stored is None:
        digest = hashlib.sha256()
        for block in blocks(url):
            digest.update(block)
        stored = digest.hexdigest()
    return stored == sha256


def listing(url: str) -> dict[str, int]:
    """Names below a folder of the store, relative to it, and their sizes; empty where there is no such folder."""
    fs, path = _open(url)
    found = _retried("list", url, lambda: fs.find(path, detail=True))
    return {name[len(path) :].lstrip("/"): int(info["size"]) for name, info in found.items()}


def delete(url: str) -> None:
    """Remove an object; one that is gone is no mistake."""
    fs, path = _open(url)

    def remove() -> None:
        try:
            fs.rm_file(path)
        except FileNotFoundError:
            return

    _retried("delete", url, remove)


def _open(url: str) -> tuple[Any, str]:
    """The file system of a url and the path in it. fsspec keeps one a process and makes a new one after a fork, so
    it must be asked for anew by each use, never be kept or sent to another process."""
    import fsspec

    options: dict[str, Any] = {"use_listings_cache": False}  # others write there too
    if url.startswith(_S3):
        connect_s, read_s = TIMEOUT_S
        options["config_kwargs"] = {
            "connect_timeout": connect_s,
            "read_timeout": read_s,
            "retries": {"total_max_attempts": 1},  # one layer repeats: ours, which knows when to stop and says so
        }
    elif url.startswith("file://"):
        options["auto_mkdir"] = True
    try:
        fs, path = fsspec.url_to_fs(url, **options)
    except (ValueError, ImportError) as error:
        raise ConfigError(
            "no way to reach this kind of store",
            value=url,
            allowed="s3://bucket/prefix, file:///folder",
            fix=str(error),
        ) from error
    if url.startswith(_S3):
        fs.retries = 1
    return fs, path


def _info(url: str) -> dict[str, Any] | None:
    fs, path = _open(url)

    def ask() -> dict[str, Any] | None:
        try:
            info = fs.info(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return info if info["type"] == "file" else None

    return _retried("find", url, ask)


def _ranges(url: str, ranges: list[tuple[int, int]]) -> list[bytes]:
    """The bytes of several ranges, fetched at the same time."""
    fs, path = _open(url)

    def get() -> list[bytes]:
        starts, ends = zip(*ranges, strict=True)
        parts = fs.cat_ranges([path] * len(ranges), list(starts), list(ends), on_error="return")
        for (start, end), part in zip(ranges, parts, strict=True):
            if isinstance(part, Exception):
                raise part
            if len(part) != end - start:
                raise _Short(f"{len(part)} bytes came where {end - start} were asked for, from byte {start} on")
        return parts

    return _retried("read", url, get)


def _retried(action: str, url: str, request: Callable[[], T]) -> T:
    """Repeat a request while its failures are of the kind that pass."""
    started, pause_s, attempts = time.monotonic(), BACKOFF_S, 0
    while True:
        attempts += 1
        try:
            return request()
        except Exception as error:
            if not _passes(error):
                if (refusal := _refusal(action, url, error)) is None:
                    raise
                raise refusal from error
            wait_s = pause_s * _random.uniform(0.5, 1.0)  # or all workers come back in the same moment
            tried_s = time.monotonic() - started
            if tried_s + wait_s > _patience.get(PATIENCE_S):
                raise DataError(
                    f"the object store failed to {action} this object for {tried_s:.0f} s, {attempts} attempts",
                    value=_words(error),
                    where=url,
                    fix="see whether the store is up and reachable, then run the same command again",
                ) from error
            if attempts == 1:
                print(f"{action} {url}: {_words(error)}; trying again for up to {PATIENCE_S:.0f} s", flush=True)
        time.sleep(wait_s)
        pause_s = min(MAX_WAIT_S, 2 * pause_s)


def _passes(error: Exception) -> bool:
    """Whether a failure is of the kind that passes: the server overloaded or away, a connection cut."""
    import aiohttp
    from botocore import exceptions as boto
    from botocore.parsers import ResponseParserError

    answer = getattr(error.__cause__ or error, "response", None)  # s3fs makes OSErrors of the store's answers
    if isinstance(answer, dict):
        status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        code = answer.get("Error", {}).get("Code")
        return (status >= 500 and status != 501) or status in _RETRY_STATUS or code in _RETRY_CODES
    kinds = (boto.ConnectionError, boto.HTTPClientError, boto.IncompleteReadError, ResponseParserError)
    return isinstance(error, (_Short, ConnectionError, TimeoutError, EOFError, aiohttp.ClientError, *kinds))


def _refusal(action: str, url: str, error: Exception) -> DataError | None:
    """What to tell the user of a failure that lasts; None where it is none of the store's."""
    from botocore.exceptions import BotoCoreError

    if not isinstance(error, OSError | BotoCoreError):
        return None
    why, fix = "the store refuses", "see the message of the store"
    if isinstance(error, FileNotFoundError):
        why, fix = "no such object or bucket", _ABSENT
    elif isinstance(error, PermissionError):
        why, fix = "access denied", f"ask for the right to the bucket, or {_CREDENTIALS}"
    elif "Credential" in type(error).__name__:
        why, fix = "no credentials", _CREDENTIALS
    return DataError(f"cannot {action} this object: {why}", value=_words(error), where=url, fix=fix)


def _words(error: Exception) -> str:
    answered = error.__cause__ if hasattr(error.__cause__, "response") else error  # it has status and operation
    return f"{type(answered).__name__}: {answered}"[:300]


class ShardCache:
    """Objects of a store in a folder of the local disk, named by the sha256 of their content; those used longest ago
    are removed beyond `limit` bytes. Any number of processes share it; what several ask for is fetched once.

    Files that are open stay readable after removal, and take their room until they are closed.
    """

    def __init__(self, limit: int = 50 << 30, folder: Path | None = None):
        default = os.environ.get("SIGHTLINE_CACHE") or "~/.cache/sightline/shards"
        self.folder = folder or Path(default).expanduser()
        self.limit = limit
        self._unswept = limit  # bytes fetched since the last look at the folder; the first fetch looks

    def fetch(self, url: str, sha256: str, size: int | None = None) -> Path:
        """The local file of an object. It may go the moment another process makes room: `open` minds that.

        Raises:
            DataError: the store's object is not that of `sha256`, cannot be had, or the disk is full.
        """
        path = self.folder / sha256
        if not self._has(path, sha256, size):
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._alone(sha256):
                if not self._has(path, sha256, size):  # another process may have brought it meanwhile
                    self._bring(url, path, sha256)
        return path

    def open(self, url: str, sha256: str, size: int | None = None) -> int:
        """A descriptor for reading the object, fetched if need be."""
        while True:
            try:
                return os.open(self.fetch(url, sha256, size), os.O_RDONLY)
            except FileNotFoundError:  # another process removed it in between
                continue

    def read(self, url: str, sha256: str) -> bytes:
        """All bytes of a small object."""
        with os.fdopen(self.open(url, sha256), "rb") as file:
            return file.read()

    @staticmethod
    def _has(path: Path, sha256: str, size: int | None) -> bool:
        """Whether the file is there, whole; marks it as used. Its digest was checked before it got its name, so the
        size shows what a crash of the machine may have left; without a size, digest it: it is small."""
        try:
            os.utime(path)
            if size is not None:
                return path.stat().st_size == size
            return hashlib.sha256(path.read_bytes()).hexdigest() == sha256
        except FileNotFoundError:
            return False

    @contextmanager
    def _alone(self, sha256: str) -> Iterator[None]:
        """One process at a time for objects with this beginning. The kernel frees the lock of a process that dies."""
        with open(self.folder / f".{sha256[:2]}.lock", "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _bring(self, url: str, path: Path, sha256: str) -> None:
        arrived, found = path.with_name(f".{sha256}-{uuid.uuid4().hex}.part"), ""
        try:
            for _ in range(2):  # bytes may be damaged on the way: once more before the store is blamed
                found = _save(url, arrived)
                if found == sha256:
                    self._unswept += arrived.stat().st_size
                    os.replace(arrived, path)
                    self._make_room(path)
                    return
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise DataError(
                "the disk of the shard cache is full",
                where=str(self.folder),
                fix="lower loader.cache_gib, or name a folder on a larger disk in SIGHTLINE_CACHE",
            ) from error
        finally:
            arrived.unlink(missing_ok=True)
        raise DataError(
            "an object of the store has other content than the manifest says",
            value=f"sha256 {found}",
            where=url,
            allowed=f"sha256 {sha256}",
            fix="`dvc checkout` the manifest that belongs to the store, or run the shard stage again",
        )

    def _make_room(self, keep: Path) -> None:
        """Remove what was not used for longest, and what killed processes left. Looks again only after a 64th of the
        limit was fetched: thousands of small index files must not each list the folder."""
        if self._unswept < self.limit // 64:
            return
        self._unswept = 0
        files: list[tuple[float, int, Path]] = []
        for path in self.folder.iterdir():
            name = _CACHED.fullmatch(path.name)
            if name is None:  # a lock, or no file of ours: the folder is the user's choice
                continue
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            if not name["part"]:
                files.append((status.st_mtime, status.st_size, path))
            elif time.time() - status.st_mtime > 86_400:
                path.unlink(missing_ok=True)
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self.limit:
                return
            if path != keep:
                path.unlink(missing_ok=True)
                total -= size
