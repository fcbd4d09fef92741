"""Whether everything is used once: what two splits share, and pictures that no split has."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from contracts.errors import DataError
from contracts.records import Record
from pipeline.ingest.sources._files import IMAGE_SUFFIXES
from pipeline.system.reading import is_folder, listed

_KINDS = {
    "image": ("images", "byte for byte"),
    "clip": ("clips", "byte for byte"),
    "text": ("texts", "letter by letter"),
    "group": ("groups", "by name"),
}
Seen = Mapping[str, np.ndarray]  # kind, a key of `_KINDS` -> digests, uint64


def identities(record: Record) -> dict[str, int]:
    """Digests of what another split must not have, by kind: the pixels, else the sentences; the group if it has one."""
    found: dict[str, int] = {}
    if record.image_format:
        found["image"] = _digest(record.image)
    elif record.frames:
        found["clip"] = _digest(*record.frames)
    elif record.sentences:
        found["text"] = _digest(*(sentence.text.encode() for sentence in record.sentences))
    if record.group != record.key:
        found["group"] = _digest(record.group.encode())
    return found


def _digest(*parts: bytes) -> int:
    digest = hashlib.blake2b(parts[0], digest_size=8)
    for part in parts[1:]:
        digest.update(b"\0")
        digest.update(part)
    return int.from_bytes(digest.digest())


def joined(shards: Sequence[Seen]) -> dict[str, np.ndarray]:
    """The digests of all shards of a split; a group once."""
    found = {kind: [seen[kind] for seen in shards if kind in seen] for kind in _KINDS}
    columns = {kind: np.concatenate(parts) for kind, parts in found.items() if parts}
    return columns | {kind: np.unique(column) for kind, column in columns.items() if kind == "group"}


def check_shared(dataset: str, splits: Mapping[str, Seen], max_shared: int | None) -> list[str]:
    """Notes on pictures, texts and groups that are in two splits; what is measured on them was learned by heart.

    Args:
        splits: each split's digests by kind.
        max_shared: how many of a kind two splits may share; None: any number.

    Raises:
        DataError: two splits share more.
    """
    notes = []
    for (one, first), (other, second) in itertools.combinations(splits.items(), 2):
        for kind, (what, how) in _KINDS.items():
            shared = int(np.isin(second[kind], first[kind]).sum()) if kind in first and kind in second else 0
            if not shared:
                continue
            told = f"{shared} of {len(second[kind])} {what} of split {other!r} of {dataset} are in split {one!r} too"
            if max_shared is not None and shared > max_shared:
                raise DataError(
                    f"{told}, {how}", where=f"datasets.{dataset}", allowed=f"max_shared: {max_shared}",
                    fix="take them out of one of the splits, or raise max_shared",
                )  # fmt: skip
            notes.append(f"{told}, {how}: a score on them says little; `max_shared: 0` refuses this")
    return notes


def unused_images(dataset: str, folders: Mapping[Path, int]) -> list[str]:
    """Notes on image files that lie beside those of the records and that no annotation file names.

    Args:
        folders: how many records have their image in each folder.
    """
    notes = []
    for folder, used in sorted(folders.items()):
        if not is_folder(folder):
            continue
        unused = sum(path.suffix.lower() in IMAGE_SUFFIXES for path in listed(folder)) - used
        if unused > 0:
            notes.append(
                f"{dataset}: {unused} images in {folder} are in no split: no list and no annotation names them"
            )
    return notes
