"""A second opinion on a data set's shards: plain webdataset reads them, and what it finds is compared with ours.

    sightline verify coco --split val

Compared are the keys in their order, the members of each sample, every byte of it (by the index's CRC-32), what its
annotation says (parsed, and written again), and the counts of index and manifest. Nothing stops at the first damage:
each is told with its shard and key.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import webdataset as wds
from webdataset.tariterators import group_by_keys, tar_file_expander

from contracts.errors import ConfigError, DataError
from contracts.records import COUNTS
from pipeline.settings.params import load_params
from pipeline.shards.cache import ShardCache
from pipeline.shards.manifest import heal, index_name, load_manifest, parse_index, stored_name
from pipeline.shards.samples import parse_sample, tar_member
from pipeline.system.progress import progress_bar
from pipeline.system.project import Project

_NUM_SHOWN = 20


@dataclass(frozen=True)
class Damage:
    """What is not as it was written; `key` is empty where no one sample is meant."""

    shard: str
    key: str
    what: str

    def __str__(self) -> str:
        return f"{self.shard}{f', sample {self.key}' if self.key else ''}: {self.what}"


def verify_dataset(project: Project, dataset: str, splits: Sequence[str] | None = None) -> None:
    """Read every shard of a data set of params.yaml with webdataset, and say that all is well.

    Raises:
        ConfigError: no such data set or split.
        DataError: what is damaged, all of it.
    """
    load_params(project.root).dataset(dataset)
    folder = project.shards(dataset)
    manifest = load_manifest(folder, dataset)
    for split in splits or ():
        if split not in manifest["splits"]:
            raise ConfigError("no such split", value=split, where=str(folder), allowed=", ".join(manifest["splits"]))
    found: list[Damage] = []
    wanted = {split: manifest["splits"][split] for split in splits or manifest["splits"]}
    samples = sum(part["num_samples"] for part in wanted.values())
    with progress_bar(f"{dataset} by webdataset", samples) as advance:
        for split in wanted:
            for damage in verify_split(folder, manifest, split):
                if damage is None:
                    advance(1)
                else:
                    found.append(damage)
    if found:
        more = f"\n  - and {len(found) - _NUM_SHOWN} more" if len(found) > _NUM_SHOWN else ""
        listing = "".join(f"\n  - {damage}" for damage in found[:_NUM_SHOWN]) + more
        raise DataError(
            f"webdataset finds {len(found)} damages in these shards:{listing}", where=str(folder), fix=heal(dataset)
        )
    print(f"{dataset}: {samples} samples of {', '.join(wanted)} are as they were written, webdataset reads")


def verify_split(folder: Path, manifest: Mapping[str, Any], split: str) -> Iterator[Damage | None]:
    """Each damage of a split, and None for each sample that is whole."""
    totals: Counter[str] = Counter()
    is_whole = True
    for shard in manifest["splits"][split]["shards"]:
        try:
            columns, tar = _index_and_tar(folder, manifest, shard)
        except (DataError, OSError) as error:
            is_whole = False
            yield Damage(shard["name"], "", str(error))
            continue
        totals.update({name: int(columns[name].sum()) for name in COUNTS if name in columns})
        yield from _verify_tar(tar, shard["name"], columns)
    if is_whole and dict(totals) != manifest["splits"][split]["totals"]:
        yield Damage(
            split, "", f"the manifest counts {manifest['splits'][split]['totals']}, its indices {dict(totals)}"
        )


def _index_and_tar(
    folder: Path, manifest: Mapping[str, Any], shard: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], Path]:
    index, fix = index_name(shard["name"]), heal(manifest["dataset"])
    if "store" not in manifest:
        path = folder / index
        return parse_index(path.read_bytes(), shard, str(path), fix), folder / shard["name"]
    cache, store = ShardCache(), manifest["store"]
    url = f"{store}/{stored_name(index, shard['index_sha256'])}"
    columns = parse_index(cache.read(url, shard["index_sha256"]), shard, url, fix)
    return columns, cache.fetch(f"{store}/{stored_name(shard['name'], shard['sha256'])}", shard["sha256"])


def _verify_tar(tar: Path, name: str, columns: Mapping[str, np.ndarray]) -> Iterator[Damage | None]:
    keys = [key.decode() for key in columns["key"].tolist()]
    rows = {key: row for row, key in enumerate(keys)}
    seen: dict[str, None] = {}
    problems: list[Damage] = []

    def told(error: Exception) -> bool:
        problems.append(Damage(name, "", f"webdataset cannot read on: {error.args[0] if error.args else error!s}"))
        return True  # and go on

    try:
        file = tar.open("rb")
    except OSError as error:
        yield Damage(name, "", f"the tar cannot be read: {error.strerror}")
        return
    with file:  # webdataset opens no files itself: `pipeline` forbids it what runs commands, too
        for sample in wds.DataPipeline(
            lambda: iter([{"url": str(tar), "stream": file}]),
            partial(tar_file_expander, handler=told),
            partial(group_by_keys, handler=told),
        ):
            key = sample["__key__"]
            if key not in rows:
                yield Damage(name, key, "the index has no such sample")
            elif key in seen:
                yield Damage(name, key, "it is there twice")
            else:
                seen[key] = None
                yield _sample_damage(sample, name, columns, rows[key])
    yield from problems
    for key in sorted(rows.keys() - seen.keys()):
        yield Damage(name, key, "the index has it, the tar has not")
    if list(seen) != [key for key in keys if key in seen]:
        yield Damage(name, "", "the samples are in another order than the index says")


def _sample_damage(sample: Mapping[str, Any], shard: str, columns: Mapping[str, Any], row: int) -> Damage | None:
    key = sample["__key__"]
    members = {f"{key}.{suffix}": data for suffix, data in sample.items() if not suffix.startswith("__")}
    data = b"".join(piece for member, content in members.items() for piece in tar_member(member, content))
    if len(data) != columns["size"][row]:
        told = ", ".join(f"{member} ({len(content)} bytes)" for member, content in members.items())
        return Damage(shard, key, f"{told} take {len(data)} bytes, the index says {columns['size'][row]}")
    if (crc := zlib.crc32(data)) != columns["crc"][row]:
        return Damage(shard, key, f"its bytes have CRC-32 {crc:08x}, the index says {columns['crc'][row]:08x}")
    try:
        record = parse_sample(data, key, shard)
    except DataError as error:
        return Damage(shard, key, error.what)
    if record.annotation_json() != sample["json"]:
        return Damage(shard, key, "its annotation is written otherwise when it is read and written again")
    counts = record.counts()
    indexed = {name: int(columns[name][row]) for name in COUNTS if name in columns}
    both = {name: (indexed.get(name, 0), counts.get(name, 0)) for name in COUNTS}
    wrong = {name: (said, found) for name, (said, found) in both.items() if said != found}
    if wrong:
        told = ", ".join(f"{name} {said} (it has {found})" for name, (said, found) in wrong.items())
        return Damage(shard, key, f"the index counts {told}")
    return None
