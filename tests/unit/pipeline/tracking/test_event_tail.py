"""The tail delivers every event once and in order, whatever breaks: a fake run stands for MLflow."""

import json
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from contracts.errors import TrainingError
from pipeline.tracking.event_tail import MAX_METRICS, Event, EventTail, Refused, read_events
from tests.waiting import until


class FakeRun:
    """Keeps what it is sent; fails as long as `away` is set, refuses steps of `refused`."""

    def __init__(self, run_id: str = "r1", flush_s: float = 0.01, patience_s: float = 5.0):
        self.run_id, self.flush_s, self.patience_s, self.place = run_id, flush_s, patience_s, "http://nowhere"
        self.sent: list[int] = []
        self.away = threading.Event()
        self.refused: set[int] = set()
        self.num_back = 0

    def send(self, events: Sequence[Event], folder: Path) -> None:
        if self.away.is_set():
            raise ConnectionError("connection refused")
        if self.refused & {event["step"] for event in events}:
            raise Refused("no such metric")
        self.sent += [event["step"] for event in events]

    def is_back(self) -> None:
        self.num_back += 1


def line(step: int, **values: float) -> str:
    event = {"kind": "metrics", "step": step, "epoch": 0, "time": 1.5, "values": values or {"loss": 1.0}}
    return json.dumps(event) + "\n"


def append(file: Path, text: str) -> None:
    with open(file, "a") as out:
        out.write(text)


def test_lines_appended_while_it_runs_arrive_once_and_in_order(tmp_path: Path) -> None:
    file, run = tmp_path / "events.jsonl", FakeRun()
    with EventTail(run, file):  # the file need not be there yet
        for step in range(50):
            append(file, line(step))
            if step == 25:
                until(lambda: len(run.sent) > 10)
    assert run.sent == list(range(50))


def test_a_torn_last_line_waits_for_its_end(tmp_path: Path) -> None:
    file, run = tmp_path / "events.jsonl", FakeRun()
    whole = line(2)
    append(file, line(1) + whole[:20])
    with EventTail(run, file):
        until(lambda: run.sent == [1])
        append(file, whole[20:])
        until(lambda: run.sent == [1, 2])


def test_a_half_line_of_a_dead_writer_costs_only_itself(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    file, run = tmp_path / "events.jsonl", FakeRun()
    append(file, line(1) + line(2)[:20] + line(3) + "no json\n" + '{"kind": "metrics", "step": 9}\n' + line(4))
    with EventTail(run, file):
        pass
    assert run.sent == [1, 3, 4]
    assert capfd.readouterr().err.count("is not an event") == 2


def test_a_new_process_goes_on_where_the_last_one_came_to(tmp_path: Path) -> None:
    file, first, second = tmp_path / "events.jsonl", FakeRun(), FakeRun()
    append(file, line(1) + line(2))
    with EventTail(first, file):
        pass
    append(file, line(3))
    with EventTail(second, file):
        pass
    assert (first.sent, second.sent) == ([1, 2], [3])


def test_another_run_gets_everything(tmp_path: Path) -> None:
    file, other = tmp_path / "events.jsonl", FakeRun("r2")
    append(file, line(1))
    with EventTail(FakeRun("r1"), file):
        pass
    with EventTail(other, file):
        pass
    assert other.sent == [1]


def test_an_outage_is_told_once_and_loses_nothing(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    file, run = tmp_path / "events.jsonl", FakeRun()
    with EventTail(run, file) as tail:
        append(file, line(1))
        until(lambda: run.sent == [1])
        run.away.set()
        append(file, line(2))
        until(lambda: tail._pause_s > 1.5)  # tried twice at least
        append(file, line(3))
        run.away.clear()
    said = capfd.readouterr().err
    assert run.sent == [1, 2, 3]
    assert (said.count("away"), said.count("is back"), run.num_back) == (1, 1, 1)


def test_a_server_that_stays_away_is_an_error_at_the_end_and_the_rest_is_kept(tmp_path: Path) -> None:
    file, run = tmp_path / "events.jsonl", FakeRun(patience_s=0.3)
    run.away.set()
    append(file, line(1))
    with pytest.raises(TrainingError, match="stayed away"), EventTail(run, file):
        pass
    run.away.clear()
    with EventTail(run, file):
        pass
    assert run.sent == [1]


def test_a_failed_training_is_not_hidden_by_a_server_that_is_away(tmp_path: Path) -> None:
    file, run = tmp_path / "events.jsonl", FakeRun(patience_s=0.2)
    run.away.set()
    append(file, line(1))
    with pytest.raises(ZeroDivisionError), EventTail(run, file):
        raise ZeroDivisionError


def test_a_refused_event_does_not_hold_up_the_others(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    file, run = tmp_path / "events.jsonl", FakeRun()
    run.refused = {3, 6}
    append(file, "".join(line(step) for step in range(8)))
    with EventTail(run, file) as tail:
        pass
    assert run.sent == [0, 1, 2, 4, 5, 7]
    assert tail.num_dropped == 2
    assert "2 events" in capfd.readouterr().err


def test_one_delivery_is_bounded(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    append(file, "".join(line(step, **{f"m{i}": 0.0 for i in range(99)}) for step in range(25)))  # 100 with `epoch`
    append(
        file, "".join(json.dumps({"kind": "image", "step": i, "name": "a", "file": "a.png"}) + "\n" for i in range(99))
    )
    offset, sizes = 0, []
    while True:
        events, end = read_events(file, offset)
        if end == offset:
            break
        offset = end
        sizes.append(len(events))
        assert sum(len(event.get("values", ())) + 1 for event in events if event["kind"] == "metrics") <= MAX_METRICS
    assert sum(sizes) == 124
    assert max(sizes) <= 10 + 32
    assert offset == file.stat().st_size
