"""Records <-> WebDataset tars: deterministic bytes, an index beside each tar, and a manifest written last.

A sample is the members `<key>.jpg|png`, `<key>.json` and, where there is one, `<key>.semantic.png`, so any WebDataset
reader reads the tars. The index holds the byte range of every sample, which gives true lengths and O(1) seeks.
Members are plain ustar with mtime 0 and fixed owner: equal records give equal tars, which DVC relies on.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from contracts.errors import DataError
from contracts.records import SCHEMA_VERSION, Record
from pipeline import stores
from pipeline.project import heal
from pipeline.shard_cache import ShardCache

MANIFEST = "manifest.json"
BLOCK = 512
# A ustar header: name, mode 0644, owner 0, length, mtime 0, checksum, plain file; tarfile makes the same more slowly.
_HEADER = b"%b0000644\x000000000\x000000000\x00%b\x0000000000000\x00%b0" + bytes(100) + b"ustar\x0000" + bytes(247)
_HEADER_SUM = sum(_HEADER % (b"", b"", b" " * 8))  # a checksum counts its own field as blanks
COUNTS = ("num_objects", "num_masks", "num_captions", "num_questions", "has_semantic")


def shard_name(dataset: str, split: str, index: int) -> str:
    """Unique over data sets, splits and schema versions: caches that go by file name cannot mix them up."""
    return f"{dataset}-{split}-v{SCHEMA_VERSION}-{index:06d}.tar"


def tar_member(name: str, data: bytes) -> list[bytes]:
    """Header, content and padding of one file in a tar: whole blocks."""
    return [_header(name, len(data)), data, bytes(-len(data) % BLOCK)]


def _header(name: str, size: int) -> bytes:
    encoded = name.encode()
    if len(encoded) > tarfile.LENGTH_NAME:  # ustar cuts such a name in two at a slash
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.uname, info.gname = size, 0o644, "", ""
        return info.tobuf(tarfile.USTAR_FORMAT)
    length = b"%011o" % size
    checksum = b"%06o\0 " % (_HEADER_SUM + sum(encoded) + sum(length))
    return _HEADER % (encoded.ljust(tarfile.LENGTH_NAME, b"\0"), length, checksum)


def sample_pieces(record: Record) -> list[bytes]:
    """The tar members of one record. In pieces: to join them would copy every image once more."""
    pieces = tar_member(f"{record.key}.{record.image_format}", record.image)
    pieces += tar_member(f"{record.key}.json", record.annotation_json())
    if record.semantic_mask:
        pieces += tar_member(f"{record.key}.semantic.png", record.semantic_mask)
    return pieces


def write_pieces(descriptor: int, pieces: Sequence[bytes]) -> int:
    """Write all pieces, with one system call if there is room; returns their length in bytes.

    Raises:
        OSError: no room for all of them.
    """
    size = sum(map(len, pieces))
    written = os.writev(descriptor, pieces)
    while written != size:  # the system says why it stopped only when it is asked for the rest
        written += os.write(descriptor, b"".join(pieces)[written:])
    return size


def parse_sample(data: bytes, where: str) -> Record:
    """The inverse of `sample_pieces`, joined.

    Raises:
        DataError: the bytes are not those of one sample of this schema version.
    """
    members: dict[str, bytes] = {}
    position = 0
    while position + BLOCK <= len(data):
        header = data[position : position + BLOCK]
        if header[257:262] != b"ustar":
            raise DataError(
                "no tar member where the index says one starts", where=where, fix="run the shard stage again"
            )
        size = int(header[124:136].rstrip(b"\0 "), 8)
        extension = header[:100].rstrip(b"\0").decode().partition(".")[2]
        members[extension] = data[position + BLOCK : position + BLOCK + size]
        position += BLOCK + size + (-size % BLOCK)
    image_format = "jpg" if "jpg" in members else "png"
    if "json" not in members or image_format not in members:
        raise DataError("a sample lacks its image or its annotation", value=sorted(members), where=where)
    return Record.from_parts(members["json"], members[image_format], image_format, members.get("semantic.png", b""))


def sample_counts(record: Record) -> dict[str, int]:
    usable = ~record.objects.is_crowd
    return {
        "num_objects": int(usable.sum()),
        "num_masks": sum(1 for mask, keep in zip(record.objects.masks, usable, strict=True) if mask and keep),
        "num_captions": len(record.captions),
        "num_questions": len(record.questions),
        "has_semantic": int(bool(record.semantic_mask)),
    }


def index_name(shard: str) -> str:
    return shard.removesuffix(".tar") + ".index.json"


def stored_name(file: str, sha256: str) -> str:
    """Name of a tar or an index in a store, which says its content: another content never takes its place, and sets
    share what they have in common."""
    stem, dot, extension = file.partition(".")
    return f"{stem}-{sha256}{dot}{extension}"


def stored_files(manifest: Mapping[str, Any]) -> dict[str, int | None]:
    """Names in the store of all tars and indices of a manifest; their sizes, where it has them."""
    files: dict[str, int | None] = {}
    for split in manifest["splits"].values():
        for shard in split["shards"]:
            files[stored_name(shard["name"], shard["sha256"])] = shard["bytes"]
            files[stored_name(index_name(shard["name"]), shard["index_sha256"])] = None
    return files


def digest_of(document: Mapping[str, Any]) -> str:
    """sha256 of a document's canonical JSON."""
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def manifest_digest(manifest: Mapping[str, Any]) -> str:
    """Of what the data is, not of where it lies: the same shards in a store are the same data."""
    return digest_of({key: value for key, value in manifest.items() if key not in ("digest", "store")})


def write_manifest(
    folder: Path,
    dataset: str,
    classes: Sequence[str],
    splits: Mapping[str, Any],
    *,
    shrink: Mapping[str, Any] | None = None,
    store: str | None = None,
) -> dict[str, Any]:
    """Write `manifest.json`, the last file of a shard set: without it the set is not there.

    `shrink` is how large images were made smaller, noted as `shrink`, and part of the digest. `store` is the url of the
    folder that holds tars and indices by their stored names, where they do not lie beside the manifest.
    """
    manifest = {"schema": SCHEMA_VERSION, "dataset": dataset, "classes": list(classes), "splits": dict(splits)}
    if shrink is not None:
        manifest["shrink"] = dict(shrink)
    manifest["digest"] = manifest_digest(manifest)
    if store is not None:
        manifest["store"] = store
    part = folder / f".{MANIFEST}.part"
    part.write_text(json.dumps(manifest, indent=1))
    os.replace(part, folder / MANIFEST)
    return manifest


def load_manifest(folder: Path) -> dict[str, Any]:
    """Read and check a manifest.

    Raises:
        DataError: missing, written by another schema version, or changed since it was written.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise DataError("there are no shards here", where=str(path), fix="run `dvc repro`, or the shard stage")
    manifest = json.loads(path.read_text())
    if manifest.get("schema") != SCHEMA_VERSION:
        raise DataError(
            "shards of another schema version",
            value=manifest.get("schema"),
            where=str(path),
            allowed=str(SCHEMA_VERSION),
            fix="run the shard stage again",
        )
    if manifest_digest(manifest) != manifest.get("digest"):
        raise DataError("the manifest does not match its own digest", where=str(path), fix=heal(path))
    return manifest


def verify_shards(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Compare every tar and index with the manifest, byte for byte; in a store, that they are there and whole: their
    digests are compared when the cache fetches them.

    Raises:
        DataError: names the first file that is missing, cut or changed.
    """
    if "store" in manifest:
        _verify_stored(manifest)
        return

    def check(path: Path, size: int | None, sha256: str) -> None:
        if not path.is_file():
            raise DataError("a shard file is missing", where=str(path), fix=heal(path))
        if size is not None and path.stat().st_size != size:
            raise DataError(
                "a shard is cut or has grown",
                value=path.stat().st_size,
                where=str(path),
                allowed=f"{size} bytes",
                fix=heal(path),
            )
        with open(path, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise DataError(
                    "a shard's bytes differ from the manifest's sha256",
                    where=str(path),
                    fix=heal(path),
                )

    jobs: list[tuple[Path, int | None, str]] = []
    for split in manifest["splits"].values():
        for shard in split["shards"]:
            jobs.append((folder / shard["name"], shard["bytes"], shard["sha256"]))
            jobs.append((folder / index_name(shard["name"]), None, shard["index_sha256"]))
    with ThreadPoolExecutor() as pool:  # hashing releases the GIL
        for done in [pool.submit(check, *job) for job in jobs]:
            done.result()


def _verify_stored(manifest: Mapping[str, Any]) -> None:
    store = manifest["store"]
    sizes = stores.listing(store)
    for name, size in stored_files(manifest).items():
        if name not in sizes:
            raise DataError(
                "a shard file is missing in the store", where=f"{store}/{name}", fix="run the shard stage again"
            )
        if size not in (None, sizes[name]):
            raise DataError(
                "a shard in the store is cut or another one",
                value=sizes[name],
                where=f"{store}/{name}",
                allowed=f"{size} bytes",
                fix="run the shard stage again",
            )


class SplitReader:
    """Random access to the samples of one split, by position in the concatenation of its shards.

    Holds the index as numpy columns; picklable, so that it can travel to loader workers, which open the tars
    themselves. `columns` has `key` (bytes), `shard`, `offset`, `size` and each of `COUNTS`. Where the manifest names a
    store, tars and indices come through `cache`: a tar is fetched by the first process that reads from it.
    """

    def __init__(self, folder: Path, manifest: Mapping[str, Any], split: str, cache: ShardCache | None = None):
        if split not in manifest["splits"]:
            raise DataError(
                "no such split", value=split, where=str(folder / MANIFEST), allowed=", ".join(manifest["splits"])
            )
        self._entries: list[dict[str, Any]] = manifest["splits"][split]["shards"]
        self._cache = (cache or ShardCache()) if "store" in manifest else None
        self._place = manifest.get("store", str(folder))
        self.shards = [self._where(entry["name"], entry["sha256"]) for entry in self._entries]
        parts: dict[str, list[np.ndarray]] = {name: [] for name in ("key", "shard", "offset", "size", *COUNTS)}
        for i, data in enumerate(self._indices()):
            index = json.loads(data)
            for name, columns in parts.items():
                values = [i] * len(index["key"]) if name == "shard" else index[name]
                columns.append(np.asarray(values, dtype=np.bytes_ if name == "key" else np.int64))
        self.columns: dict[str, Any] = {
            name: np.concatenate(columns) if columns else np.zeros(0) for name, columns in parts.items()
        }
        self._files: dict[int, int] = {}
        self._owner = 0

    def _where(self, file: str, sha256: str) -> str:
        return f"{self._place}/{file if self._cache is None else stored_name(file, sha256)}"

    def _indices(self) -> Iterator[bytes]:
        """The index files in the order of the shards."""
        paths = [self._where(index_name(entry["name"]), entry["index_sha256"]) for entry in self._entries]
        if self._cache is None:
            yield from (Path(path).read_bytes() for path in paths)
            return
        with ThreadPoolExecutor(16) as pool:  # a thousand round trips one after another would take a minute
            yield from pool.map(self._cache.read, paths, [entry["index_sha256"] for entry in self._entries])

    def _open(self, shard: int) -> int:
        if self._cache is None:
            return os.open(self.shards[shard], os.O_RDONLY)
        return self._cache.open(self.shards[shard], self._entries[shard]["sha256"])

    def __len__(self) -> int:
        return len(self.columns["key"])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}, "_owner": 0}

    def keys(self, positions: np.ndarray | None = None) -> list[str]:
        chosen = self.columns["key"] if positions is None else self.columns["key"][positions]
        return [key.decode() for key in chosen.tolist()]

    def select(self, requires: Sequence[str]) -> np.ndarray:
        """Positions of the samples that have each of `requires`, ascending (M,) int64."""
        keep = np.ones(len(self), bool)
        for column in requires:
            keep &= self.columns[column] > 0
        return np.flatnonzero(keep)

    def read(self, position: int) -> Record:
        shard = int(self.columns["shard"][position])
        size = int(self.columns["size"][position])
        if self._owner != os.getpid():  # after a fork the offsets of shared descriptors would not matter, closing would
            self._files, self._owner = {}, os.getpid()
        if shard not in self._files:
            if len(self._files) >= 64:
                os.close(self._files.pop(next(iter(self._files))))
            self._files[shard] = self._open(shard)
        data = os.pread(self._files[shard], size, int(self.columns["offset"][position]))
        where = f"{self.shards[shard]}, sample {self.columns['key'][position].decode()}"
        if len(data) != size:
            raise DataError(
                "a shard is shorter than its index says", value=len(data), where=where, allowed=f"{size} bytes"
            )
        return parse_sample(data, where)
