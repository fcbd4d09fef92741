"""Shards: round trip, deterministic bytes, readable by WebDataset, damage refused."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import pickle
import shutil
import tarfile
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from contracts.errors import ConfigError, DataError
from contracts.raw import RawRecord
from contracts.records import Caption, Objects, Question, Record
from pipeline.settings.params import load_params
from pipeline.settings.sections import LoaderConfig, ShardsConfig
from pipeline.shards import stores
from pipeline.shards.cache import ShardCache
from pipeline.shards.manifest import load_manifest, stored_files, stored_name, write_manifest
from pipeline.shards.reader import SplitReader, verify_shards
from pipeline.shards.samples import parse_sample, sample_pieces, tar_member
from pipeline.shards.writing import split_manifest, upload_shard, write_shard
from pipeline.stages.shard import shard
from pipeline.system.project import Project


def make_record(key: str = "000000000001") -> Record:
    image = cv2.imencode(".jpg", np.full((20, 30, 3), 90, np.uint8))[1].tobytes()
    return Record(
        key=key,
        image_id=1,
        width=30,
        height=20,
        image=image,
        image_format="jpg",
        objects=Objects(
            ids=["7"],
            boxes=np.array([[1, 2, 10, 12.5]], np.float32),
            labels=np.array([2]),
            areas=np.array([50.0]),
            is_crowd=np.array([False]),
            is_difficult=np.array([True]),
            is_truncated=np.array([False]),
            masks=[""],
        ),
        captions=(Caption(caption_id=3, text="Ein \u00dcber-Bild, „quoted“"),),
        questions=(Question(question_id=9, text="what?", answers=("a",) * 10, multiple_choice_answer="a"),),
        semantic_mask=cv2.imencode(".png", np.zeros((20, 30), np.uint8))[1].tobytes(),
    )


@pytest.fixture
def raws(tmp_path: Path) -> list[RawRecord]:
    """Five records of images in `tmp_path`."""
    made = []
    for i in range(5):
        path = tmp_path / f"{i}.jpg"
        cv2.imwrite(str(path), np.full((16, 24, 3), 40 * i, np.uint8))
        made.append(
            RawRecord(
                key=f"{i:04d}",
                image_id=i,
                image=path,
                annotation_file="a.json",
                captions=(Caption(caption_id=i, text="x"),),
            )
        )
    return made


@pytest.fixture
def shard_folder(tmp_path: Path, raws: list[RawRecord]) -> Path:
    """Two shards of three and two samples, written through the door."""
    folder = tmp_path / "shards"
    folder.mkdir()
    results = [
        write_shard(raws[:3], ["a"], folder, "toy-train-v3-000000.tar"),
        write_shard(raws[3:], ["a"], folder, "toy-train-v3-000001.tar"),
    ]
    write_manifest(folder, "toy", ["a"], {"train": split_manifest(results, [])})
    return folder


def test_record_survives_the_tar():
    record = make_record()
    again = parse_sample(b"".join(sample_pieces(record)), record.key, "test")
    assert again.annotation_json() == record.annotation_json()
    assert (again.image, again.semantic_mask, again.image_format) == (record.image, record.semantic_mask, "jpg")
    assert again.objects.boxes.dtype == np.float32
    np.testing.assert_array_equal(again.objects.boxes, record.objects.boxes)


def test_members_are_plain_ustar_without_time_or_owner():
    with tarfile.open(fileobj=io.BytesIO(b"".join(sample_pieces(make_record())) + bytes(1024))) as tar:
        members = tar.getmembers()
    assert [m.name for m in members] == ["000000000001.jpg", "000000000001.json", "000000000001.semantic.png"]
    assert all((m.mtime, m.uid, m.uname) == (0, 0, "") for m in members)


def tarfile_member(name: str, data: bytes) -> bytes:
    """What Python's tarfile makes of a file, without the end of the tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), 0o644
        tar.addfile(info, io.BytesIO(data))
        return out.getvalue()


def test_members_are_byte_for_byte_those_of_tarfile():
    names = ["a", "000000000001.jpg", "0.semantic.png", "ü/é.json", "x" * 100, "y" * 60 + "/" + "z" * 80]
    for name, size in itertools.product(names, (0, 1, 511, 512, 513, 150_000)):
        data = bytes(i % 251 for i in range(size))
        assert b"".join(tar_member(name, data)) == tarfile_member(name, data), (name, size)
    record = make_record()
    pieces = {"jpg": record.image, "json": record.annotation_json(), "semantic.png": record.semantic_mask}
    expected = b"".join(tarfile_member(f"{record.key}.{extension}", data) for extension, data in pieces.items())
    assert b"".join(sample_pieces(record)) == expected


def test_a_write_that_stops_halfway_goes_on_or_tells_why(monkeypatch, tmp_path, raws, shard_folder):
    monkeypatch.setattr("os.writev", lambda descriptor, pieces: os.write(descriptor, b"".join(pieces)[:-512]))
    name = "toy-train-v3-000000.tar"
    write_shard(raws[:3], ["a"], tmp_path, name)
    assert (tmp_path / name).read_bytes() == (shard_folder / name).read_bytes()


def test_positions_cross_shards_and_reader_pickles(shard_folder):
    reader = SplitReader(shard_folder, load_manifest(shard_folder), "train")
    assert reader.keys() == ["0000", "0001", "0002", "0003", "0004"]
    again = pickle.loads(pickle.dumps(reader))
    assert [again.read(i).key for i in (4, 0, 3)] == ["0004", "0000", "0003"]
    assert reader.select(["num_captions"]).tolist() == [0, 1, 2, 3, 4]
    assert reader.select(["num_questions"]).tolist() == []


def test_webdataset_reads_the_same_samples(shard_folder):
    import webdataset as wds

    urls = sorted(str(p) for p in shard_folder.glob("*.tar"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        samples = list(wds.WebDataset(urls, shardshuffle=False))
    reader = SplitReader(shard_folder, load_manifest(shard_folder), "train")
    assert [s["__key__"] for s in samples] == reader.keys()
    for i, sample in enumerate(samples):
        record = reader.read(i)
        assert sample["jpg"] == record.image
        assert sample["json"] == record.annotation_json()


def test_equal_input_gives_equal_bytes(shard_folder, raws, tmp_path):
    first = json.loads((shard_folder / "manifest.json").read_text())
    other = tmp_path / "other"
    other.mkdir()
    made = write_shard(raws[:3], ["a"], other, "toy-train-v3-000000.tar")
    assert made.shard == first["splits"]["train"]["shards"][0]


@pytest.mark.parametrize("damage", ["cut", "flip", "missing", "index"])
def test_damaged_shards_are_refused(shard_folder, damage):
    manifest = load_manifest(shard_folder)
    verify_shards(shard_folder, manifest)
    victim = shard_folder / ("toy-train-v3-000001.index.json" if damage == "index" else "toy-train-v3-000001.tar")
    data = bytearray(victim.read_bytes())
    if damage == "cut":
        victim.write_bytes(data[: len(data) // 1024 * 512])
    elif damage == "missing":
        victim.unlink()
    else:
        data[len(data) // 2] ^= 1
        victim.write_bytes(data)
    with pytest.raises(DataError, match="toy-train-v3-000001"):
        verify_shards(shard_folder, manifest)


def test_reading_past_a_cut_is_an_error_not_a_short_epoch(shard_folder):
    reader = SplitReader(shard_folder, load_manifest(shard_folder), "train")
    path = shard_folder / "toy-train-v3-000001.tar"
    whole = path.read_bytes()
    path.write_bytes(whole[:1024])
    with pytest.raises(DataError, match="cut or has grown: 1024") as caught:
        reader.read(4)
    assert caught.value.where == str(path) and "sightline heal --yes data/shards/toy" in caught.value.fix
    path.write_bytes(whole)
    assert reader.read(4).key == "0004"
    path.write_bytes(whole[:1024])  # the reader has the file open now
    with pytest.raises(DataError, match="not those that were written: '0 bytes"):
        reader.read(4)


def test_changed_manifest_is_refused(shard_folder):
    path = shard_folder / "manifest.json"
    path.write_text(path.read_text().replace('"num_samples": 5', '"num_samples": 6'))
    with pytest.raises(DataError, match="digest"):
        load_manifest(shard_folder)


def test_unusable_records_are_counted_not_lost(tmp_path):
    good = tmp_path / "good.jpg"
    cv2.imwrite(str(good), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "bad.jpg").write_bytes(b"not an image")
    raws = [RawRecord(key=k, image_id=k, image=tmp_path / f"{k}.jpg", annotation_file="a") for k in ("bad", "good")]
    result = write_shard(raws, [], tmp_path, "toy-val-v3-000000.tar")
    entry = split_manifest([result], [])
    assert entry["num_source"] == 2 == entry["num_samples"] + sum(entry["dropped"]["record"].values())


@pytest.fixture
def stored(tmp_path: Path, raws: list[RawRecord], monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The shards of `shard_folder` in a store: the folder with the manifest, and the folder that is the store."""
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "default cache"))
    folder, store = tmp_path / "stored", tmp_path / "store"
    folder.mkdir()
    results = [
        upload_shard(raws[:3], ["a"], f"file://{store}", "toy-train-v3-000000.tar"),
        upload_shard(raws[3:], ["a"], f"file://{store}", "toy-train-v3-000001.tar"),
    ]
    write_manifest(folder, "toy", ["a"], {"train": split_manifest(results, [])}, store=f"file://{store}")
    return folder, store


def found(store: Path, name: str) -> Path:
    """The one object of this file in a store that is a folder."""
    stem, _, extension = name.partition(".")
    (path,) = store.glob(f"{stem}-{'[0-9a-f]' * 64}.{extension}")
    return path


def test_a_store_holds_the_same_bytes_and_is_the_same_data(stored, shard_folder):
    folder, store = stored
    manifest, local = load_manifest(folder), load_manifest(shard_folder)
    assert {key: value for key, value in manifest.items() if key != "store"} == local
    assert [path.name for path in folder.iterdir()] == ["manifest.json"]
    for path in shard_folder.iterdir():
        if path.name != "manifest.json":
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            assert (store / stored_name(path.name, digest)).read_bytes() == path.read_bytes()
    assert {path.name for path in store.iterdir()} == set(stored_files(manifest)) and len(stored_files(manifest)) == 4


def test_samples_come_from_the_store_through_the_cache(stored, shard_folder, tmp_path):
    folder, store = stored
    reader = SplitReader(folder, load_manifest(folder), "train", ShardCache(folder=tmp_path / "cache"))
    assert len(list((tmp_path / "cache").glob("[!.]*"))) == 2, "the indices; no tar before it is read"
    again = pickle.loads(pickle.dumps(reader))
    local = SplitReader(shard_folder, load_manifest(shard_folder), "train")
    assert reader.keys() == local.keys()
    for i in range(5):
        assert again.read(i).annotation_json() == local.read(i).annotation_json()
        assert again.read(i).image == local.read(i).image
    shutil.rmtree(store)
    assert reader.read(4).key == "0004"


def test_the_cache_lies_where_the_environment_says(stored, tmp_path, monkeypatch):
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "elsewhere"))
    SplitReader(stored[0], load_manifest(stored[0]), "train").read(0)
    assert len(list((tmp_path / "elsewhere").glob("[!.]*"))) == 3


def test_what_the_store_has_is_not_sent_again(stored, raws, tmp_path, monkeypatch):
    _, store = stored
    sent = []
    upload = stores.upload
    monkeypatch.setattr(stores, "upload", lambda path, url, sha256: (sent.append(path.name), upload(path, url, sha256)))
    name = "toy-train-v3-000001.tar"
    victim = found(store, name)
    whole = victim.read_bytes()
    upload_shard(raws[3:], ["a"], f"file://{store}", name)
    assert sent == []
    victim.write_bytes(bytes(len(whole)))
    upload_shard(raws[3:], ["a"], f"file://{store}", name)
    assert sent == [name] and victim.read_bytes() == whole


@pytest.mark.parametrize("damage", ["cut", "missing", "index missing"])
def test_a_store_that_lacks_something_is_refused(stored, damage):
    folder, store = stored
    verify_shards(folder, load_manifest(folder))
    victim = found(store, "toy-train-v3-000001.index.json" if damage == "index missing" else "toy-train-v3-000001.tar")
    if damage == "cut":
        victim.write_bytes(victim.read_bytes()[:1024])
    else:
        victim.unlink()
    with pytest.raises(DataError, match="store") as caught:
        verify_shards(folder, load_manifest(folder))
    assert caught.value.where == f"file://{victim}"


@pytest.mark.parametrize("name", ["toy-train-v3-000001.index.json", "toy-train-v3-000001.tar"])
def test_changed_content_in_the_store_is_refused_when_fetched(stored, name, tmp_path):
    folder, store = stored
    victim = found(store, name)
    data = victim.read_bytes()
    victim.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(DataError, match="other content than the manifest says") as caught:
        SplitReader(folder, load_manifest(folder), "train", ShardCache(folder=tmp_path / "cache")).read(4)
    assert caught.value.where == f"file://{victim}"


def test_the_stage_writes_into_the_store_that_params_name(tiny_project, tmp_path, monkeypatch):
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))
    document = yaml.safe_load((tiny_project.root / "params.yaml").read_text())
    document["shards"]["store"] = f"file://{tmp_path}/store/"
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(document))
    (tmp_path / "data").mkdir()
    (tmp_path / "data/raw").symlink_to(tiny_project.root / "data/raw")
    project = Project(tmp_path)
    shard(project, load_params(tmp_path), "voc")
    manifest = load_manifest(project.shards("voc"))
    assert manifest["store"] == f"file://{tmp_path}/store/voc"
    assert manifest["digest"] == load_manifest(tiny_project.shards("voc"))["digest"]
    assert [path.name for path in project.shards("voc").iterdir()] == ["manifest.json"]
    verify_shards(project.shards("voc"), manifest)


def test_shards_are_on_the_disk_before_the_old_ones_go(tiny_project, tmp_path, monkeypatch):
    shutil.copy(tiny_project.root / "params.yaml", tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/raw").symlink_to(tiny_project.root / "data/raw")
    calls, fsync, rename = [], os.fsync, os.rename
    monkeypatch.setattr(
        os, "fsync", lambda file: (calls.append(Path(os.readlink(f"/proc/self/fd/{file}"))), fsync(file))
    )
    monkeypatch.setattr(os, "rename", lambda old, new: (calls.append("rename"), rename(old, new)))
    shard(Project(tmp_path), load_params(tmp_path), "voc")
    first = {path.name for path in calls[: calls.index("rename")]}
    assert first >= {".voc.new", *(path.name for path in Project(tmp_path).shards("voc").iterdir())}


def test_stores_are_urls_of_folders():
    for store in (None, "s3://bucket", "s3://bucket/a/b/", "file:///a", "memory://a"):
        ShardsConfig(store=store)
    for store in (
        "bucket/a",
        "s3:/bucket",
        "s3://",
        "s3:///a",
        "s3://key:secret@bucket/a",
        "file://a/b",
        "s3://b/a?v=1",
    ):
        with pytest.raises(ConfigError, match="must be the url of a folder"):
            ShardsConfig(store=store)


def test_a_cache_without_room_is_refused():
    with pytest.raises(ConfigError, match="cache_gib"):
        LoaderConfig(cache_gib=0)
