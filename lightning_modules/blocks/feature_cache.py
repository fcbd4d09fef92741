"""Features that are computed once and read again: rows of halves, in memory while they are few, else in a file that
has no name and ends with the process.

R-CNN's authors state 200 GB for VOC (1311.2524): 2,000 regions an image, 9,216 numbers of 4 bytes each.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from types import TracebackType

import numpy as np

_IN_MEMORY = 256 << 20  # bytes
_ITEM = np.dtype(np.float16)
_LARGEST = float(np.finfo(_ITEM).max)


class FeatureCache:
    """Blocks of rows (N_i, D), read in the order in which they were written. A context; closed, all is gone.

    Attributes:
        counts: rows of each block.
        num_bytes: of all of them.
    """

    def __init__(self, num_features: int):
        self.num_features = num_features
        self.counts: list[int] = []
        self.num_bytes = 0
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115  # closed by the context

    def __enter__(self) -> FeatureCache:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._file.close()

    def append(self, rows: np.ndarray) -> None:
        """One more block (N, D), N perhaps 0."""
        assert rows.ndim == 2 and rows.shape[1] == self.num_features
        self._file.seek(self.num_bytes)
        self.num_bytes += self._file.write(rows.clip(-_LARGEST, _LARGEST).astype(_ITEM).tobytes())
        self.counts.append(len(rows))

    def __iter__(self) -> Iterator[np.ndarray]:
        """The blocks (N_i, D) float32."""
        start = 0
        for count in self.counts:
            self._file.seek(start)
            num_bytes = count * self.num_features * _ITEM.itemsize
            rows = np.frombuffer(self._file.read(num_bytes), _ITEM).reshape(count, self.num_features)
            start += num_bytes
            yield rows.astype(np.float32)

    def rows(self) -> np.ndarray:
        """All of them (sum N_i, D) float32."""
        return np.concatenate([np.zeros((0, self.num_features), np.float32), *self])
