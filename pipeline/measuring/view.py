"""What is in a data set's shards, on one page without a network: `sightline view`.

It looks at what training reads, not at the source's files: what the door changed or left out shows. Every record is
read once, for its statistics and its fingerprint; what is held is counters and 216 bytes a picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from contracts.errors import ConfigError
from pipeline.measuring.templates import templates
from pipeline.measuring.viewing import quarantine
from pipeline.measuring.viewing.augmentation import NUM_DRAWS, check_runs, show_changes
from pipeline.measuring.viewing.duplicates import LEAST_SIDE_PX, MOST_BITS, Fingerprints, Found, Pair, Place
from pipeline.measuring.viewing.histograms import HEIGHT, WIDTH
from pipeline.measuring.viewing.pictures import data_url, thumbnail
from pipeline.measuring.viewing.records import Shown, show_records
from pipeline.measuring.viewing.statistics import SIZES, SplitStatistics, class_rows, histograms, word_tables
from pipeline.shards.manifest import load_manifest
from pipeline.shards.reader import SplitReader, open_splits
from pipeline.system.disk import write_lines
from pipeline.system.progress import progress_bar
from pipeline.system.project import Project

_PAIR_PX, _MOST_PAIRS = 200, 40


@dataclass(frozen=True, kw_only=True)
class Request:
    """What `sightline view` is asked for.

    Attributes:
        split: records of this one alone are drawn; None: of all splits. Statistics are of all splits in any case.
        num: so many records, in an order drawn by `seed`.
        keys: these records in place of drawn ones.
        name: only records in which this class occurs.
        runs: whose augmentation is shown; none: of all runs on the data set.
        duplicates: whether pictures that are nearly the same are looked for.
    """

    dataset: str
    out: Path
    split: str | None = None
    num: int = 24
    seed: int = 0
    keys: Sequence[str] = ()
    name: str | None = None
    runs: Sequence[str] = ()
    duplicates: bool = True


class Page(NamedTuple):
    """What the page shows."""

    shown: list[Shown]
    found: Found | None  # None: not looked for
    num_refused: int


def run(request: Request) -> None:
    """Write the page of the project here and tell what is on it."""
    page = write_view(Project.here(), request)
    crossing = sum(count for (a, b), count in page.found.num_pairs.items() if a != b) if page.found else 0
    alike = f", {crossing} near duplicates between splits" if page.found else ""
    size = request.out.stat().st_size / 1e6
    print(
        f"view: {len(page.shown)} records of {request.dataset}, {page.num_refused} refused parts{alike}: "
        f"{request.out} ({size:.1f} MB)"
    )


def write_view(project: Project, request: Request) -> Page:
    """Write the page; returns what it shows.

    Raises:
        ConfigError: no such split, class or run, or a run on another data set.
        DataError: no shards, damaged ones, no such key, or no record that is asked for.
    """
    dataset = request.dataset
    manifest = load_manifest(project.shards(dataset), dataset)
    readers, classes = open_splits(project.shards(dataset), manifest), tuple(manifest["classes"])
    _check(request, readers, classes)
    check_runs(project, dataset, request.runs)
    asked = readers if request.split is None else {request.split: readers[request.split]}
    shown = show_records(
        asked, classes, num=request.num, seed=request.seed, keys=request.keys, name=request.name, dataset=dataset
    )
    changes = show_changes(project, manifest, readers["train"], request.runs, seed=request.seed)
    splits, fingerprints = _read_all(dataset, readers, classes, with_pictures=request.duplicates)
    found = _find(fingerprints) if request.duplicates else None
    rows, num_left = class_rows(splits, classes)
    charts, constant = histograms(splits)
    dropped, mended = quarantine.reasons(manifest)
    text = templates().get_template("view.html").render(
        dataset=dataset, head=_head(manifest, splits), splits=list(readers), classes=rows, num_left=num_left,
        has_pixels=any(one.pixels for one in splits.values()),
        box_sizes=[(size, [one.box_sizes[size] for one in splits.values()]) for size in SIZES],
        histograms=charts, constant=constant, chart=(WIDTH, HEIGHT), words=word_tables(splits), shown=shown,
        dropped=dropped, mended=mended, examples=quarantine.examples(project, dataset, readers, classes),
        found=found, pairs=[_pair(pair, readers) for pair in found.pairs] if found else [], most_bits=MOST_BITS,
        changes=changes, num_draws=NUM_DRAWS,
    )  # fmt: skip
    write_lines(request.out, text.splitlines())
    return Page(shown, found, sum(sum(reason.counts) for reason in dropped))


def _check(request: Request, readers: Mapping[str, SplitReader], classes: Sequence[str]) -> None:
    where = f"data set {request.dataset}"
    if request.split is not None and request.split not in readers:
        raise ConfigError("no such split", value=request.split, allowed=", ".join(readers), where=where)
    if request.name is not None and request.name not in classes:
        raise ConfigError("no such class", value=request.name, allowed=", ".join(classes), where=where)


def _read_all(
    dataset: str, readers: Mapping[str, SplitReader], classes: Sequence[str], *, with_pictures: bool
) -> tuple[dict[str, SplitStatistics], Fingerprints]:
    splits, fingerprints = {split: SplitStatistics() for split in readers}, Fingerprints()
    with progress_bar(f"view {dataset}: records", sum(map(len, readers.values()))) as advance:
        for split, reader in readers.items():
            for position in range(len(reader)):
                record = reader.read(position)
                splits[split].add(record, classes)
                if with_pictures and (picture := thumbnail(record, LEAST_SIDE_PX)) is not None:
                    fingerprints.add(Place(split, position), picture)
                advance(1)
    return splits, fingerprints


def _find(fingerprints: Fingerprints) -> Found:
    with progress_bar("near duplicates", len(fingerprints)) as advance:
        return fingerprints.find(advance, num=_MOST_PAIRS)


def _pair(pair: Pair, readers: Mapping[str, SplitReader]) -> tuple[int, list[tuple[str, str, str]]]:
    """(bits that differ, two of (split, key, data URL))."""
    sides = []
    for place in (pair.one, pair.other):
        record = readers[place.split].read(place.position)
        picture = thumbnail(record, _PAIR_PX)
        assert picture is not None
        sides.append((place.split, record.key, data_url(picture, _PAIR_PX)))
    return pair.bits, sides


def _head(manifest: Mapping[str, Any], splits: Mapping[str, SplitStatistics]) -> list[tuple[str, list[str]]]:
    """Rows of (what, a number for each split)."""
    entries = [manifest["splits"][split] for split in splits]
    names = dict.fromkeys(name for one in splits.values() for name, count in one.amounts.items() if count)
    rows = [("records", [f"{entry['num_samples']:,}" for entry in entries])]
    rows += [
        ("records of the source", [f"{entry['num_source']:,}" for entry in entries]),
        ("shards", [f"{len(entry['shards']):,}" for entry in entries]),
        ("MB in shards", [f"{entry['bytes'] / 1e6:,.1f}" for entry in entries]),
    ]
    return rows + [(name, [f"{one.amounts[name]:,}" for one in splits.values()]) for name in names]
