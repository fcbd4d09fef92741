"""Folders that take their place only when whole, and what a disk that refuses is told as."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.errors import ConfigError, DataError
from pipeline.system import disk
from pipeline.system.disk import publish, renewed, write_lines, write_text, writing


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one file `old`, below one that may be written to."""
    path = tmp_path / "shards" / "toy"
    path.mkdir(parents=True)
    (path / "old").write_text("old")
    return path


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_the_new_folder_takes_the_place_of_the_old_one_at_the_end(folder):
    with renewed(folder, inside=folder.parent) as new:
        assert list(new.iterdir()) == [] and new.parent == folder.parent
        (new / "new").touch()
        assert (folder / "old").exists()
    assert names(folder.parent) == ["toy", "toy/new"]


def test_where_there_was_none_one_is_made(tmp_path):
    with renewed(tmp_path / "deep" / "toy", inside=tmp_path) as new:
        (new / "new").touch()
    assert names(tmp_path) == ["deep", "deep/toy", "deep/toy/new"]


@pytest.mark.parametrize("error", [DataError, KeyboardInterrupt])
def test_what_fails_leaves_the_old_one(folder, error):
    with pytest.raises(error), renewed(folder, inside=folder.parent) as new:
        raise error(str((new / "new").touch()))
    assert names(folder.parent) == ["toy", "toy/old"]


def test_what_killed_processes_left_is_cleared(folder):
    for left in (".toy.new", ".toy.old"):
        (folder.parent / left).mkdir()
        (folder.parent / left / "left").touch()
    with renewed(folder, inside=folder.parent) as new:
        assert list(new.iterdir()) == []
    assert names(folder.parent) == ["toy"]


def test_a_kill_between_the_two_renames_loses_nothing(folder):
    folder.rename(folder.parent / ".toy.old")
    with pytest.raises(DataError), renewed(folder, inside=folder.parent):
        raise DataError("stop")
    assert names(folder.parent) == ["toy", "toy/old"]


def test_a_second_rename_that_fails_loses_nothing(folder, monkeypatch):
    rename, calls = disk.os.rename, []

    def fail_at_the_second(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) == 2:
            raise OSError(errno.EIO, "")
        rename(source, target)

    monkeypatch.setattr(disk.os, "rename", fail_at_the_second)
    with pytest.raises(DataError, match="Input/output error"), renewed(folder, inside=folder.parent):
        pass
    assert names(folder.parent) == ["toy", "toy/old"]


def test_nothing_outside_is_touched(folder, tmp_path):
    with pytest.raises(ConfigError, match="outside"), renewed(folder, inside=tmp_path / "elsewhere"):
        pytest.fail("the block must not run")
    assert names(folder.parent) == ["toy", "toy/old"]


@pytest.mark.parametrize(
    ("number", "text", "fix"),
    [
        (errno.ENOSPC, "No space left on device", "make room"),
        (errno.EDQUOT, "quota", "larger quota"),
        (errno.EROFS, "Read-only", "mount this disk for writing"),
        (errno.EACCES, "Permission denied", "the right to write"),
        (errno.EIO, "Input/output error", "see to this disk"),
    ],
)
def test_a_disk_that_refuses_is_told_with_path_and_room(tmp_path, number, text, fix):
    path = tmp_path / "not" / "there"
    with pytest.raises(DataError, match=text) as caught, writing(path, needed=lambda: 3 << 20, fix="or so"):
        raise OSError(number, "")
    assert caught.value.where.startswith(f"{path} (") and " free" in caught.value.where
    assert ("3.0 MiB needed" in caught.value.where) == (number in (errno.ENOSPC, errno.EDQUOT))
    assert fix in caught.value.fix and "run the same command again; or so" in caught.value.fix


def test_a_list_is_written_whole_or_stays(tmp_path):
    path = tmp_path / "deep" / "list"
    write_lines(path, ["a", "ü"])
    assert path.read_text(encoding="utf-8") == "a\nü\n"

    def cut() -> Iterator[str]:
        yield "b"
        raise OSError(errno.ENOSPC, "")

    with pytest.raises(DataError, match="No space left"):
        write_lines(path, cut())
    assert names(tmp_path) == ["deep", "deep/list"] and path.read_text(encoding="utf-8") == "a\nü\n"


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """What is flushed after the rename may be empty after a power cut, under a name that says it is whole."""
    done: list[str] = []
    replace, sync = disk.os.replace, disk.sync
    monkeypatch.setattr(disk, "sync", lambda path: (done.append(f"sync {path.name}"), sync(path)))
    monkeypatch.setattr(disk.os, "replace", lambda *paths: (done.append("rename"), replace(*paths)))
    write_text(tmp_path / "a.json", "{}")
    assert done == ["sync .a.json.part", "rename", f"sync {tmp_path.name}"]
    assert (tmp_path / "a.json").read_text() == "{}" and names(tmp_path) == ["a.json"]
    done.clear()
    (tmp_path / "part").touch()
    publish(tmp_path / "part", tmp_path / "b", flushed_later=True)
    assert done == ["rename"]
