"""A data set's raw files -> shards, manifest and quarantine list, in parallel Ray tasks."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.errors import DataError
from contracts.records import Problem, RawRecord
from pipeline import sources
from pipeline.distributed import map_ordered
from pipeline.params import ClusterConfig, DatasetConfig, ShardsConfig
from pipeline.progress import progress_bar
from pipeline.shards import ShardResult, problem_line, shard_name, split_manifest, write_manifest, write_shard


@dataclass
class _Chunks:
    """Cuts a split's stream into chunks of records, keeping the source's own problems aside."""

    stream: Iterator[RawRecord | Problem]
    size: int
    dataset: str
    split: str

    def __post_init__(self) -> None:
        self.problems: list[Problem] = []
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
            yield item

    def __iter__(self) -> Iterator[list[RawRecord]]:
        records = self._records()
        while chunk := list(itertools.islice(records, self.size)):
            yield chunk


def shard_dataset(
    name: str,
    config: DatasetConfig,
    opened: Sequence[sources.OpenSource],
    folder: Path,
    quarantine: Path,
    shards: ShardsConfig,
    cluster: ClusterConfig,
    root: Path,
) -> dict[str, Any]:
    """Write every split of a data set; returns the manifest.

    Raises:
        DataError: duplicate keys, an empty split, or a larger share quarantined than `max_quarantined`; the
            quarantine list is written all the same.
    """
    shutil.rmtree(folder, ignore_errors=True)  # what a killed run left behind is of unknown age
    folder.mkdir(parents=True)
    quarantine.parent.mkdir(parents=True, exist_ok=True)
    classes = sources.joined_classes(opened)
    chunks = {split: _Chunks(sources.read_joined(opened, split), shards.samples, name, split) for split in sources.joined_splits(opened)}
    jobs = (
        (chunk, classes, folder, shard_name(name, split, i))
        for split, part in chunks.items()
        for i, chunk in enumerate(part)
    )
    results: dict[str, list[ShardResult]] = {split: [] for split in chunks}
    order: list[str] = []
    tracked = _remember_split(jobs, order)
    with open(quarantine, "w", encoding="utf-8") as lines, progress_bar(f"shard {name}", None) as advance:
        for i, result in enumerate(map_ordered(write_shard, tracked, cluster, root)):
            results[order[i]].append(result)
            lines.writelines(problem_line(order[i], problem) + "\n" for problem in result.problems)
            advance(result.num_source)
        for split, part in chunks.items():
            lines.writelines(problem_line(split, problem) + "\n" for problem in part.problems)
    entries = {split: split_manifest(results[split], chunks[split].problems) for split in chunks}
    _judge(name, config, entries, quarantine)
    return write_manifest(folder, name, classes, entries)


def _remember_split(jobs: Iterator[tuple], order: list[str]) -> Iterator[tuple]:
    """Note the split of each job as it is drawn, so that ordered results can be told apart."""
    for job in jobs:
        order.append(job[3].rsplit("-", 3)[1])
        yield job


def _judge(name: str, config: DatasetConfig, entries: dict[str, Any], quarantine: Path) -> None:
    for split, entry in entries.items():
        if not entry["num_samples"]:
            raise DataError(f"split {split!r} of {name} has no usable sample", where=str(quarantine), value=entry["dropped"])
        annotations = sum(entry["totals"][column] for column in ("num_objects", "num_captions", "num_questions"))
        dropped = {kind: sum(reasons.values()) for kind, reasons in entry["dropped"].items()}
        records_lost = dropped.pop("record", 0)
        shares = {
            "records": records_lost / max(1, entry["num_source"]),
            "annotations": sum(dropped.values()) / max(1, annotations + sum(dropped.values())),
        }
        for what, share in shares.items():
            if share > config.max_quarantined:
                raise DataError(
                    f"too many {what} of {name}, split {split!r}, cannot be used",
                    value=f"{share:.2%}: {entry['dropped']}",
                    where=str(quarantine),
                    allowed=f"max_quarantined: {config.max_quarantined:.2%}",
                    fix="look at the quarantine list; mend the data, or raise datasets.<name>.max_quarantined",
                )
