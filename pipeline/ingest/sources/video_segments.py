"""Videos, and text files that say when what is seen in them.

`layout: class_files`, as MultiTHUMOS (1507.05738) has it: a file a class, `annotations/<Class>.txt`, with lines `video
start end`. `layout: video_files`, as GRID has it: a file a video, `<video>.align`, with lines `start end class`.
Segments may overlap.

Times are numbers of `unit_s` seconds: 1 for seconds, 0.04 for frames of 25 a second, 0.00004 for GRID.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from contracts.annotations import Segment
from contracts.errors import ConfigError
from contracts.ranges import AMOUNT, POSITIVE, check_ranges
from contracts.raw import Problem, RawRecord
from pipeline.ingest.sources._files import check_classes, check_folders, check_template, number, shown
from pipeline.ingest.sources._images import files_below
from pipeline.ingest.sources._lines import lines_of
from pipeline.ingest.sources._splits import SPLITS, SplitNames, names_there
from pipeline.ingest.sources._videos import Video, VideoConfig, Videos, is_taken
from pipeline.system.reading import is_folder


@dataclass(frozen=True, kw_only=True)
class Config(VideoConfig):
    """`videos` and `annotations` are folders below the data set's, "." that one itself; files may lie deeper in them.

    `names` says which videos are of a split: those whose name begins so, `video_{split}_` for MultiTHUMOS, with
    `splits: {train: validation, val: test}`; without `{split}` all are train's, from which `split: {val: 0.1}` draws.
    `group` is how many letters at a name's start say what belongs together; 0: each video stands alone.

    `layout` says what an annotation file is of, `unit_s` how long a number in it is, in seconds. `suffix` is that of
    these files, `skip` are classes that are none, such as GRID's `sil`. `classes` is the class list; otherwise it is
    that of the files. A video that no file names has no segment and is kept.
    """

    videos: str = "videos"
    annotations: str = "annotations"
    layout: Literal["class_files", "video_files"] = "class_files"
    suffix: str = ".txt"
    unit_s: float = 1.0
    names: str = ""
    group: int = 0
    skip: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    splits: SplitNames = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, unit_s=POSITIVE, group=AMOUNT)
        check_template("names", self.names, split="train")
        check_classes(self.classes)
        for folder in (self.videos, self.annotations):
            check_folders((folder,))
        if not self.suffix.startswith("."):
            raise ConfigError("suffix must begin with a dot", value=self.suffix, allowed=".txt")


def splits(root: Path, config: Config) -> tuple[str, ...]:
    """Splits that have a video.

    Raises:
        DataError: one of a split's names has none.
    """
    videos = Videos(root, config.videos)
    return tuple(split for split in SPLITS if _names(videos, split, config))


def _names(videos: Videos, split: str, config: Config) -> list[str]:
    """What the names of a split's videos begin with."""
    if "{split" not in config.names:
        return [config.names] if split == "train" and any(_of(videos, config.names)) else []
    if is_taken(split, config.splits):
        return []
    found = names_there(split, config.splits, lambda name: any(_of(videos, _start(config, name))), config.names)
    return [_start(config, name) for name in found]


def _start(config: Config, name: str) -> str:
    return config.names.format(split=name)


def _of(videos: Videos, start: str) -> Iterator[Video]:
    return (video for video in videos.all() if video.file.name.startswith(start))


def classes(root: Path, config: Config) -> tuple[str, ...]:
    """The configured list, or the classes of all files, sorted as text, without those to skip."""
    if config.classes:
        return config.classes
    if config.layout == "class_files":
        found = {path.stem for path in _files(root, config)}
    else:
        lines = (line.split() for path in _files(root, config) for line in _lines(path))
        found = {words[2] for words in lines if len(words) == 3}
    return tuple(sorted(found - set(config.skip)))


def _files(root: Path, config: Config) -> list[Path]:
    folder = root / config.annotations
    return list(files_below(folder, (config.suffix.lower(),))) if is_folder(folder) else []


def _lines(path: Path) -> Iterator[str]:
    return (line.decode("utf-8", "replace").strip() for line in lines_of(path))


def read(root: Path, split: str, config: Config) -> Iterator[RawRecord | Problem]:
    """One record per video, in ascending key order, after the problems of the annotation files."""
    videos = Videos(root, config.videos)
    segments: dict[Path, list[Segment]] = {}
    told: dict[Path, Path] = {}
    for path in _files(root, config):
        for place, line in enumerate(_lines(path), start=1):
            if not line:
                continue
            found = _segment(line, path, config)
            if found is None:
                if split == "train":  # a file is of all splits; its mistakes are told once
                    yield _problem("bad_segment_line", path, place, line)
                continue
            name, segment = found
            video = videos.find(name)
            if video is None:
                if split == "train":
                    yield _problem("unknown_video", path, place, line)
            elif segment.label not in config.skip:
                segments.setdefault(video.file, []).append(segment)
                told.setdefault(video.file, path)
    chosen = {video.key: video for start in _names(videos, split, config) for video in _of(videos, start)}
    for key, video in sorted(chosen.items()):
        yield RawRecord(
            key=key,
            image_id=video.name,
            group=video.file.stem[: config.group],
            video=config.kept(video.file),
            annotation_file=str(told.get(video.file, root / config.annotations)),
            segments=tuple(sorted(segments.get(video.file, ()), key=lambda s: (s.start_s, s.end_s, s.label))),
        )


def _segment(line: str, path: Path, config: Config) -> tuple[str, Segment] | None:
    """The video of a line and its segment; None for a line that is none."""
    words = line.split()
    if len(words) != 3:
        return None
    if config.layout == "class_files":
        name, start, end, label = *words, path.stem
    else:
        start, end, label = words
        name = path.stem
    begins, ends = number(start)[0], number(end)[0]
    if begins is None or ends is None:
        return None
    return name, Segment(start_s=begins * config.unit_s, end_s=ends * config.unit_s, label=label)


def _problem(reason: str, path: Path, place: int, line: str) -> Problem:
    return Problem(reason=reason, kind="segment", file=str(path), item_id=f"line {place}", detail=shown(line))
