"""A real Ray cluster on this machine, node by node."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from pipeline.cluster.join import authentication
from pipeline.cluster.session import private_folder
from pipeline.settings.code import CODE
from pipeline.settings.params import load_params
from pipeline.system import warm
from pipeline.system.project import Project
from pipeline.training.runs import load_run
from tests.mlflow_server import free_port

# Ray would take half a minute to notice that a node is gone, and as long again to take leave of a worker that has not
# answered.
SOON_MISSED = {"RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "4"}
NICE = {"RAY_worker_niceness": "0"}  # Ray's 15 is next to nothing beside tests that compute
SOON_LEFT = {"TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S": "2"}

# Longer than all that happens to one training takes.
TRAIN = {"max_epochs": 12, "validate_every_epochs": 4, "checkpoint_every_steps": 2, "ledger": True}


# `ray`, whose processes are forks where there is a process for that.
RAY = """
from pipeline.cluster.process_start import forks
from ray.scripts.scripts import main

with forks():
    main()
"""


class Cluster:
    """`ray start` nodes, the first one the head; only these are stopped afterwards.

    Args:
        dashboard: its page, which jobs are sent to: eight processes more.
        cpus: of each node, as it says.
        warm_socket: of the process that its workers and agents are forks of; empty: they start in Ray's way.
    """

    def __init__(
        self,
        stack: ExitStack,
        num_nodes: int,
        authentication: str = "token",
        *,
        dashboard: bool = False,
        cpus: int = 1,
        warm_socket: str = "",
    ):
        self._stack, self._authentication, self._cpus, self._warm = stack, authentication, cpus, warm_socket
        self.folder = stack.enter_context(private_folder())
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        self.dashboard = f"http://127.0.0.1:{(shown := free_port())}"
        self.nodes: list[subprocess.Popen] = []
        page = f"--include-dashboard={str(dashboard).lower()}"
        self._start("--head", f"--port={port}", page, f"--dashboard-port={shown}", f"--temp-dir={self.folder / 'ray'}")
        while len(self.nodes) < num_nodes:
            self._start(f"--address={self.address}")

    def add_node(self) -> None:
        """One more node, without waiting for it: this process may be at work on the cluster."""
        self._start(f"--address={self.address}", wait=False)

    def _start(self, *options: str, wait: bool = True) -> None:
        """One more node, a process group of its own; returns when it takes part: two at once collide."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # as where the environment is activated
        common = [f"--num-cpus={self._cpus}", "--object-store-memory=100000000", "--block", "--disable-usage-stats"]
        common += [f"--dashboard-agent-listen-port={free_port()}"]  # Ray's is the same for all clusters of a machine
        log = self._stack.enter_context((self.folder / f"node{len(self.nodes)}.log").open("w"))
        process = self._stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", RAY, "start", *options, *common],
                cwd=CODE,
                env=os.environ
                | {"RAY_AUTH_MODE": self._authentication, "PATH": path, warm.SERVER: self._warm}
                | SOON_MISSED
                | SOON_LEFT
                | NICE,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        )
        self._stack.callback(kill_node, process)
        self.nodes.append(process)
        if wait:
            wait_for_nodes(self.address, len(self.nodes), self._authentication)


def kill_node(process: subprocess.Popen) -> None:
    """Everything of a node at once, as when its machine goes away."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for_nodes(address: str, count: int, mode: str) -> None:
    """Until the cluster's head answers and says that `count` nodes are alive."""
    import ray

    deadline, handler = time.monotonic() + 90, signal.getsignal(signal.SIGTERM)
    with authentication({"RAY_AUTH_MODE": mode}):
        while time.monotonic() < deadline:
            try:
                ray.init(address, logging_level="ERROR")
                if sum(node["Alive"] for node in ray.nodes()) == count:
                    return
            except (ConnectionError, RuntimeError, ValueError):
                pass  # not up yet
            finally:
                ray.shutdown()
                signal.signal(signal.SIGTERM, handler)  # Ray leaves its own behind, and other tests would meet it
            time.sleep(1)
    raise TimeoutError(f"no {count} nodes at {address}")


def training(tiny_project: Project, state: Path, **train) -> dict:
    """Arguments of `run_training` for the tiny segmentation run."""
    data = load_run(tiny_project, load_params(tiny_project.root), "segmentation")
    plain = data.run.to_dict()
    plain["train"] |= train
    state.mkdir()
    shards = str(tiny_project.shards(data.run.dataset))
    return {"run": plain, "data": data.spec.to_dict(), "shards": shards, "state": str(state)}
