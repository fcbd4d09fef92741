"""Records of a data set as `sightline view` shows them: which ones, and what is known of each in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from contracts.errors import DataError
from contracts.records import IGNORE_INDEX, Record
from lightning_modules.augment.images import decode_semantic
from pipeline.measuring.viewing.pictures import drawn
from pipeline.shards.reader import SplitReader

_MOST_FACTS = 30  # lines of a record: Visual Genome has fifty questions an image


class Shown(NamedTuple):
    """A record's place, its pictures as data URLs, and what is known of it, as (what, text)."""

    split: str
    key: str
    pictures: list[str]
    facts: list[tuple[str, str]]


def show_records(
    readers: Mapping[str, SplitReader], classes: Sequence[str], *, num: int, seed: int, keys: Sequence[str],
    name: str | None, dataset: str,
) -> list[Shown]:  # fmt: skip
    """`num` records in an order drawn by `seed`, or those of `keys`; of them those in which class `name` occurs.

    Raises:
        DataError: no such key, or no record that is asked for.
    """
    places = _named(readers, keys, dataset) if keys else _drawn(readers, seed)
    shown: list[Shown] = []
    for split, position in places:
        record = readers[split].read(position)
        if name is None or name in class_names(record, classes):
            shown.append(Shown(split, record.key, drawn(record, classes), facts(record, classes)))
        if len(shown) == num and not keys:
            break
    if not shown:
        raise DataError("no record to show", value=name or num, where=f"data set {dataset}, {', '.join(readers)}")
    return shown


def _drawn(readers: Mapping[str, SplitReader], seed: int) -> Iterator[tuple[str, int]]:
    places = [(split, position) for split, reader in readers.items() for position in range(len(reader))]
    yield from (places[i] for i in np.random.default_rng(seed).permutation(len(places)))


def _named(readers: Mapping[str, SplitReader], keys: Sequence[str], dataset: str) -> list[tuple[str, int]]:
    found = {key: (split, i) for split, reader in readers.items() for i, key in enumerate(reader.keys())}
    if missing := [key for key in keys if key not in found]:
        some = ", ".join(list(found)[:5])
        raise DataError("no record has this key", value=missing, allowed=f"{some} ...", where=f"data set {dataset}")
    return [found[key] for key in keys]


def class_names(record: Record, classes: Sequence[str]) -> set[str]:
    """Classes that occur, as objects, of the whole, of frames, or as pixels."""
    found = {classes[label - 1] for label in record.objects.labels}
    found |= {*record.labels, *(name for frame in record.labels_by_frame() for name in frame)}
    if record.semantic_mask:
        labels = set(np.unique(decode_semantic(record.semantic_mask)).tolist()) - {0, IGNORE_INDEX}
        found |= {classes[label - 1] for label in labels}
    return found


def facts(record: Record, classes: Sequence[str]) -> list[tuple[str, str]]:
    """What is known of a record, as (what, text)."""
    found = [("size", f"{record.width} x {record.height} px")] if record.media != "text" else []
    if record.group != record.key:
        found.append(("group", record.group))
    if record.frames:
        found.append(("frames", f"{len(record.frames)}, to {record.times_s[-1]:.2f} s"))
    if counted := Counter(classes[label - 1] for label in record.objects.labels):
        found.append(("objects", ", ".join(f"{count} {name}" for name, count in counted.most_common())))
    found += [("class", name) for name in record.labels]
    found += [("segment", f"{s.start_s:.2f} to {s.end_s:.2f} s: {s.label}") for s in record.segments]
    found += [("caption", caption.text) for caption in record.captions]
    for question in record.questions:
        right = question.answer_index
        marked = (f"{text} (right)" * (i == right) or text for i, text in enumerate(question.candidates))
        answers = "; ".join(marked) or ", ".join(dict.fromkeys(question.answers)) or "no answer given"
        found.append(("question", f"{question.text} - {answers}"))
    found += [(" ".join(filter(None, (s.role, s.language))), s.text) for s in record.sentences]
    if record.transcript is not None:
        found.append(("transcript", record.transcript.text))
    if record.proposals is not None:
        found.append(("proposals", str(len(record.proposals.boxes))))
    if (more := len(found) - _MOST_FACTS) > 0:
        found = [*found[:_MOST_FACTS], ("and", f"{more} more")]
    return found
