"""Shards: reading samples of WebDataset tars by an index that knows the place and the CRC-32 of each.

The index gives true lengths and O(1) seeks. Whoever reads compares first: an index with the manifest's sha256 of it,
a tar's size with the manifest's, a sample's bytes with its CRC. So no stage takes damaged data for what was written.
Someone who means to deceive can make another sample of the same CRC; the manifest's sha256 tells (`verify_shards`).
"""

from __future__ import annotations

import hashlib
import itertools
import os
import pickle
import resource
import stat
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.context import get_spawning_popen
from multiprocessing.heap import Arena
from pathlib import Path
from typing import Any

import numpy as np

from contracts.errors import DataError
from contracts.records import COUNTS, Record, check_counts
from pipeline.shards import stores
from pipeline.shards.cache import ShardCache
from pipeline.shards.manifest import MANIFEST, heal, index_name, parse_index, stored_files, stored_name
from pipeline.shards.samples import parse_sample

_OPEN_FILES = 64
_ALIGNED = 64  # bytes


@contextmanager
def _told(what: str, where: str, fix: str) -> Iterator[None]:
    """Make DataErrors of what a missing file, or a folder in its place, raises. Failures of the disk stay what they
    are, since trying again may help, but name the file."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{what} is missing", where=where, fix=fix) from None
    except (IsADirectoryError, NotADirectoryError, PermissionError) as error:
        raise DataError(f"{what} cannot be read", value=error.strerror, where=where, fix=fix) from None
    except OSError as error:
        raise OSError(error.errno, error.strerror, where) from error


def verify_shards(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Compare every tar and index with the manifest, byte for byte; in a store, that the tars are there and whole:
    their digests are compared when the cache fetches them.

    Raises:
        DataError: names the first file that is missing, cut or changed, or a key that is in two splits.
    """
    shards = [shard for split in manifest["splits"].values() for shard in split["shards"]]
    fix = heal(manifest["dataset"])
    if "store" in manifest:
        _verify_stored(manifest, f"dvc repro --force shard@{manifest['dataset']}")
    else:
        with ThreadPoolExecutor() as pool:  # hashing releases the GIL
            for done in [pool.submit(_verify_tar, str(folder / shard["name"]), shard, fix) for shard in shards]:
                done.result()
    open_splits(folder, manifest)


def _verify_tar(path: str, shard: Mapping[str, Any], fix: str) -> None:
    with os.fdopen(_open_tar(path, shard, fix), "rb") as file, _told("a shard file", path, fix):
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != shard["sha256"]:
        raise DataError(
            "a shard's bytes are not those that the manifest names",
            value=f"sha256 {found}",
            where=path,
            allowed=f"sha256 {shard['sha256']}",
            fix=fix,
        )


def _open_tar(path: str, shard: Mapping[str, Any], fix: str) -> int:
    """A descriptor of a local tar of the right size."""
    with _told("a shard file", path, fix):
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # to open a pipe would wait for ever
            raise DataError("a shard is not a regular file", where=path, fix=fix)
        if status.st_size != shard["bytes"]:
            raise DataError(
                "a shard is cut or has grown",
                value=status.st_size,
                where=path,
                allowed=f"{shard['bytes']} bytes",
                fix=fix,
            )
        return os.open(path, os.O_RDONLY)


def _verify_stored(manifest: Mapping[str, Any], fix: str) -> None:
    store = manifest["store"]
    sizes = stores.listing(store)
    for name, size in stored_files(manifest).items():
        if name not in sizes:
            raise DataError("a shard file is missing in the store", where=f"{store}/{name}", fix=fix)
        if size not in (None, sizes[name]):
            raise DataError(
                "a shard in the store is cut or another one",
                value=sizes[name],
                where=f"{store}/{name}",
                allowed=f"{size} bytes",
                fix=fix,
            )


class SplitReader:
    """Random access to the samples of one split, by position in the concatenation of its shards.

    Holds the index as numpy columns; picklable. Loader workers that start get no copy of it: all of them map the same
    memory, and open the tars themselves. `columns` has `key` (bytes), `shard`, `offset`, `size`, `crc`; `count` gives
    what can be counted of the samples. Where the manifest names a store, tars and indices come through `cache`: a tar
    is fetched by the first process that reads from it.

    Args:
        manifest: as `load_manifest` gives it.
        window: shards that are read in turns. As many files stay open, as far as the system allows.

    Raises:
        DataError: no such split, or an index that is missing, not the manifest's, or contradicts it.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Mapping[str, Any],
        split: str,
        cache: ShardCache | None = None,
        *,
        window: int = _OPEN_FILES,
    ):
        if split not in manifest["splits"]:
            raise DataError(
                "no such split", value=split, where=str(folder / MANIFEST), allowed=", ".join(manifest["splits"])
            )
        self._entries: list[dict[str, Any]] = manifest["splits"][split]["shards"]
        self._cache = (cache or ShardCache()) if "store" in manifest else None
        self._fix = heal(manifest["dataset"])
        self._place = manifest.get("store", str(folder))
        self.shards = [self._where(entry["name"], entry["sha256"]) for entry in self._entries]
        parts = [
            parse_index(data, entry, path, self._fix)
            for (path, data), entry in zip(self._indices(), self._entries, strict=True)
        ]
        sizes = [len(part["key"]) for part in parts]
        self.columns: dict[str, Any] = {
            name: np.concatenate([part.get(name, np.zeros(n, np.int64)) for part, n in zip(parts, sizes, strict=True)])
            for name in dict.fromkeys(name for part in parts for name in part)
        }
        self.columns["shard"] = np.repeat(np.arange(len(parts)), sizes)
        self._check(split, manifest["splits"][split]["totals"], str(folder / MANIFEST))
        self._files: dict[int, int] = {}
        self._owner = 0
        self._max_files = _files_for(window)
        self._shared: _SharedMemory | None = None

    def _check(self, split: str, totals: Mapping[str, int], where: str) -> None:
        """What no single index shows."""
        keys = self.columns["key"]
        if (bad := np.flatnonzero(keys[1:] <= keys[:-1])).size:
            raise DataError(
                f"a key of split {split!r} is duplicated or out of order",
                value=keys[bad[0] + 1].decode(),
                where=where,
                fix=self._fix,
            )
        sums = {name: int(self.count(name).sum()) for name in COUNTS}
        found = {name: total for name, total in sums.items() if total}
        if found != totals:
            raise DataError(
                f"the totals of split {split!r} are not those of its indices",
                value=totals,
                where=where,
                allowed=str(found),
                fix=self._fix,
            )

    def _where(self, file: str, sha256: str) -> str:
        return f"{self._place}/{file if self._cache is None else stored_name(file, sha256)}"

    def _indices(self) -> Iterator[tuple[str, bytes]]:
        """Place and content of the index files in the order of the shards."""
        digests = [entry["index_sha256"] for entry in self._entries]
        paths = [self._where(index_name(entry["name"]), entry["index_sha256"]) for entry in self._entries]
        if self._cache is None:
            for path in paths:
                with _told("the index of a shard", path, self._fix):
                    data = Path(path).read_bytes()
                yield path, data
            return
        with ThreadPoolExecutor(16) as pool:  # a thousand round trips one after another would take a minute
            yield from zip(paths, pool.map(self._cache.read, paths, digests), strict=True)

    def _open(self, shard: int) -> int:
        entry = self._entries[shard]
        if self._cache is None:
            return _open_tar(self.shards[shard], entry, self._fix)
        return self._cache.open(self.shards[shard], entry["sha256"])

    @property
    def is_remote(self) -> bool:
        """Whether shards come from an object store."""
        return self._cache is not None

    def fetch(self, shard: int) -> None:
        """Bring a store's shard to this machine, where it is not there yet, or is damaged.

        Raises:
            DataError: it cannot be had.
        """
        assert self._cache is not None
        self._cache.fetch(self.shards[shard], self._entries[shard]["sha256"])

    @property
    def shards_held(self) -> float:
        """How many shards of a store this machine's cache has room for."""
        assert self._cache is not None
        return self._cache.limit * len(self._entries) / sum(entry["bytes"] for entry in self._entries)

    def __len__(self) -> int:
        return len(self.columns["key"])

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "_files": {}, "_owner": 0, "_shared": None}
        if get_spawning_popen() is None:
            return state
        if self._shared is None:
            self._shared = _SharedMemory(self.columns, state)
            self.columns = self._shared.columns()  # not twice in this process
        return {"_shared": self._shared}

    def __setstate__(self, state: dict[str, Any]) -> None:
        shared: _SharedMemory | None = state["_shared"]
        self.__dict__.update(state if shared is None else {**shared.rest(), "columns": shared.columns(), **state})

    def keys(self, positions: np.ndarray | Sequence[int] | None = None) -> list[str]:
        chosen = self.columns["key"] if positions is None else self.columns["key"][np.asarray(positions, np.int64)]
        return [key.decode() for key in chosen.tolist()]

    def select(self, requires: Sequence[str]) -> np.ndarray:
        """Positions of the samples that have each of `requires`, ascending (M,) int64.

        Raises:
            ConfigError: one of them is nothing that can be counted of a record.
        """
        keep = np.ones(len(self), bool)
        for name in requires:
            keep &= self.count(name) > 0
        return np.flatnonzero(keep)

    def count(self, name: str) -> np.ndarray:
        """How many of `name`, one of `COUNTS`, each sample has, (N,) int64.

        Raises:
            ConfigError: nothing is counted by this name.
        """
        check_counts([name])
        return self.columns.get(name, np.zeros(len(self), np.int64))

    def read(self, position: int) -> Record:
        """The record at `position`.

        Raises:
            DataError: its bytes are not those that were written, or its tar is missing, cut or has grown.
        """
        shard, key = int(self.columns["shard"][position]), self.columns["key"][position].decode()
        where = f"{self.shards[shard]}, sample {key}"
        data, crc = self._bytes(shard, position), int(self.columns["crc"][position])
        if (found := zlib.crc32(data)) != crc:
            raise DataError(
                "a sample's bytes are not those that were written",
                value=f"{len(data)} bytes of CRC-32 {found:08x}",
                where=where,
                allowed=f"{self.columns['size'][position]} bytes of CRC-32 {crc:08x}",
                fix=self._fix if self._cache is None else self._refetch(shard),
            )
        return parse_sample(data, key, where)

    def _bytes(self, shard: int, position: int) -> bytes:
        if self._owner != os.getpid():  # after a fork the offsets of shared descriptors would not matter, closing would
            self._files, self._owner = {}, os.getpid()
        if shard not in self._files:
            if len(self._files) >= self._max_files:
                os.close(self._files.pop(next(iter(self._files))))
            self._files[shard] = self._open(shard)
        size, offset = int(self.columns["size"][position]), int(self.columns["offset"][position])
        try:
            return os.pread(self._files[shard], size, offset)
        except OSError as error:  # the disk fails, or the network; which file, the system does not say
            raise OSError(error.errno, error.strerror, self.shards[shard]) from error

    def _refetch(self, shard: int) -> str:
        assert self._cache is not None
        copy = self._cache.folder / self._entries[shard]["sha256"]
        return f"delete {copy}, this machine's copy of the shard, and run the same command again"


def _files_for(window: int) -> int:
    """How many tars to keep open for a window of so many: half of what a process may open is left to others."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(_OPEN_FILES, window if allowed == resource.RLIM_INFINITY else min(window, allowed // 2))


class _SharedMemory:
    """A reader's columns, and the rest of it pickled, in a file without a name that processes map.

    What travels to a process that starts is the file's descriptor.
    """

    def __init__(self, columns: Mapping[str, np.ndarray], state: Mapping[str, Any]):
        rest = pickle.dumps({name: value for name, value in state.items() if name != "columns"})
        parts = {**columns, "": np.frombuffer(rest, np.uint8)}
        self._places: dict[str, tuple[str, int, int]] = {}
        end = 0
        for name, part in parts.items():
            self._places[name] = (part.dtype.str, end, len(part))
            end += -(-part.nbytes // _ALIGNED) * _ALIGNED
        self._memory = Arena(end)
        for name, part in parts.items():
            self._view(name)[:] = part

    def _view(self, name: str) -> np.ndarray:
        dtype, offset, length = self._places[name]
        return np.frombuffer(self._memory.buffer, dtype, length, offset)

    def columns(self) -> dict[str, np.ndarray]:
        found = {name: self._view(name) for name in self._places if name}
        for column in found.values():
            column.flags.writeable = False
        return found

    def rest(self) -> dict[str, Any]:
        return pickle.loads(self._view("").data)


def open_splits(
    folder: Path, manifest: Mapping[str, Any], cache: ShardCache | None = None, *, window: int = _OPEN_FILES
) -> dict[str, SplitReader]:
    """A reader of each split.

    Raises:
        DataError: as `SplitReader` does, and where a key is in two splits: what is measured on would be trained on.
    """
    readers = {split: SplitReader(folder, manifest, split, cache, window=window) for split in manifest["splits"]}
    for (one, first), (other, second) in itertools.combinations(readers.items(), 2):
        shared = np.intersect1d(first.columns["key"], second.columns["key"], assume_unique=True)
        if shared.size:
            raise DataError(
                f"{shared.size} keys are both in split {one!r} and in split {other!r}",
                value=[key.decode() for key in shared[:5].tolist()],
                where=str(folder / MANIFEST),
                allowed="an image is in one split; a key is made of its file's path",
                fix=f"take these images out of one split; then `dvc repro --force shard@{manifest['dataset']}`",
            )
    return readers
