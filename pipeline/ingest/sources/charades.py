"""Charades (1604.01753): `Charades_v1_{train,test}.csv` with a line a video, `Charades_v1_480/<id>.mp4`, and
`Charades_v1_classes.txt`, `c000 Holding some clothes`.

The column `actions` has segments in seconds, `c092 11.90 21.20;c147 0.00 12.60`, which overlap; `script` and
`descriptions` (parted by `;`) are read as captions. A subject's videos belong together.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from contracts.annotations import Caption, Segment
from contracts.raw import Problem, RawRecord
from pipeline.ingest.sources._files import check_folders, check_template, number, record_key, shown
from pipeline.ingest.sources._lines import lines_of
from pipeline.ingest.sources._splits import SPLITS, SplitNames, names_there
from pipeline.ingest.sources._videos import Video, VideoConfig, Videos, is_taken, list_problem
from pipeline.system.reading import is_file, read_text


@dataclass(frozen=True, kw_only=True)
class Config(VideoConfig):
    """`videos` is the folder of videos, `lists` the tables, `class_names` the list of classes. `splits` says how the
    tables call a split: Charades has no val, so `splits: {val: test}` or `split: {val: 0.1}`.

    A class is called by its words, or by its code (`c092`) with `codes`.
    """

    videos: str = "Charades_v1_480"
    lists: str = "Charades_v1_{split}.csv"
    class_names: str = "Charades_v1_classes.txt"
    codes: bool = False
    splits: SplitNames = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_template("lists", self.lists, split="train")
        check_folders((self.videos,))


def splits(root: Path, config: Config) -> tuple[str, ...]:
    """Splits that have a table.

    Raises:
        DataError: one of a split's names has no table.
    """
    return tuple(split for split in SPLITS if _lists(root, split, config))


def _lists(root: Path, split: str, config: Config) -> list[Path]:
    def path(name: str) -> Path:
        return root / config.lists.format(split=name)

    if is_taken(split, config.splits):
        return []
    return [path(name) for name in names_there(split, config.splits, lambda n: is_file(path(n)), str(path("{split}")))]


def classes(root: Path, config: Config) -> tuple[str, ...]:
    """The names of `class_names`, in its order.

    Raises:
        DataError: there is no such file.
    """
    return tuple(_names(root, config).values())


def _names(root: Path, config: Config) -> dict[str, str]:
    """Code -> name."""
    lines = (line.decode("utf-8", "replace").strip() for line in lines_of(root / config.class_names))
    parts = (line.partition(" ") for line in lines if line)
    return {code: code if config.codes else name.strip() or code for code, _, name in parts}


def read(root: Path, split: str, config: Config) -> Iterator[RawRecord | Problem]:
    """One record per video, in ascending key order, after the problems of the tables."""
    names, videos = _names(root, config), Videos(root, config.videos)
    found: dict[str, RawRecord] = {}
    for path in _lists(root, split, config):
        for place, row in enumerate(csv.DictReader(io.StringIO(read_text(path), newline="")), start=2):
            item, name = f"line {place}", (row.get("id") or "").strip()
            if not name:
                yield list_problem("bad_list_line", path, item, detail=shown(row))
                continue
            below = f"{config.videos}/{name}.mp4"
            video = videos.find(name) or Video(root / below, record_key(below), below)
            if video.key in found:
                yield list_problem("duplicate_key", path, item, video.key, name)
                continue
            segments, bad = _segments(row.get("actions") or "", names)
            for text in bad:
                yield Problem(
                    reason="bad_segment_line", kind="segment", file=str(path), item_id=f"{item}, {text}", key=video.key
                )
            found[video.key] = RawRecord(
                key=video.key, image_id=name, group=(row.get("subject") or "").strip(),
                video=config.kept(video.file), annotation_file=str(path), segments=segments,
                captions=tuple(_captions(row, name)),
            )  # fmt: skip
    for _, record in sorted(found.items()):
        yield record


def _segments(text: str, names: Mapping[str, str]) -> tuple[tuple[Segment, ...], list[str]]:
    """Of a cell `actions`, and what of it cannot be read."""
    segments, bad = [], []
    for part in filter(None, (part.strip() for part in text.split(";"))):
        words = part.split()
        times = [number(word)[0] for word in words[1:]]
        if len(words) != 3 or times[0] is None or times[1] is None:
            bad.append(shown(part))
        else:
            segments.append(Segment(start_s=times[0], end_s=times[1], label=names.get(words[0], words[0])))
    return tuple(segments), bad


def _captions(row: Mapping[str, str | None], name: str) -> Iterator[Caption]:
    texts = [row.get("script") or "", *(row.get("descriptions") or "").split(";")]
    for place, text in enumerate(text.strip() for text in texts):
        if text:
            yield Caption(caption_id=f"{name}-{place}", text=text)
