"""MSR-VTT (Xu et al., CVPR 2016): `videos[{video_id, split, ..}]` and `sentences[{video_id, caption, sen_id}]` in one
JSON or several, and the videos, `TrainValVideo/video0.mp4`, already cut: "start time" is that of the source on YouTube.

The official files are `train_val_videodatainfo.json` and `test_videodatainfo.json`; some copies have one,
`MSRVTT_data.json`. The official names of splits are train, validate and test. About one caption in ten is there twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contracts.annotations import Caption
from contracts.errors import ConfigError, DataError
from contracts.raw import Problem, RawRecord
from pipeline.ingest.sources._files import Spool, check_folders, is_inside, item_id, record_key, shown, stream_list
from pipeline.ingest.sources._splits import SPLITS, Split, SplitNames, split_names
from pipeline.ingest.sources._videos import Video, VideoConfig, Videos, is_taken
from pipeline.system.reading import is_file

_OFFICIAL: dict[Split, tuple[str, ...]] = {"train": ("train",), "val": ("validate", "val"), "test": ("test",)}


@dataclass(frozen=True, kw_only=True)
class Config(VideoConfig):
    """`files` are read where they are there; `videos` is the folder that the videos lie in or below. `splits` says how
    the files call a split: `validate` is val unless it says otherwise."""

    videos: str = "."
    files: tuple[str, ...] = ("train_val_videodatainfo.json", "test_videodatainfo.json", "MSRVTT_data.json")
    splits: SplitNames = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_folders((self.videos,))
        if not self.files or not all(map(is_inside, self.files)):
            raise ConfigError("files must lie below the data set's folder", value=self.files)


def classes(root: Path, config: Config) -> tuple[str, ...]:
    """None: categories are numbers without names."""
    return ()


def splits(root: Path, config: Config) -> tuple[str, ...]:
    """Splits that have a video.

    Raises:
        DataError: none of the files is there.
    """
    there = {entry.get("split") for path in _files(root, config) for entry in _entries(path, "videos")}
    return tuple(split for split in SPLITS if there & set(_names(split, config)))


def _names(split: Split, config: Config) -> tuple[str, ...]:
    if is_taken(split, config.splits):
        return ()
    return split_names(split, config.splits) if split in config.splits else _OFFICIAL[split]


def _files(root: Path, config: Config) -> list[Path]:
    found = [root / name for name in config.files if is_file(root / name)]
    if not found:
        raise DataError(
            "none of MSR-VTT's files is there", value=list(config.files), where=str(root),
            fix="put one there, or name yours: sources.msrvtt.files",
        )  # fmt: skip
    return found


def _entries(path: Path, name: str) -> Iterator[dict[str, Any]]:
    return (entry for entry in stream_list(path, name) if isinstance(entry, dict))


def read(root: Path, split: str, config: Config) -> Iterator[RawRecord | Problem]:
    """One record per video, in ascending key order, after the problems of the files."""
    wanted = set(_names(split, config))  # type: ignore[arg-type]
    videos = Videos(root, config.videos)
    found: dict[str, tuple[str, Video, Path]] = {}
    known: set[str] = set()
    with Spool() as spool:
        for path in _files(root, config):
            for place, entry in enumerate(_entries(path, "videos")):
                name = entry.get("video_id")
                if not isinstance(name, str) or not is_inside(name):
                    if split == "train":  # nobody knows whose it is: told once
                        yield _problem("bad_image_entry", "record", path, f"video {place}", shown(entry))
                    continue
                known.add(name)
                if entry.get("split") not in wanted:
                    continue
                below = f"{name}.mp4"
                video = videos.find(name) or Video(root / config.videos / below, record_key(below), below)
                if found.setdefault(name, (video.key, video, path))[2] != path:
                    yield _problem("duplicate_image_id", "record", path, name)
            for place, entry in enumerate(_entries(path, "sentences")):
                name, text = entry.get("video_id"), entry.get("caption")
                number = item_id(entry.get("sen_id"))
                if not isinstance(text, str) or not isinstance(name, str):
                    if split == "train":
                        yield _problem("bad_caption", "caption", path, f"sentence {place}", shown(entry))
                elif name in found:
                    spool.add(name, number if number is not None else f"{path.name}-{place}", text)
                elif name not in known and split == "train":
                    yield _problem("unknown_video", "caption", path, f"sentence {place}", name)
        for repeated in spool.seal():
            yield _problem("duplicate_annotation_id", "caption", root / config.files[0], str(repeated))
        for name, (key, video, path) in sorted(found.items(), key=lambda one: one[1][0]):
            texts = dict.fromkeys(spool.of(name))  # a caption that is there twice weighs no more
            captions = tuple(Caption(caption_id=f"{name}-{i}", text=text) for i, text in enumerate(texts))
            yield RawRecord(
                key=key, image_id=name, video=config.kept(video.file), annotation_file=str(path),
                captions=captions,
            )  # fmt: skip


def _problem(reason: str, kind: Any, path: Path, item: str, detail: str = "") -> Problem:
    return Problem(reason=reason, kind=kind, file=str(path), item_id=item, detail=detail)
