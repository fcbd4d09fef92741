"""webdataset's second opinion: whole shards pass, and damage of each kind is told with shard and key."""

from __future__ import annotations

import hashlib
import json
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import ConfigError, DataError
from pipeline.shards import verify
from pipeline.shards.manifest import load_manifest, manifest_digest
from pipeline.system.project import Project
from tests.command import sightline


@pytest.fixture
def project(tiny_project, tmp_path) -> Project:
    shutil.copytree(tiny_project.shards("voc"), tmp_path / "data/shards/voc")
    shutil.copyfile(tiny_project.root / "params.yaml", tmp_path / "params.yaml")
    return Project(tmp_path)


@pytest.fixture
def shard(project) -> Path:
    """The second shard of the training split: eight samples."""
    name = load_manifest(project.shards("voc"))["splits"]["train"]["shards"][1]["name"]
    return project.shards("voc") / name


def index_of(shard: Path) -> dict[str, list[Any]]:
    return json.loads(shard.with_suffix(".index.json").read_text())


def damages(project: Project) -> list[verify.Damage]:
    folder = project.shards("voc")
    return [found for found in verify.verify_split(folder, load_manifest(folder), "train") if found is not None]


def resign(
    shard: Path, change: Callable[[dict[str, Any]], None], split: Callable[[Any], None] = lambda s: None
) -> None:
    """Change a shard's index, and sign index and manifest as their writer would have."""
    index = index_of(shard)
    change(index)
    path = shard.with_suffix(".index.json")
    path.write_text(json.dumps(index))
    manifest = json.loads((shard.parent / "manifest.json").read_text())
    manifest["splits"]["train"]["shards"][1]["index_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    split(manifest["splits"]["train"])
    manifest["digest"] = manifest_digest(manifest)
    (shard.parent / "manifest.json").write_text(json.dumps(manifest))


def test_whole_shards_pass_and_every_sample_is_read(project, capsys):
    folder = project.shards("voc")
    assert list(verify.verify_split(folder, load_manifest(folder), "train")) == [None] * 40
    verify.verify_dataset(project, "voc")
    assert "51 samples of train, val are as they were written" in capsys.readouterr().out
    verify.verify_dataset(project, "voc", ["val"])
    assert "11 samples of val" in capsys.readouterr().out


def test_a_flipped_byte_of_an_image_is_told(project, shard):
    index = index_of(shard)
    data = bytearray(shard.read_bytes())
    data[index["offset"][3] + 512 + 40] ^= 1
    shard.write_bytes(data)
    (found,) = damages(project)
    assert (found.shard, found.key) == (shard.name, index["key"][3]) and "CRC-32" in found.what
    with pytest.raises(DataError, match="webdataset finds 1 damages") as caught:
        verify.verify_dataset(project, "voc")
    assert f"{shard.name}, sample {index['key'][3]}" in str(caught.value) and "sightline heal" in caught.value.fix


def test_a_flipped_byte_of_a_header_is_told(project, shard):
    index = index_of(shard)
    data = bytearray(shard.read_bytes())
    data[index["offset"][3] + 2] ^= 1  # of the name: its checksum is wrong now
    shard.write_bytes(data)
    found = damages(project)
    assert {damage.key for damage in found} >= set(index["key"][3:]), "nothing behind it is found"
    assert {damage.shard for damage in found} == {shard.name}


def test_a_cut_tar_is_told(project, shard):
    index = index_of(shard)
    shard.write_bytes(shard.read_bytes()[: index["offset"][5] + 700])
    found = damages(project)
    assert {damage.key for damage in found if damage.key} >= set(index["key"][6:])
    assert any("webdataset cannot read on" in damage.what for damage in found)


def test_a_missing_tar_or_index_is_told_and_the_others_are_read(project, shard):
    shard.unlink()
    (found,) = damages(project)
    assert found.shard == shard.name and "cannot be read" in found.what
    shard.with_suffix(".index.json").unlink()
    (found,) = damages(project)
    assert found.shard == shard.name and "No such file" in found.what


def pieces(shard: Path) -> list[bytes]:
    index, data = index_of(shard), shard.read_bytes()
    return [data[start : start + size] for start, size in zip(index["offset"], index["size"], strict=True)]


@pytest.mark.parametrize(
    ("order", "told"),
    [
        ([0, 1, 2, 3, 4, 5, 6], {7: "the tar has not"}),
        ([0, 1, 2, 3, 4, 5, 7, 6], {None: "in another order"}),
        ([0, 1, 2, 3, 4, 5, 6, 7, 1], {1: "there twice"}),
    ],
)
def test_samples_that_are_missing_moved_or_doubled_are_told(project, shard, order, told):
    keys, parts = index_of(shard)["key"], pieces(shard)
    shard.write_bytes(b"".join(parts[i] for i in order) + bytes(1024))
    found = {damage.key: damage.what for damage in damages(project)}
    assert found.keys() == {"" if row is None else keys[row] for row in told}
    for row, text in told.items():
        assert text in found["" if row is None else keys[row]]


def test_a_sample_of_another_shard_is_told(project, shard):
    other = sorted(shard.parent.glob("voc-train-*.tar"))[2]
    stranger, keys = pieces(other)[0], index_of(other)["key"]
    shard.write_bytes(b"".join(pieces(shard)) + stranger + bytes(1024))
    (found,) = damages(project)
    assert found.key == keys[0] and "the index has no such sample" in found.what


def test_a_member_that_is_missing_is_told(project, shard):
    parts = pieces(shard)
    image = 512 + -(-int(parts[2][124:135], 8) // 512) * 512
    shard.write_bytes(b"".join([*parts[:2], parts[2][image:], *parts[3:]]) + bytes(1024))
    (found,) = damages(project)
    assert found.key == index_of(shard)["key"][2] and "the index says" in found.what


def test_counts_that_are_not_the_samples_are_told(project, shard):
    def change(index: dict[str, Any]) -> None:
        index["counts"]["num_objects"][4] += 1

    resign(shard, change)
    by_key = {damage.key: damage.what for damage in damages(project)}
    assert "num_objects 2 (it has 1)" in by_key[index_of(shard)["key"][4]]
    assert "the manifest counts" in by_key[""]

    def back(index: dict[str, Any]) -> None:
        index["counts"]["num_objects"][4] -= 1

    def totals(split: Any) -> None:
        split["totals"]["num_objects"] += 1

    resign(shard, back, totals)
    (found,) = damages(project)
    assert (found.shard, found.key) == ("train", "") and "the manifest counts" in found.what


def reversed_keys(annotation: dict[str, Any]) -> dict[str, Any]:
    return dict(reversed(annotation.items()))


def of_another_sample(annotation: dict[str, Any]) -> dict[str, Any]:
    return {**annotation, "key": annotation["key"][:-1] + ("0" if annotation["key"][-1] != "0" else "1")}


@pytest.mark.parametrize(
    ("change", "told"), [(reversed_keys, "is written otherwise"), (of_another_sample, "belongs to another sample")]
)
def test_an_annotation_that_was_forged_with_its_crc_is_told(project, shard, change, told):
    index, data = index_of(shard), bytearray(shard.read_bytes())
    start, size = index["offset"][2], index["size"][2]
    sample = bytes(data[start : start + size])
    begin = sample.index(b'{"')
    length = int(sample[begin - 512 :][124:135], 8)
    text = sample[begin : begin + length]
    new = json.dumps(change(json.loads(text)), separators=(",", ":"), ensure_ascii=False).encode()
    assert len(new) == length and new != text
    data[start + begin : start + begin + length] = new
    shard.write_bytes(data)
    resign(shard, lambda index: index["crc"].__setitem__(2, zlib.crc32(data[start : start + size])))
    (found,) = damages(project)
    assert found.key == index["key"][2] and told in found.what


def test_an_unknown_split_or_data_set_is_told(project):
    with pytest.raises(ConfigError, match="no such split"):
        verify.verify_dataset(project, "voc", ["vla"])
    with pytest.raises(ConfigError, match="no such data set"):
        verify.verify_dataset(project, "vco")


def test_the_command(project, monkeypatch, capsys):
    monkeypatch.chdir(project.root)
    assert sightline("verify", ["voc", "--split", "val"]) == 0
    assert "11 samples of val" in capsys.readouterr().out
    assert sightline("verify", ["voc", "--split", "tset"]) == 2
    assert "no such split" in capsys.readouterr().err
