"""How a state gets to the disk and back: straight into its folder, and never by running what a file holds."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from contracts.errors import DataError, TrainingError
from pipeline.system.disk import sync

_WRITER = ("PytorchStreamWriter", "inline_container")  # torch's names for itself when a file takes no more


class StateFile(TorchCheckpointIO):
    """Lightning's own way goes through memory and the system's temporary folder, and unpickles if it is not told."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        write(checkpoint, Path(path))

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        try:
            return torch.load(path, map_location=map_location, weights_only=True)
        except Exception as error:  # torch raises whatever the bytes lead it to
            raise DataError(
                "the state cannot be read; no code in it was run",
                value=str(error)[:200],
                where=str(path),
                allowed="tensors and plain values, as training writes them",
                fix="remove this file and run the same command again: it goes on from the state before",
            ) from error


def write(document: dict[str, Any], part: Path) -> None:
    """`document` into the temporary file `part`, as far as the disk; the caller gives it its name.

    Raises:
        TrainingError: it cannot be written; the file is gone again.
    """
    with told(part, num_bytes(document)):
        with open(part, "wb"):
            pass  # torch tells a folder that is not there or may not be written as a text without a number
        torch.save(document, part)
        sync(part)


@contextmanager
def told(part: Path, needed: int) -> Iterator[None]:
    """Failures to write say which path, and how much room is needed there.

    Raises:
        TrainingError: in place of what the system or torch raises; `part` is gone again.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(name in str(error) for name in _WRITER):
            raise
        part.unlink(missing_ok=True)
        free = shutil.disk_usage(part.parent).free if part.parent.is_dir() else 0
        number = getattr(error, "errno", None) or getattr(error.__context__, "errno", None)
        full = number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or free < needed
        raise TrainingError(
            "the state cannot be written" + (": no room" if full else "") + "; the one before it is whole",
            value=f"{needed / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free; {str(error)[:200]}",
            where=str(part),
            fix="make room there (`make clean-state` removes what no run goes on from) and run the same command again",
        ) from error


def num_bytes(document: Any) -> int:
    """Of all tensors in a nested document."""
    if isinstance(document, torch.Tensor):
        return document.nbytes
    values = document.values() if isinstance(document, dict) else document if isinstance(document, list | tuple) else ()
    return sum(num_bytes(value) for value in values)
