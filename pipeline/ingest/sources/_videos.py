"""What sources of video files share: which videos lie below a folder, their names, and which frames are kept."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from contracts.errors import ConfigError
from contracts.ranges import COUNT, POSITIVE, check_ranges
from contracts.raw import Problem, RawVideo
from pipeline.ingest.sources._files import image_key
from pipeline.ingest.sources._images import files_below
from pipeline.ingest.sources._splits import SplitNames, split_names
from pipeline.ingest.tree import VIDEOS
from pipeline.system.reading import is_folder


@dataclass(frozen=True, kw_only=True)
class VideoConfig:
    """What every source of videos may be told: each `every`th frame is kept, or as many a second as `fps` says."""

    every: int = 1
    fps: float | None = None

    def __post_init__(self) -> None:
        check_ranges(self, every=COUNT, fps=POSITIVE)
        if self.fps is not None and self.every > 1:
            raise ConfigError("both say which frames are kept", value={"every": self.every, "fps": self.fps},
                              allowed="one of every and fps")  # fmt: skip

    def kept(self, file: Path) -> RawVideo:
        """What is decoded of a file."""
        return RawVideo(file=file, every=self.every, fps=self.fps)


@dataclass(frozen=True)
class Video:
    """A video file of a data set: its record key, and its path below the data set's folder."""

    file: Path
    key: str
    name: str


class Videos:
    """The video files below a folder, found by name: with or without ending, in small or capital letters.

    Of several files of one name the first by path counts, and one whose path ends as it was asked for goes before it.
    """

    def __init__(self, root: Path, folder: str):
        self._root = root
        base = root / folder
        self._by_name: dict[str, list[Path]] = {}
        for path in files_below(base, VIDEOS) if is_folder(base) else ():
            self._by_name.setdefault(path.stem.casefold(), []).append(path)

    def find(self, name: str) -> Video | None:
        """The file of `name`, which may have folders in front and an ending behind."""
        path = Path(name)
        stem = path.stem if path.suffix.lower() in VIDEOS else path.name
        found = self._by_name.get(stem.casefold(), [])
        wanted = os.path.splitext(name)[0].casefold() if stem != path.name else name.casefold()
        exact = [file for file in found if file.with_suffix("").as_posix().casefold().endswith(wanted)]
        for file in (*exact, *found):
            below = file.relative_to(self._root).as_posix()
            return Video(file, image_key(file, self._root), below)
        return None

    def all(self) -> Iterable[Video]:
        """Each of them."""
        for files in self._by_name.values():
            for file in files:
                yield Video(file, image_key(file, self._root), file.relative_to(self._root).as_posix())


def is_taken(split: str, splits: SplitNames) -> bool:
    """Whether `splits` gives the files of `split` to another one, as `{val: test}` does: then it is no split itself."""
    others = {name for other in splits for name in split_names(other, splits)}
    return split not in splits and split in others


def list_problem(reason: str, file: Path, item: str, key: str = "", detail: str = "") -> Problem:
    """What is wrong with a line of a list that names a record."""
    return Problem(reason=reason, kind="record", file=str(file), item_id=item, key=key, detail=detail)
