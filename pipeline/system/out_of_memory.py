"""Memory that was refused: how it is told apart from other errors, and what to do about it."""

from __future__ import annotations

import re

_NO_MEMORY = re.compile(
    r"std::bad_alloc|MemoryError|OutOfMemoryError|out of memory|can't allocate memory", re.IGNORECASE
)
MEMORY_FIX = "ask for less: cluster.num_workers, loader.num_workers, train.batch_size, train.micro_batch_size"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was refused to a process, in the words of Python, of torch (of a GPU, too) or of C++."""
    return isinstance(error, MemoryError) or bool(_NO_MEMORY.search(f"{type(error).__name__}: {error}"))
