"""Training as two ranks, real processes with a real gloo group between them, without Ray.

    start(script, [arguments of rank 0, arguments of rank 1]) -> two processes

`script` runs first on both ranks and may break something; `rank` is known to it. Then `fit(**arguments)` runs; a
SightlineError ends a rank with exit code 2 and its text, being told to stop with exit code 3.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from tests.local_training import ROOT

PRELUDE = """
import datetime, json, os, sys, warnings
warnings.simplefilter("ignore")
import torch.distributed as dist
from pytorch_lightning.plugins.environments import TorchElasticEnvironment
from pytorch_lightning.strategies import DDPStrategy
from contracts.errors import SightlineError
from pipeline.stopping import Stopped, StopRequest
from pipeline.training import Placement, fit

class Environment(TorchElasticEnvironment):
    def validate_settings(self, num_devices, num_nodes):
        pass

rank = int(os.environ["RANK"])
dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=60))
"""
FIT = """
placement = Placement(2, rank, DDPStrategy(find_unused_parameters=True), (Environment(),), False)
try:
    fit(**json.loads(sys.argv[1]), placement=placement)
except SightlineError as error:
    print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    os._exit(2)
except Stopped as told:
    print(told, flush=True)
    os._exit(3)
sys.stdout.flush()
os._exit(0)
"""


def run(script: str, arguments: Sequence[dict[str, Any]], timeout_s: float = 90) -> list[tuple[int, str]]:
    """Exit code and all that was printed, of each rank."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    place = {"LOCAL_RANK": "0", "TORCHELASTIC_RUN_ID": "tests"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PRELUDE + script + FIT, json.dumps(own)],
            cwd=ROOT,
            env=os.environ | shared | place | {"RANK": str(rank), "GROUP_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank, own in enumerate(arguments)
    ]
    try:
        outputs = [process.communicate(timeout=timeout_s)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [(process.returncode, output) for process, output in zip(processes, outputs, strict=True)]
