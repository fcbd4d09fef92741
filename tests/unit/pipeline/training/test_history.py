"""Curves and cost of a training, of the lines and notes that its processes leave."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline.training.events import EventLogger
from pipeline.training.history import copy_events, curves, goodput, read_event, speed, spending, spent


def test_curves_are_what_was_logged_by_rising_step(tmp_path: Path) -> None:
    events = EventLogger(tmp_path / "events.jsonl")
    for step in (10, 20):
        events.log_metrics({"train/loss": 1 / step, "epoch": 0}, step)
    events.image("val/a", np.zeros((2, 2, 3), np.uint8), 20)
    events.log_metrics({"val/loss": 0.5, "val/top1": float("nan")}, 20)
    assert curves(tmp_path / "events.jsonl") == {"train/loss": [(10, 0.1), (20, 0.05)], "val/loss": [(20, 0.5)]}
    assert curves(tmp_path / "none.jsonl") == {}


def test_what_a_training_repeats_is_told_once_as_it_went_first(tmp_path: Path) -> None:
    """Killed in the middle of a line, and gone on from a state of before."""
    events = EventLogger(tmp_path / "events.jsonl")
    for step, value in ((10, 1.0), (20, 2.0)):
        events.log_metrics({"train/loss": value}, step)
    events.image("val/a", np.zeros((2, 2, 3), np.uint8), 20)
    with open(tmp_path / "events.jsonl", "a") as file:
        file.write('{"kind": "metrics", "st')
    events = EventLogger(tmp_path / "events.jsonl")  # of another process
    for step, value in ((20, 2.5), (30, 3.0)):
        events.log_metrics({"train/loss": value, "val/loss": 1.0, "epoch": 1}, step)
        events.image("val/a", np.zeros((2, 2, 3), np.uint8), step)
    both = [(20, 1.0), (30, 1.0)]
    assert curves(tmp_path / "events.jsonl") == {"train/loss": [(10, 1.0), (20, 2.0), (30, 3.0)], "val/loss": both}
    lines = (tmp_path / "events.jsonl").read_bytes().splitlines()
    assert [event["step"] for event in map(read_event, lines) if event] == [*(10, 20, 20), *(20, 30, 30)]


def test_the_copy_has_the_curves_and_not_the_pictures(tmp_path: Path) -> None:
    events = EventLogger(tmp_path / "events.jsonl")
    events.log_metrics({"train/loss": 1.0}, 10)
    events.image("val/a", np.zeros((2, 2, 3), np.uint8), 20)
    copy_events(tmp_path / "events.jsonl", tmp_path / "copy.jsonl")
    assert curves(tmp_path / "copy.jsonl") == curves(tmp_path / "events.jsonl")
    assert "image" not in (tmp_path / "copy.jsonl").read_text()
    copy_events(tmp_path / "none.jsonl", tmp_path / "nothing.jsonl")
    assert not (tmp_path / "nothing.jsonl").exists()


def test_processes_note_what_they_spend_also_when_they_fail(tmp_path: Path) -> None:
    with spending(tmp_path, 0):
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass
    with pytest.raises(ValueError, match="x"), spending(tmp_path, 1):
        raise ValueError("x")
    assert len(list((tmp_path / "spent").iterdir())) == 2
    found = spent(tmp_path)
    assert found["num_workers"] == 2 and found["gpu_gib"] is None
    assert found["cpu_s"] is not None and 0 < found["cpu_s"] < 5
    assert found["memory_gib"] is not None and 0.02 < found["memory_gib"] < 64 and found["gpu_s"] is None


def test_goodput_is_the_share_of_steps_that_count(tmp_path: Path) -> None:
    """A hundred steps of a second each; ten before the first, a validation of 20, a failure that threw 20 steps away
    and took 30 to start again: 100 of 178 seconds, from the start of the process on."""
    (tmp_path / "spent").mkdir()
    (tmp_path / "spent" / f"{1000 * 10**9:020d}-rank0.json").write_text("{}")
    clock, lines = 1010.0, []
    for step in (*range(60), *range(40, 100)):
        clock += 30.0 if (step, len(lines)) == (40, 60) else 20.0 if step == 80 else 1.0
        lines.append({"kind": "metrics", "step": step, "epoch": 0, "values": {"train/loss": 1.0}, "time": clock})
    path = tmp_path / "events.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    assert goodput(path, tmp_path) == pytest.approx(100 / (clock - 1000), abs=1e-4)
    assert clock - 1000 == 178.0
    assert goodput(tmp_path / "none", tmp_path) is None
    (tmp_path / "begun.json").write_text(json.dumps({"from": "other", "step": 39}))
    (tmp_path / "spent" / f"{1000 * 10**9:020d}-rank0.json").unlink()
    (tmp_path / "spent" / f"{1050 * 10**9:020d}-rank0.json").write_text("{}")
    assert goodput(path, tmp_path) == pytest.approx(60 / (clock - 1050), abs=1e-4), "of an extended run: its own steps"


def test_a_process_that_is_killed_leaves_its_start(tmp_path: Path) -> None:
    with spending(tmp_path, 0):
        (note,) = (tmp_path / "spent").iterdir()
        assert spent(tmp_path)["time_s"] == 0.0
    assert [note] == list((tmp_path / "spent").iterdir())


def test_cost_is_summed_over_sessions_and_ranks(tmp_path: Path) -> None:
    """Two ranks, gone on with once: time is rank 0's, processor time everybody's, memory the most of any."""
    (tmp_path / "spent").mkdir()
    notes = [(0, 10.0, 8.0, 1.5), (1, 10.0, 9.0, 2.5), (0, 5.0, 4.0, 1.0), (1, 5.0, 3.0, 1.0)]
    for i, (rank, time_s, cpu_s, gpu_gib) in enumerate(notes):
        note = {"rank": rank, "time_s": time_s, "cpu_s": cpu_s, "gpu_gib": gpu_gib}
        (tmp_path / "spent" / f"{i}.json").write_text(json.dumps(note))
    found = spent(tmp_path)
    assert found == {
        "time_s": 15.0, "cpu_s": 24.0, "gpu_s": 30.0, "gpu_gib": 2.5, "num_workers": 2, "memory_gib": None,
        "energy_j": None,
    }  # fmt: skip
    assert speed(found, steps=30, batch_size=16) == 32.0
    assert spent(tmp_path / "none")["time_s"] is None and speed(spent(tmp_path / "none"), 30, 16) is None
