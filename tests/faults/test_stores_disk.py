"""Sharding on disks that are full, read-only or not ours: real stage processes on real small file systems."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from pipeline.shards.manifest import load_manifest
from pipeline.shards.reader import verify_shards
from pipeline.system.project import Project
from tests.s3_server import Proxy

BIN = Path(sys.executable).parent
Mount = Callable[[Path, str], None]


@pytest.fixture
def mount() -> Iterator[Mount]:
    """Mounts a tmpfs with options such as `size=100k` on a folder, or changes the options of one mounted before."""
    mounted: list[Path] = []

    def put(folder: Path, options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        again = "remount," if folder in mounted else ""
        command = ["mount", "-t", "tmpfs", "-o", again + options, "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            assert not again, done.stderr
            pytest.skip(f"no right to mount: {done.stderr.strip()}")
        mounted.append(folder)

    yield put
    for folder in set(mounted):
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def project(tiny_project: Project, tmp_path: Path) -> Project:
    """The VOC world of the tiny project, not yet sharded."""
    made = Project(tmp_path / "project")
    made.raw("voc").parent.mkdir(parents=True)
    made.raw("voc").symlink_to(tiny_project.raw("voc"))
    shutil.copy(tiny_project.root / "params.yaml", made.root)
    return made


def change(project: Project, section: str, **settings: object) -> None:
    document = yaml.safe_load((project.root / "params.yaml").read_text())
    document[section] |= settings
    (project.root / "params.yaml").write_text(yaml.safe_dump(document))


def shard(project: Project, root: Path, *, code: int = 0, limit: str = "", **environment: str) -> str:
    """What the shard stage's own process says; `limit` is an option of `ulimit` for it."""
    command = f"{f'ulimit {limit} && ' if limit else ''}exec {sys.executable} -m pipeline.stages shard voc"
    env = os.environ | {"PYTHONPATH": str(root)} | environment
    done = subprocess.run(["sh", "-c", command], cwd=project.root, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def told_as(told: str, why: str, path: Path, fix: str) -> None:
    """One error, with the reason, the path, the room there and what to do; no traceback."""
    assert "Traceback" not in told and told.count("DataError") == 1, told
    assert f"DataError: cannot write here: '{why}'" in told, told
    assert re.search(rf"where: {re.escape(str(path))}[^ ]* \([\d.]+ [MG]iB free", told), (path, told)
    assert fix in told and "then run the same command again" in told, told


def test_a_full_disk_leaves_the_old_shards_and_room_makes_it_good(project, root, mount, tiny_project):
    folder, wanted = project.shards("voc"), content(tiny_project.shards("voc"))
    mount(folder.parent, "size=4m")
    change(project, "shards", samples=16)
    shard(project, root)
    old, quarantine = content(folder), project.quarantine("voc").read_bytes()
    used = sum(-(-len(data) // 4096) * 4096 for data in old.values())
    change(project, "shards", samples=8)
    mount(folder.parent, f"size={used // 1024 + 60}k")
    told = shard(project, root, code=2)
    told_as(told, "No space left on device", folder.with_name(".voc.new"), "make room on this disk")
    assert re.search(r"[\d.]+ MiB needed for this file", told)
    assert content(folder) == old and project.quarantine("voc").read_bytes() == quarantine
    assert [path.name for path in folder.parent.iterdir()] == ["voc"], "the room of the half set is given back"
    verify_shards(folder, load_manifest(folder))
    mount(folder.parent, "size=4m")
    shard(project, root)
    assert content(folder) == wanted
    assert [path.name for path in folder.parent.iterdir()] == ["voc"]


@pytest.mark.filterwarnings("default")
def test_a_full_disk_under_a_ray_task_is_told_as_here(project, root, mount):
    folder = project.shards("voc")
    mount(folder.parent, "size=80k")
    change(project, "cluster", engine="ray")
    told = shard(project, root, code=2)
    told_as(told, "No space left on device", folder.with_name(".voc.new"), "make room on this disk")
    assert "RayTaskError" not in told and "ray::" not in told
    assert list(folder.parent.iterdir()) == []


def test_a_limit_of_file_sizes_is_told(project, root):
    told = shard(project, root, code=2, limit="-f 40")
    told_as(told, "File too large", project.shards("voc").with_name(".voc.new"), "ulimit -f")
    assert list(project.shards("voc").parent.iterdir()) == []


@pytest.mark.parametrize(("file", "inodes"), [("index", 3), ("manifest", 2), ("quarantine", 1)])
def test_every_kind_of_file_that_finds_no_room_is_told(file, inodes, project, root, mount, request):
    """By the number of files that a disk can hold, which is one less than is needed."""
    if file == "manifest":  # the shards go elsewhere
        request.getfixturevalue("s3")
        change(project, "shards", store="s3://shop/worlds")
    folder = project.quarantine("voc").parent if file == "quarantine" else project.shards("voc").parent
    mount(folder, f"nr_inodes={inodes}")
    told = shard(project, root, code=2)
    path = {"index": ".voc.new/.voc-train-v3-000000", "manifest": ".voc.new/manifest.json", "quarantine": "voc.jsonl"}
    told_as(told, "No space left on device", folder / path[file], "make room on this disk")
    assert "free, but no inodes" in told and list(folder.iterdir()) == []
    mount(folder, "nr_inodes=50")
    shard(project, root)
    verify_shards(project.shards("voc"), load_manifest(project.shards("voc")))


@pytest.mark.parametrize("place", ["shards", "quarantine"])
def test_a_read_only_disk_is_told(place, project, root, mount):
    folder = project.root / "data" / place
    mount(folder, "ro")
    told = shard(project, root, code=2)
    path = folder / (".voc.new" if place == "shards" else "voc.jsonl")
    told_as(told, "Read-only file system", path, "mount this disk for writing")
    assert not project.shards("voc").exists() and list(folder.iterdir()) == []


def test_a_full_temporary_folder_is_told_where_the_shards_go_to_a_store(project, root, mount, s3: Proxy, tmp_path):
    change(project, "shards", store="s3://shop/worlds")
    mount(tmp_path / "scratch", "size=40k")
    told = shard(project, root, code=2, TMPDIR=str(tmp_path / "scratch"))
    told_as(told, "No space left on device", tmp_path / "scratch" / "sightline-", "TMPDIR names another folder")
    assert list((tmp_path / "scratch").iterdir()) == [] and not project.shards("voc").exists()
    mount(tmp_path / "scratch", "size=4m")
    shard(project, root, TMPDIR=str(tmp_path / "scratch"))
    verify_shards(project.shards("voc"), load_manifest(project.shards("voc")))


def test_dvc_keeps_raw_files_and_shards_until_the_new_ones_are_whole(project, root, mount):
    """The project's own dvc.yaml and real DVC, which deletes outputs before a stage unless it is told otherwise."""
    project.raw("voc").unlink()
    for name in ("contracts", "pipeline", "lightning_modules"):
        (project.root / name).symlink_to(root / name)
    shutil.copy(root / "dvc.yaml", project.root)
    mount(project.root / "data", "size=8m")
    env = os.environ | {"PATH": os.pathsep.join([str(BIN), os.environ["PATH"]]), "PYTHONPATH": str(root)}

    def dvc(*arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [BIN / "dvc", *arguments], cwd=project.root, env=env, capture_output=True, text=True, check=False
        )
        assert (done.returncode != 0) == bool(code), done.stdout + done.stderr
        return done.stdout + done.stderr

    dvc("init", "-q", "--no-scm")
    dvc("repro", "shard@voc")
    old = {name: content(project.root / "data" / name) for name in ("raw", "shards", "quarantine")}
    blocks = int(subprocess.check_output(["df", "--output=used", project.root / "data"], text=True).split()[1])
    mount(project.root / "data", f"size={blocks + 80}k")
    world = yaml.safe_load((project.root / "params.yaml").read_text())["datasets"]["voc"]
    world["world"]["seed"] = 7
    for stage, section, settings in (("shards", "shards", {"samples": 16}), ("raw", "datasets", {"voc": world})):
        change(project, section, **settings)
        told = dvc("repro", "shard@voc", code=1)
        assert "cannot write here: 'No space left on device'" in told and f"data/{stage}/.voc.new" in told, told
        assert {name: content(project.root / "data" / name) for name in old} == old
    verify_shards(project.shards("voc"), load_manifest(project.shards("voc")))
    mount(project.root / "data", "size=8m")
    dvc("repro", "shard@voc")
    assert content(project.root / "data" / "shards") != old["shards"]
    verify_shards(project.shards("voc"), load_manifest(project.shards("voc")))
    assert dvc("repro", "shard@voc").count("Running stage") == 1, "check alone"
