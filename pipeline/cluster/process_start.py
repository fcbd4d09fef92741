"""Ray starts its processes of Python with this script: each is a fork of the process that has the libraries loaded
(`system/warm.py`), in a second in place of five to eight; where that one is gone, it starts in Ray's way."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_THIS = str(Path(__file__).resolve())
_RAYS_OWN = "SIGHTLINE_RAY_SETUP_WORKER"  # Ray's own script for workers, which this one takes the place of
_CONTEXT, _LANGUAGE = "--serialized-runtime-env-context=", "--language="  # what that one is told
_AGENTS = "_build_python_executable_command_memory_profileable"  # Ray's function for the command of others
# In the fork: the script, as `python <script>` runs it.
_RUN = """
import os, runpy, sys
del sys.argv[0]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@contextmanager
def forks() -> Iterator[None]:
    """A node of Ray's that is started meanwhile starts its workers and agents as forks, where there is a process for
    that (`warm.SERVER`)."""
    import ray._private.ray_constants as constants
    import ray._private.services as services
    from ray._private.workers import __path__ as scripts

    from pipeline.cluster.join import environment
    from pipeline.system import warm

    if not os.environ.get(warm.SERVER):
        yield
        return
    with (
        environment({_RAYS_OWN: str(Path(scripts[0]) / constants.SETUP_WORKER_FILENAME)}),
        replaced(constants, SETUP_WORKER_FILENAME=_THIS),  # Ray joins a folder to it: an absolute path stays
        replaced(services, **{_AGENTS: lambda *_, **__: [sys.executable, _THIS]}),
    ):
        yield


@contextmanager
def replaced(owner: Any, **attributes: Any) -> Iterator[None]:
    """Other attributes of a module or class for a while."""
    before = {name: getattr(owner, name) for name in attributes}
    try:
        for name, value in attributes.items():
            setattr(owner, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)


def run_forked(arguments: Sequence[str]) -> int | None:
    """Run `python <arguments>` as a fork until its end, in the environment that a worker is told.

    Returns:
        Its exit code; None where it must start in Ray's way.
    """
    from pipeline.system import warm
    from pipeline.system.guard import end_with_parent

    given = next((value for value in arguments if value.startswith(_CONTEXT)), _CONTEXT + "{}")
    context = json.loads(given.removeprefix(_CONTEXT))
    if any(map(context.get, ("command_prefix", "override_worker_entrypoint"))):  # in a container
        return None
    if context.get("py_executable") not in (None, sys.executable):
        return None
    end_with_parent()
    os.environ.update({name: os.path.expandvars(value) for name, value in (context.get("env_vars") or {}).items()})
    what = [value for value in arguments if not value.startswith((_CONTEXT, _LANGUAGE))]
    how = () if what[0] == "-m" else ("-c", _RUN)
    return warm.hand_over((*how, *what), os.environ.get(warm.SERVER), grace_s=0.0)


def _main(arguments: list[str]) -> int:
    code = run_forked(arguments)
    if code is None:
        is_worker = any(value.startswith(_CONTEXT) for value in arguments)
        own = [os.environ[_RAYS_OWN]] if is_worker else []
        os.execv(sys.executable, [sys.executable, "-u", *own, *arguments])
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.path[0] = str(Path(_THIS).parents[2])  # nothing of ours is found before: hence the imports in functions
    sys.exit(_main(sys.argv[1:]))
