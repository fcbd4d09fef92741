"""Whether every picture is used once: those that two splits share, and those that no split has."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from contracts.errors import DataError
from pipeline.ingest.sources._files import IMAGE_SUFFIXES
from pipeline.system.reading import is_folder, listed


def check_shared(dataset: str, images: Mapping[str, np.ndarray], max_shared: int | None) -> list[str]:
    """Notes on pictures that are in two splits, byte for byte; what is measured on them was learned by heart.

    Args:
        images: each split's digests of images, uint64.
        max_shared: how many two splits may share; None: any number.

    Raises:
        DataError: two splits share more.
    """
    notes = []
    for (one, first), (other, second) in itertools.combinations(images.items(), 2):
        shared = int(np.isin(second, first).sum())
        if not shared:
            continue
        what = f"{shared} of {len(second)} images of split {other!r} of {dataset} are in split {one!r} too"
        if max_shared is not None and shared > max_shared:
            raise DataError(
                f"{what}, byte for byte", where=f"datasets.{dataset}", allowed=f"max_shared: {max_shared}",
                fix="take them out of one of the splits, or raise max_shared",
            )  # fmt: skip
        notes.append(f"{what}, byte for byte: a score on them says little; `max_shared: 0` refuses this")
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
