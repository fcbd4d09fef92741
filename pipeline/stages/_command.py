"""What every stage's command line has in common: `python -m pipeline.stages.<stage> <name>`, which dvc.yaml calls.

It is not `sightline stage`, which is for people and calls this: typer takes as long to import as a stage's own checks.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from pipeline.settings.params import Params, load_params
from pipeline.system import lock, orphan
from pipeline.system.guard import UMASK_HELP, ended_plainly, guard_process
from pipeline.system.project import Project

# What each stage writes, alone, and what must stay as it is while the stage reads it. A run's stages name its data set.
WRITES = {
    "fetch": "raw",
    "shard": "shards",
    "vocab": "vocab",
    "train": "run",
    "evaluate": "run",
    "register_run": "run",
}
READS = {
    "shard": ("raw",),
    "vocab": ("shards",),
    "train": ("shards", "vocab"),
    "evaluate": ("shards",),
    "register_run": ("shards",),
}
_WHAT = {
    "raw": "the raw files of data set",
    "shards": "the shards of data set",
    "vocab": "the vocabulary of data set",
    "run": "the results of run",
}


def main(stage: Callable[[Project, Params, str], None], what: str) -> None:
    """Run `stage` for the data set or run named on the command line.

    It ends with the DVC that started it, and holds the locks on what it writes and reads.

    Exit codes: 2 for an error that the user can mend (told in full, without a traceback), 130 when interrupted.
    """
    parser = argparse.ArgumentParser(description=sys.modules[stage.__module__].__doc__, epilog=UMASK_HELP)
    parser.add_argument("name", help=f"a {what} of params.yaml")
    name = parser.parse_args().name
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that `finally` runs: no run stays RUNNING
    with ended_plainly():
        guard_process()
        orphan.watch_dvc()
        project = Project.here()
        params = load_params(project.root)
        params.require("runs" if what == "run" else "datasets", name)
        with _locks(project, params, stage.__name__, name):
            stage(project, params, name)


@contextmanager
def _locks(project: Project, params: Params, stage: str, name: str) -> Iterator[None]:
    writes = WRITES[stage]
    if writes == "run":
        names = {"run": name}
        dataset = params.run_dataset(name)
    else:
        params.dataset(name)  # what is no name of params.yaml makes no lock file
        names, dataset = {}, name
    with ExitStack() as held:
        for kind in (writes, *READS.get(stage, ())):
            of = names.get(kind, dataset)
            held.enter_context(lock.hold(project.locks, f"{kind}-{of}", f"{_WHAT[kind]} {of}", shared=kind != writes))
        yield
