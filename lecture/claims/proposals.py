"""Where objects may be: every box, a sliding window's, and Selective Search's (rows S29 to S31)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

import numpy as np

from contracts.records import Record
from lightning_modules.augment.images import decode_record
from lightning_modules.metrics.bootstrap import intervals
from lightning_modules.metrics.proposals import measure_proposals
from lightning_modules.ops.selective_search import selective_search
from lightning_modules.ops.windows import count_all_boxes, random_boxes, sliding_windows
from lightning_modules.reports._plots import Plot, bar
from pipeline.measuring.claims import Claim, Measured, Results, Row

TITLE = "Where objects may be"
INTRODUCTION = (
    "Before a network made its own proposals, a classifier was run on crops. Of the same scenes as in the chapters on "
    "segmentation and detectors, 60 are searched by boxes that know nothing of the picture, and by Selective Search, "
    "which joins segments that look alike. Nothing is trained here."
)
DATASET, NUM_RECORDS = "scenes", 60
COUNTS = (10, 100, 1000)
RANDOM, WINDOWS, SEARCH = "random boxes", "sliding windows", "Selective Search"


def claims(results: Results) -> list[Claim]:
    records = list(islice(results.records(DATASET), NUM_RECORDS))
    found = {what: _rows(what, find, records) for what, find in _FINDERS.items()}
    return [_too_many(records, found), _few_do(records, found)]


def _shuffled_windows(record: Record) -> np.ndarray:
    windows = sliding_windows((record.height, record.width), scales=(32, 48, 64), ratios=(0.5, 1, 2), stride=8)
    return windows[np.random.default_rng(0).permutation(len(windows))]  # they have no order of merit


_FINDERS: dict[str, Callable[[Record], np.ndarray]] = {
    RANDOM: lambda record: random_boxes((record.height, record.width), max(COUNTS), seed=0, min_side=8),
    WINDOWS: _shuffled_windows,
    SEARCH: lambda record: selective_search(decode_record(record), scales=(25, 50), min_side=8)[0],
}


def _rows(what: str, find: Callable[[Record], np.ndarray], records: Sequence[Record]) -> dict[str, Row]:
    """By metric, and the mean number of boxes a scene as "boxes"."""
    learnt = [~record.objects.is_crowd & ~record.objects.is_difficult for record in records]
    proposals = {record.key: find(record) for record in records}
    measurement = measure_proposals(
        proposals,
        {record.key: record.objects.boxes[own] for record, own in zip(records, learnt, strict=True)},
        counts=COUNTS,
        labels={record.key: record.objects.labels[own] for record, own in zip(records, learnt, strict=True)},
    )
    limits = intervals([measurement])
    numbers = {
        name: (value, *limits.get(name, (None, None)))
        for name, value in measurement.values.items()
        if name.startswith(("recall", "MABO"))
    }
    numbers["boxes"] = (float(np.mean([len(boxes) for boxes in proposals.values()])), None, None)
    return {
        name: Row(
            what=f"{what}: {name}",
            measured=[Measured(run="", name=name, value=value, low=low, high=high, constant=None)],
        )
        for name, (value, low, high) in numbers.items()
    }


def _too_many(records: Sequence[Record], found: dict[str, dict[str, Row]]) -> Claim:
    height, width = max((record.height, record.width) for record in records)
    every, visited = count_all_boxes((height, width)), found[WINDOWS]["boxes"].value
    row = found[WINDOWS]["recall_70@1000"]
    return Claim(
        name="too-many-places",
        says="A CNN on every crop: there are far too many places, sizes and shapes",
        slides=("S29", "S30"),
        holds=every > 1e6 and row.value < 0.95,
        because=f"A picture of {width} x {height} px has {every:,} boxes. Nine shapes each 8 px are {visited:.0f} "
        f"of them, a network's run each, and {1 - row.value:.0%} of the objects have none that overlaps by 0.7.",
        figure=bar("places", ("what", "boxes a scene"), [(what, rows["boxes"].value) for what, rows in found.items()],
                   title="Boxes that are looked at in a scene"),
        rows=[found[WINDOWS][name] for name in ("boxes", "recall_50@1000", "recall_70@1000", "MABO@1000")],
        note="A photograph of 500 x 375 px has 8,830,125,000 boxes.",
    )  # fmt: skip


def _few_do(records: Sequence[Record], found: dict[str, dict[str, Row]]) -> Claim:
    names = [f"{metric}@{k}" for metric in ("recall_50", "MABO") for k in COUNTS]
    search, windows = found[SEARCH], found[WINDOWS]
    points = [(k, rows[f"MABO@{k}"].value, what) for what, rows in found.items() for k in COUNTS]
    columns = ("boxes a scene", "mean average best overlap", "from")
    return Claim(
        name="segments-propose-well",
        says="Selective Search finds nearly all objects with few proposals",
        slides=("S31",),
        holds=search["recall_50@100"].value >= 0.98 and search["MABO@100"].value > windows["MABO@1000"].value,
        because=f"Its best 100 boxes find {search['recall_50@100'].value:.1%} of the objects and overlap them by "
        f"{search['MABO@100'].value:.3f} in the mean; {windows['boxes'].value:.0f} windows by "
        f"{windows['MABO@1000'].value:.3f}.",
        figure=Plot(name="proposals", kind="curve", columns=columns, rows=points, x=columns[0], y=columns[1],
                    series=columns[2], title="How well the best k boxes fit"),
        rows=[rows[name] for rows in found.values() for name in names],
        note="Fast mode, with finer segments than for photographs. Of photographs of VOC 2007 it gave 2,261 boxes in "
        "1.8 s on one core (docs/proposals.md): about 2,000 in a few seconds, as the lecture says. There 100 are "
        "no better than 1,000 windows; 1,000 of them are.",
    )  # fmt: skip
