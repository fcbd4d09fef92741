"""The store that states are copied to goes away and comes back: training feels nothing, and nothing is lost."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from localbucket import S3Handler
from s3fs import S3FileSystem

from lightning_modules.base.module import TaskModule
from pipeline.settings.params import load_params
from pipeline.settings.sections import ClusterConfig
from pipeline.shards import stores
from pipeline.system.project import Project
from pipeline.training import state_copier
from pipeline.training.checkpoints import BEST, newest_state
from pipeline.training.fit import fit
from pipeline.training.run_files import DONE, EVENTS
from pipeline.training.runs import load_run
from pipeline.training.state_copier import StateCopier
from pipeline.training.state_mirror import StateMirror
from tests.local_training import arguments, final_weights, mlflow_statuses
from tests.waiting import PATIENCE_S, until

pytestmark = pytest.mark.filterwarnings("default")


class Store:
    """A real S3 server with the bucket `shop`, on one port, that is stopped and started."""

    def __init__(self, folder: Path):
        (folder / "shop").mkdir(parents=True)
        self.sent: Counter[str] = Counter()
        self.connections: list[socket.socket] = []
        sent, connections = self.sent, self.connections

        class Handler(S3Handler):
            data_root = folder

            def setup(self) -> None:
                super().setup()
                connections.append(self.connection)

            def log_message(self, *args: Any) -> None:
                pass

            def do_PUT(self) -> None:
                sent[self.path.partition("?")[0].rpartition("/")[2]] += 1
                super().do_PUT()

        self.handler, self.port = Handler, 0
        self.start()

    def start(self) -> None:
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), self.handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        for connection in self.connections:  # kept alive otherwise
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.connections.clear()


@pytest.fixture
def store(tmp_path, monkeypatch) -> Iterator[Store]:
    store = Store(tmp_path / "s3")
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{store.port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(state_copier, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(state_copier, "LONGEST_PAUSE_S", 0.05)
    S3FileSystem.clear_instance_cache()  # it keeps the endpoint of the test before
    yield store
    store.stop()


def wait_for(name: str, url: str) -> None:
    until(lambda: name in stores.listing(url), lambda: stores.listing(url))


class Gone(Exception):
    """The machine, with its disk."""


def test_training_goes_on_through_an_outage_and_the_copy_catches_up(tiny_project, tmp_path, store, monkeypatch, capsys):
    whole = tmp_path / "whole"
    fit(**arguments(tiny_project, whole))
    original, url = TaskModule.training_step, "s3://shop/states/run"

    def eventful(self, batch, batch_idx):
        if self.global_step == 3:
            wait_for("state-00000002.json", url)
            store.stop()
        if self.global_step == 7:
            store.start()
            wait_for("state-00000006.json", url)
        if self.global_step == 9:
            raise Gone
        return original(self, batch, batch_idx)

    monkeypatch.setattr(TaskModule, "training_step", eventful)
    with pytest.raises(Gone):
        fit(**arguments(tiny_project, tmp_path / "first"), state_store=url)
    monkeypatch.setattr(TaskModule, "training_step", original)
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("state store")]
    assert [("is away" in line, "is back" in line) for line in told] == [(True, False), (False, True)], told
    assert url in told[0] and "training goes on" in told[0]
    assert {n for n in stores.listing(url) if n.startswith("state-")} == {
        f"state-0000000{step}.{kind}" for step in (6, 8) for kind in ("ckpt", "json")
    }
    assert store.sent["state-00000002.ckpt"] == 1 and store.sent["run_id"] == 0

    second = tmp_path / "second"
    started = arguments(tiny_project, second)
    assert StateMirror(url, second).pull() == "state-00000008.json"
    lines = (second / EVENTS).read_text().splitlines()
    images = [json.loads(line) for line in lines if '"image"' in line]
    assert [image["step"] for image in images] == [0, 0, 5, 5], "untrained, and after the first epoch"
    assert all((second / image["file"]).stat().st_size for image in images)
    fit(**started, state_store=url)
    assert final_weights(second) == final_weights(whole)
    assert json.loads((second / DONE).read_text()) == {"step": 10, "epochs": 2}


def test_what_is_there_is_not_sent_again(tmp_path, store):
    folder = tmp_path / "state"
    mirror = StateMirror("s3://shop/states/run", folder)
    for name, size in ((BEST, 1_000_000), ("run_id", 32), (EVENTS, 10), ("pictures/a.png", 100)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bytes(size))
    for step in range(1, 6):
        (folder / f"state-0000000{step}.ckpt").write_bytes(bytes([step]) * 1000)
        (folder / f"state-0000000{step}.json").write_text("{}")
        with open(folder / EVENTS, "a") as events:
            events.write("one more\n")
        mirror.push()
    StateMirror(mirror.url, folder).push()  # another process
    assert store.sent[BEST] == store.sent["run_id"] == store.sent["a.png"] == store.sent["state-00000001.ckpt"] == 1
    assert store.sent[EVENTS] == 5
    (folder / BEST).write_bytes(bytes(999_999) + b"1")  # as large as before
    StateMirror(mirror.url, folder).push()
    assert store.sent[BEST] == 2
    assert stores.read(f"{mirror.url}/{BEST}")[-1:] == b"1"


def test_names_in_the_store_do_not_lead_out_of_the_folder(tmp_path):
    url, folder = f"memory://hostile-{tmp_path.name}", tmp_path / "state"
    folder.mkdir()
    (tmp_path / "file").write_text("{}")
    for name in ("state-00000002.ckpt", "state-00000002.json", "ledger/../../planted.jsonl", "planted.py"):
        stores.upload(tmp_path / "file", f"{url}/{name}")
    assert StateMirror(url, folder).pull() == "state-00000002.json"
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {
        "file", "state-00000002.ckpt", "state-00000002.json"
    }  # fmt: skip


def test_the_end_waits_so_long_for_the_last_copy_and_says_what_is_missing(tmp_path, store, capsys):
    store.stop()
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "run_id").write_text("7")
    copier = StateCopier(StateMirror("s3://shop/states/run", folder))
    copier.ask()
    copier.close(0.5)
    assert "the newest state is not copied; it is whole in the state folder" in capsys.readouterr().out
    store.start()
    copier = StateCopier(StateMirror("s3://shop/states/run", folder))
    copier.ask()
    copier.close(20)
    assert stores.listing("s3://shop/states/run") == {"run_id": 1}


STAGE = """
import runpy, sys
from pipeline.training import state_copier
from pipeline.shards import stores
stores.PATIENCE_S = 0.3
sys.argv = ["stages", "train", "segmentation"]
runpy.run_module("pipeline.stages", run_name="__main__")
"""


def test_a_store_that_stays_away_costs_the_copy_and_not_the_result(tiny_project, root, tmp_path, store, monkeypatch):
    folder = tmp_path / "project"
    shutil.copytree(tiny_project.root, folder)
    document = yaml.safe_load((folder / "params.yaml").read_text())
    document["cluster"] = {"engine": "local", "storage": "s3://shop/states"}
    document["runs"]["segmentation"]["train"] = {"max_epochs": 2, "checkpoint_every_steps": 2}
    (folder / "params.yaml").write_text(yaml.safe_dump(document))
    project = Project(folder)
    data = load_run(project, load_params(folder), "segmentation")
    state = project.state("segmentation", data.fingerprint)
    original = TaskModule.training_step

    def dying(self, batch, batch_idx):
        if self.global_step == 3:
            raise Gone
        return original(self, batch, batch_idx)

    state.mkdir(parents=True)
    monkeypatch.setattr(TaskModule, "training_step", dying)
    shards = str(project.shards("voc"))
    with pytest.raises(Gone):
        fit(data.run.to_dict(), data.spec.to_dict(), shards, str(state))
    assert newest_state(state) is not None
    store.stop()
    done = subprocess.run(
        [sys.executable, "-c", STAGE],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "training goes on from state-00000002.ckpt, which is here" in done.stdout
    assert "segmentation  goes on from state-00000002.ckpt" in done.stdout
    assert done.stdout.count("is away") == 1
    assert f"warning: the copy of the finished training stays in s3://shop/states/{state.name}" in done.stdout
    assert json.loads((folder / "artifacts/segmentation/run.json").read_text())["training"]["step"] == 10
    assert mlflow_statuses(folder) == ["FINISHED"] and not state.exists()
    store.start()


def test_a_collective_waits_longer_than_a_worker_for_its_shards():
    config = ClusterConfig(collective_timeout_s=90)
    assert config.waiting_for(180.0).collective_timeout_s == 180
    assert config.waiting_for(30.0) == config
