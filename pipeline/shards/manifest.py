"""Manifest and index of a shard set: their schema, checked whole before anything in them is believed.

`manifest.json` names every shard with its digest, and is written last: without it the set is not there. The index
beside a tar holds the byte range, the CRC-32 and the counts of each sample. A file that breaks a rule is refused with
all that is wrong in it; one that keeps them all describes tars without a gap, and no key twice in a split.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

import numpy as np
from annotated_types import Ge, Le, MultipleOf
from pydantic import ConfigDict, StringConstraints, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from contracts.errors import DataError
from contracts.names import NAME
from contracts.raw import ItemKind
from contracts.records import COUNTS, SCHEMA_VERSION, Count
from pipeline.system import project
from pipeline.system.disk import write_text
from pipeline.system.project import explain, read_json

MANIFEST = "manifest.json"
BLOCK = 512
END_BYTES = 2 * BLOCK  # of zeros close a tar
MIN_SAMPLE_BYTES = 2 * BLOCK  # header and content of an annotation, which may be all there is
_NUM_SHOWN = 8

_STRICT = with_config(ConfigDict(extra="forbid", strict=True))  # an int is no bool, no float and no text
Amount = Annotated[int, Ge(0), Le(2**53)]
Positive = Annotated[int, Ge(1), Le(2**53)]
Blocks = Annotated[int, Ge(MIN_SAMPLE_BYTES), MultipleOf(BLOCK), Le(2**53)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
# What `sources` makes of a file's name; with `.json` it must fit a tar header.
Key = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]{1,95}$")]


@_STRICT
class Shard(TypedDict):
    name: str
    samples: Positive
    bytes: Blocks
    sha256: Sha256
    index_sha256: Sha256


@_STRICT
class Split(TypedDict):
    num_source: Positive
    num_samples: Positive
    bytes: Blocks
    dropped: dict[ItemKind, dict[str, Positive]]
    fixed: dict[str, Positive]
    totals: dict[Count, Positive]
    shards: list[Shard]


@_STRICT
class Shrunk(TypedDict):
    short_side: Positive
    quality: Annotated[int, Ge(1), Le(100)]


@_STRICT
class Manifest(TypedDict):
    """`shrink` says how large images were made smaller, `store` where tars and indices lie if not beside it."""

    schema: int
    dataset: Annotated[str, StringConstraints(pattern=f"^{NAME.pattern}$")]
    classes: list[Annotated[str, StringConstraints(min_length=1)]]
    splits: dict[Literal["train", "val", "test"], Split]
    digest: Sha256
    shrink: NotRequired[Shrunk]
    store: NotRequired[Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+://[^\s@?]+$")]]


@_STRICT
class Index(TypedDict):
    """Columns of equal length, a row for each sample in the order of the tar, which is that of the keys.

    `counts` has a column for what can be counted of at least one sample.
    """

    key: list[Key]
    offset: list[Annotated[int, Ge(0), MultipleOf(BLOCK), Le(2**53)]]
    size: list[Blocks]
    crc: list[Annotated[int, Ge(0), Le(2**32 - 1)]]
    counts: dict[Count, list[Amount]]


@cache
def _adapter(shape: Any) -> TypeAdapter[Any]:
    return TypeAdapter(shape)  # building one takes milliseconds


def shard_name(dataset: str, split: str, index: int) -> str:
    """Unique over data sets, splits and schema versions: caches that go by file name cannot mix them up."""
    return f"{dataset}-{split}-v{SCHEMA_VERSION}-{index:06d}.tar"


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


def split_digest(manifest: Mapping[str, Any], split: str) -> str:
    """Of one split's samples: what a score on it depends on."""
    return digest_of({"shards": [shard["sha256"] for shard in manifest["splits"][split]["shards"]]})


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

    Raises:
        DataError: the manifest would be one that no reader takes.
    """
    manifest = {"schema": SCHEMA_VERSION, "dataset": dataset, "classes": list(classes), "splits": dict(splits)}
    if shrink is not None:
        manifest["shrink"] = dict(shrink)
    manifest["digest"] = manifest_digest(manifest)
    if store is not None:
        manifest["store"] = store
    target = folder / MANIFEST
    _refuse(_mistakes(manifest), "manifest", str(target), "mend the data set, or its section of params.yaml")
    write_text(target, json.dumps(manifest, indent=1))
    return manifest


def load_manifest(folder: Path, dataset: str | None = None) -> dict[str, Any]:
    """Read and check a manifest.

    Args:
        dataset: the data set that it must be of; None: any.

    Raises:
        DataError: missing, no manifest, of another schema version or data set, changed since it was written, or one
            that contradicts itself; with all that is wrong.
    """
    path = folder / MANIFEST
    fix = heal(dataset or folder.name)
    manifest = read_json(path, "the manifest of the shards", fix)
    if (version := manifest.get("schema")) != SCHEMA_VERSION:
        raise DataError(
            "shards of another schema version",
            value=version if isinstance(version, int) and 0 <= version < 10**6 else "none that is known",
            where=str(path),
            allowed=str(SCHEMA_VERSION),
            fix=fix,
        )
    _refuse(_mistakes(manifest), "manifest", str(path), fix)
    if dataset not in (None, manifest["dataset"]):
        raise DataError(
            "these are another data set's shards",
            value=manifest["dataset"],
            where=str(path),
            allowed=str(dataset),
            fix=fix,
        )
    return manifest


def _mistakes(manifest: dict[str, Any]) -> list[str]:
    try:
        _adapter(Manifest).validate_python(manifest)
    except ValidationError as error:
        return explain(error)
    found: list[str] = []
    if manifest_digest(manifest) != manifest["digest"]:
        found.append("it does not match its own digest: it was changed after it was written")
    found += _repeated("class", manifest["classes"])
    shards = [shard for split in manifest["splits"].values() for shard in split["shards"]]
    found += _repeated("shard", [shard["name"] for shard in shards])
    for what in ("sha256", "index_sha256"):
        found += _repeated(f"shard with {what}", [shard[what] for shard in shards])
    if not manifest["splits"]:
        found.append("splits: none")
    for name, split in manifest["splits"].items():
        found += _split_mistakes(manifest["dataset"], name, split)
    return found


def _split_mistakes(dataset: str, name: str, split: Mapping[str, Any]) -> list[str]:
    where, found, last = f"splits.{name}", [], -1
    pattern = re.escape(shard_name(dataset, name, 0)).replace("000000", r"(\d{6,9})")
    for shard in split["shards"]:
        match = re.fullmatch(pattern, shard["name"], re.ASCII)
        number = int(match[1]) if match else -1
        if match is None or shard["name"] != shard_name(dataset, name, number):
            found.append(f"{where}.shards: {_short(shard['name'])} is not named {shard_name(dataset, name, 0)} or so")
        elif number <= last:
            found.append(f"{where}.shards: {shard['name']} stands after {shard_name(dataset, name, last)}")
        last = max(last, number)
        if shard["bytes"] < shard["samples"] * MIN_SAMPLE_BYTES + END_BYTES:
            found.append(f"{where}.shards: {shard['bytes']} bytes have no room for {shard['samples']} samples")
    sums = {
        "num_samples": sum(shard["samples"] for shard in split["shards"]),
        "bytes": sum(shard["bytes"] for shard in split["shards"]),
        "num_source": split["num_samples"] + sum(split["dropped"].get("record", {}).values()),
    }
    found += [f"{where}.{key} is {split[key]}, the parts add up to {n}" for key, n in sums.items() if split[key] != n]
    totals = split["totals"]
    found += [
        f"{where}.totals: {totals[part]} {part} of {whole} {what}"
        for part, what, whole in (
            ("num_masks", "objects", totals.get("num_objects", 0)),
            *((part, "samples", split["num_samples"]) for part in COUNTS if part.startswith("has_")),
        )
        if totals.get(part, 0) > whole
    ]
    return found


def _repeated(what: str, names: Sequence[str]) -> list[str]:
    seen: set[str] = set()
    return [f"{what} {_short(name)} is listed twice" for name in names if name in seen or seen.add(name)]  # type: ignore[func-returns-value]


def heal(dataset: str) -> str:
    """What to do about shards that are not as they were written."""
    return project.heal(Path("data/shards") / dataset)


def parse_index(data: bytes, shard: Mapping[str, Any], where: str, fix: str) -> dict[str, np.ndarray]:
    """The columns of a shard's index, `key` as bytes and the others as int64, each (samples,). Counts that are 0 in all
    of its samples have none.

    Args:
        data: the file's content. shard: the manifest's entry. where: the file's path or url. fix: what to do about it.

    Raises:
        DataError: the file is not the one that the manifest names, or contradicts the manifest or itself.
    """
    found = hashlib.sha256(data).hexdigest()
    if found != shard["index_sha256"]:
        raise DataError(
            "an index is not the one that the manifest names",
            value=f"sha256 {found}",
            where=where,
            allowed=f"sha256 {shard['index_sha256']}",
            fix=fix,
        )
    try:
        index = _adapter(Index).validate_json(data)
    except ValidationError as error:
        _refuse(explain(error), "index", where, fix)
    counts = index.pop("counts")
    rows = {**index, **counts}
    if lengths := {name: len(v) for name, v in rows.items() if len(v) != shard["samples"]}:
        _refuse([f"{name} has {n} rows of {shard['samples']}" for name, n in lengths.items()], "index", where, fix)
    columns: dict[str, np.ndarray] = {
        name: np.asarray(values, np.bytes_ if name == "key" else np.int64) for name, values in rows.items()
    }
    _refuse(_index_mistakes(columns, shard), "index", where, fix)
    return columns


def _index_mistakes(columns: Mapping[str, np.ndarray], shard: Mapping[str, Any]) -> list[str]:
    offset, size, key = columns["offset"], columns["size"], columns["key"]
    mistakes = []
    if offset[0] or (offset[1:] != offset[:-1] + size[:-1]).any():
        mistakes.append("the samples do not follow one another without a gap from byte 0 on")
    if offset[-1] + size[-1] + END_BYTES != shard["bytes"]:
        mistakes.append(f"the tar ends at {offset[-1] + size[-1] + END_BYTES}, the manifest says at {shard['bytes']}")
    if (key[1:] <= key[:-1]).any():
        mistakes.append("the keys do not ascend, or one is there twice")
    nothing = np.zeros(len(key), np.int64)
    if (columns.get("num_masks", nothing) > columns.get("num_objects", nothing)).any():
        mistakes.append("a sample has more masks than objects")
    mistakes += [f"{n}: neither 0 nor 1" for n, c in columns.items() if n.startswith("has_") and c.max() > 1]
    return mistakes


def _refuse(mistakes: Sequence[str], what: str, where: str, fix: str) -> None:
    """Raise one DataError that lists the mistakes, if there are any."""
    if not mistakes:
        return
    number = len(mistakes)
    listing = "".join(f"\n  - {mistake}" for mistake in mistakes[:_NUM_SHOWN])
    if number > _NUM_SHOWN:
        listing += f"\n  - and {number - _NUM_SHOWN} more"
    raise DataError(f"{number} mistake{'s' * (number > 1)} in this {what}:{listing}", where=where, fix=fix)


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
