"""Training in folders of the workers' own, and what the driver gets of it, through a store that is a folder here."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import ConfigError, DataError, TrainingError
from lightning_modules.base.module import TaskModule
from pipeline.cluster import apart as of_apart
from pipeline.cluster.apart import Apart, Follower, Shared, fetch_begun, is_apart, own_folder
from pipeline.settings.params import load_params
from pipeline.settings.sections import ClusterConfig
from pipeline.shards import stores
from pipeline.shards.manifest import load_manifest
from pipeline.system.disk import file_sha256
from pipeline.system.project import Project, write_json
from pipeline.training.checkpoints import BEST, load_best, newest_state
from pipeline.training.fit import fit
from pipeline.training.history import curves
from pipeline.training.ledger import FOLDER as LEDGER
from pipeline.training.ledger import check, merge
from pipeline.training.run_files import DONE, EVENTS, FAILURE
from pipeline.training.state_mirror import SESSION, AnotherSession, StateMirror
from tests.local_training import arguments, final_weights
from tests.waiting import until


@pytest.fixture
def apart(tmp_path: Path) -> Apart:
    (tmp_path / "driver").mkdir()
    return Apart(f"file://{tmp_path}/store/run", {"dataset": "voc"}, 0.05, "me")


def stored(apart: Apart) -> set[str]:
    return set(stores.listing(apart.url))


def states(apart: Apart) -> set[str]:
    return {name for name in stored(apart) if name.startswith("state-")}


def state(folder: Path, step: int) -> None:
    (folder / f"state-{step:08d}.ckpt").write_bytes(b"weights")
    write_json(folder / f"state-{step:08d}.json", {"step": step})


def ledger(folder: Path, rank: int, step: int) -> None:
    path = folder / LEDGER / f"1-rank{rank:04d}.jsonl"
    path.parent.mkdir(exist_ok=True)
    lines = [{"from_step": 0}, *({"step": i, "keys": []} for i in range(1, step + 1))]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def test_a_training_in_folders_of_its_own_goes_on_and_its_result_arrives(
    tiny_project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker dies in the middle, with all that it had; the shards are read through their manifest and a store."""
    shards = tiny_project.shards("voc")
    plain = arguments(tiny_project, tmp_path / "state", ledger=True)
    fit(**plain)
    manifest = load_manifest(shards)
    original, folders = TaskModule.training_step, []

    def dying(self: Any, batch: Any, batch_idx: int) -> Any:
        if self.global_step == 7 and len(folders) == 1:
            until(lambda: "state-00000006.json" in stores.listing(url))
            raise RuntimeError("the machine is gone")
        return original(self, batch, batch_idx)

    monkeypatch.setattr(TaskModule, "training_step", dying)
    url, driver = f"file://{tmp_path}/store/run", tmp_path / "driver"
    driver.mkdir()
    errors = []
    with Follower(Apart(url, manifest, 0.05), driver) as follower:
        for _ in range(2):
            session = follower.begin()
            try:
                with own_folder(session, 0, 1, "node-0", True) as (own, own_shards):
                    folders.append(own)
                    assert load_manifest(own_shards) == manifest
                    fit(plain["run"], plain["data"], str(shards), str(own))
            except RuntimeError as error:
                errors.append(str(error))
            follower.ended(errors[-1] if len(folders) == 1 else None)
            assert (
                len(errors) == 1
                and follower.newest() == ("state-00000006.json", "state-00000010.json")[len(folders) - 1]
            )
    assert not any(folder.exists() for folder in folders)
    assert load_best(driver / BEST)["info"] == load_best(tmp_path / "state" / BEST)["info"]
    assert merge(driver / LEDGER) == merge(tmp_path / "state" / LEDGER)
    steps = merge(driver / LEDGER)
    assert all(found.exact for found in check(steps, sorted({key for step in steps for key in step.keys})))
    assert curves(driver / EVENTS).keys() == curves(tmp_path / "state" / EVENTS).keys()
    assert (driver / DONE).is_file()
    StateMirror(url, driver).pull()
    assert final_weights(driver) == final_weights(tmp_path / "state")


def test_a_state_waits_for_the_ledgers_of_all_ranks(apart: Apart, tmp_path: Path) -> None:
    first, second = (of_apart._RankMirror(apart, tmp_path / f"rank{rank}", rank, 2, True) for rank in (0, 1))
    for mirror in (first, second):
        mirror.folder.mkdir()
    StateMirror(apart.url, first.folder, session="me").claim()
    for step in (2, 4):
        state(first.folder, step)
        ledger(first.folder, 0, 4)
        first.push()
        assert not states(apart)
    ledger(second.folder, 1, 2)
    second.push()
    first.push()
    assert states(apart) == {
        "state-00000002.ckpt",
        "state-00000002.json",
    }
    (first.folder / "state-00000002.ckpt").unlink()  # as training does: it keeps the newest few
    (first.folder / "state-00000002.json").unlink()
    first.push()
    assert first.newest() == "state-00000002.json", "the only one that counts is not removed"
    ledger(second.folder, 1, 4)
    second.push()
    first.push()
    assert states(apart) == {
        "state-00000004.ckpt",
        "state-00000004.json",
    }
    later = of_apart._RankMirror(Apart(apart.url, {}, 1.0, "later"), first.folder, 0, 2, True)
    assert not later.may_send(first.folder / "state-00000004.ckpt"), "a ledger of another session does not count"


def test_a_state_that_training_drops_while_it_is_sent_arrives_whole(
    apart: Apart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small model writes states faster than a store takes them."""
    mirror, original = StateMirror(apart.url, tmp_path / "driver"), stores.upload
    state(mirror.folder, 2)

    def upload(path: Path, url: str) -> None:
        original(path, url)
        if url.endswith(".ckpt"):
            for left in mirror.folder.glob("state-*"):
                left.unlink()

    monkeypatch.setattr(stores, "upload", upload)
    mirror.push()
    assert stored(apart) == {"state-00000002.ckpt", "state-00000002.json"}
    stores.delete(f"{apart.url}/state-00000002.json")
    mirror.fetch(("state-*",))
    assert not list(mirror.folder.glob("state-*")), "half of one is of no use"


def test_whom_the_others_gave_up_writes_nothing_any_more(apart: Apart, tmp_path: Path, monkeypatch: Any) -> None:
    ended, follower = threading.Event(), Follower(apart, tmp_path / "driver")
    monkeypatch.setattr(os, "_exit", lambda code: ended.set())

    def others_begin(session: Apart) -> None:
        with own_folder(session, 0, 1, "", False) as (own, _):
            state(own, 2)
            until(lambda: "state-00000002.json" in stored(apart))
            follower.begin()
            state(own, 4)
            assert ended.wait(60), "the process ends"

    with pytest.raises(AnotherSession):
        others_begin(follower.begin())
    assert follower.newest() == "state-00000002.json"


def test_events_come_after_the_pictures_that_they_name(apart: Apart, tmp_path: Path, monkeypatch: Any) -> None:
    worker, driver = tmp_path / "worker", tmp_path / "driver"
    (worker / "pictures").mkdir(parents=True)
    original = stores.download

    def tell(name: str) -> None:
        (worker / f"pictures/{name}").write_bytes(b"png")
        with open(worker / EVENTS, "a") as events:
            events.write(json.dumps({"kind": "image", "file": f"pictures/{name}"}) + "\n")
        StateMirror(apart.url, worker).push()

    def download(url: str, path: Path) -> str:
        if url.endswith(EVENTS):
            tell("b.png")  # while the driver is at it
        else:
            assert not (driver / EVENTS).exists(), "what they name is not here yet"
        return original(url, path)

    tell("a.png")
    monkeypatch.setattr(stores, "download", download)
    Follower(apart, driver).follow()
    named = [json.loads(line)["file"] for line in (driver / EVENTS).read_text().splitlines()]
    assert named == ["pictures/a.png", "pictures/b.png"] and all((driver / name).is_file() for name in named)


def test_a_failure_is_told_and_forgotten_when_training_begins_anew(apart: Apart, tmp_path: Path) -> None:
    driver = tmp_path / "driver"
    follower = Follower(apart, driver)

    def fails() -> None:
        with own_folder(follower.begin(), 0, 1, "", False) as (own, _):
            write_json(own / FAILURE, {"text": "no such thing"})
            raise DataError("no such thing")

    with pytest.raises(DataError):
        fails()
    follower.ended("it failed")
    assert json.loads((driver / FAILURE).read_text())["text"] == "no such thing"
    follower.begin()
    assert FAILURE not in stored(apart)


def test_a_result_that_is_not_there_is_told(apart: Apart, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="its result is not in the store"):
        Follower(apart, tmp_path / "driver").ended(None)


def test_a_store_that_is_away_is_told_once_and_asked_again(
    apart: Apart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    asked, original = [0], stores.contents

    def contents(url: str) -> Any:
        asked[0] += 1
        if asked[0] in (2, 3):
            raise DataError("the object store failed")
        return original(url)

    monkeypatch.setattr(stores, "contents", contents)
    with Follower(apart, tmp_path / "driver"):
        until(lambda: asked[0] > 5)
    told = capsys.readouterr().out
    assert (told.count("is away"), told.count("is back")) == (1, 1)


def test_what_is_here_and_newer_is_laid_into_the_store(apart: Apart, tmp_path: Path) -> None:
    """Trained here at first, on a cluster then; and the other way round nothing old goes there."""
    driver = tmp_path / "driver"
    state(driver, 4)
    (driver / "run_id").write_text("1")
    digest = file_sha256(driver / "state-00000004.ckpt")
    write_json(driver / "state-00000004.json", {"step": 4, "sha256": digest})
    follower = Follower(apart, driver)
    follower.begin()
    assert {"run_id", "state-00000004.ckpt", "state-00000004.json", SESSION} == stored(apart)
    newer = tmp_path / "newer"
    newer.mkdir()
    state(newer, 6)
    StateMirror(apart.url, newer).push()
    follower.begin()
    assert follower.newest() == "state-00000006.json"
    other = StateMirror(apart.url, tmp_path / "other")
    other.folder.mkdir()
    fetch_begun(other)
    assert [path.name for path in other.folder.iterdir()] == ["run_id"], "a driver needs no weights"
    assert newest_state(driver) is not None


def test_where_states_are_shared_nothing_is_done(tmp_path: Path) -> None:
    with Shared(tmp_path) as place:
        assert place.begin() is None and place.newest() == ""  # type: ignore[func-returns-value]
        state(tmp_path, 2)
        place.ended("any")
        assert place.newest() == "state-00000002.json"


@pytest.mark.parametrize(
    ("config", "environment", "manifest", "expected"),
    [
        ({"address": "h:1", "storage": "s3://b/c"}, {}, {"store": "s3://b/d"}, True),
        ({}, {"RAY_ADDRESS": "h:1", "SIGHTLINE_STORAGE": "s3://b/c"}, {"store": "s3://b/d"}, True),
        ({"address": "h:1", "storage": "s3://b/c"}, {}, {}, False),
        ({"address": "h:1"}, {}, {"store": "s3://b/d"}, False),
        ({"storage": "s3://b/c"}, {}, {"store": "s3://b/d"}, False),
        ({"address": "local", "storage": "s3://b/c"}, {"RAY_ADDRESS": "h:1"}, {"store": "s3://b/d"}, False),
        ({"address": "h:1", "storage": "s3://b/c", "engine": "local"}, {}, {"store": "s3://b/d"}, False),
    ],
)
def test_folders_are_apart_on_a_joined_cluster_with_stores(
    config: dict[str, Any], environment: dict[str, str], manifest: dict[str, Any], expected: bool, monkeypatch: Any
) -> None:
    for name in ("RAY_ADDRESS", "SIGHTLINE_STORAGE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_apart(ClusterConfig(**config), manifest) is expected


def test_the_environment_names_the_storage_before_the_settings(tiny_project: Project, monkeypatch: Any) -> None:
    monkeypatch.setenv("SIGHTLINE_STORAGE", "s3://a/b/")
    assert ClusterConfig(storage="s3://c/d").storage_url == "s3://a/b"
    monkeypatch.setenv("SIGHTLINE_STORAGE", "/mnt/folder")
    with pytest.raises(ConfigError, match="SIGHTLINE_STORAGE must be the url of a folder"):
        _ = load_params(tiny_project.root).section(ClusterConfig, "cluster").storage_url
