"""Damaged objects in DVC's cache and in a remote: found, and healed by the commands that the messages name."""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

import pytest

from contracts.errors import DataError
from pipeline.shards.manifest import load_manifest
from pipeline.shards.reader import verify_shards
from tests import dvc_project
from tests.local_training import drawn_voc

PARAMS = {
    "datasets": drawn_voc(train=24, val=6),
    "runs": {"seg": {"dataset": "voc", "task": {"name": "segmentation"}, "model": {"name": "fcn"}}},
    "shards": {"samples": 8},
    "cluster": {"engine": "local"},
}
SHARDS = "data/shards/voc"


@pytest.fixture(scope="module")
def project(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sharded, pushed to a remote beside it."""
    folder = dvc_project.make(root, tmp_path_factory.mktemp("heal") / "project", PARAMS)
    dvc_project.run(folder, "dvc", "remote", "modify", "store", "url", str(folder.parent / "remote"))
    dvc_project.run(folder, "dvc", "repro", "vocab@voc")
    dvc_project.run(folder, "dvc", "push", "shard@voc", "vocab@voc")
    return folder


@pytest.fixture(scope="module")
def original(project: Path) -> bytes:
    return (project / SHARDS / tar(project)).read_bytes()


def tar(project: Path) -> str:
    return sorted(path.name for path in (project / SHARDS).glob("voc-train-*.tar"))[1]


def place(store: Path, content: bytes) -> Path:
    md5 = hashlib.md5(content).hexdigest()
    return store / "files/md5" / md5[:2] / md5[2:]


def flip_a_bit(path: Path) -> None:
    """Of what lies there; its mode, which is all that DVC looks at, stays."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    mode = path.stat().st_mode
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(mode)


def heal(project: Path, *arguments: str) -> tuple[int, str]:
    result = dvc_project.attempt(project, sys.executable, "-m", "pipeline.cli", "heal", *arguments)
    assert not result.stderr
    return result.returncode, result.stdout


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("brings_anew", ["pull", "repro"])
def test_a_damaged_object_of_the_cache(project, original, brings_anew):
    name = f"{SHARDS}/{tar(project)}"
    cached = place(project / ".dvc/cache", original)
    flip_a_bit(cached)
    shutil.rmtree(project / SHARDS)
    dvc_project.run(project, "dvc", "checkout", "shard@voc")
    assert (project / name).read_bytes() != original, "DVC passes it on"
    assert dvc_project.stages_run(project, "vocab@voc") == ["check"]
    with pytest.raises(DataError, match="not those that the manifest names") as refused:
        verify_shards(project / SHARDS, load_manifest(project / SHARDS))
    assert f"sightline heal --yes {SHARDS}`" in refused.value.fix

    before = files(project)
    code, told = heal(project)
    assert code == 1
    assert f"damaged in the cache: {cached}" in told and f"damaged in an output: {project / name}" in told
    assert files(project) >= before, "nothing is removed unasked"
    code, told = heal(project, "--yes", SHARDS)
    assert code == 0
    assert before - files(project) == {cached, project / name}, "and nothing else"

    dvc_project.run(project, "dvc", brings_anew, "shard@voc")
    assert (project / name).read_bytes() == original == cached.read_bytes()
    verify_shards(project / SHARDS, load_manifest(project / SHARDS))
    assert heal(project) == (0, "nothing is damaged\n")


def test_a_damaged_object_of_the_remote(project, original):
    remote = project.parent / "remote"
    stored = place(remote, original)
    flip_a_bit(stored)
    for folder in (".dvc/cache", SHARDS):
        shutil.rmtree(project / folder)
    pulled = dvc_project.attempt(project, "dvc", "pull", "shard@voc")
    assert pulled.returncode != 0
    found = {path.read_bytes() for path in files(project / SHARDS)}
    assert stored.read_bytes() not in found, "no wrong bytes"

    code, told = heal(project)
    assert code == 0
    (line,) = [line for line in told.splitlines() if hashlib.md5(original).hexdigest() in line]
    named = [word for word in line.split() if word.startswith("files/md5/")]
    assert stored == remote / named[0]
    for word in named:
        (remote / word).unlink()
    dvc_project.run(project, "dvc", "repro", "shard@voc")
    dvc_project.run(project, "dvc", "push", "shard@voc")
    for folder in (".dvc/cache", SHARDS):
        shutil.rmtree(project / folder)
    dvc_project.run(project, "dvc", "pull", "shard@voc")
    assert (project / SHARDS / tar(project)).read_bytes() == original


def test_what_was_changed_on_purpose_is_left_alone(project):
    vocabulary = project / "data/vocab/voc.json"
    vocabulary.unlink()
    vocabulary.write_text("{}")
    code, told = heal(project, "--yes", "data/vocab/voc.json")
    assert (code, vocabulary.read_text()) == (0, "{}")
    assert "changed, as DVC knows: data/vocab/voc.json" in told
    refused = dvc_project.attempt(project, sys.executable, "-m", "pipeline.cli", "heal", "data/vocab/other.json")
    assert refused.returncode == 2
    assert "DVC has recorded no such output" in refused.stderr
