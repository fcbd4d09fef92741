"""Clips at the door: frames of one size as JPEGs, times that ascend, segments and labels inside them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from contracts.annotations import Segment
from contracts.raw import RawRecord
from pipeline.ingest.door import RULES, Admission, DoorConfig, Shrink, admit
from tests.pictures import decode, encode, scene

CLASSES = ("stand", "jump")


@pytest.fixture
def clip(tmp_path: Path) -> RawRecord:
    """Four frames of 30 x 20 pixels, half a second apart."""
    frames = [tmp_path / f"{i}.jpg" for i in range(4)]
    for number, path in enumerate(frames):
        path.write_bytes(encode(np.roll(scene(), number, axis=1)))
    return RawRecord(
        key="a", image_id=1, annotation_file="list.txt", frames=frames, times_s=(0.0, 0.5, 1.0, 1.5), group="g"
    )


def refused(admission: Admission) -> tuple[str, str]:
    """Reason and file."""
    assert admission.record is None
    (problem,) = admission.problems
    assert (problem.kind, problem.key) == ("record", "a") and problem.reason in RULES
    return problem.reason, Path(problem.file).name


def dropped(admission: Admission) -> list[tuple[str, str, str]]:
    assert admission.record is not None and all(p.file == "list.txt" for p in admission.problems)
    return [(problem.kind, problem.reason, problem.item_id) for problem in admission.problems]


def test_frames_keep_their_bytes_order_and_times(clip: RawRecord) -> None:
    record = admit(clip, ()).record
    assert record is not None and record.frames == tuple(path.read_bytes() for path in clip.frames)
    assert (record.media, record.width, record.height, record.group) == ("clip", 30, 20, "g")
    assert record.times_s == (0.0, 0.5, 1.0, 1.5) and record.image == b""


def test_frames_of_other_formats_become_jpegs(clip: RawRecord) -> None:
    pixels = scene()
    Image.fromarray(pixels).save(clip.frames[1], "PNG")
    admission = admit(clip, ())
    assert admission.record is not None and admission.fixes == {"frame_to_jpeg": 1}
    assert all(frame.startswith(b"\xff\xd8") for frame in admission.record.frames)
    assert np.abs(decode(admission.record.frames[1]).astype(int) - pixels).mean() < 3


def test_frames_are_made_smaller_together(clip: RawRecord) -> None:
    admission = admit(clip, (), DoorConfig(shrink=Shrink(short_side=10, quality=90)))
    assert admission.record is not None and admission.fixes == {"image_shrunk": 4}
    assert {decode(frame).shape for frame in admission.record.frames} == {(10, 15, 3)}
    assert (admission.record.width, admission.record.height) == (30, 20), "of the original"


def test_a_clip_with_a_frame_that_cannot_be_used_is_refused(clip: RawRecord) -> None:
    gone = replace(clip, frames=(*clip.frames[:3], clip.frames[0].with_name("9.jpg")))
    assert refused(admit(gone, ())) == ("missing_frame", "9.jpg")
    clip.frames[2].write_bytes(clip.frames[2].read_bytes()[:-40])
    assert refused(admit(clip, ())) == ("truncated_image", "2.jpg")
    clip.frames[2].write_bytes(encode(scene(20, 31)))
    assert refused(admit(clip, ())) == ("frame_size_mismatch", "2.jpg")
    sized = replace(clip, width=31, height=20)
    assert refused(admit(sized, ())) == ("frame_size_mismatch", "0.jpg")
    tiny = DoorConfig(max_pixels=30 * 20 - 1)
    assert refused(admit(clip, (), tiny)) == ("too_many_pixels", "0.jpg")


@pytest.mark.parametrize("times", [(), (0, 1, 2), (0, 1, 1, 2), (0, 2, 1, 3), (-1, 0, 1, 2), (0, 1, 2, math.inf)])
def test_times_must_be_one_for_each_frame_and_ascend(clip: RawRecord, times: tuple[float, ...]) -> None:
    assert refused(admit(replace(clip, times_s=times), ())) == ("bad_frame_times", "list.txt")


def test_more_frames_than_their_names_can_count_are_refused(clip: RawRecord) -> None:
    many = replace(clip, frames=[clip.frames[0]] * 10_001, times_s=tuple(range(10_001)))
    assert refused(admit(many, ())) == ("too_many_frames", "list.txt")


def test_segments_are_clipped_or_dropped(clip: RawRecord) -> None:
    """The clip ends at 2 s: its last frame lasts as long as the others."""
    nan = math.nan
    written = [(0.5, 1.0), (-1.0, 0.5), (1.5, 9.0), (2.0, 3.0), (-2.0, 0.0), (1.0, 1.0), (1.0, 0.5), (nan, 1.0)]
    segments = [Segment(start_s=start, end_s=end, label="jump") for start, end in written]
    segments.append(Segment(start_s=0.0, end_s=1.0, label="fly"))
    admission = admit(replace(clip, segments=segments), CLASSES)
    assert admission.record is not None
    assert [(s.start_s, s.end_s) for s in admission.record.segments] == [(0.5, 1.0), (0.0, 0.5), (1.5, 2.0)]
    assert admission.fixes == {"segment_clipped": 2}
    outside, bad = "segment_outside", "bad_segment"
    reasons = dict(zip("456789", [outside, outside, bad, bad, bad, "unknown_class"], strict=True))
    assert dropped(admission) == [("segment", reason, number) for number, reason in reasons.items()]
    assert admission.labels == {("frame", 2): 3}, "those at 0, 0.5 and 1.5 s"


def test_labels_of_frames_and_of_the_clip(clip: RawRecord) -> None:
    given: Any = [("jump", "jump"), (), ("fly", "stand"), ("fly",)]
    admission = admit(replace(clip, frame_labels=given, labels=("jump",)), CLASSES)
    assert admission.record is not None and admission.record.frame_labels == (("jump",), (), ("stand",), ())
    assert dropped(admission) == [("label", "unknown_class", "fly")]
    assert admission.labels == {("frame", 1): 1, ("frame", 2): 1, ("image", 2): 1}
    fewer = admit(replace(clip, frame_labels=given[:3]), CLASSES)
    assert fewer.record is not None and fewer.record.frame_labels == ()
    assert dropped(fewer) == [("label", "frame_labels_mismatch", "1")]
