"""Sources of videos: UCF-101's lists, segments in text files, Charades, MSR-VTT, captions in tables and lines."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from contracts.errors import ConfigError, DataError
from contracts.raw import Problem, RawRecord
from pipeline.ingest.door.rules import PROBLEMS
from pipeline.ingest.sources import (
    OpenSource,
    charades,
    joined_classes,
    joined_splits,
    msrvtt,
    read_joined,
    ucf101,
    video_captions,
    video_segments,
)
from tests.formats import put

Read = tuple[list[RawRecord], list[Problem]]


def opened(module: ModuleType, root: Path, **config: Any) -> OpenSource:
    name = module.__name__.rpartition(".")[2]
    return OpenSource(name=name, module=module, root=root, config=module.Config(**config))  # type: ignore[arg-type]


def read(*sources: OpenSource, split: str = "train") -> Read:
    items = list(read_joined(sources, split))
    problems = [item for item in items if isinstance(item, Problem)]
    assert {problem.reason for problem in problems} <= set(PROBLEMS)
    return [item for item in items if isinstance(item, RawRecord)], problems


def file(record: RawRecord) -> str:
    assert record.video is not None
    return record.video.file.name


# UCF-101


@pytest.fixture
def ucf(tmp_path: Path) -> Path:
    for name in ("v_Archery_g01_c01", "v_Archery_g01_c02", "v_Archery_g08_c01"):
        put(tmp_path / f"UCF-101/Archery/{name}.avi", b"")
    put(tmp_path / "UCF-101/HandStandPushups/v_HandStandPushups_g08_c01.avi", b"")
    lists = tmp_path / "ucfTrainTestlist"
    put(lists / "classInd.txt", "1 Archery\r\n2 HandstandPushups\r\n")
    put(
        lists / "trainlist01.txt",
        "Archery/v_Archery_g08_c01.avi 1\r\nHandstandPushups/v_HandStandPushups_g08_c01.avi 2\r\n",
    )
    put(lists / "testlist01.txt", "Archery/v_Archery_g01_c01.avi\r\nArchery/v_Archery_g01_c02.avi\r\n")
    return tmp_path


def test_ucf101_has_classes_groups_and_spellings(ucf: Path) -> None:
    source = opened(ucf101, ucf, every=2)
    assert joined_splits([source]) == ("train", "test") and joined_classes([source]) == ("Archery", "HandstandPushups")
    records, problems = read(source)
    assert not problems and [(r.labels, r.group, file(r)) for r in records] == [
        (("Archery",), "Archery_g08", "v_Archery_g08_c01.avi"),
        (("HandstandPushups",), "HandstandPushups_g08", "v_HandStandPushups_g08_c01.avi"),
    ]
    assert all(r.video is not None and r.video.every == 2 for r in records)
    tested, _ = read(source, split="test")
    assert {r.group for r in tested} == {"Archery_g01"} and len(tested) == 2
    as_val = opened(ucf101, ucf, splits={"val": "test"})
    assert joined_splits([as_val]) == ("train", "val"), "what is val is not test as well"
    assert [r.key for r in read(as_val, split="val")[0]] == [r.key for r in tested]


def test_lines_of_ucf101_that_cannot_be_used_are_told(ucf: Path) -> None:
    lines = [
        "Archery/v_Archery_g08_c01.avi 2", "Diving/v_Diving_g01_c01.avi 1", "Archery/odd.avi 1",
        "Archery/v_Archery_g09_c01.avi 1", "../v_Archery_g01_c01.avi 1", "Archery/v_Archery_g09_c01.avi",
    ]  # fmt: skip
    put(ucf / "ucfTrainTestlist/trainlist01.txt", "\n".join(lines))
    records, problems = read(opened(ucf101, ucf))
    assert [(p.reason, p.item_id) for p in problems] == [
        ("bad_list_line", "line 1"), ("bad_list_line", "line 2"), ("bad_list_line", "line 3"),
        ("bad_list_line", "line 5"), ("duplicate_key", "line 6"),
    ]  # fmt: skip
    assert [file(r) for r in records] == ["v_Archery_g09_c01.avi"], "the door says that it is absent"
    put(ucf / "ucfTrainTestlist/classInd.txt", "1 Archery\n3 Diving\n")
    with pytest.raises(DataError, match="have a gap"):
        joined_classes([opened(ucf101, ucf)])


def test_settings_of_videos_are_checked() -> None:
    with pytest.raises(ConfigError, match="both say which frames"):
        ucf101.Config(every=2, fps=5.0)
    with pytest.raises(ConfigError, match="fps must be"):
        ucf101.Config(fps=0.0)
    with pytest.raises(ConfigError, match="cannot be filled in"):
        ucf101.Config(lists="{part}.txt")


# segments


def test_a_file_a_class(tmp_path: Path) -> None:
    for name in ("video_validation_1", "video_validation_2", "video_test_1"):
        put(tmp_path / f"videos/{name}.mp4", b"")
    put(tmp_path / "annotations/Run.txt", "video_validation_1 1.5 2.5\r\nvideo_test_1 0 1\nvideo_validation_1 0 x\n")
    put(tmp_path / "annotations/Jump.txt", "video_validation_1 0.5 2\nnobody 0 1\n\n")
    splits = {"train": "validation", "val": "test"}
    source = opened(video_segments, tmp_path, names="video_{split}_", splits=splits)
    assert joined_splits([source]) == ("train", "val") and joined_classes([source]) == ("Jump", "Run")
    (first, second), problems = read(source)
    assert [(s.start_s, s.end_s, s.label) for s in first.segments] == [(0.5, 2.0, "Jump"), (1.5, 2.5, "Run")]
    assert second.segments == () and [(p.reason, p.item_id) for p in problems] == [
        ("unknown_video", "line 2"), ("bad_segment_line", "line 3"),
    ]  # fmt: skip
    ((tested,), none) = read(source, split="val")
    assert [s.label for s in tested.segments] == ["Run"] and not none, "a mistake is told once"


def test_a_file_a_video(tmp_path: Path) -> None:
    put(tmp_path / "s1/bbaf2n.mpg", b"")
    put(tmp_path / "align/s1/bbaf2n.align", "0 23750 sil\n23750 29500 bin\n29500 34000 blue\n")
    settings = {"videos": "s1", "annotations": "align", "layout": "video_files", "suffix": ".align", "unit_s": 4e-5}
    source = opened(video_segments, tmp_path, skip=("sil",), group=2, **settings)
    assert joined_splits([source]) == ("train",) and joined_classes([source]) == ("bin", "blue")
    ((record,), problems) = read(source)
    assert not problems and record.group == "bb"
    assert [(round(s.start_s, 4), round(s.end_s, 4), s.label) for s in record.segments] == [
        (0.95, 1.18, "bin"), (1.18, 1.36, "blue"),
    ]  # fmt: skip


def test_real_frames_have_the_word_that_is_said(shared_dir: Path) -> None:
    """GRID: frame f shows the word with start <= 1000 f < end."""
    from pipeline.ingest.door import DoorConfig, Shrink, admit

    root = shared_dir / "data/video_grid/data"
    source = opened(
        video_segments, root, videos="s1", annotations="alignments", layout="video_files", suffix=".align",
        unit_s=0.00004, skip=("sil", "sp"), every=25,
    )  # fmt: skip
    records, problems = read(source)
    assert len(records) == 24 and not problems and "bin" in joined_classes([source])
    first = next(r for r in records if file(r) == "bwbg8n.mpg")
    admission = admit(first, joined_classes([source]), DoorConfig(root=root, shrink=Shrink(short_side=48, quality=90)))
    assert admission.record is not None and admission.record.times_s == pytest.approx((0.0, 1.0, 2.0))
    assert admission.record.labels_by_frame()[:2] == ((), ("white",)), "17250 to 23000 is `bin`, 23000 to 27500 `white`"


# Charades


def test_charades(tmp_path: Path) -> None:
    put(tmp_path / "Charades_v1_classes.txt", "c000 Holding some clothes\nc001 Putting clothes somewhere\n")
    put(
        tmp_path / "Charades_v1_train.csv",
        "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length\n"
        'ABC12,S1,Home,6,7,Yes,"A person, standing.",x,One.;Two.,c001 1.00 2.50;c000 0.00 9.00;c000 x,10.1\n'
        "DEF34,S2,Home,6,7,Yes,,x,,,5\nABC12,S1,,,,,,,,,\n",
    )
    put(tmp_path / "Charades_v1_480/ABC12.mp4", b"")
    source = opened(charades, tmp_path)
    assert joined_classes([source]) == ("Holding some clothes", "Putting clothes somewhere")
    (one, two), problems = read(source)
    assert [(s.start_s, s.end_s, s.label) for s in one.segments] == [
        (1.0, 2.5, "Putting clothes somewhere"), (0.0, 9.0, "Holding some clothes"),
    ]  # fmt: skip
    assert [c.text for c in one.captions] == ["A person, standing.", "One.", "Two."] and one.group == "S1"
    assert two.segments == two.captions == () and file(two) == "DEF34.mp4"
    assert [p.reason for p in problems] == ["bad_segment_line", "duplicate_key"]
    assert joined_classes([opened(charades, tmp_path, codes=True)]) == ("c000", "c001")


# captions


def info(videos: list, sentences: list) -> str:
    return json.dumps({"info": {}, "videos": videos, "sentences": sentences})


def test_msrvtt(tmp_path: Path) -> None:
    videos = [
        {"video_id": f"video{i}", "split": split, "start time": 137.72}
        for i, split in enumerate(("train", "train", "validate"))
    ]
    sentences = [
        {"video_id": "video0", "caption": "a cat", "sen_id": 1},
        {"video_id": "video2", "caption": "a dog", "sen_id": 2},
        {"video_id": "video0", "caption": "a cat", "sen_id": 3}, {"video_id": "video0", "caption": "cats", "sen_id": 4},
        {"video_id": "video9", "caption": "nobody", "sen_id": 5}, {"video_id": "video0", "caption": 7, "sen_id": 6},
    ]  # fmt: skip
    put(tmp_path / "train_val_videodatainfo.json", info([*videos, {"split": "train"}], sentences))
    put(tmp_path / "test_videodatainfo.json", info([{"video_id": "video3", "split": "test"}], []))
    put(tmp_path / "TrainValVideo/video0.mp4", b"")
    source = opened(msrvtt, tmp_path)
    assert joined_splits([source]) == ("train", "val", "test") and joined_classes([source]) == ()
    (first, second), problems = read(source)
    assert [c.text for c in first.captions] == ["a cat", "cats"] and first.group == ""
    assert (file(first), file(second), second.captions) == ("video0.mp4", "video1.mp4", ())
    assert [p.reason for p in problems] == ["bad_image_entry", "unknown_video", "bad_caption"]
    ((val,), _) = read(source, split="val")
    assert [c.text for c in val.captions] == ["a dog"] and val.video is not None and val.video.start_s == 0.0
    with pytest.raises(DataError, match="none of MSR-VTT's files"):
        joined_splits([opened(msrvtt, tmp_path, files=("other.json",))])


def test_captions_in_a_table_that_says_more(tmp_path: Path) -> None:
    """MSVD's, in many languages."""
    put(tmp_path / "clips/x_1_5.avi", b"")
    put(tmp_path / "clips/x_7_9.avi", b"")
    put(
        tmp_path / "corpus.csv",
        "VideoID,Start,End,Language,Description\nx,1,5,English,A bird sings.\nx,1,5,German,Ein Vogel singt.\n"
        "x,1,5,English,A bird sings.\ny,1,2,English,Gone.\nx,7,9,English,\"It flies, far.\"\n",
    )  # fmt: skip
    settings = {"captions": "corpus.csv", "video": "{VideoID}_{Start}_{End}", "caption": "Description"}
    source = opened(video_captions, tmp_path, where={"Language": "English"}, group=r"(.+)_\d+_\d+$", **settings)
    (first, second), problems = read(source)
    assert [[c.text for c in r.captions] for r in (first, second)] == [["A bird sings."], ["It flies, far."]]
    assert {first.group, second.group} == {"x"} and [p.reason for p in problems] == ["unknown_video"]
    with pytest.raises(DataError, match="lacks columns"):
        read(opened(video_captions, tmp_path, captions="corpus.csv"))


def test_captions_in_lines(tmp_path: Path) -> None:
    put(tmp_path / "v/mv89psg6zh4_33_46.avi", b"")
    put(
        tmp_path / "train.txt",
        "# comment\nmv89psg6zh4_33_46 a bird is bathing\nmv89psg6zh4_33_46\ta bird washes\nlonely\n",
    )
    put(tmp_path / "val.txt", "")
    source = opened(video_captions, tmp_path, captions="{split}.txt")
    assert joined_splits([source]) == ("train", "val")
    ((record,), problems) = read(source)
    assert [c.text for c in record.captions] == ["a bird is bathing", "a bird washes"]
    assert [(p.reason, p.item_id) for p in problems] == [("bad_list_line", "line 4")]


def test_real_captions(shared_dir: Path) -> None:
    source = opened(video_captions, shared_dir / "data/video_captions_panda", fps=2.0)
    records, problems = read(source)
    assert len(records) == 33 and not problems and all(len(r.captions) == 1 for r in records)


def test_two_sources_of_one_video_are_joined(tmp_path: Path) -> None:
    put(tmp_path / "TrainValVideo/video0.avi", b"")
    put(tmp_path / "annotations/Run.txt", "video0 0 1")
    put(tmp_path / "train_val_videodatainfo.json", info(
        [{"video_id": "video0", "split": "train"}], [{"video_id": "video0", "caption": "runs", "sen_id": 0}]
    ))  # fmt: skip
    segments = opened(video_segments, tmp_path, videos="TrainValVideo")
    ((record,), _) = read(segments, opened(msrvtt, tmp_path))
    assert len(record.captions) == len(record.segments) == 1
    with pytest.raises(DataError, match="other frames of it"):
        read(segments, opened(msrvtt, tmp_path, every=2))
