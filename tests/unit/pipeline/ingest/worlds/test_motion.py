"""Moving shapes: a clip backwards is a clip of the partner, and files that the real readers read."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from contracts.errors import ConfigError
from contracts.raw import RawRecord
from contracts.records import Record
from pipeline.ingest.door import admit
from pipeline.ingest.sources import (
    OpenSource,
    joined_classes,
    joined_splits,
    msrvtt,
    read_joined,
    ucf101,
    video_segments,
)
from pipeline.ingest.worlds._moving import ACTIONS, PAIRS, draw_look, picture, poses
from pipeline.ingest.worlds._output import SplitSizes
from pipeline.ingest.worlds.motion import Config, action_clip, captions, generate, story_clip

FEW = SplitSizes(train=16, val=8)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[0][0])
def test_backwards_is_the_partner_with_the_very_same_frames(pair: tuple) -> None:
    (one, _), (other, _) = pair
    look = draw_look(np.random.default_rng(3))
    clips = [[picture(look, pose, 32) for pose in poses(np.random.default_rng(7), name, 9)] for name in (one, other)]
    assert all(np.array_equal(a, b) for a, b in zip(clips[0], clips[1][::-1], strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(clips[0], clips[1], strict=True))
    assert len({frame.tobytes() for frame in clips[0]}) > 5, "it moves"


def test_clips_depend_on_seed_split_and_number_alone() -> None:
    more = Config(num_records=SplitSizes(train=99, val=9))
    one, other = action_clip(Config(), "train", 5), action_clip(more, "train", 5)
    assert one[:2] == other[:2] == (ACTIONS[5], 0) and np.array_equal(one[2], other[2])
    texts = {np.array(action_clip(Config(seed=s), p, 5)[2][0]).tobytes() for s in (1, 2) for p in ("train", "val")}
    assert len(texts) == 4


def records(root: Path, split: str, *sources: tuple) -> tuple[list[Record], tuple[str, ...]]:
    opened = [OpenSource(name=m.__name__, module=m, root=root, config=m.Config(**c)) for m, c in sources]
    assert split in joined_splits(opened)
    classes, found = joined_classes(opened), []
    for raw in read_joined(opened, split):
        assert isinstance(raw, RawRecord)
        admission = admit(raw, classes)
        assert admission.record is not None and not admission.problems and not admission.fixes
        found.append(admission.record)
    return found, classes


def test_actions_are_ucf101s_files(tmp_path: Path) -> None:
    config = Config(num_records=FEW, num_frames=(4, 6))
    done: list[int] = []
    generate(tmp_path, config, done.append)
    source = (ucf101, {"splits": {"val": "test"}})
    train, classes = records(tmp_path, "train", source)
    val, _ = records(tmp_path, "val", source)
    assert sum(done) == 24 and len(train) == 16 and len(val) == 8 and classes == ACTIONS
    assert {len(record.frames) for record in train} <= {4, 5, 6} and train[0].times_s[1] == pytest.approx(0.1)
    assert not {record.group for record in train} & {record.group for record in val}
    assert sorted(record.labels[0] for record in val) == sorted(ACTIONS)


def test_stories_have_segments_and_captions_of_the_same_videos(tmp_path: Path) -> None:
    config = Config(shows="stories", num_records=FEW, num_frames=(3, 4), num_actions=(2, 3))
    generate(tmp_path, config, lambda _: None)
    sources = (
        (video_segments, {"videos": "TrainValVideo", "names": "video_{split}_", "splits": {"val": "validate"}}),
        (msrvtt, {}),
    )
    found, classes = records(tmp_path, "val", *sources)
    assert len(found) == 8 and sorted(classes) == sorted(ACTIONS) and len(records(tmp_path, "train", *sources)[0]) == 16
    for index, record in enumerate(found):
        parts, frames = story_clip(config, "val", index)
        assert len(record.frames) == len(frames) == sum(count for *_, count in parts)
        expected = [action for action, _, count in parts for _ in range(count)]
        assert list(record.labels_by_frame()) == [(name,) for name in expected]
        assert [caption.text for caption in record.captions] == captions(parts)
        assert record.captions[0].text.count(" then ") == len(parts) - 1
        assert all(a[1] != b[1] and a[0] != b[0] for a, b in itertools.pairwise(parts))


@pytest.mark.parametrize("settings", [{"num_frames": (1, 4)}, {"image_size": 8}, {"num_actions": (3, 2)}])
def test_what_makes_no_world_is_refused(settings: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        Config(**settings)
