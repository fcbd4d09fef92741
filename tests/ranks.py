"""Ranks: real processes that may join a real gloo group, without Ray and without each importing torch anew.

`run` trains as two of them. A script runs first on both and may break something; it knows its `rank`. Then
`fit(**arguments)` runs. `call` calls a test's own function.
"""

from __future__ import annotations

import atexit
import base64
import json
import os
import pickle
import socket
import subprocess
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tests.local_training import ROOT
from tests.warm_process import SHARED, forked

# Imports once, then forks: nothing has started a thread yet.
RANKS = """
import base64, contextlib, datetime, importlib, json, os, pickle, sys, traceback, warnings
warnings.simplefilter("ignore")
import torch.distributed as dist
from pytorch_lightning.plugins.environments import TorchElasticEnvironment
from pytorch_lightning.strategies import DDPStrategy
from contracts.errors import SightlineError
from pipeline.training.checkpoints import build_module
from pipeline.training.stopping import Stopped, StopRequest
from pipeline.training.fit import Placement, fit

class Environment(TorchElasticEnvironment):
    def validate_settings(self, num_devices, num_nodes):
        pass

def train(rank, arguments, script):
    os.environ.update(RANK=str(rank), GROUP_RANK=str(rank))
    exec(script, {**globals(), "rank": rank, "arguments": arguments})
    dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=60))
    placement = Placement(2, rank, DDPStrategy(find_unused_parameters=True), (Environment(),), False)
    try:
        fit(**arguments, placement=placement)
    except SightlineError as error:
        print(f"{type(error).__name__}: {error}")
        return 2
    except Stopped as told:
        print(told)
        return 3
    return 0

def called(rank, module, name, arguments):
    getattr(importlib.import_module(module), name)(rank, *pickle.loads(base64.b64decode(arguments)))
    return 0

for line in sys.stdin:
    job = json.loads(line)
    children = []
    for rank, arguments in enumerate(job["arguments"]):
        if (child := os.fork()) == 0:
            code = 1
            try:
                os.dup2(os.open(f"{job['folder']}/rank{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
                os.dup2(1, 2)
                os.environ.update(job["environment"])
                code = globals()[job["work"]](rank, *arguments)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(code)
        children.append(child)
    print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]), flush=True)
"""


@cache
def _server() -> subprocess.Popen[str]:
    """Imports torch and Lightning once for all tests of a session, which then fork it; it ends with its stdin."""
    process = subprocess.Popen(
        forked(os.environ.get(SHARED), "-c", RANKS),
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(process.communicate)
    return process


def run(folder: Path, script: str, arguments: Sequence[dict[str, Any]]) -> list[tuple[int, str]]:
    """Exit code (0 done, 2 an error that is told, 3 stopped when asked) and all that was printed, of each rank.

    Args:
        folder: for the logs. script: Python. arguments: each rank's for `fit`.
    """
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    place["TORCHELASTIC_RUN_ID"] = "tests"
    return _forked(folder, "train", [(of_rank, script) for of_rank in arguments], place)


def call(folder: Path, work: Callable[..., None], *arguments: Any, world: int) -> None:
    """`work(rank, *arguments)` in so many processes at once, as `torch.multiprocessing.spawn` calls it.

    Args:
        folder: for the logs. work: a function of a module that can be imported. arguments: what can be pickled.
    """
    ended = ends(folder, work, *arguments, world=world)
    assert [code for code, _ in ended] == [0] * world, "\n".join(log for code, log in ended if code)


def ends(folder: Path, work: Callable[..., None], *arguments: Any, world: int = 1) -> list[tuple[int, str]]:
    """The same where it may fail: exit code (a signal's is negative) and all that was printed, of each process."""
    packed = base64.b64encode(pickle.dumps(arguments)).decode()
    return _forked(folder, "called", [(work.__module__, work.__name__, packed)] * world)


def _forked(
    folder: Path, work: str, arguments: Sequence[Sequence[Any]], environment: dict[str, str] | None = None
) -> list[tuple[int, str]]:
    job = {"folder": str(folder), "work": work, "arguments": arguments}
    pipe = _server()
    assert pipe.stdin is not None and pipe.stdout is not None
    pipe.stdin.write(json.dumps({**job, "environment": environment or {}}) + "\n")
    pipe.stdin.flush()
    codes = json.loads(pipe.stdout.readline())
    return [(code, (folder / f"rank{rank}.log").read_text()) for rank, code in enumerate(codes)]
