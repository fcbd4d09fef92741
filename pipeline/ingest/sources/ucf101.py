"""UCF-101 (1212.0402): one action a video, `UCF-101/<Class>/v_<Class>_g01_c01.avi`, and three official splits,
`ucfTrainTestlist/{classInd,trainlist01,testlist01}.txt`.

Lines of the lists are `<Class>/v_<Class>_g08_c01.avi`, in those of training with the class's number, from 1 on. The
clips of one group (`g08` of a class) are cut from one video, and stay together. The official lists have no val:
`split: {val: 0.1}` draws groups of train for it; `splits: {val: test}` chooses checkpoints on the test list, as most
papers did.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from contracts.errors import ConfigError, DataError
from contracts.ranges import Range, check_ranges
from contracts.raw import Problem, RawRecord
from pipeline.ingest.sources._files import check_template, forward_slashes, is_inside, record_key, shown
from pipeline.ingest.sources._lines import lines_of
from pipeline.ingest.sources._splits import SPLITS, SplitNames, names_there
from pipeline.ingest.sources._videos import Video, VideoConfig, Videos, is_taken, list_problem
from pipeline.system.reading import is_file

_NAME = re.compile(r"v_(?P<action>.+)_(?P<group>g\d+)_c\d+$", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Config(VideoConfig):
    """`videos` is the folder of class folders, `lists` are the lists of split `fold` (1, 2 or 3), `class_index` numbers
    the classes. A list is found in any of its lines' spellings: some copies have `HandstandPushups` for the class
    `HandStandPushups`, and lines may end as Windows ends them. `splits` says how the lists call a split.
    """

    videos: str = "UCF-101"
    lists: str = "ucfTrainTestlist/{split}list{fold:02d}.txt"
    class_index: str = "ucfTrainTestlist/classInd.txt"
    fold: int = 1
    splits: SplitNames = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, fold=Range(1, 99))
        check_template("lists", self.lists, split="train", fold=1)
        for folder in (self.videos, self.class_index):
            if folder != "." and not is_inside(folder):
                raise ConfigError("not below the data set's folder", value=folder)


def splits(root: Path, config: Config) -> tuple[str, ...]:
    """Splits that have a list.

    Raises:
        DataError: one of a split's names has no list.
    """
    return tuple(split for split in SPLITS if _lists(root, split, config))


def _lists(root: Path, split: str, config: Config) -> list[Path]:
    def path(name: str) -> Path:
        return root / config.lists.format(split=name, fold=config.fold)

    if is_taken(split, config.splits):
        return []
    return [path(name) for name in names_there(split, config.splits, lambda n: is_file(path(n)), str(path("{split}")))]


def classes(root: Path, config: Config) -> tuple[str, ...]:
    """The names of `class_index`, by number.

    Raises:
        DataError: the file is missing, or a line of it is no number and name.
    """
    path = root / config.class_index
    found: dict[int, str] = {}
    for number, line in enumerate(lines_of(path), start=1):
        words = line.decode("utf-8", "replace").split()
        if not words:
            continue
        if len(words) != 2 or not words[0].isdecimal():
            raise DataError(
                "a line of the class index is no number and name", value=line[:80], where=f"{path}, line {number}",
                allowed="1 ApplyEyeMakeup",
            )  # fmt: skip
        found[int(words[0])] = words[1]
    if sorted(found) != list(range(1, len(found) + 1)):
        raise DataError("the numbers of the classes have a gap", value=sorted(found)[:10], where=str(path))
    return tuple(found[number] for number in sorted(found))


def read(root: Path, split: str, config: Config) -> Iterator[RawRecord | Problem]:
    """One record per clip, in ascending key order, after the problems of the lists."""
    names = classes(root, config)
    spelled = {name.casefold(): name for name in names}
    videos = Videos(root, config.videos)
    found: dict[str, tuple[Video, str, str, Path]] = {}
    for path in _lists(root, split, config):
        for number, raw in enumerate(lines_of(path), start=1):
            line = raw.decode("utf-8", "replace").split()
            if not line:
                continue
            file, item = forward_slashes(line[0]), f"line {number}"
            parts = _NAME.search(Path(file).stem)
            action = spelled.get(_action(file, parts).casefold())
            if action is None or parts is None or not _agrees(line[1:], action, names):
                yield list_problem("bad_list_line", path, item, detail=shown(" ".join(line)))
                continue
            if not is_inside(file):
                yield list_problem("unsafe_path", path, item, detail=shown(file))
                continue
            below = f"{config.videos}/{file}"
            video = videos.find(file) or Video(root / below, record_key(below), below)
            if video.key in found:
                yield list_problem("duplicate_key", path, item, video.key, shown(file))
                continue
            found[video.key] = (video, action, f"{action}_{parts['group'].lower()}", path)
    for key, (video, action, group, path) in sorted(found.items()):
        yield RawRecord(
            key=key, image_id=video.name, group=group, video=config.kept(video.file), annotation_file=str(path),
            labels=(action,),
        )  # fmt: skip


def _action(file: str, parts: re.Match[str] | None) -> str:
    """The class that a line names: its folder, else what stands in the file's name."""
    folder = Path(file).parent.name
    return folder or (parts["action"] if parts is not None else "")


def _agrees(rest: list[str], action: str, names: tuple[str, ...]) -> bool:
    """Whether the class's number, where a line has one, is that of its folder."""
    if not rest:
        return True
    return (
        len(rest) == 1 and rest[0].isdecimal() and 0 < int(rest[0]) <= len(names) and names[int(rest[0]) - 1] == action
    )
