"""What a machine that trains tells of its load, and how long steps waited for batches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.tracking.event_tail import Event, tails_below
from pipeline.training.node_load import FOLDER, LoaderWait, append_line, node_load
from tests.waiting import until


def lines(state: Path, name: str) -> list[dict[str, Any]]:
    path = state / FOLDER / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def test_a_node_tells_its_load_and_goes_on_counting_in_the_next_session(tmp_path: Path) -> None:
    for least in (3, 6):
        with node_load(tmp_path, "node-1", 0.02):
            until(lambda least=least: len([x for x in lines(tmp_path, "node-1") if x["kind"] == "metrics"]) >= least)
    told = lines(tmp_path, "node-1")
    steps = [line["step"] for line in told if line["kind"] == "metrics"]
    assert steps == list(range(1, len(steps) + 1)), "MLflow draws by steps: none comes twice"
    values = told[-1]["values"]
    assert 0 <= values["system/node-1/cpu_utilization_percentage"] <= 100
    assert 0 < values["system/node-1/system_memory_usage_percentage"] <= 100
    assert values["system/node-1/loader_wait_percentage"] >= 0
    assert told[0]["values"].keys() == {"system.node-1"}, "and which machine it is"


def test_of_the_drivers_own_machine_only_the_wait_is_told(tmp_path: Path) -> None:
    with node_load(tmp_path, None, 0.02):
        until(lambda: lines(tmp_path, "here"))
    assert set(lines(tmp_path, "here")[0]["values"]) == {"system/loader_wait_percentage"}
    with node_load(tmp_path / "off", None, None):
        pass
    assert not (tmp_path / "off").exists()


def test_the_wait_is_from_a_steps_end_to_its_next_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    wait, now = LoaderWait(), [0.0]
    monkeypatch.setattr("pipeline.training.node_load.time.monotonic", lambda: now[0])
    wait.end()  # before any step
    for begin, end in ((1.0, 1.5), (2.0, 2.25)):
        now[0] = begin
        wait.begin()
        now[0] = end
        wait.end()
        now[0] = end + 0.1
        wait.end()  # a second micro-batch of the same step
    assert wait.waited_s == 0.75


class Kept:
    """A run that keeps what it is sent."""

    run_id, place, flush_s, patience_s = "id", "here", 0.02, 5.0

    def __init__(self) -> None:
        self.events: list[Event] = []

    def send(self, events: Any, folder: Path) -> None:
        self.events += events

    def is_back(self) -> None:
        pass


def test_files_that_come_meanwhile_are_delivered_once(tmp_path: Path) -> None:
    run = Kept()
    with tails_below(run, tmp_path / FOLDER, 0.02):
        append_line(tmp_path, "a", {"kind": "metrics", "step": 1, "values": {"x": 1.0}})
        until(lambda: run.events)
        append_line(tmp_path, "b", {"kind": "tags", "values": {"ray.dashboard": "http://head"}})
    assert sorted(event["kind"] for event in run.events) == ["metrics", "tags"]
    with tails_below(run, tmp_path / FOLDER, 0.02):
        pass
    assert len(run.events) == 2, "nothing twice, by the next process"
