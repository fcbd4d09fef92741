"""`split: {val: 0.1}`: val and test drawn from the records of train, where people have one file.

Every group of images has a number, the digest of seed and name. The smallest numbers are test, the next ones val: the
shares are exact, the same on every machine, and a picture that is added moves few others.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from contracts.errors import DataError
from contracts.raw import RawRecord

# Roboflow writes several augmented copies of one photo, `name_jpg.rf.<digest>.jpg`: they are one picture.
_COPY = re.compile(r"\.rf\.[0-9A-Za-z]{8,}(?=\.|$)")


@dataclass(frozen=True)
class Draw:
    """Which records of train belong to which split.

    Args:
        root: the data set's folder.
        shares: split -> share of the groups.
        by_folder: images of one folder (a video, a patient) are one group, else each image is one. Records that name
            their group are drawn by it in any case.
        bounds: split -> its groups' numbers from (inclusive) .. to (exclusive).
    """

    root: Path
    seed: int
    by_folder: bool
    shares: Mapping[str, float]
    bounds: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def among(self, records: Iterable[RawRecord]) -> Draw:
        """The same with the bounds that give these records the shares; holds eight bytes a group.

        Raises:
            DataError: there are too few groups.
        """
        numbers = np.unique(np.fromiter((self._number(record) for record in records), np.uint64))
        counts = {split: max(1, round(share * len(numbers))) for split, share in self.shares.items()}
        if sum(counts.values()) >= len(numbers):
            what, fix = ("folders", "by: image") if self.by_folder else ("records", "more of them, or smaller shares")
            raise DataError(
                f"too few {what} to draw a split from", value=f"{len(numbers)} {what} for {counts} and train",
                where=str(self.root), allowed=f"at least one of the {what} for each split", fix=fix,
            )  # fmt: skip
        bounds, start = {}, 0
        for split, count in counts.items():
            bounds[split] = (int(numbers[start]), int(numbers[start + count]))
            start += count
        return Draw(self.root, self.seed, self.by_folder, self.shares, bounds)

    def split_of(self, record: RawRecord) -> str:
        number = self._number(record)
        return next((split for split, (low, high) in self.bounds.items() if low <= number < high), "train")

    def _number(self, record: RawRecord) -> int:
        digest = hashlib.sha256(f"{self.seed}\0{self.group(record)}".encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8])

    def group(self, record: RawRecord) -> str:
        """What the record calls its group, else the folder of its image, or its name below the data set's folder."""
        if record.group or record.image is None:
            return record.group or record.key
        path = record.image.relative_to(self.root) if record.image.is_relative_to(self.root) else record.image
        if record.image_part is not None and not record.image_part.is_base64:  # a tar holds many
            path = path / str(record.image_id)
        return path.parent.as_posix() if self.by_folder else _COPY.sub("", path.as_posix())
