"""What every stage's command line has in common: `python -m pipeline.stages <stage> <name>`, which dvc.yaml calls.

It is not `sightline stage`, which is for people and calls this: typer takes as long to import as a stage's own checks.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Literal

from pipeline.settings.params import Params, load_params
from pipeline.system import lock, orphan, warm
from pipeline.system.guard import UMASK_HELP, end_on_sigterm, ended_plainly, guard_process
from pipeline.system.project import Project
from pipeline.system.spending import stage_counted

PROGRAM = "pipeline.stages"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What a stage is for, what it writes, alone, and what must stay as it is while it reads it: keys of `_WHAT`; a
    run's stages name its data set. `slow`: it imports torch.

    The function of the same name in the file of the same name does it.
    """

    of: Literal["dataset", "run"]
    writes: str
    reads: tuple[str, ...] = ()
    slow: bool = False


STAGES = {
    "fetch": Stage(of="dataset", writes="raw"),
    "shard": Stage(of="dataset", writes="shards", reads=("raw",)),
    "vocab": Stage(of="dataset", writes="vocab", reads=("shards",)),
    "train": Stage(of="run", writes="run", reads=("shards", "vocab"), slow=True),
    "evaluate": Stage(of="run", writes="run", reads=("shards",), slow=True),
    "register": Stage(of="run", writes="run", reads=("shards",), slow=True),
}
_WHAT = {
    "raw": "the raw files of data set",
    "shards": "the shards of data set",
    "vocab": "the vocabulary of data set",
    "run": "the results of run",
}


def main() -> None:
    """Run the stage for the data set or run named on the command line, in a process that has the libraries loaded where
    there is one."""
    parser = argparse.ArgumentParser(prog=f"python -m {PROGRAM}", description=__doc__, epilog=UMASK_HELP)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("name", help="a data set (fetch, shard, vocab) or a run of params.yaml")
    given = parser.parse_args()
    sys.argv[0] = f"python -m {PROGRAM}"  # as locks tell who holds them
    if STAGES[given.stage].slow and (code := warm.hand_over(("-m", PROGRAM, given.stage, given.name))) is not None:
        if code < 0:
            with suppress(OSError):  # SIGKILL has no handler
                signal.signal(-code, signal.SIG_DFL)
            os.kill(os.getpid(), -code)
        sys.exit(code)
    run(given.stage, given.name)


def run(stage: str, name: str) -> None:
    """It ends with the DVC that started it, and holds the locks on what it writes and reads.

    Exit codes: 2 for an error that the user can mend (told in full, without a traceback), 130 when interrupted.
    """
    end_on_sigterm()  # so that `finally` runs: no run stays RUNNING
    with ended_plainly("interrupted; the same command goes on"):
        guard_process()
        orphan.watch_dvc()
        project = Project.here()
        params = load_params(project.root)
        params.require("runs" if STAGES[stage].of == "run" else "datasets", name)
        work = getattr(importlib.import_module(f"{PROGRAM}.{stage}"), stage)
        with _locks(project, params, stage, name), stage_counted(project, stage, name):
            work(project, params, name)


@contextmanager
def _locks(project: Project, params: Params, stage: str, name: str) -> Iterator[None]:
    about = STAGES[stage]
    if about.of == "run":
        dataset = params.run_dataset(name)
    else:
        params.dataset(name)  # what is no name of params.yaml makes no lock file
        dataset = name
    with ExitStack() as held:
        for kind in (about.writes, *about.reads):
            of, shared = name if kind == "run" else dataset, kind != about.writes
            held.enter_context(lock.hold(project.locks, f"{kind}-{of}", f"{_WHAT[kind]} {of}", shared=shared))
        yield
