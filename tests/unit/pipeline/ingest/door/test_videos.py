"""Videos at the door: decoded once, in order, the frames that are asked for, or refused with a reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from contracts.annotations import Segment
from contracts.raw import RawRecord, RawVideo
from pipeline.ingest.door import DoorConfig, Shrink, admit
from tests.clips import seen, write_clip
from tests.pictures import decode


@pytest.fixture
def raw(tmp_path: Path) -> RawRecord:
    """Eight frames, ten a second."""
    return RawRecord(
        key="a", image_id=1, annotation_file="list.txt", video=RawVideo(file=write_clip(tmp_path / "v.avi", range(8)))
    )


def values(raw: RawRecord, door: DoorConfig = DoorConfig(), **video: object) -> tuple[list[int], list[float]]:  # noqa: B008
    assert raw.video is not None
    record = admit(replace(raw, video=replace(raw.video, **video)), (), door).record
    assert record is not None
    return [seen(frame) for frame in record.frames], [round(time, 6) for time in record.times_s]


@pytest.mark.parametrize(
    ("video", "kept", "times"),
    [
        ({}, [0, 1, 2, 3, 4, 5, 6, 7], [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]),
        ({"every": 3}, [0, 3, 6], [0, 0.3, 0.6]),
        ({"fps": 5.0}, [0, 2, 4, 6], [0, 0.2, 0.4, 0.6]),
        ({"fps": 4.0}, [0, 3, 5], [0, 0.3, 0.5]),
        ({"fps": 60.0}, [0, 1, 2, 3, 4, 5, 6, 7], [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]),
        ({"start_s": 0.2, "end_s": 0.5}, [2, 3, 4], [0, 0.1, 0.2]),
        ({"start_s": 0.3, "every": 2}, [3, 5, 7], [0, 0.2, 0.4]),
    ],
)
def test_the_frames_that_are_asked_for_are_kept_with_their_times(
    raw: RawRecord, video: dict, kept: list[int], times: list[float]
) -> None:
    assert values(raw, **video) == (kept, times)


def test_frames_are_shrunk_and_segments_are_cut_at_the_clips_end(raw: RawRecord) -> None:
    segments = (Segment(start_s=0.2, end_s=9.0, label="x"), Segment(start_s=3.0, end_s=4.0, label="x"))
    admission = admit(replace(raw, segments=segments), ("x",), DoorConfig(shrink=Shrink(short_side=12, quality=90)))
    record = admission.record
    assert record is not None and {decode(frame).shape for frame in record.frames} == {(12, 12, 3)}
    assert (record.width, record.height, record.media) == (24, 24, "clip"), "of the original"
    assert [(s.start_s, round(s.end_s, 6)) for s in record.segments] == [(0.2, 0.8)]
    assert admission.fixes == {"image_shrunk": 8, "segment_clipped": 1}
    assert [problem.reason for problem in admission.problems] == ["segment_outside"]
    assert [bool(names) for names in record.labels_by_frame()] == [False] * 2 + [True] * 6


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"file": "gone.avi"}, "missing_video"),
        ({"file": "text.avi"}, "undecodable_video"),
        ({"start_s": 5.0}, "undecodable_video"),
    ],
)
def test_what_is_no_video_is_refused(raw: RawRecord, tmp_path: Path, change: dict, reason: str) -> None:
    (tmp_path / "text.avi").write_text("no video " * 20)
    assert raw.video is not None
    video = replace(raw.video, **{k: tmp_path / v if k == "file" else v for k, v in change.items()})
    (problem,) = admit(replace(raw, video=video), ()).problems
    assert (problem.reason, problem.kind, problem.file) == (reason, "record", str(video.file))


def test_pixels_frames_and_sizes_have_limits(raw: RawRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    def reason(raw: RawRecord, door: DoorConfig) -> str:
        (problem,) = admit(raw, (), door).problems
        return problem.reason

    assert reason(raw, DoorConfig(max_pixels=500)) == "too_many_pixels"
    assert reason(replace(raw, width=30, height=24), DoorConfig()) == "size_mismatch"
    monkeypatch.setattr("pipeline.ingest.door.pixels.MAX_FRAMES", 7)
    assert reason(raw, DoorConfig()) == "too_many_frames"


def test_a_video_that_ends_early_is_told(raw: RawRecord, tmp_path: Path) -> None:
    assert raw.video is not None
    whole = write_clip(tmp_path / "long.avi", np.arange(40) % 8).read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) // 2])
    admission = admit(replace(raw, video=replace(raw.video, file=tmp_path / "cut.avi")), ())
    if admission.record is None:  # what is left of it says nothing of itself: then it is refused
        assert admission.problems[0].reason == "undecodable_video"
    else:
        assert len(admission.record.frames) < 40 and admission.fixes["video_ends_early"] == 1
