"""Folders of frames by a list: numbers give the order, the list gives what is used, gaps are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from contracts.errors import ConfigError, DataError
from contracts.raw import Problem, RawRecord
from pipeline.ingest.sources import OpenSource, frame_folders, joined_classes, joined_splits, read_joined
from tests.formats import put


def opened(root: Path, **config: Any) -> list[OpenSource]:
    return [OpenSource(name="f", module=frame_folders, root=root, config=frame_folders.Config(**config))]  # type: ignore[arg-type]


def read(root: Path, **config: Any) -> tuple[list[RawRecord], list[Problem]]:
    items = list(read_joined(opened(root, **config), "train"))
    return [i for i in items if isinstance(i, RawRecord)], [i for i in items if isinstance(i, Problem)]


def video(folder: Path, numbers: Any, template: str = "img_{:05d}.jpg") -> None:
    for number in numbers:
        put(folder / template.format(number), b"")


def test_frames_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    video(tmp_path / "a/v1", range(1, 12), "f{}.jpg")
    video(tmp_path / "v0", range(5), "{:04d}.png")
    put(tmp_path / "v0/notes.txt", "3")
    put(tmp_path / "train.txt", "v0 5 0\na/v1 11 1\n")
    (second, first), problems = read(tmp_path, fps=10)
    assert (first.key, second.key) == ("v0", "a-v1") and not problems
    assert [path.name for path in second.frames] == [f"f{i}.jpg" for i in range(1, 12)]
    assert [path.name for path in first.frames] == [f"{i:04d}.png" for i in range(5)]
    assert first.times_s == pytest.approx((0.0, 0.1, 0.2, 0.3, 0.4))
    assert (first.labels, first.group, second.group, first.image) == (("0",), "v0", "a/v1", None)


def test_a_line_may_be_a_part_of_a_folder_and_have_several_classes(tmp_path: Path) -> None:
    video(tmp_path / "x/v", range(1, 11))
    put(tmp_path / "list.txt", "v 1 4 0 2 2\n\r\nv 5 10 jump\r")
    records, problems = read(tmp_path, lists="list.txt", folder="x", span="range", classes=("run", "stand", "jump"))
    assert [(r.key.split("-")[0], len(r.frames), r.labels) for r in records] == [
        ("v_1_4", 4, ("run", "jump")), ("v_5_10", 6, ("jump",)),
    ]  # fmt: skip
    assert [r.frames[0].name for r in records] == ["img_00001.jpg", "img_00005.jpg"]
    assert {r.group for r in records} == {"v"} and records[1].times_s[0] == 0.0 and not problems
    assert joined_splits(opened(tmp_path, lists="list.txt")) == ("train",)


def test_fewer_frames_are_kept_at_their_times(tmp_path: Path) -> None:
    video(tmp_path / "v", range(1, 8))
    put(tmp_path / "train.txt", "v 6 a")
    ((record,), _) = read(tmp_path, fps=4, every=2)
    assert [path.stem[-1] for path in record.frames] == ["1", "3", "5"] and record.times_s == (0.0, 0.5, 1.0)


def test_what_the_list_says_and_the_folder_has_not_is_refused(tmp_path: Path) -> None:
    video(tmp_path / "v", (1, 2, 4, 5))
    video(tmp_path / "w", (1, 2))
    put(tmp_path / "w/img_2.png", b"")
    put(tmp_path / "train.txt", "v 4 a\nw 2 a\nw 2 b\nv b\nv 0 a\n../v 2 a\nnone 2 a\nw -1 a\n")
    (record,), problems = read(tmp_path)
    assert record.key == "w" and record.labels == ("a",) and record.fixes == ("duplicate_frame",)
    assert [path.name for path in record.frames] == ["img_00001.jpg", "img_00002.jpg"]
    assert [(p.reason, p.item_id) for p in problems] == [
        ("duplicate_key", "line 3"),
        ("bad_list_line", "line 4"),
        ("bad_list_line", "line 5"),
        ("unsafe_path", "line 6"),
        ("bad_list_line", "line 8"),
        ("missing_frame", "train.txt, line 7"),
        ("missing_frame", "train.txt, line 1"),
    ]
    assert problems[-1].detail == "1 of 4 frames, such as number 3" and problems[-1].key == "v"
    put(tmp_path / "train.txt", "v 4 2 a\nv 1\nv 4 5")
    (record,), problems = read(tmp_path, span="range")
    assert len(record.frames) == 2 and record.labels == ()
    assert [(p.reason, p.detail) for p in problems] == [("bad_list_line", "v 4 2 a"), ("bad_list_line", "v 1")]


def test_groups_of_a_name(tmp_path: Path) -> None:
    for name in ("v_Run_g01_c01", "v_Run_g01_c02", "v_Run_g02_c01", "other"):
        video(tmp_path / name, (1,))
    put(tmp_path / "train.txt", "".join(f"{p.name} 1 Run\n" for p in sorted(tmp_path.iterdir()) if p.is_dir()))
    records, _ = read(tmp_path, group=r"v_(.*_g\d+)_c")
    assert {r.image_id: r.group for r in records} == {
        "other": "other", "v_Run_g01_c01": "Run_g01", "v_Run_g01_c02": "Run_g01", "v_Run_g02_c01": "Run_g02",
    }  # fmt: skip


def test_classes_are_those_of_all_lists(tmp_path: Path) -> None:
    put(tmp_path / "train.txt", "v 1 10\nw 1 9")
    put(tmp_path / "valid.txt", "x 1 0 9\nbad")
    assert joined_classes(opened(tmp_path, splits={"val": "valid"})) == ("0", "9", "10")
    assert joined_splits(opened(tmp_path, splits={"val": "valid"})) == ("train", "val")
    put(tmp_path / "valid.txt", "x 1 b")
    assert joined_classes(opened(tmp_path, splits={"val": "valid"})) == ("10", "9", "b")
    with pytest.raises(DataError, match="not all of them are there"):
        joined_splits(opened(tmp_path, splits={"train": ("train", "more")}))


@pytest.mark.parametrize("group", ["(", "g", "(a)(b)"])
def test_group_must_be_an_expression_with_one_group(group: str) -> None:
    with pytest.raises(ConfigError, match="group"):
        frame_folders.Config(group=group)
