"""Records of a data set on one page, with all that their shards say of them: `sightline view`.

It looks at what training reads, not at the source's files: what the door changed or left out shows.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from contracts.errors import ConfigError, DataError
from contracts.records import IGNORE_INDEX, Record
from lightning_modules.augment.images import decode_image, decode_record, decode_semantic
from lightning_modules.drawing.shapes import draw_label_map, draw_objects, enlarge, enlargement, legend
from lightning_modules.drawing.text import fit
from lightning_modules.ops.masks import decode_masks
from pipeline.measuring.templates import templates
from pipeline.shards.manifest import load_manifest
from pipeline.shards.reader import SplitReader, open_splits
from pipeline.system.disk import write_lines
from pipeline.system.project import Project

_WIDTH_PX, _FRAMES = 640, 8  # of a picture; of a clip, spread over it


class Shown(NamedTuple):
    """A record's place, its pictures as data URLs, and what is known of it, as (what, text)."""

    split: str
    key: str
    pictures: list[str]
    facts: list[tuple[str, str]]


def write_view(
    project: Project, dataset: str, out: Path, *, split: str | None, num: int, seed: int, keys: Sequence[str],
    name: str | None,
) -> list[Shown]:  # fmt: skip
    """Write the page; returns what it shows.

    Args:
        split: of these records alone; None: of all splits.
        num: so many, in an order drawn by `seed`.
        keys: these records in place of drawn ones.
        name: only records in which this class occurs.

    Raises:
        ConfigError: no such split or class.
        DataError: no shards, no such key, or no record that is asked for.
    """
    manifest = load_manifest(project.shards(dataset), dataset)
    readers, classes = open_splits(project.shards(dataset), manifest), tuple(manifest["classes"])
    if split is not None and split not in readers:
        raise ConfigError("no such split", value=split, allowed=", ".join(readers), where=f"data set {dataset}")
    if name is not None and name not in classes:
        raise ConfigError("no such class", value=name, allowed=", ".join(classes), where=f"data set {dataset}")
    readers = {split: readers[split]} if split is not None else readers
    places = _named(readers, keys, dataset) if keys else _drawn(readers, seed)
    shown = []
    for where, position in places:
        record = readers[where].read(position)
        if name is None or name in _names(record, classes):
            shown.append(Shown(where, record.key, _pictures(record, classes), _facts(record, classes)))
        if len(shown) == num and not keys:
            break
    if not shown:
        raise DataError("no record to show", value=name or num, where=f"data set {dataset}, split {split or 'any'}")
    sizes = {name: len(reader) for name, reader in readers.items()}
    page = templates().get_template("view.html").render(dataset=dataset, sizes=sizes, classes=classes, shown=shown)
    write_lines(out, page.splitlines())
    return shown


def _drawn(readers: dict[str, SplitReader], seed: int) -> Iterator[tuple[str, int]]:
    places = [(split, position) for split, reader in readers.items() for position in range(len(reader))]
    yield from (places[i] for i in np.random.default_rng(seed).permutation(len(places)))


def _named(readers: dict[str, SplitReader], keys: Sequence[str], dataset: str) -> list[tuple[str, int]]:
    found = {key: (split, i) for split, reader in readers.items() for i, key in enumerate(reader.keys())}
    if missing := [key for key in keys if key not in found]:
        some = ", ".join(list(found)[:5])
        raise DataError("no record has this key", value=missing, allowed=f"{some} ...", where=f"data set {dataset}")
    return [found[key] for key in keys]


def _names(record: Record, classes: Sequence[str]) -> set[str]:
    """Classes that occur, as objects, of the whole, of frames, or as pixels."""
    names = {classes[label - 1] for label in record.objects.labels}
    names |= {*record.labels, *(name for frame in record.labels_by_frame() for name in frame)}
    if record.semantic_mask:
        labels = set(np.unique(decode_semantic(record.semantic_mask)).tolist()) - {0, IGNORE_INDEX}
        names |= {classes[label - 1] for label in labels}
    return names


def _pictures(record: Record, classes: Sequence[str]) -> list[str]:
    if record.media == "clip":
        places = np.unique(np.linspace(0, len(record.frames) - 1, _FRAMES).round().astype(int))
        frames = [fit(decode_image(record.frames[i]), _WIDTH_PX // 4) for i in places]
        rows = [np.concatenate(frames[i : i + 4], axis=1) for i in range(0, len(frames), 4)]
        return [_url(row) for row in rows]
    if record.media == "text":
        return []
    image, objects = decode_record(record), record.objects
    drawn = [enlarge(image, enlargement(image))]
    if len(objects):
        masks = np.zeros((len(objects), *image.shape[:2]), np.uint8)
        has_mask = [i for i, mask in enumerate(objects.masks) if mask]
        masks[has_mask] = decode_masks([objects.masks[i] for i in has_mask], image.shape[:2])
        flags = zip(objects.labels, objects.is_crowd, objects.is_difficult, strict=True)
        texts = [
            classes[label - 1] + " (crowd)" * bool(crowd) + " (difficult)" * bool(difficult)
            for label, crowd, difficult in flags
        ]
        drawn = [draw_objects(image, objects.boxes, objects.labels, texts, masks)]
    if record.semantic_mask:
        labels = decode_semantic(record.semantic_mask)
        found = sorted(set(np.unique(labels).tolist()) - {0, IGNORE_INDEX})
        picture = draw_label_map(image, labels, IGNORE_INDEX)
        drawn.append(np.concatenate([picture, legend(picture.shape[1], [(i, classes[i - 1]) for i in found])]))
    return [_url(picture) for picture in drawn]


def _url(picture: np.ndarray) -> str:
    """As a JPEG inside the page, no wider than is looked at."""
    small = fit(picture, _WIDTH_PX) if picture.shape[1] > _WIDTH_PX else picture
    data = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])[1]
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


def _facts(record: Record, classes: Sequence[str]) -> list[tuple[str, str]]:
    facts = [("size", f"{record.width} x {record.height} px")] if record.media != "text" else []
    if record.group != record.key:
        facts.append(("group", record.group))
    if record.frames:
        facts.append(("frames", f"{len(record.frames)}, to {record.times_s[-1]:.2f} s"))
    if counted := Counter(classes[label - 1] for label in record.objects.labels):
        facts.append(("objects", ", ".join(f"{count} {name}" for name, count in counted.most_common())))
    facts += [("class", name) for name in record.labels]
    facts += [("segment", f"{s.start_s:.2f} to {s.end_s:.2f} s: {s.label}") for s in record.segments]
    facts += [("caption", caption.text) for caption in record.captions]
    for question in record.questions:
        right = question.answer_index
        marked = (f"{text} (right)" * (i == right) or text for i, text in enumerate(question.candidates))
        answers = "; ".join(marked) or ", ".join(dict.fromkeys(question.answers)) or "no answer given"
        facts.append(("question", f"{question.text} - {answers}"))
    facts += [(" ".join(filter(None, (s.role, s.language))), s.text) for s in record.sentences]
    if record.transcript is not None:
        facts.append(("transcript", record.transcript.text))
    if record.proposals is not None:
        facts.append(("proposals", str(len(record.proposals.boxes))))
    return facts
