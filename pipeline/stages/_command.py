"""What every stage's command line has in common."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable

from contracts.errors import SightlineError
from pipeline.guard import guard_process
from pipeline.params import Params, load_params
from pipeline.project import Project


def main(stage: Callable[[Project, Params, str], None], what: str) -> None:
    """Run `stage` for the data set or run named on the command line.

    Exit codes: 2 for an error that the user can mend (told in full, without a traceback), 130 when interrupted.
    """
    parser = argparse.ArgumentParser(description=sys.modules[stage.__module__].__doc__)
    parser.add_argument("name", help=f"a {what} of params.yaml")
    name = parser.parse_args().name
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that `finally` runs: no run stays RUNNING
    try:
        guard_process()
        project = Project.here()
        params = load_params(project.root)
        params.require("runs" if what == "run" else "datasets", name)
        stage(project, params, name)
    except SightlineError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        sys.exit(130)
