"""Whether there is something to learn, asked after shard: a run on nothing looks like a perfect one.

What makes every run senseless is a DataError; what is odd and may be meant is a note. Both name the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from contracts.errors import DataError

_NUM_SHOWN = 10
# What an object, a pixel, an image or a frame shows: (where it was found, label).
Labels = Counter[tuple[str, int]]
_FOUND = {
    "object": ("annotated object", "num_objects"),
    "pixel": ("pixel of a label mask", "has_semantic"),
    "image": ("image", "num_labels"),
    "frame": ("frame", "num_frame_labels"),
}


def check_labels(
    dataset: str, classes: Sequence[str], labels: Labels, totals: Mapping[str, int], where: str
) -> list[str]:
    """Compare the class list with what the training split shows; returns notes.

    Args:
        labels: the objects, pixels, images (or clips) and frames of the training split by kind (a key of `_FOUND`) and
            label; ignored pixels and crowds do not count.
        totals: the training split's entry of the manifest.
        where: the file that annotates the first record.

    Raises:
        DataError: not one class of the list is there.
    """
    notes = []
    for kind, (what, column) in _FOUND.items():
        if not totals.get(column):
            continue
        missing = [name for label, name in enumerate(classes, start=1) if not labels[kind, label]]
        if classes and len(missing) == len(classes):
            raise DataError(
                f"no class of {dataset} has a single {what} in the training split",
                value=_listed(missing),
                where=where,
                allowed="label masks hold 0 for background, 1 for the first class and so on; 255 is ignored",
                fix="save the masks with the classes' numbers, or say what their values mean: "
                f"sources.voc.mask_values: {{background: 0, {classes[0]}: 255}}",
            )
        if missing:
            notes.append(f"{dataset}: {len(missing)} of {len(classes)} classes have no {what} in the training split: "
                         f"{_listed(missing)}; they cannot be learned ({where})")  # fmt: skip
    if classes and not any(totals.get(column) for _, column in _FOUND.values()):
        nothing = "no object, no label mask and no labelled image or frame"
        what = f"{dataset} lists classes, but its training split has {nothing}"
        if not totals.get("num_captions") and not totals.get("num_questions"):
            raise DataError(
                what, value=_listed(classes), where=where,
                fix="look whether the annotations of the training split are where the sources look for them",
            )  # fmt: skip
        notes.append(f"{what} ({where})")
    return notes + _alike(dataset, classes)


def _alike(dataset: str, classes: Sequence[str]) -> list[str]:
    """Notes on names that differ by capitals or blanks alone."""
    groups: dict[str, list[str]] = {}
    for name in classes:
        groups.setdefault("".join(name.casefold().split()), []).append(name)
    return [
        f"{dataset}: the classes {' and '.join(map(repr, names))} differ in capitals or blanks alone and are "
        "learned as different ones; if they are one, give them one name in the annotation files"
        for names in groups.values()
        if len(names) > 1
    ]


def missing_masks(dataset: str, splits: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Notes on images without a label mask where others have one. `splits`: the manifest's."""
    counts = {name: (split["totals"].get("has_semantic", 0), split["num_samples"]) for name, split in splits.items()}
    return [
        f"{dataset}, split {name}: {samples - masks} of {samples} images have no label mask; segmentation skips them"
        for name, (masks, samples) in counts.items()
        if 0 < masks < samples
    ]


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NUM_SHOWN
    return ", ".join(names[:_NUM_SHOWN]) + (f" and {more} more" if more > 0 else "")
