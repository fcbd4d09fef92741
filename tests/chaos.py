"""Random faults on a small training, seeded and bounded: `make chaos`, or `python -m tests.chaos --seed 3 --minutes 2`.

Trains one small run undisturbed, then again and again with a random fault every few steps, until the time is up. Each
disturbed training must end with the same weights and metrics to the last bit, an exact ledger, one MLflow run FINISHED,
and no process left behind. Exit code 1 where one does not; the folder is kept then, with `log.txt` of all commands.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import yaml

from pipeline.training.ledger import FOLDER as LEDGER
from pipeline.training.ledger import merge
from tests.command import sightline
from tests.local_training import drawn_voc, mlflow_statuses

ROOT = Path(__file__).resolve().parent.parent
RUN = "segmentation"
PARAMS = {
    "datasets": drawn_voc(train=40, val=11),
    "runs": {RUN: {"dataset": "voc", "task": {"name": "segmentation"}, "model": {"name": "fcn"}}},
    "train": {
        "max_epochs": 16,
        "batch_size": 8,
        "eval_batch_size": 4,
        "validate_every_epochs": 4,
        "checkpoint_every_steps": 2,
        "num_pictures": 2,
        "ema_decay": 0.9,
        "precision": "32-true",
        "ledger": True,
    },
    "shards": {"samples": 8},
    "cluster": {"engine": "ray", "num_workers": 2, "collective_timeout_s": 10},
    "tracking": {"system_metrics": False, "flush_s": 0.2},
    "registry": {},
}
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S": "2", "OMP_NUM_THREADS": "1"}
LONGEST_S = 300  # of one command between two faults


@dataclass
class Training:
    """The stage's own command in a project of its own, started again after whatever ended it."""

    folder: Path
    process: subprocess.Popen | None = None
    faults: Counter[str] = field(default_factory=Counter)

    def command(self, *arguments: str) -> subprocess.Popen:
        with open(self.folder / "log.txt", "a") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=self.folder,
                env=os.environ | ENVIRONMENT,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job is deaf to it
            )

    def start(self) -> None:
        self.process = self.command("pipeline.stages", "train", RUN)

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def ledgers(self) -> list[list[dict]]:
        """Lines of each rank's ledger in the newest session."""
        found: dict[str, list[list[dict]]] = {}
        for path in self.folder.glob(f"state/{RUN}-*/{LEDGER}/*.jsonl"):
            try:
                lines = [json.loads(line) for line in path.read_text().split("\n")[:-1]]
            except FileNotFoundError:  # the training has ended, and its state is gone
                continue
            if lines:
                found.setdefault(lines[0]["session"], []).append(lines)
        return found[max(found)] if found else []

    def workers(self) -> list[int]:
        """Processes that train now."""
        return [lines[0]["pid"] for lines in self.ledgers() if psutil.pid_exists(lines[0]["pid"])]

    def steps(self) -> int:
        """Steps that the newest session has made."""
        return min((len(lines) - 1 for lines in self.ledgers()), default=0)


# A fault takes a training and a generator; it returns False where there is nothing to do it to.


def _signal_worker(number: int) -> Callable[[Training, random.Random], bool]:
    def fault(training: Training, rng: random.Random) -> bool:
        workers = training.workers()
        if workers:
            os.kill(rng.choice(workers), number)
        return bool(workers)

    return fault


def _signal_driver(number: int) -> Callable[[Training, random.Random], bool]:
    def fault(training: Training, rng: random.Random) -> bool:
        assert training.process is not None
        training.process.send_signal(number)
        training.process.wait(LONGEST_S)
        return True

    return fault


def _kill_named(name: str) -> Callable[[Training, random.Random], bool]:
    """Kill a process of the training's tree by what its command line holds."""

    def fault(training: Training, rng: random.Random) -> bool:
        assert training.process is not None
        for child in psutil.Process(training.process.pid).children(recursive=True):
            if name in " ".join(child.cmdline()):
                child.kill()
                return True
        return False

    return fault


def _freeze_a_while(training: Training, rng: random.Random) -> bool:
    workers = training.workers()
    if workers:
        frozen = rng.choice(workers)
        os.kill(frozen, signal.SIGSTOP)
        time.sleep(rng.uniform(0.5, 4))
        if psutil.pid_exists(frozen):
            os.kill(frozen, signal.SIGCONT)
    return bool(workers)


def _damage_newest_state(training: Training, rng: random.Random) -> bool:
    """Kill the driver, then cut or change the newest state or its note: the one before it must do."""
    _signal_driver(signal.SIGKILL)(training, rng)
    states = sorted(training.folder.glob(f"state/{RUN}-*/state-*.ckpt"))
    if len(states) < 2:
        return False
    victim = states[-1] if rng.random() < 0.7 else states[-1].with_suffix(".json")
    data = bytearray(victim.read_bytes()) if victim.is_file() else bytearray()
    if data and rng.random() < 0.5:
        data[rng.randrange(len(data))] ^= 0x10
    else:
        del data[len(data) // 2 :]
    victim.write_bytes(data)
    return True


FAULTS: dict[str, Callable[[Training, random.Random], bool]] = {
    "a worker is killed": _signal_worker(signal.SIGKILL),
    "a worker is told to stop": _signal_worker(signal.SIGTERM),
    "a worker freezes for good": _signal_worker(signal.SIGSTOP),
    "a worker freezes for a while": _freeze_a_while,
    "the command is killed": _signal_driver(signal.SIGKILL),
    "the command is told to stop": _signal_driver(signal.SIGTERM),
    "Ctrl-C": _signal_driver(signal.SIGINT),
    "Ray's control process is killed": _kill_named("gcs_server"),
    "Ray's node process is killed": _kill_named("raylet/raylet"),
    "the newest state is damaged": _damage_newest_state,
}


def prepare(folder: Path) -> None:
    """A project with its shards."""
    folder.mkdir()
    (folder / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    training = Training(folder)
    for stage in ("fetch", "shard", "vocab"):
        if code := training.command("pipeline.stages", stage, "voc").wait(LONGEST_S):
            raise RuntimeError(f"{stage} ended with {code}: {folder / 'log.txt'}")


def undisturbed(folder: Path) -> None:
    training = Training(folder)
    training.start()
    assert training.process is not None
    if code := training.process.wait(LONGEST_S):
        raise RuntimeError(f"the undisturbed training ended with {code}: {folder / 'log.txt'}")


def disturbed(folder: Path, rng: random.Random, until: float) -> Training:
    """Train with a fault every few steps until it is done; after `until` without any."""
    training = Training(folder)
    while not (folder / f"artifacts/{RUN}/run.json").is_file() or training.running:
        if not training.running:
            training.start()
        wanted, patience = rng.randint(1, 12), time.monotonic() + LONGEST_S
        while training.running and training.steps() < wanted:
            time.sleep(0.05)
            if time.monotonic() > patience:
                raise RuntimeError(f"no step for {LONGEST_S} s: {folder / 'log.txt'}")
        if not training.running or time.monotonic() > until:
            time.sleep(0.2)
            continue
        name = rng.choice(sorted(FAULTS))
        if FAULTS[name](training, rng):
            training.faults[name] += 1
            print(f"  {name}", flush=True)
        session = training.ledgers()[0][0]["session"] if training.ledgers() else ""
        # Let the fault be noticed: the next one waits for a new session or for the end of the command.
        patience = time.monotonic() + LONGEST_S
        while training.running and name != "a worker freezes for a while" and time.monotonic() < patience:
            if (ledgers := training.ledgers()) and ledgers[0][0]["session"] != session:
                break
            time.sleep(0.05)
    return training


def differences(folder: Path, reference: Path) -> list[str]:
    """What a disturbed training left other than the undisturbed one."""
    out: list[str] = []
    best = [json.loads((f / f"artifacts/{RUN}/run.json").read_text())["best"] for f in (folder, reference)]
    if best[0] != best[1]:
        out.append(f"other weights or metrics: {best[0]} in place of {best[1]}")
    if merge(folder / f"artifacts/{RUN}/{LEDGER}") != merge(reference / f"artifacts/{RUN}/{LEDGER}"):
        out.append("other samples in some step")
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as told:
        if sightline("ledger", [RUN]):
            out.append(f"the ledger is not exact:\n{told.getvalue()}")
    if (statuses := mlflow_statuses(folder)) != ["FINISHED"]:
        out.append(f"MLflow runs {statuses} in place of one that is FINISHED")
    return out + [f"left behind: {line}" for line in survivors(folder)]


def survivors(folder: Path) -> list[str]:
    """Processes that still have the project as their folder, when all had time to end: Ray's agents take a minute."""
    deadline = time.monotonic() + 90
    while True:
        found = []
        for process in psutil.process_iter():
            try:
                if Path(process.cwd()).is_relative_to(folder):
                    what = f"{process.status()}, below {process.ppid()}: {' '.join(process.cmdline())[:120]}"
                    found.append(f"{process.pid} {what}")
            except (psutil.Error, OSError):
                continue
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=10.0, help="of faults; the last training may end after it")
    arguments = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="sightline-chaos-"))
    started = time.monotonic()
    prepare(place / "start")
    reference = place / "undisturbed"
    shutil.copytree(place / "start", reference)
    undisturbed(reference)
    until = time.monotonic() + 60 * arguments.minutes
    faults: Counter[str] = Counter()
    number = 0
    while time.monotonic() < until:
        number += 1
        print(f"training {number}, seed {arguments.seed}", flush=True)
        folder = place / f"disturbed-{number}"
        shutil.copytree(place / "start", folder)
        faults += disturbed(folder, random.Random(f"{arguments.seed} {number}"), until).faults
        if found := differences(folder, reference):
            print("\n".join([f"training {number} differs:", *found, f"kept: {place}"]), file=sys.stderr)
            return 1
    shutil.rmtree(place)
    print(f"{number} trainings, {faults.total()} faults in {(time.monotonic() - started) / 60:.1f} min: all exact")
    for name, count in sorted(faults.items()):
        print(f"  {count:3d}  {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
