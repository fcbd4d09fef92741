"""States go straight into their folder, and what keeps them from it is told."""

from __future__ import annotations

import errno
import os
import tempfile

import pytest
import torch

from contracts.errors import TrainingError
from pipeline.training import state_file
from pipeline.training.checkpoints import newest_state, publish_state
from pipeline.training.state_file import StateFile, write

DOCUMENT = {"weights": torch.zeros(1_000_000), "nested": [{"more": torch.zeros(250_000)}]}  # 5 MB


def test_the_temporary_folder_has_no_part_in_it(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    StateFile().save_checkpoint(DOCUMENT, tmp_path / ".state.part")
    publish_state(tmp_path / ".state.part", tmp_path, step=1)
    assert newest_state(tmp_path) is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state-00000001.ckpt", "state-00000001.json"]


def test_a_full_disk_is_named_with_the_room_that_is_needed(tmp_path, monkeypatch):
    def full(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(state_file, "sync", full)
    with pytest.raises(TrainingError, match="cannot be written: no room; the one before it is whole") as caught:
        write(DOCUMENT, tmp_path / ".state.part")
    assert "5 MB are needed, " in str(caught.value) and " MB are free; [Errno 28] No space left" in str(caught.value)
    assert caught.value.where == str(tmp_path / ".state.part") and "clean-state" in caught.value.fix
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_gone_is_told(tmp_path):
    with pytest.raises(TrainingError, match=r"(?s)cannot be written.*No such file or directory.*where: .*gone"):
        write(DOCUMENT, tmp_path / "gone" / ".state.part")


@pytest.mark.parametrize("note", ["", "{", "[]", "null", '{"step": 2}', "\x00", '{"sha256": 7}'])
def test_a_damaged_note_is_passed_over(tmp_path, capsys, note):
    for step in (1, 2):
        write(DOCUMENT, tmp_path / ".state.part")
        publish_state(tmp_path / ".state.part", tmp_path, step=step)
    (tmp_path / "state-00000002.json").write_text(note)
    newest = newest_state(tmp_path)
    assert newest is not None and newest.name == "state-00000001.ckpt"
    assert "state-00000002.ckpt is damaged or was not finished: passed over" in capsys.readouterr().out
