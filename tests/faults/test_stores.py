"""Shards in an object store under faults: real stage processes, a real S3 server, real git and DVC."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from contracts.errors import DataError
from pipeline.shards import stores
from pipeline.shards.cache import ShardCache
from pipeline.shards.clean_store import dvc_id
from pipeline.shards.manifest import load_manifest, stored_files
from pipeline.shards.reader import SplitReader, verify_shards
from pipeline.system.project import Project
from tests.s3_server import Proxy
from tests.waiting import PATIENCE_S

STORE = "s3://shop/worlds/voc"
BIN = Path(sys.executable).parent


def set_shards(project: Project, **settings: Any) -> None:
    document = yaml.safe_load((project.root / "params.yaml").read_text())
    document["shards"] |= settings
    (project.root / "params.yaml").write_text(yaml.safe_dump(document))


def command(root: Path, module: str, *arguments: str) -> list[str]:
    code = f"import sys, runpy; sys.path.insert(0, {str(root)!r}); sys.argv[1:] = {list(arguments)!r}"
    return [sys.executable, "-c", f"{code}; runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"]


def run(project: Project, root: Path, module: str, *arguments: str, code: int = 0) -> str:
    """What a command of the project says, standard error after standard output."""
    done = subprocess.run(
        command(root, module, *arguments), cwd=project.root, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def shard(project: Project, root: Path, *, code: int = 0) -> str:
    return run(project, root, "pipeline.stages", "shard", "voc", code=code)


@pytest.fixture
def project(tiny_project: Project, tmp_path: Path, s3: Proxy) -> Project:
    """The VOC world of the tiny project, not yet sharded; its shards go into the bucket."""
    made = Project(tmp_path / "project")
    made.raw("voc").parent.mkdir(parents=True)
    made.raw("voc").symlink_to(tiny_project.raw("voc"))
    shutil.copy(tiny_project.root / "params.yaml", made.root)
    set_shards(made, store="s3://shop/worlds")
    return made


def keys(manifest: dict[str, Any], cache: Path) -> list[str]:
    """All samples of a set read from the store, by a cache of its own."""
    found = []
    for split in manifest["splits"]:
        reader = SplitReader(Path("nowhere"), manifest, split, ShardCache(folder=cache))
        found += [reader.read(i).key for i in range(len(reader))]
    return found


def sent(s3: Proxy) -> set[str]:
    """Objects of the data set's folder that were sent since the last look."""
    names = [path.removeprefix("shop/worlds/voc/").partition("?")[0] for path in s3.puts]
    assert len(names) == len(set(names)), "nothing is sent twice"
    s3.asked.clear()
    return set(names)


def test_a_set_with_other_settings_leaves_the_first_one_whole(project, root, s3, tmp_path):
    shard(project, root)
    first = load_manifest(project.shards("voc"))
    reader = SplitReader(project.shards("voc"), first, "train", ShardCache(folder=tmp_path / "running"))
    assert reader.read(0).key and sent(s3) == {*stored_files(first), f"{first['digest']}/manifest.json"}
    set_shards(project, samples=16)
    shard(project, root)
    second = load_manifest(project.shards("voc"))
    assert second["digest"] != first["digest"] and first["store"] == second["store"] == STORE
    # A training that runs goes on with shards that it has not fetched yet; an older revision is whole, too.
    assert len({reader.read(i).key for i in range(len(reader))}) == first["splits"]["train"]["num_samples"]
    verify_shards(project.shards("voc"), first)
    assert sorted(keys(first, tmp_path / "one")) == sorted(keys(second, tmp_path / "other"))
    for manifest in (first, second):
        assert json.loads(stores.read(f"{STORE}/{manifest['digest']}/manifest.json")) == manifest


def test_a_damaged_object_is_refused_by_readers_and_healed_by_the_shard_stage(project, root, s3, tmp_path):
    shard(project, root)
    manifest = load_manifest(project.shards("voc"))
    files = random.Random(3).sample(sorted(stored_files(manifest)), 2)
    objects = tmp_path / "s3" / "shop" / "worlds" / "voc"
    for name in files:  # same size, other bytes
        (objects / name).write_bytes(bytes((objects / name).stat().st_size))
    with pytest.raises(DataError, match="other content than the manifest says") as caught:
        keys(manifest, tmp_path / "before")
    assert "run the shard stage again (sightline stage shard" in caught.value.fix
    s3.asked.clear()
    shard(project, root)
    assert sent(s3) == {*files, f"{manifest['digest']}/manifest.json"}
    assert load_manifest(project.shards("voc")) == manifest and len(keys(manifest, tmp_path / "after")) == 51


def test_a_killed_shard_stage_is_named_by_nothing_and_its_work_is_kept(project, root, s3, tmp_path, tiny_project):
    set_shards(project, samples=16)
    shard(project, root)
    old = load_manifest(project.shards("voc"))
    set_shards(project, samples=8)
    s3.asked.clear()
    s3.delay_s = 0.1
    killed = subprocess.Popen(command(root, "pipeline.stages", "shard", "voc"), cwd=project.root)
    while len(s3.puts) < 5:
        assert killed.poll() is None
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    s3.delay_s = 0.0
    assert load_manifest(project.shards("voc")) == old, "the set that was there stays"
    verify_shards(project.shards("voc"), old)
    assert {path.name for path in project.shards("voc").parent.iterdir()} == {"voc", ".voc.new"}
    time.sleep(0.3)  # the server ends what was under way
    there = stores.listing(STORE)
    assert [name for name in there if name.endswith("manifest.json")] == [f"{old['digest']}/manifest.json"]
    for name in there:  # what arrived is whole
        digest = hashlib.sha256(stores.read(f"{STORE}/{name}")).hexdigest()
        assert digest in name or name.endswith("manifest.json")
    s3.asked.clear()
    shard(project, root)
    manifest = load_manifest(project.shards("voc"))
    assert manifest["digest"] == load_manifest(tiny_project.shards("voc"))["digest"], "as if nothing had happened"
    wanted = {*stored_files(manifest), f"{manifest['digest']}/manifest.json"}
    missing = wanted - set(there)
    assert len(wanted - missing) >= 5 and sent(s3) == missing
    assert [path.name for path in project.shards("voc").parent.iterdir()] == ["voc"]


def test_an_object_that_goes_before_the_manifest_is_written_leaves_no_manifest(project, root, s3):
    s3.delay_s = 0.05
    running = subprocess.Popen(
        command(root, "pipeline.stages", "shard", "voc"), cwd=project.root, stderr=subprocess.PIPE, text=True
    )
    while len(s3.puts) < 5:
        assert running.poll() is None
        time.sleep(0.01)
    victim = min(stores.listing(STORE))
    stores.delete(f"{STORE}/{victim}")
    _, told = running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 2 and "a shard file is missing in the store" in told and victim in told
    assert not project.shards("voc").exists()
    assert not [name for name in stores.listing(STORE) if name.endswith("manifest.json")]
    shard(project, root)
    verify_shards(project.shards("voc"), load_manifest(project.shards("voc")))


def git(project: Project, *arguments: str) -> None:
    names = {f"GIT_{who}_{what}": "t@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    subprocess.run(["git", *arguments], cwd=project.root, env=os.environ | names, check=True, capture_output=True)


def test_the_store_is_cleaned_of_what_no_revision_names_and_of_nothing_else(project, root, s3, tmp_path):
    # Real DVC writes dvc.lock for the set of the first revision; its cache is gone later.
    stage = {"cmd": " ".join(["python", "-m", "pipeline.stages", "shard", "voc"]), "outs": ["data/shards/voc"]}
    (project.root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"shard": stage}}))
    git(project, "init", "-q")
    path = os.pathsep.join([str(BIN), os.environ["PATH"]])
    env = os.environ | {"PATH": path, "PYTHONPATH": str(root), "DVC_NO_ANALYTICS": "1"}
    for arguments in (["init", "-q"], ["repro", "-q"]):
        subprocess.run([BIN / "dvc", *arguments], cwd=project.root, env=env, check=True)
    git(project, "add", "dvc.lock")
    git(project, "commit", "-qm", "first")
    first = load_manifest(project.shards("voc"))
    assert dvc_id((project.shards("voc") / "manifest.json").read_bytes()) in (project.root / "dvc.lock").read_text()
    git(project, "checkout", "-qb", "other")
    git(project, "rm", "-q", "dvc.lock")
    git(project, "commit", "-qm", "without")
    shutil.rmtree(project.root / ".dvc" / "cache")
    manifests = []
    for samples in (5, 16):  # one that nothing will name, and the project's own
        set_shards(project, samples=samples)
        shard(project, root)
        manifests.append(load_manifest(project.shards("voc")))
    unnamed, own = manifests
    objects = tmp_path / "s3" / "shop" / "worlds"
    outside = [objects / "voc2" / "toy.tar", objects / "vo", objects.parent / "voc", objects / "voc" / "notes.txt"]
    for each in outside:
        each.parent.mkdir(exist_ok=True)
        each.write_text("precious")
    lone = objects / "voc" / f"voc-train-v3-000099-{'0' * 64}.tar"  # of a killed stage
    part = objects / "voc" / f"{lone.name}.{'1' * 32}.part"
    for each in (lone, part):
        each.write_text("left")
    before = stores.listing("s3://shop")

    told = run(project, root, "pipeline.cli", "clean-store", "voc", "--yes")
    assert "nothing to delete" in told and stores.listing("s3://shop") == before, "all of it is young"
    told = run(project, root, "pipeline.cli", "clean-store", "voc", "--days", "0")
    assert stores.listing("s3://shop") == before, "it is only listed"
    kept = {*stored_files(first), *stored_files(own)}
    doomed = {f"{unnamed['digest']}/manifest.json", lone.name, part.name, *stored_files(unnamed)} - kept
    assert {line.split()[2] for line in told.splitlines() if line.startswith("would delete")} == doomed
    assert f"keep {first['digest']}: in dvc.lock" in told and f"keep {own['digest']}: this project's" in told
    assert "leave alone notes.txt" in told and f"--yes deletes {len(doomed)} objects" in told
    told = run(project, root, "pipeline.cli", "clean-store", "voc", "--days", "0", "--yes")
    assert set(before) - set(stores.listing("s3://shop")) == {f"worlds/voc/{name}" for name in doomed}
    assert all(each.read_text() == "precious" for each in outside)
    for number, manifest in enumerate((first, own)):
        verify_shards(project.shards("voc"), manifest)
        assert len(keys(manifest, tmp_path / f"cache{number}")) == 51
    assert "nothing to delete" in run(project, root, "pipeline.cli", "clean-store", "voc", "--days", "0", "--yes")


@pytest.mark.parametrize("fault", ["no git", "shallow", "damaged manifest", "no store", "unknown data set"])
def test_nothing_is_deleted_where_it_is_not_known_what_is_of_use(fault, project, root, s3, tmp_path):
    shard(project, root)
    if fault != "no git":
        git(project, "init", "-q")
        git(project, "commit", "--allow-empty", "-qm", "first")
    if fault == "shallow":
        git(project, "commit", "--allow-empty", "-qm", "second")
        head = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=project.root, text=True)
        (project.root / ".git" / "shallow").write_text(head)
    elif fault == "damaged manifest":
        manifest = load_manifest(project.shards("voc"))
        copy = tmp_path / "s3/shop/worlds/voc" / manifest["digest"] / "manifest.json"
        other = manifest["splits"]["train"]["shards"][0]["sha256"]
        copy.write_text(copy.read_text().replace(other, other[::-1]))
    elif fault == "no store":
        set_shards(project, store=None)
    before = stores.listing("s3://shop")
    name = "../voc" if fault == "unknown data set" else "voc"
    told = run(project, root, "pipeline.cli", "clean-store", name, "--days", "0", "--yes", code=2)
    message = {
        "no git": "git does not tell which shard sets older revisions name",
        "shallow": "git fetch --unshallow",
        "damaged manifest": "a manifest in the store is damaged",
        "no store": "the shards are not in an object store",
        "unknown data set": "'../voc'",
    }[fault]
    assert message in told and "Traceback" not in told
    assert stores.listing("s3://shop") == before
