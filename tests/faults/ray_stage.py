"""The train stage on a Ray cluster of its own, as DVC runs it, and what its processes are and do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import yaml

from pipeline.system import warm
from pipeline.system.project import Project
from pipeline.training.ledger import FOLDER as LEDGER
from tests.integration.cluster import NICE, SOON_LEFT, TRAIN
from tests.waiting import until


class RayStage:
    """The tiny segmentation run in a copy of the tiny project.

    Args:
        warm_socket: of the process that Ray's are forks of, as in a `sightline repro`; empty: they start in Ray's way.
    """

    def __init__(
        self, project: Project, folder: Path, root: Path, *, num_workers: int, warm_socket: str = "", **train: Any
    ):
        shutil.copytree(project.root, folder)
        document = yaml.safe_load((folder / "params.yaml").read_text())
        document["cluster"] = {"engine": "ray", "num_workers": num_workers, "collective_timeout_s": 12}
        document["runs"]["segmentation"]["train"] = TRAIN | train
        (folder / "params.yaml").write_text(yaml.safe_dump(document))
        self.folder, self.num_workers = folder, num_workers
        self.process: subprocess.Popen[bytes] | None = None
        self._variables = {"PYTHONPATH": str(root), warm.SERVER: warm_socket, **SOON_LEFT, **NICE}

    def start(self) -> None:
        with open(self.folder / "log.txt", "a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pipeline.stages", "train", "segmentation"],
                cwd=self.folder,
                env=os.environ | self._variables,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return (self.folder / "log.txt").read_text()

    def end(self) -> int:
        """Wait for its exit code."""
        assert self.process is not None
        return self.process.wait()

    def __enter__(self) -> RayStage:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            for process in self.tree():
                process.kill()
            self.process.wait()

    def wait(self, condition: Callable[[], Any]) -> Any:
        """Until `condition` gives something, while the stage runs."""
        process = self.process
        assert process is not None
        found = until(lambda: condition() or process.poll() is not None, lambda: self.log[-3000:])
        assert process.poll() is None, f"training ended too early:\n{self.log[-3000:]}"
        return found

    def worker(self, *, rank: int = 0, session: int, steps: int) -> int:
        """Process id of a worker as soon as the `session`-th start of training has made `steps` steps on all ranks."""

        def ready() -> int:
            sessions: dict[str, dict[int, list[str]]] = {}
            for path in sorted(self.folder.glob(f"state/*/{LEDGER}/*.jsonl")):
                if lines := path.read_text().split("\n")[:-1]:
                    head = json.loads(lines[0])
                    sessions.setdefault(head["session"], {})[head["rank"]] = lines
            of_session = [sessions[name] for name in sorted(sessions)][session - 1 : session]
            if not of_session or len(of_session[0]) < self.num_workers or len(of_session[0][rank]) <= steps:
                return 0
            return int(json.loads(of_session[0][rank][0])["pid"])

        return self.wait(ready)

    def tree(self) -> list[psutil.Process]:
        """The stage's process and all below it."""
        assert self.process is not None
        top = psutil.Process(self.process.pid)
        return [top, *top.children(recursive=True)]

    def named(self, name: str) -> psutil.Process:
        """The process whose command line begins with this, its path left out."""
        return next(process for process in self.tree() if command(process).rpartition("/")[2].startswith(name))


def task_that_sleeps() -> Callable[[float], float]:
    """A function for `map_ordered`: nested, so that it travels whole, and workers need not import its file."""

    def doze(seconds: float) -> float:
        import time

        time.sleep(seconds)
        return seconds

    return doze


def command(process: psutil.Process) -> str:
    try:
        return (process.cmdline() or [""])[0]
    except psutil.Error:
        return ""
