"""What goes wrong in one process, and how training goes on: the same final weights as without it, or a clear stop."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

import psutil
import pytest
import torch
import yaml

from contracts.errors import TrainingError
from pipeline.settings.params import load_params
from pipeline.settings.train_config import TrainConfig
from pipeline.training.checkpoints import BEST, load_best, newest_state
from pipeline.training.fit import fit
from pipeline.training.run_files import DONE, FAILURE
from pipeline.training.runs import load_run
from pipeline.training.state_mirror import StateMirror
from tests import ranks
from tests.local_training import arguments, final_weights, mlflow_statuses

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def expected(unbroken) -> str:
    """Digest of its final weights."""
    return final_weights(unbroken)


def test_the_same_error_at_the_same_step_stops_with_the_samples(tiny_project, tmp_path, monkeypatch):
    from lightning_modules.base.module import TaskModule

    original = TaskModule.training_step

    def failing(self, batch, batch_idx):
        if self.global_step == 3:
            raise ValueError("an odd sample")
        return original(self, batch, batch_idx)

    monkeypatch.setattr(TaskModule, "training_step", failing)
    with pytest.raises(ValueError, match="an odd sample"):
        fit(**arguments(tiny_project, tmp_path))
    assert not (tmp_path / FAILURE).exists(), "once may be bad luck"
    with pytest.raises(TrainingError, match=r"(?s)failed twice.*an odd sample.*step 4, samples \['"):
        fit(**arguments(tiny_project, tmp_path))
    assert "an odd sample" in json.loads((tmp_path / FAILURE).read_text())["text"]
    assert not (tmp_path / BEST).exists() and not (tmp_path / DONE).exists()


def test_no_more_is_lost_than_the_seconds_since_the_last_state(tiny_project, tmp_path, monkeypatch, expected):
    """By the clock, since the time of a step is not known beforehand; what was set to no time is lost as a whole."""
    from lightning_modules.base.module import TaskModule

    original = TaskModule.training_step

    def failing(self, batch, batch_idx):
        if self.global_step == 3:
            raise KeyError("gone")
        return original(self, batch, batch_idx)

    monkeypatch.setattr(TaskModule, "training_step", failing)
    for name, seconds in (("soon", 1e-9), ("late", 3600), ("never", None)):
        started = arguments(tiny_project, tmp_path / name, checkpoint_every_steps=None, checkpoint_every_s=seconds)
        with pytest.raises(KeyError, match="gone"):
            fit(**started)
        newest = newest_state(tmp_path / name)
        assert (newest.name if newest else None) == ("state-00000003.ckpt" if name == "soon" else None)
    monkeypatch.undo()
    fit(**arguments(tiny_project, tmp_path / "soon", checkpoint_every_steps=None))
    assert final_weights(tmp_path / "soon") == expected
    assert TrainConfig().checkpoint_every_s == 300


def test_a_sample_that_cannot_be_encoded_is_named(tiny_project, tmp_path, monkeypatch):
    from lightning_modules.tasks.segmentation import Task

    def broken(self, record, seed):
        raise ValueError("no such pixel")

    monkeypatch.setattr(Task, "encode", broken)
    with pytest.raises(ValueError, match="no such pixel") as caught:
        fit(**arguments(tiny_project, tmp_path))
    (note,) = caught.value.__notes__
    assert re.fullmatch(r"while sample '[a-z0-9-]+2012_\d{6}-\w{8}' was encoded", note)


def test_a_killed_loader_worker_is_replaced_by_the_next_call(tiny_project, tmp_path, monkeypatch, expected):
    from lightning_modules.base.module import TaskModule

    original = TaskModule.training_step
    before = set(psutil.Process().children(recursive=True))  # those of other tests

    def killing(self, batch, batch_idx):
        if self.global_step == 3:
            for child in set(psutil.Process().children(recursive=True)) - before:
                with contextlib.suppress(psutil.NoSuchProcess):  # one that ended by itself, and waits for its parent
                    if "resource_tracker" in " ".join(child.cmdline()):
                        continue
                    os.kill(child.pid, signal.SIGKILL)
        return original(self, batch, batch_idx)

    with_workers = arguments(tiny_project, tmp_path, loader={"num_workers": 1, "start_method": "fork"})
    monkeypatch.setattr(TaskModule, "training_step", killing)
    with pytest.raises(RuntimeError, match="worker"):
        fit(**with_workers)
    monkeypatch.undo()
    fit(**with_workers)
    assert final_weights(tmp_path) == expected


def dies(_: int, arguments: dict[str, Any], fault: str, threads: int) -> None:
    """`fit` in a process that something happens to while it writes a state."""
    torch.set_num_threads(threads)  # sums depend on it
    replace, calls = os.replace, 0

    def dying(source: Any, target: Any) -> None:
        nonlocal calls
        calls += str(target).endswith((".ckpt", ".json")) and "state-" in str(target)
        if fault == "before" and calls == 3:
            os.kill(os.getpid(), signal.SIGKILL)  # the second state is written, but has no name yet
        replace(source, target)
        if fault == "between" and calls == 3:
            os.kill(os.getpid(), signal.SIGKILL)  # it has its name, but no digest
        if fault == "full" and calls == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))  # no room for another

    os.replace = dying  # type: ignore[assignment]
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    fit(**arguments)


@pytest.mark.parametrize("fault", ["before", "between", "full"])
def test_dying_while_a_state_is_written_keeps_the_one_before(tiny_project, tmp_path, capsys, expected, fault):
    started = arguments(tiny_project, tmp_path)
    (tmp_path / "logs").mkdir()
    ((code, told),) = ranks.ends(tmp_path / "logs", dies, started, fault, torch.get_num_threads())
    if fault == "full":
        assert code == 1, told[-2000:]
        assert "the state cannot be written" in told and "the one before it is whole" in told
    else:
        assert code == -signal.SIGKILL, told[-2000:]
    newest = newest_state(tmp_path)
    assert newest is not None and newest.name == "state-00000002.ckpt"
    if fault == "between":
        assert "state-00000004.ckpt is damaged or was not finished: passed over" in capsys.readouterr().out
    (tmp_path / FAILURE).unlink(missing_ok=True)
    fit(**started)
    assert "goes on from state-00000002.ckpt" in capsys.readouterr().out
    assert final_weights(tmp_path) == expected


def test_an_interrupted_command_goes_on(tiny_project, root, tmp_path, unbroken):
    """Ctrl-C to `pipeline.stages.train`, and the same command again."""
    folder = tmp_path / "project"
    shutil.copytree(tiny_project.root, folder)
    document = yaml.safe_load((folder / "params.yaml").read_text())
    document["cluster"] = {"engine": "local"}
    document["runs"]["segmentation"]["train"] = {"max_epochs": 2, "ema_decay": 0.9, "checkpoint_every_steps": 2}
    (folder / "params.yaml").write_text(yaml.safe_dump(document))
    command = [sys.executable, "-m", "pipeline.stages", "train", "segmentation"]
    threads = str(torch.get_num_threads())  # sums depend on it
    options: dict[str, Any] = {"cwd": folder, "env": os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": threads}}
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job, such as these tests may be, passes on that it is deaf to Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **options,
    ) as process:
        while process.poll() is None and not list(folder.glob("state/*/state-00000002.json")):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors[-2000:]
    assert "Traceback" not in errors
    assert mlflow_statuses(folder) == ["KILLED"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **options)
    assert mlflow_statuses(folder) == ["FINISHED"]  # the same run
    record = json.loads((folder / "artifacts/segmentation/run.json").read_text())
    assert record["best"] == load_best(unbroken / BEST)["info"]  # weights and metrics


def test_a_state_in_a_store_goes_on_where_the_folder_is_gone(tiny_project, tmp_path, monkeypatch, expected):
    from lightning_modules.base.module import TaskModule

    class Gone(Exception):
        """The machine, with its disk."""

    original = TaskModule.training_step

    def dying(self, batch, batch_idx):
        if self.global_step == 7:
            raise Gone
        return original(self, batch, batch_idx)

    store = f"file://{tmp_path}/store/run"
    monkeypatch.setattr(TaskModule, "training_step", dying)
    with pytest.raises(Gone):
        fit(**arguments(tiny_project, tmp_path / "first"), state_store=store)
    monkeypatch.undo()
    second = arguments(tiny_project, tmp_path / "second")
    assert StateMirror(store, tmp_path / "second").pull() == "state-00000006.json"
    assert (tmp_path / "second" / BEST).is_file()
    fit(**second, state_store=store)
    assert final_weights(tmp_path / "second") == expected


def test_other_settings_or_data_never_meet_an_old_state(tiny_project):
    params = load_params(tiny_project.root)
    base = load_run(tiny_project, params, "segmentation")

    def changed(section: str, **values: Any) -> str:
        document = json.loads(json.dumps(params.document))
        document["runs"]["segmentation"].setdefault(section, {}).update(values)
        from pipeline.settings.params import Params

        return load_run(tiny_project, Params(document), "segmentation").fingerprint

    assert changed("train", seed=1) != base.fingerprint
    assert changed("train", batch_size=4) != base.fingerprint
    assert changed("train", ledger=True, checkpoint_every_steps=5, num_pictures=0) == base.fingerprint
    other = dict(base.manifest, digest="0" * 64)
    assert replace(base, manifest=other).fingerprint != base.fingerprint


def test_a_killed_shard_stage_run_again_gives_the_same_bytes(tiny_project, root, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(tiny_project.root, folder)
    shards = folder / "data/shards/coco"
    original = {path.name: path.read_bytes() for path in shards.iterdir()}
    command = [sys.executable, "-m", "pipeline.stages", "shard", "coco"]
    options: dict[str, Any] = {"cwd": folder, "env": os.environ | {"PYTHONPATH": str(root)}}
    start = time.monotonic()
    shutil.rmtree(shards)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **options)
    whole = time.monotonic() - start
    for part in (0.5, 0.8, 0.95):
        shutil.rmtree(shards, ignore_errors=True)
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options) as process:
            time.sleep(whole * part)
            process.kill()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **options)
        assert {path.name: path.read_bytes() for path in shards.iterdir()} == original
