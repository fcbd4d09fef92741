"""A real Ray cluster of two nodes on this machine: sharding and training spread over both."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from contracts.errors import ConfigError, TrainingError
from pipeline.checkpoints import BEST, load_best
from pipeline.distributed import check_resources, map_ordered, run_training, session
from pipeline.params import ClusterConfig, ShardsConfig, load_params
from pipeline.runs import load_run
from pipeline.sharding import shard_dataset
from pipeline.shards import load_manifest
from pipeline.stages.shard import open_sources
from pipeline.training import DONE, EVENTS

pytestmark = pytest.mark.filterwarnings("default")


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Two `ray start` nodes of one CPU each; only these are stopped afterwards."""
    port, folder = free_port(), tempfile.mkdtemp(prefix="sl")  # short: Ray puts socket names below it
    ray = str(Path(sys.executable).with_name("ray"))
    common = ["--num-cpus=1", "--object-store-memory=100000000", "--block", "--disable-usage-stats"]
    environment = os.environ | {"RAY_AUTH_MODE": "disabled"}
    head = [
        ray,
        "start",
        "--head",
        f"--port={port}",
        f"--dashboard-port={free_port()}",
        f"--temp-dir={folder}",
        *common,
    ]
    node = [ray, "start", f"--address=127.0.0.1:{port}", *common]
    with ExitStack() as stack:
        for i, command in enumerate((head, node)):
            log = stack.enter_context(open(Path(folder) / f"node{i}.log", "w"))
            process = stack.enter_context(
                subprocess.Popen(
                    command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
                )
            )
            stack.callback(os.killpg, process.pid, signal.SIGKILL)
            wait_for_nodes(f"127.0.0.1:{port}", i + 1)
        yield f"127.0.0.1:{port}"
    shutil.rmtree(folder, ignore_errors=True)


def wait_for_nodes(address: str, count: int) -> None:
    """Until the cluster's head answers and says that `count` nodes are alive."""
    import ray

    deadline, handler = time.monotonic() + 90, signal.getsignal(signal.SIGTERM)
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


def test_tasks_run_on_both_nodes_and_results_keep_their_order(address, root):
    def where(number: int) -> tuple[int, str]:
        import ray

        time.sleep(0.5)
        return number, ray.get_runtime_context().get_node_id()

    results = list(map_ordered(where, ((i,) for i in range(8)), ClusterConfig(address=address), root))
    assert [number for number, _ in results] == list(range(8))
    assert len({node for _, node in results}) == 2


def test_shards_from_the_cluster_equal_those_made_here(address, root, tiny_project, tmp_path):
    params = load_params(tiny_project.root)
    manifest = shard_dataset(
        "coco",
        params.dataset("coco"),
        open_sources(tiny_project, params, "coco"),
        tmp_path / "shards",
        tmp_path / "quarantine.jsonl",
        params.section(ShardsConfig, "shards"),
        ClusterConfig(address=address),
        root,
    )
    assert manifest == load_manifest(tiny_project.shards("coco"))


def training(tiny_project, state: Path, **train) -> dict:
    data = load_run(tiny_project, load_params(tiny_project.root), "segmentation")
    plain = data.run.to_dict()
    plain["train"] |= train
    state.mkdir()
    shards = str(tiny_project.shards(data.run.dataset))
    return {"run": plain, "data": data.spec.to_dict(), "shards": shards, "state": str(state)}


def test_training_spreads_over_both_nodes(address, root, tiny_project, tmp_path):
    """Each node has one CPU and each worker takes one, so two workers can only run on two nodes."""
    state = tmp_path / "state"
    run_training(training(tiny_project, state), ClusterConfig(address=address, num_workers=2), root)
    assert json.loads((state / DONE).read_text()) == {"step": 10, "epochs": 2}
    assert load_best(state / BEST)["info"]["metrics"]["val/mean_iou"] > 0
    lines = [json.loads(line) for line in (state / EVENTS).read_text().splitlines()]
    steps = [line["step"] for line in lines if line["kind"] == "metrics" and "val/loss" in line["values"]]
    assert len(steps) == 2, "one line for each epoch, from one rank alone"


def test_an_error_that_retrying_cannot_mend_stops_at_once(address, root, tiny_project, tmp_path):
    arguments = training(tiny_project, tmp_path / "state", monitor="miou", monitor_mode="max")
    with pytest.raises(TrainingError, match="validation gives no such metric"):
        run_training(arguments, ClusterConfig(address=address, num_workers=1), root)


def test_asking_for_more_than_there_is_stops_at_once(address, root, tiny_project, tmp_path):
    start = time.monotonic()
    with pytest.raises(ConfigError, match="up to 2 CPUs and 0 GPUs"):
        run_training(training(tiny_project, tmp_path / "state"), ClusterConfig(address=address, num_workers=64), root)
    assert time.monotonic() - start < 60, "without waiting for nodes that will never come"


def test_gpus_are_used_when_there_are_any_and_missed_when_asked_for():
    assert check_resources(ClusterConfig(num_workers=2), {"CPU": 4, "GPU": 2})
    assert not check_resources(ClusterConfig(num_workers=2), {"CPU": 4})
    assert not check_resources(ClusterConfig(num_workers=2, use_gpu="no"), {"CPU": 4, "GPU": 2})
    with pytest.raises(ConfigError, match="0 GPUs"):
        check_resources(ClusterConfig(use_gpu="yes"), {"CPU": 4})


def test_nobody_answers_at_the_address(root):
    with (
        pytest.raises(ConfigError, match="no Ray cluster answers"),
        session(ClusterConfig(address=f"127.0.0.1:{free_port()}"), root),
    ):
        pass
