"""A data set's raw files -> shards, manifest and quarantine list, in parallel Ray tasks."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from contracts.errors import DataError
from contracts.raw import Problem, RawRecord
from contracts.records import COUNTS
from pipeline.ingest import sources
from pipeline.ingest.door import DEFAULT_DOOR, DoorConfig, Shrink, admit, in_words
from pipeline.settings.sections import DatasetConfig, ShardsConfig
from pipeline.shards import bookkeeping, learnable, raw_store, stores
from pipeline.shards.learnable import Labels
from pipeline.shards.manifest import END_BYTES, MANIFEST, index_name, shard_name, stored_name, write_manifest
from pipeline.shards.reader import open_splits, verify_shards
from pipeline.shards.samples import sample_pieces, write_pieces
from pipeline.system.disk import flush, publish, renewed, write_lines, writing
from pipeline.system.progress import note, progress_bar
from pipeline.system.project import Project

_TMPDIR = "TMPDIR names another folder"
# What the items that are dropped are a share of.
_ANNOTATIONS = (
    "num_objects", "num_captions", "num_questions", "num_labels", "num_sentences", "has_alignment", "has_transcript",
    "num_segments", "num_frame_labels",
)  # fmt: skip


@dataclass
class ShardResult:
    """What one shard task did. `shard` is None where every record of it was quarantined.

    `labels` counts objects and pixels as `Admission.labels` does. `seen` has digests, uint64, of what must not be in
    two splits, by kind (`bookkeeping.identities`): equal ones are one picture, one text, one group.
    """

    shard: dict[str, Any] | None
    num_source: int
    problems: list[Problem] = field(default_factory=list)
    fixes: Counter[str] = field(default_factory=Counter)
    totals: Counter[str] = field(default_factory=Counter)
    labels: Labels = field(default_factory=Counter)
    seen: dict[str, np.ndarray] = field(default_factory=dict)


RunAll = Callable[[Callable[..., ShardResult], Iterable[tuple]], Iterator[ShardResult]]


def write_shard(
    raws: Sequence[RawRecord],
    classes: Sequence[str],
    folder: Path,
    name: str,
    door: DoorConfig = DEFAULT_DOOR,
    *,
    other_folder: str = "",
) -> ShardResult:
    """Let records through the door and write those that pass as one tar and its index, each whole or not at all.

    Holds the bytes of one sample at a time. `other_folder` tells how another folder is named where this has no room.

    Raises:
        DataError: no room for the shard, or the disk refuses otherwise; this host does not have the data set's folder,
            or cannot read a file of it.
    """
    door.check_root()
    result = ShardResult(shard=None, num_source=len(raws))
    rows: list[dict[str, Any]] = []
    seen: dict[str, list[int]] = {}
    digest, offset, part = hashlib.sha256(), 0, folder / f".{name}.part"
    with writing(part, fix=other_folder):
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    with os.fdopen(descriptor, "wb", buffering=0) as file, raw_store.opened(door, raws) as (here, coming):
        for raw in coming:
            admission = admit(raw, classes, here)
            result.problems += admission.problems
            result.fixes += admission.fixes
            result.labels += admission.labels
            if admission.record is None:
                continue
            pieces = sample_pieces(admission.record)
            with writing(part, needed=lambda: _image_bytes(raws), fix=other_folder):
                size = write_pieces(file.fileno(), pieces)
            for piece in pieces:
                digest.update(piece)
            crc = reduce(lambda value, piece: zlib.crc32(piece, value), pieces, 0)
            rows.append({"key": raw.key, "offset": offset, "size": size, "crc": crc, **admission.record.counts()})
            for kind, number in bookkeeping.identities(admission.record).items():
                seen.setdefault(kind, []).append(number)
            offset += size
        with writing(part, fix=other_folder):
            write_pieces(file.fileno(), [bytes(END_BYTES)])
        digest.update(bytes(END_BYTES))
    if not rows:
        part.unlink()
        return result
    result.totals.update({name: sum(column) for name, column in index_of(rows)["counts"].items()})
    result.seen = {kind: np.array(numbers, np.uint64) for kind, numbers in seen.items()}
    result.shard = {
        "name": name,
        "samples": len(rows),
        "bytes": offset + END_BYTES,
        "sha256": digest.hexdigest(),
        "index_sha256": hashlib.sha256(_write_index(rows, folder, name, other_folder)).hexdigest(),
    }
    with writing(part, fix=other_folder):
        publish(part, folder / name, flushed_later=True)  # after its index
    return result


def index_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The index of samples, each with `key`, `offset`, `size`, `crc` and what can be counted of it."""
    index: dict[str, Any] = {column: [row[column] for row in rows] for column in ("key", "offset", "size", "crc")}
    index["counts"] = {name: [row.get(name, 0) for row in rows] for name in COUNTS if any(name in row for row in rows)}
    return index


def _write_index(rows: Sequence[dict[str, Any]], folder: Path, name: str, other_folder: str) -> bytes:
    """Write the index of a shard, before its tar gets its name; returns its content."""
    data = json.dumps(index_of(rows), separators=(",", ":")).encode()
    part = folder / f".{name}.index.part"
    with writing(part, needed=lambda: len(data), fix=other_folder):
        part.write_bytes(data)
        publish(part, folder / index_name(name), flushed_later=True)
    return data


def _image_bytes(raws: Sequence[RawRecord]) -> int:
    """About the size of a shard of these: the rest of a sample is small beside its pixels."""
    parts = sum(raw.image_part.size for raw in raws if raw.image_part)
    whole = ((*raw.frames, raw.video and raw.video.file, not raw.image_part and raw.image) for raw in raws)
    files = (file for of_one in whole for file in of_one if file)
    return parts + sum(file.stat().st_size for file in files if file.is_file())


def upload_shard(
    raws: Sequence[RawRecord], classes: Sequence[str], store: str, name: str, door: DoorConfig = DEFAULT_DOOR
) -> ShardResult:
    """`write_shard` into a folder of an object store, under `stored_name`s. What is there already with this content is
    not sent again."""
    with writing(Path(os.environ.get("TMPDIR") or "/tmp"), fix=_TMPDIR):
        scratch = tempfile.TemporaryDirectory(prefix="sightline-")  # on this node: the project's folder may not be
    with scratch as folder:
        result = write_shard(raws, classes, Path(folder), name, door, other_folder=_TMPDIR)
        if result.shard is not None:
            files = {name: result.shard["sha256"], index_name(name): result.shard["index_sha256"]}
            for file, sha256 in files.items():
                path, url = Path(folder) / file, f"{store}/{stored_name(file, sha256)}"
                if not stores.holds(url, path.stat().st_size, sha256):
                    stores.upload(path, url, sha256)
    return result


def split_manifest(results: Iterable[ShardResult], source_problems: Iterable[Problem]) -> dict[str, Any]:
    """The manifest's entry of one split: shards, counts, and what was dropped and fixed, by reason."""
    shards: list[dict[str, Any]] = []
    dropped: dict[str, Counter[str]] = {}
    fixes: Counter[str] = Counter()
    totals: Counter[str] = Counter()
    num_source = 0
    for problem in source_problems:
        dropped.setdefault(problem.kind, Counter())[problem.reason] += 1
        num_source += problem.kind == "record"
    for result in results:
        num_source += result.num_source
        fixes += result.fixes
        totals += result.totals
        for problem in result.problems:
            dropped.setdefault(problem.kind, Counter())[problem.reason] += 1
        if result.shard is not None:
            shards.append(result.shard)
    return {
        "num_source": num_source,
        "num_samples": sum(shard["samples"] for shard in shards),
        "bytes": sum(shard["bytes"] for shard in shards),
        "dropped": {kind: dict(sorted(counter.items())) for kind, counter in sorted(dropped.items())},
        "fixed": dict(sorted(fixes.items())),
        "totals": {name: totals[name] for name in COUNTS if totals[name]},
        "shards": shards,
    }


def problem_line(split: str, problem: Problem) -> str:
    """A line of `data/quarantine/<dataset>.jsonl`."""
    return json.dumps({"split": split, **asdict(problem)}, ensure_ascii=False)


@dataclass
class _Chunks:
    """Cuts a split's stream into chunks of records, keeping the source's own problems aside."""

    stream: Iterator[RawRecord | Problem]
    size: int
    split: str

    def __post_init__(self) -> None:
        self.problems: list[Problem] = []
        self.folders: Counter[Path] = Counter()  # of the records' images
        self.first_file = ""  # that annotates a record
        self._last = ""

    def _records(self) -> Iterator[RawRecord]:
        for item in self.stream:
            if isinstance(item, Problem):
                self.problems.append(item)
                continue
            if item.key <= self._last:
                what = "the same key twice" if item.key == self._last else "records are not in ascending order of key"
                raise DataError(what, value=item.key, where=f"{item.annotation_file}, split {self.split}")
            self._last = item.key
            if item.image is not None:
                self.folders[item.image.parent] += 1
            self.first_file = self.first_file or item.annotation_file
            yield item

    def __iter__(self) -> Iterator[list[RawRecord]]:
        records = self._records()
        while chunk := list(itertools.islice(records, self.size)):
            yield chunk


def shard_dataset(
    name: str,
    config: DatasetConfig,
    opened: Sequence[sources.OpenSource],
    project: Project,
    shards: ShardsConfig,
    run_all: RunAll = itertools.starmap,
) -> dict[str, Any]:
    """Write every split of a data set; returns the manifest. With `shards.store`, all files go there, and the project's
    folder of shards holds the manifest alone. The shards that were there before stay until the new ones are whole.

    Args:
        run_all: runs a function on every job and yields the results in their order; one job after another by default.

    Raises:
        DataError: no train or no val split, duplicate keys, an empty split, no room, or a larger share quarantined than
            `max_quarantined`; the quarantine list is written in the last case all the same.
    """
    store = f"{shards.store.rstrip('/')}/{name}" if shards.store else None
    door = _door(config, shards, opened[0])
    chunks = _chunks(config, opened, shards.samples)
    classes = sources.joined_classes(opened)
    results: dict[str, list[ShardResult]] = {split: [] for split in chunks}
    order: list[str] = []  # the split of each job drawn so far; results come in the same order
    with renewed(project.shards(name), inside=project.root / "data" / "shards") as folder:
        write, place = (upload_shard, store) if store else (write_shard, folder)

        def jobs() -> Iterator[tuple]:
            for split, part in chunks.items():
                for i, chunk in enumerate(part):
                    order.append(split)
                    yield chunk, classes, place, shard_name(name, split, i), door

        with progress_bar(f"shard {name}", None) as advance:
            for i, result in enumerate(run_all(write, jobs())):
                results[order[i]].append(result)
                advance(result.num_source)
        problems = {split: _problems(results[split], chunks[split]) for split in chunks}
        lines = (problem_line(split, problem) for split, found in problems.items() for problem in found)
        write_lines(project.quarantine(name), lines)
        entries = {split: split_manifest(results[split], chunks[split].problems) for split in chunks}
        _judge(name, config, entries, problems, project.quarantine(name))
        for text in _examine(name, config, classes, entries, results, chunks):
            note(text)
        with writing(folder / MANIFEST):
            settings = asdict(door.shrink) if door.shrink else None
            manifest = write_manifest(folder, name, classes, entries, shrink=settings, store=store)
        _verify(folder, manifest, store)
        flush(folder)
    return manifest


def _chunks(config: DatasetConfig, opened: Sequence[sources.OpenSource], samples: int) -> dict[str, _Chunks]:
    """The chunks of each split, of those that are drawn, too."""
    draw, drawn = config.split, None
    if draw is not None:
        drawn = sources.Draw(opened[0].root, draw.seed, by_folder=draw.by == "group", shares=draw.shares)
    splits = sources.joined_splits(opened, drawn)
    sources.check_splits(opened, splits)
    if drawn is not None:
        drawn = sources.draw_from(opened, drawn)
    return {split: _Chunks(sources.read_joined(opened, split, drawn), samples, split) for split in splits}


def _verify(folder: Path, manifest: dict[str, Any], store: str | None) -> None:
    if store is None:
        open_splits(folder, manifest)  # no key is in two of them
        return
    verify_shards(folder, manifest)  # before anything names them
    # A copy, so that the store is whole without this project and tells which of its shards are of use.
    stores.upload(folder / MANIFEST, f"{store}/{manifest['digest']}/{MANIFEST}")


def _door(config: DatasetConfig, shards: ShardsConfig, source: sources.OpenSource) -> DoorConfig:
    return DoorConfig(
        root=source.root,
        store=source.store,
        follow_links=config.follow_links,
        max_pixels=int(shards.max_megapixels * 1e6),
        shrink=Shrink(short_side=shards.short_side, quality=shards.quality) if shards.short_side else None,
        exif=config.exif,
        search=config.proposals,
    )


def _problems(results: Sequence[ShardResult], chunks: _Chunks) -> list[Problem]:
    """What the door refused, then what the sources themselves did."""
    return [*(problem for result in results for problem in result.problems), *chunks.problems]


def _examine(
    name: str,
    config: DatasetConfig,
    classes: Sequence[str],
    entries: Mapping[str, Any],
    results: Mapping[str, Sequence[ShardResult]],
    chunks: Mapping[str, _Chunks],
) -> list[str]:
    """Notes on what will not be learned, is used twice or not at all.

    Raises:
        DataError: there is nothing to learn, or splits share more pictures than `max_shared`.
    """
    labels = sum((result.labels for result in results["train"]), Counter())
    where = chunks["train"].first_file
    notes = learnable.check_labels(name, classes, labels, entries["train"]["totals"], where)
    notes += learnable.missing_masks(name, entries)
    seen = {split: bookkeeping.joined([result.seen for result in done]) for split, done in results.items()}
    notes += bookkeeping.check_shared(name, seen, config.max_shared)
    folders = sum((part.folders for part in chunks.values()), Counter())
    return notes + bookkeeping.unused_images(name, folders)


def _judge(
    name: str,
    config: DatasetConfig,
    entries: dict[str, Any],
    problems: Mapping[str, Sequence[Problem]],
    quarantine: Path,
) -> None:
    for split, entry in entries.items():
        if not entry["num_samples"]:
            raise DataError(
                f"split {split!r} of {name} has no usable sample:\n{in_words(problems[split])}", where=str(quarantine),
                fix="mend the files, or the sources' paths in params.yaml",
            )  # fmt: skip
        annotations = sum(entry["totals"].get(column, 0) for column in _ANNOTATIONS)
        dropped = {kind: sum(reasons.values()) for kind, reasons in entry["dropped"].items()}
        records_lost = dropped.pop("record", 0)
        losses = {
            "records": (records_lost, entry["num_source"]),
            "annotations": (sum(dropped.values()), annotations + sum(dropped.values())),
        }
        for what, (lost, total) in losses.items():
            if lost > config.max_quarantined * total:
                told = [p for p in problems[split] if (p.kind == "record") == (what == "records")]
                raise DataError(
                    f"too many {what} of {name}, split {split!r}, cannot be used: {lost} of {total} "
                    f"({lost / total:.2%})\n{in_words(told)}",
                    where=f"{quarantine} lists all of them",
                    allowed=f"max_quarantined: {config.max_quarantined:.2%}",
                    fix="mend the data, or raise datasets.<name>.max_quarantined",
                )
