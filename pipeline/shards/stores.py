"""Object stores (s3:// above all) through fsspec.

A store fails now and then, and for a minute at a time: every request is repeated with growing pauses until `PATIENCE_S`
have passed without success. What no repetition mends (no such object, access denied, no credentials) stops at once.
Endpoint and credentials come from the environment as botocore reads it (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID,
AWS_PROFILE, a node's role); a public bucket is read with FSSPEC_S3_ANON=true. fsspec is imported at the first use.
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from contracts.errors import ConfigError, DataError
from contracts.redact import redact
from pipeline.system.backoff import Backoff, GaveUp
from pipeline.system.disk import publish

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
_patience: ContextVar[float] = ContextVar("patience")


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
    size = size_if_there(url)
    if size is None:
        raise DataError("no such object or bucket", where=url, fix=_ABSENT)
    return size


def size_if_there(url: str) -> int | None:
    """Bytes of an object; None where there is none."""
    info = _info(url)
    return None if info is None else int(info["size"])


def is_folder(url: str) -> bool:
    """Whether any object lies below."""
    fs, path = _open(url)
    return _retried("find", url, lambda: bool(fs.isdir(path)))


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
        digest = save(url, part)
        publish(part, path)
    finally:
        part.unlink(missing_ok=True)
    return digest


def save(url: str, path: Path) -> str:
    """An object into a local file, block by block; returns its sha256. Where it fails, a part of the file is left."""
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        for block in blocks(url):
            file.write(block)
            digest.update(block)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def upload(path: Path, url: str, sha256: str = "") -> None:
    """A local file into the store, whole or not at all. `sha256` is noted as metadata of an S3 object, for people: what
    we once noted says nothing of the bytes that are there now."""
    fs, target = _open(url)

    def put() -> None:
        if url.startswith(_S3):
            metadata = {"sha256": sha256} if sha256 else {}
            fs.put_file(str(path), target, chunksize=PART, max_concurrency=STREAMS, Metadata=metadata)
        elif url.startswith("file://"):
            part = f"{target}.{uuid.uuid4().hex}.part"
            try:
                fs.put_file(str(path), part)
                publish(Path(part), Path(target))
            finally:
                Path(part).unlink(missing_ok=True)
        else:
            fs.put_file(str(path), target)

    _retried("upload", url, put)


def holds(url: str, size: int, sha256: str) -> bool:
    """Whether the store has an object of this content already. Its bytes are read: metadata and ETag were written down
    when it came. What cannot be read is not held, since a store that finds its own bytes damaged fails to give them."""
    info = _info(url)
    if info is None or info["size"] != size:
        return False
    digest = hashlib.sha256()
    try:
        for block in blocks(url):
            digest.update(block)
    except DataError as error:
        print(f"{redact(url)} cannot be read and is sent again ({error.what})", flush=True)
        return False
    return digest.hexdigest() == sha256


@dataclass(frozen=True)
class Stored:
    """What a listing tells of an object; `written` is in seconds since 1970 by the clock of the store."""

    size: int
    written: float


def contents(url: str) -> dict[str, Stored]:
    """The objects below a folder of the store, by their names relative to it; empty where there is no such folder."""
    fs, path = _open(url)
    found = _retried("list", url, lambda: fs.find(path, detail=True))
    return {name[len(path) :].lstrip("/"): _stored(info) for name, info in found.items()}


def _stored(info: dict[str, Any]) -> Stored:
    """S3 says LastModified, a folder mtime, the memory created; of a store that says none, everything is new."""
    when = info.get("LastModified") or info.get("mtime") or info.get("created") or time.time()
    return Stored(int(info["size"]), when.timestamp() if isinstance(when, datetime) else float(when))


def listing(url: str) -> dict[str, int]:
    """Names below a folder of the store, relative to it, and their sizes; empty where there is no such folder."""
    return {name: stored.size for name, stored in contents(url).items()}


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
    backoff = Backoff(first_s=BACKOFF_S, longest_s=MAX_WAIT_S, patience_s=_patience.get(PATIENCE_S), is_spread=True)

    def told(error: Exception) -> None:
        said = redact(f"{action} {url}: {_words(error)}")
        print(f"{said}; trying again for up to {backoff.patience_s:.0f} s", flush=True)

    try:
        return backoff.run(request, passes=_passes, told=told)
    except GaveUp as end:
        raise DataError(
            f"the object store failed to {action} this object for {end.tried_s:.0f} s, {end.attempts} attempts",
            value=_words(end.error),
            where=url,
            fix="see whether the store is up and reachable, then run the same command again",
        ) from end.error
    except Exception as error:
        if (refusal := _refusal(action, url, error)) is None:
            raise
        raise refusal from error


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
