"""Generated clips of moving shapes, which only the order of their frames tells apart (`_moving.py`).

`shows: actions` writes one action a video in the layout of UCF-101: `UCF-101/<Class>/v_<Class>_g01_c01.avi` and
`ucfTrainTestlist/{classInd,trainlist01,testlist01}.txt`. The clips of a group have one look.

`shows: stories` writes videos of several actions, each of an object of its own, with two descriptions of them over the
same files: MultiTHUMOS's segments, `annotations/<Class>.txt` with lines `video start end` in seconds, and MSR-VTT's
captions, `train_val_videodatainfo.json`, "a red circle moves to the left then a blue square grows"; the videos are
`TrainValVideo/video_{train,validate}_<number>.avi`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from contracts.errors import ConfigError
from contracts.ranges import SEED, Range, check_ranges
from pipeline.ingest.worlds._moving import ACTIONS, SAID, Look, draw_look, picture, poses, write_video
from pipeline.ingest.worlds._output import SplitSizes, image_rng, write_json

FPS = 10.0
_STREAMS = {"train": 30, "val": 31}
_LOOKS = {"train": 32, "val": 33}
_CLIPS_OF_A_GROUP = 4
_SAID_OTHERWISE = {
    "MoveLeft": "goes left", "MoveRight": "goes right", "Grow": "gets bigger", "Shrink": "gets smaller",
    "TurnClockwise": "rotates clockwise", "TurnCounterclockwise": "rotates counterclockwise",
    "Vanish": "fades away", "Appear": "becomes visible",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    Attributes:
        shows: one action a video, or stories of several.
        image_size: side of a frame in pixels.
        num_records: videos of each split.
        num_frames: fewest and most frames of an action; drawn for each.
        num_actions: fewest and most actions of a story.
    """

    shows: Literal["actions", "stories"] = "actions"
    seed: int = 1
    image_size: int = 32
    num_records: SplitSizes = field(default=SplitSizes(train=640, val=200))
    num_frames: tuple[int, int] = (8, 12)
    num_actions: tuple[int, int] = (2, 4)

    def __post_init__(self) -> None:
        check_ranges(self, seed=SEED, image_size=Range(16, 512), num_frames=Range(2, 1000), num_actions=Range(1, 100))
        for name in ("num_frames", "num_actions"):
            low, high = getattr(self, name)
            if low > high:
                raise ConfigError(f"{name} must be two numbers, the smaller first", value=[low, high])


def generate(root: Path, config: Config, progress: Callable[[int], None]) -> None:
    """Write both splits under `root`; `progress` is called with the number of videos done since the last call."""
    write = _write_actions if config.shows == "actions" else _write_stories
    write(root, config, progress)


def action_clip(config: Config, split: str, index: int) -> tuple[str, int, list[np.ndarray]]:
    """Class, number of its group, and frames of the `index`-th video of a split that shows one action."""
    action = ACTIONS[index % len(ACTIONS)]
    group = index // len(ACTIONS) // _CLIPS_OF_A_GROUP
    look = draw_look(image_rng(config.seed, _LOOKS[split], group * len(ACTIONS) + index % len(ACTIONS)))
    rng = image_rng(config.seed, _STREAMS[split], index)
    count = int(rng.integers(config.num_frames[0], config.num_frames[1] + 1))
    return action, group, [picture(look, pose, config.image_size) for pose in poses(rng, action, count)]


def story_clip(config: Config, split: str, index: int) -> tuple[list[tuple[str, Look, int]], list[np.ndarray]]:
    """Of the `index`-th story: each action with its object's look and number of frames, and all frames."""
    rng = image_rng(config.seed, _STREAMS[split], index)
    parts: list[tuple[str, Look, int]] = []
    frames: list[np.ndarray] = []
    for _ in range(rng.integers(config.num_actions[0], config.num_actions[1] + 1)):
        look = draw_look(rng, parts[0][1].ground if parts else None)
        while any((look.shape, look.color) == (other.shape, other.color) for _, other, _ in parts[-1:]):
            look = draw_look(rng, parts[0][1].ground)
        others = [action for action in ACTIONS if not parts or action != parts[-1][0]]
        action = str(rng.choice(others))
        count = int(rng.integers(config.num_frames[0], config.num_frames[1] + 1))
        frames += [picture(look, pose, config.image_size) for pose in poses(rng, action, count)]
        parts.append((action, look, count))
    return parts, frames


def captions(parts: list[tuple[str, Look, int]]) -> list[str]:
    """What is said of a story, in two ways."""
    return [
        " then ".join(f"a {look.color} {look.shape} {words[action]}" for action, look, _ in parts)
        for words in (SAID, _SAID_OTHERWISE)
    ]


def _write_actions(root: Path, config: Config, progress: Callable[[int], None]) -> None:
    lists = root / "ucfTrainTestlist"
    lists.mkdir(parents=True, exist_ok=True)
    numbers = {action: number for number, action in enumerate(ACTIONS, start=1)}
    (lists / "classInd.txt").write_text("".join(f"{number} {action}\n" for action, number in numbers.items()))
    first_group = 1
    for split, name in (("train", "trainlist01"), ("val", "testlist01")):
        lines, group = [], 0
        for index in range(getattr(config.num_records, split)):
            action, group, frames = action_clip(config, split, index)
            clip = index // len(ACTIONS) % _CLIPS_OF_A_GROUP + 1
            file = f"{action}/v_{action}_g{first_group + group:02d}_c{clip:02d}.avi"
            write_video(root / "UCF-101" / file, frames, FPS)
            lines.append(f"{file} {numbers[action]}\n" if split == "train" else f"{file}\n")
            progress(1)
        (lists / f"{name}.txt").write_text("".join(lines))
        first_group += group + 1


def _write_stories(root: Path, config: Config, progress: Callable[[int], None]) -> None:
    videos: list[dict[str, Any]] = []
    sentences: list[dict[str, Any]] = []
    segments: dict[str, list[str]] = {action: [] for action in ACTIONS}
    for split, name in (("train", "train"), ("val", "validate")):
        for index in range(getattr(config.num_records, split)):
            parts, frames = story_clip(config, split, index)
            video = f"video_{name}_{index:06d}"
            write_video(root / "TrainValVideo" / f"{video}.avi", frames, FPS)
            start = 0
            for action, _, count in parts:
                segments[action].append(f"{video} {start / FPS:.2f} {(start + count) / FPS:.2f}\n")
                start += count
            videos.append({"id": len(videos), "video_id": video, "category": 0, "split": name, "url": "",
                           "start time": 0.0, "end time": start / FPS})  # fmt: skip
            sentences += [
                {"sen_id": i, "video_id": video, "caption": text}
                for i, text in enumerate(captions(parts), start=len(sentences))
            ]
            progress(1)
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    for action, lines in segments.items():
        (root / "annotations" / f"{action}.txt").write_text("".join(lines))
    info = {"contributor": "Sightline", "version": "1.0", "description": "Generated stories in the layout of MSR-VTT"}
    write_json(root / "train_val_videodatainfo.json", {"info": info, "videos": videos, "sentences": sentences})
