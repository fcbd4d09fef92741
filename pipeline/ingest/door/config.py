"""What is the same for all records of a data set at the door."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from contracts.raw import ImagePart
from contracts.searching import Search
from pipeline.ingest.door.images import MAX_PIXELS, Exif, other_form, read_bytes
from pipeline.ingest.door.shrink import Shrink
from pipeline.system.reading import check_folder


class Elsewhere(Protocol):
    """Where files are read that only have a name here."""

    def read(self, path: Path, missing: str, part: ImagePart | None = None) -> bytes: ...

    def local(self, path: Path) -> AbstractContextManager[Path]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorConfig:
    """What is the same for all records of a data set.

    Args:
        root: the data set's folder, which every node that opens files must have, and that no file may lie outside of;
            None where that is not known.
        follow_links: files may be links that lead out of `root`.
        max_pixels: of an image, mask or frame; compared with what its header announces, before it is decoded.
        shrink: how large images are made smaller; None keeps them.
        exif: what an orientation tag means for the annotations (`pipeline/ingest/door/images.py`).
        search: how proposals are looked for in images that come without; None does not look.
        store: url of the folder in a store that holds what `root` has names of; None: `root` holds it.
        elsewhere: reads from there.
    """

    root: Path | None = None
    follow_links: bool = False
    max_pixels: int = MAX_PIXELS
    shrink: Shrink | None = None
    exif: Exif = "auto"
    search: Search | None = None
    store: str | None = None
    elsewhere: Elsewhere | None = None

    def check_root(self) -> None:
        """Raise DataError unless this host has `root`."""
        if self.root is not None and self.store is None:
            check_folder(self.root)

    def read(self, path: Path, missing: str, part: ImagePart | None = None) -> bytes:
        if self.elsewhere is not None:
            return self.elsewhere.read(path, missing, part)
        return read_bytes(path, missing, self.root, follow_links=self.follow_links, part=part)

    def local(self, path: Path) -> AbstractContextManager[Path]:
        """A file that `read` has found, on this machine."""
        if self.elsewhere is not None:
            return self.elsewhere.local(path)
        return nullcontext(path if path.exists() else other_form(path) or path)


DEFAULT_DOOR = DoorConfig()
