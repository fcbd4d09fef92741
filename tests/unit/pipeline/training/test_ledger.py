"""The ledger: merged over ranks and restarts, checked against the manifest, told to the last key."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from contracts.errors import DataError
from pipeline.training.ledger import FOLDER, LedgerFile, Step, check, merge
from tests.command import sightline


def write(folder: Path, session: str, from_step: int, steps: dict[int, list[list[str]]], epoch: int = 0) -> None:
    """Steps by number: the keys of each rank."""
    world = len(next(iter(steps.values()))) if steps else 1
    for rank in range(world):
        file = LedgerFile(folder, session, rank=rank, world=world, from_step=from_step)
        for step, parts in steps.items():
            file.step(epoch=epoch, step=step, keys=parts[rank])
        file.close()


def test_ranks_are_joined_in_order(tmp_path):
    write(tmp_path, "1", 0, {1: [["a", "b"], ["c"]], 2: [["d"], ["e"]]})
    assert merge(tmp_path) == [Step(epoch=0, step=1, keys=("a", "b", "c")), Step(epoch=0, step=2, keys=("d", "e"))]


def test_what_came_after_the_state_that_a_later_session_goes_on_from_is_void(tmp_path):
    write(tmp_path, "1", 0, {1: [["a"]], 2: [["b"]], 3: [["lost"]]})
    write(tmp_path, "2", 2, {3: [["c"], ["d"]]})  # with another number of workers
    write(tmp_path, "3", 1, {2: [["e"]]})  # its newest state was damaged: an older one was taken
    assert [step.keys for step in merge(tmp_path)] == [("a",), ("e",)]


def test_a_step_that_one_rank_did_not_finish_does_not_count(tmp_path):
    write(tmp_path, "1", 0, {1: [["a"], ["b"]]})
    with open(tmp_path / "1-rank0000.jsonl", "a") as file:
        file.write(json.dumps({"epoch": 0, "step": 2, "keys": ["c"]}) + '\n{"epoch": 0, "st')  # and a cut line
    assert [step.keys for step in merge(tmp_path)] == [("a", "b")]


def test_a_session_whose_other_rank_never_came_counts_for_nothing(tmp_path):
    file = LedgerFile(tmp_path, "1", rank=0, world=2, from_step=0)
    file.step(epoch=0, step=1, keys=["a"])
    file.close()
    assert merge(tmp_path) == []


def test_each_epoch_is_exact_or_its_keys_are_told():
    steps = [
        Step(epoch=0, step=1, keys=("a", "b")),
        Step(epoch=0, step=2, keys=("c",)),
        Step(epoch=1, step=3, keys=("a", "a", "x")),
    ]
    first, second = check(steps, ["a", "b", "c"])
    assert first.exact and str(first) == "epoch 1: exact (3 samples in 2 steps)"
    assert (second.missing, second.repeated, second.unknown) == (("b", "c"), ("a",), ("x",))
    assert not second.exact and str(second) == "epoch 2: 2 missing (b, c); 1 repeated (a); 1 unknown (x)"


def test_no_ledger_and_damaged_ones_are_told(tmp_path):
    with pytest.raises(DataError, match=r"train\.ledger"):
        merge(tmp_path / "nowhere")
    (tmp_path / "1-rank0000.jsonl").write_text('{"session": "1", "rank": 0, "world": 1, "from_step": 0}\nrubbish\n')
    with pytest.raises(DataError, match="damaged line"):
        merge(tmp_path)


def test_command(tiny_project, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tiny_project.root)
    assert sightline("ledger", ["segmentation"]) == 2
    assert "no ledger" in capsys.readouterr().err
    manifest = json.loads((tiny_project.shards("voc") / "manifest.json").read_text())
    from pipeline.shards.reader import SplitReader

    keys = SplitReader(tiny_project.shards("voc"), manifest, "train").keys()
    folder = tiny_project.artifacts("segmentation") / FOLDER
    write(folder, "1", 0, {1: [keys[:20], keys[20:]]})
    assert sightline("ledger", ["segmentation"]) == 0
    assert f"epoch 1: exact ({len(keys)} samples in 1 steps)" in capsys.readouterr().out
    write(folder, "2", 1, {2: [keys[:3], keys[2:]]}, epoch=1)
    assert sightline("ledger", ["segmentation"]) == 1
    assert f"epoch 2: 1 repeated ({keys[2]})" in capsys.readouterr().out
    for path in folder.iterdir():
        os.unlink(path)
    folder.rmdir()
