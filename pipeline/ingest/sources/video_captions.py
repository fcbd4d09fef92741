"""Videos with captions in a table or in lines of text.

A table has a line with the names of its columns: `video,caption`, separated by commas (`.csv`) or tabs (`.tsv`). MSVD's
(Chen and Dolan, 2011) is one, `VideoID,Start,End,..,Language,Description`: with `video: "{VideoID}_{Start}_{End}"`,
`caption: Description` and `where: {Language: English}`; its captions are in many languages.

Any other file has a caption a line: a video's name, a blank or a tab, and the rest of the line. So are MSVD's
`AllVideoDescriptions.txt` (`mv89psg6zh4_33_46 a bird is bathing`, comments begin with `#`) and S2VT's lists
(`vid1<tab>a man is singing`).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from contracts.annotations import Caption
from contracts.errors import ConfigError, DataError
from contracts.raw import Problem, RawRecord
from pipeline.ingest.sources._files import check_folders, check_template, shown
from pipeline.ingest.sources._lines import lines_of
from pipeline.ingest.sources._splits import SPLITS, SplitNames, names_there
from pipeline.ingest.sources._videos import Video, VideoConfig, Videos, is_taken, list_problem
from pipeline.system.reading import is_file

_TABLES = {".csv": ",", ".tsv": "\t"}
_FIELD = re.compile(r"\{(\w[\w ]*)\}")


@dataclass(frozen=True, kw_only=True)
class Config(VideoConfig):
    """`captions` is the file of captions, one for each split with `{split}`, and without it train's alone, from which
    `split: {val: 0.1}` draws; `videos` is the folder that the videos lie in or below.

    `video` and `caption` are a table's columns; `video` may put several together, `"{VideoID}_{Start}_{End}"`. `where`
    says what other columns must hold for a line to count. `group` is a regular expression with one group that says of
    a video's name what belongs together (`(.+)_\\\\d+_\\\\d+$` of MSVD, whose clips are cut from longer videos); by
    default a video stands alone. `splits` says how the files call a split.
    """

    captions: str = "captions.csv"
    videos: str = "."
    video: str = "video"
    caption: str = "caption"
    where: dict[str, str] = field(default_factory=dict)
    group: str = ""
    splits: SplitNames = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_template("captions", self.captions, split="train")
        check_folders((self.videos,))
        check_template("video", self.video, **dict.fromkeys(_FIELD.findall(self.video), ""))
        try:
            groups = re.compile(self.group).groups
        except re.error as error:
            raise ConfigError("group is no regular expression", value=self.group, fix=str(error)) from None
        if self.group and groups != 1:
            raise ConfigError("group must have one pair of brackets", value=self.group, allowed=r"(.+)_\d+_\d+$")


def classes(root: Path, config: Config) -> tuple[str, ...]:
    """None."""
    return ()


def splits(root: Path, config: Config) -> tuple[str, ...]:
    """Splits that have a file of captions.

    Raises:
        DataError: one of a split's names has no file.
    """
    return tuple(split for split in SPLITS if _files(root, split, config))


def _files(root: Path, split: str, config: Config) -> list[Path]:
    def path(name: str) -> Path:
        return root / config.captions.format(split=name)

    if is_taken(split, config.splits) or ("{split" not in config.captions and split != "train"):
        return []
    names = names_there(split, config.splits, lambda name: is_file(path(name)), str(root / config.captions))
    return list(dict.fromkeys(map(path, names)))


def read(root: Path, split: str, config: Config) -> Iterator[RawRecord | Problem]:
    """One record per video that has a caption, in ascending key order, after the problems of the files. A caption that
    a video has twice is kept once."""
    videos = Videos(root, config.videos)
    found: dict[str, tuple[Video, Path, dict[str, None]]] = {}
    for path in _files(root, split, config):
        rows = _table(path, config) if path.suffix.lower() in _TABLES else _lines(path)
        for place, name, text in rows:
            if not name:
                yield list_problem("bad_list_line", path, f"line {place}", detail=shown(text))
                continue
            video = videos.find(name)
            if video is None:
                yield Problem(
                    reason="unknown_video", kind="caption", file=str(path), item_id=f"line {place}", detail=shown(name)
                )
                continue
            found.setdefault(video.key, (video, path, {}))[2].setdefault(text)
    for key, (video, path, texts) in sorted(found.items()):
        yield RawRecord(
            key=key, image_id=video.name, group=_group(video, config), video=config.kept(video.file),
            annotation_file=str(path),
            captions=tuple(Caption(caption_id=f"{key}-{i}", text=text) for i, text in enumerate(texts)),
        )  # fmt: skip


def _group(video: Video, config: Config) -> str:
    match = re.search(config.group, video.file.stem) if config.group else None
    return "" if match is None else match[1]


def _table(path: Path, config: Config) -> Iterator[tuple[int, str, str]]:
    """Number of the line, video and caption of each line that counts.

    Raises:
        DataError: the table lacks a column.
    """
    lines = (line.decode("utf-8", "replace") + "\n" for line in lines_of(path))
    table = csv.DictReader(lines, delimiter=_TABLES[path.suffix.lower()])
    columns = _FIELD.findall(config.video) or [config.video]
    if missing := [name for name in (*columns, config.caption, *config.where) if name not in (table.fieldnames or ())]:
        raise DataError(
            "a table of captions lacks columns", value=missing, where=str(path),
            allowed=", ".join(table.fieldnames or ()), fix="say `video` and `caption` of sources.video_captions",
        )  # fmt: skip
    for row in table:
        if all((row[name] or "").strip() == value for name, value in config.where.items()):
            values = {name: (row[name] or "").strip() for name in columns}
            together = _FIELD.search(config.video) is not None
            yield (
                table.line_num,
                config.video.format(**values) if together else values[columns[0]],
                row[config.caption] or "",
            )


def _lines(path: Path) -> Iterator[tuple[int, str, str]]:
    """The same of lines of text; a name of "" where a line has no caption."""
    for place, raw in enumerate(lines_of(path), start=1):
        line = raw.decode("utf-8", "replace").strip()
        if not line or line.startswith("#"):
            continue
        name, _, text = line.partition("\t") if "\t" in line else line.partition(" ")
        yield (place, name, text.strip()) if text.strip() else (place, "", line)
