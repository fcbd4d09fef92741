"""Nobody gets into a Ray cluster of this project's, or reads what it holds, without its token."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import grpc
import psutil
import pytest
import requests
from ray.core.generated.gcs_service_pb2 import GetAllNodeInfoRequest
from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub

from contracts.errors import ConfigError, DataError
from pipeline.cluster import watch as cluster_watch
from pipeline.cluster.map import map_ordered
from pipeline.cluster.session import private_folder, session
from pipeline.settings.sections import ClusterConfig
from tests.faults.ray_stage import RayStage, task_that_sleeps
from tests.integration.cluster import Cluster, kill_node
from tests.local_training import mlflow_statuses
from tests.waiting import PATIENCE_S

pytestmark = pytest.mark.filterwarnings("default")

STRANGER = """
import os, sys, ray
ray.init(sys.argv[1], logging_level="ERROR")
print("INSIDE", ray.get(ray.remote(lambda: dict(os.environ)).remote()))
"""


def other_addresses() -> list[str]:
    """This machine's addresses on a network."""
    found = [entry.address for entries in psutil.net_if_addrs().values() for entry in entries if entry.family in
             (socket.AF_INET, socket.AF_INET6)]  # fmt: skip
    return [address for address in found if "%" not in address and not ipaddress.ip_address(address).is_loopback]


def listeners(processes: list[psutil.Process]) -> set[tuple[str, int]]:
    found = set()
    for process in processes:
        with contextlib.suppress(psutil.Error):
            found |= {(c.laddr.ip, c.laddr.port) for c in process.net_connections("tcp") if c.status == "LISTEN"}
    return found


def is_loopback(address: str) -> bool:
    plain = ipaddress.ip_address(address)
    mapped = getattr(plain, "ipv4_mapped", None)
    return (mapped or plain).is_loopback


def is_refused(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return True
    return False


def job_status(host: str, port: int, mark: Path) -> int | None:
    """HTTP status of a stranger's wish to run a command there; None where no HTTP is spoken."""
    worst = None
    for path in ("/api/job_agent/jobs/", "/api/jobs/"):
        try:
            answer = requests.post(f"http://{host}:{port}{path}", json={"entrypoint": f"touch {mark}"}, timeout=3)
        except requests.RequestException:
            continue
        worst = answer.status_code if worst is None else min(worst, answer.status_code)
    return worst


def grpc_code(host: str, port: int) -> grpc.StatusCode:
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        try:
            NodeInfoGcsServiceStub(channel).GetAllNodeInfo(GetAllNodeInfoRequest(), timeout=3)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def stranger(address: str, home: Path) -> str:
    """What someone without the token gets to see."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    out = subprocess.run(
        [sys.executable, "-c", STRANGER, address],
        env=environment | {"HOME": str(home), "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"},  # so that it asks at loopback
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert out.returncode != 0
    return out.stdout + out.stderr


def told(process: psutil.Process) -> str:
    """Its command line; "" of one that has ended."""
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def files_with(secret: str, folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


@pytest.fixture
def stage(tiny_project, tmp_path, root) -> Iterator[RayStage]:
    with RayStage(tiny_project, tmp_path / "project", root, num_workers=2, max_epochs=24) as stage:
        yield stage


def test_no_door_is_open_while_a_training_runs(stage, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-key")
    stage.start()
    stage.worker(session=1, steps=1)
    tree, mark = stage.tree(), tmp_path / "mark"
    head = stage.named("gcs_server")
    token = head.environ()["RAY_AUTH_TOKEN"]
    folder = next(path for path in Path(re.findall(r"--log_dir=(\S+)", " ".join(head.cmdline()))[0]).parents
                  if path.name.startswith("slray-"))  # fmt: skip
    for process in tree:
        with contextlib.suppress(psutil.Error):
            assert token not in " ".join(process.cmdline())
    open_ports = listeners(tree)
    gcs = next(port for address, port in listeners([head]) if is_loopback(address))
    others = other_addresses()
    if not others:
        pytest.skip("this machine has no address on a network")
    assert len(open_ports) > 6, "head, raylet, agents, driver and workers listen"
    for address, port in sorted(open_ports):
        assert is_loopback(address), f"port {port} listens on {address}"
        for other in others:
            assert is_refused(other, port)

    with ThreadPoolExecutor(len(open_ports)) as pool:  # most ports speak no HTTP, and take their time to say nothing
        seen = pool.submit(stranger, f"127.0.0.1:{gcs}", tmp_path)
        statuses = list(pool.map(lambda port: job_status("127.0.0.1", port, mark), (port for _, port in open_ports)))
    assert stage.process is not None and stage.process.poll() is None, "all this was asked while it trained"
    assert statuses.count(401) >= 1, "the agent"
    assert not [line for process in tree if "ray-dashboard-" in (line := told(process))], "a dashboard is not there"
    assert not [code for code in statuses if code is not None and code < 400] and not mark.exists()
    codes = {grpc_code("127.0.0.1", port) for _, port in open_ports}
    assert grpc.StatusCode.UNAUTHENTICATED in codes and grpc.StatusCode.OK not in codes
    assert "AuthenticationError" in seen.result() and "INSIDE" not in seen.result()
    assert "a-secret-key" not in seen.result() and not mark.exists()

    assert len(token) >= 32 and token != os.environ["RAY_AUTH_TOKEN"], "one of this session's own"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and folder.stat().st_uid == os.getuid()
    assert not files_with(token, folder)
    assert stage.end() == 0, stage.log[-3000:]
    assert not folder.exists()
    assert not files_with(token, stage.folder) and not files_with("a-secret-key", stage.folder)
    assert mlflow_statuses(stage.folder) == ["FINISHED"]


def test_a_cluster_is_joined_with_its_token_alone(root, tmp_path, monkeypatch):
    with ExitStack() as stack:
        cluster = Cluster(stack, num_nodes=1, dashboard=True)
        host, port = cluster.address.split(":")
        tree = psutil.Process(cluster.nodes[0].pid).children(recursive=True)
        for _, open_port in listeners(tree):
            for address in other_addresses():
                assert is_refused(address, open_port) or (
                    job_status(address, open_port, tmp_path / "mark") in (None, 401, 403, 404, 405)
                    and grpc_code(address, open_port) is not grpc.StatusCode.OK
                )
        assert grpc_code(host, int(port)) is grpc.StatusCode.UNAUTHENTICATED
        assert not (tmp_path / "mark").exists()
        right = os.environ["RAY_AUTH_TOKEN"]
        config = ClusterConfig(address=cluster.address)
        with monkeypatch.context() as context:
            context.setenv("RAY_AUTH_TOKEN", "f" * 64)
            with pytest.raises(ConfigError, match="refuses this token") as wrong, session(config, root):
                pass
            assert "f" * 64 not in str(wrong.value) and "RAY_AUTH_TOKEN_PATH" in str(wrong.value)
            context.delenv("RAY_AUTH_TOKEN")
            context.setenv("HOME", str(tmp_path))
            with pytest.raises(ConfigError, match="asks for a token, and there is none"), session(config, root):
                pass
            (tmp_path / "token").write_text(right)
            context.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
            assert list(map_ordered(task_that_sleeps(), [(0.0,), (0.1,)], config, root)) == [0.0, 0.1]
        assert "RAY_AUTH_MODE" not in os.environ, "as it was"


def test_an_open_cluster_is_joined_with_a_warning_and_its_end_is_told(root, monkeypatch, capsys):
    """Then its head is taken away in the middle of the work."""
    monkeypatch.setattr(cluster_watch, "_GONE_AFTER_S", 1.0)
    monkeypatch.setattr(cluster_watch, "_KNOCK_EVERY_S", 0.5)

    with ExitStack() as stack:
        cluster = Cluster(stack, num_nodes=1, authentication="disabled")
        results = map_ordered(task_that_sleeps(), [(0.0,), (100.0,)], ClusterConfig(address=cluster.address), root)
        assert next(results) == 0.0
        assert "this cluster answers without a token" in capsys.readouterr().err
        kill_node(cluster.nodes[0])
        with pytest.raises(DataError, match="Ray died in the middle of the work"):
            next(results)


def test_folders_of_killed_sessions_are_removed_and_others_are_not(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", "/tmp")
    monkeypatch.setattr("pipeline.cluster.session._FOLDER", f"sl{os.getpid()}-")
    mine = f"/tmp/sl{os.getpid()}-"
    stale, young = Path(f"{mine}stale"), Path(f"{mine}young")
    for folder in (stale, young):
        (folder / "ray").mkdir(parents=True)
    os.utime(stale, (0, 0))
    with private_folder() as kept:
        os.utime(kept, (0, 0))
        with private_folder() as other:
            assert kept.is_dir() and other.is_dir() and young.is_dir() and not stale.exists()
            assert stat.S_IMODE(other.stat().st_mode) == 0o700
        assert not other.exists()
    assert not kept.exists()
    os.utime(young, (0, 0))
    with private_folder():
        assert not young.exists()
