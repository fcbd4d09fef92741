"""Shards: round trip, deterministic bytes, readable by WebDataset, damage refused."""

from __future__ import annotations

import io
import json
import tarfile
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest

from contracts.errors import DataError
from contracts.records import Caption, Objects, Question, RawRecord, Record
from pipeline.sharding import split_manifest, write_shard
from pipeline.shards import SplitReader, load_manifest, parse_sample, sample_bytes, verify_shards, write_manifest


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
def shard_folder(tmp_path: Path) -> Path:
    """Two shards of three and two samples, written through the door."""
    raws = []
    for i in range(5):
        path = tmp_path / f"{i}.jpg"
        cv2.imwrite(str(path), np.full((16, 24, 3), 40 * i, np.uint8))
        raws.append(
            RawRecord(
                key=f"{i:04d}",
                image_id=i,
                image=path,
                annotation_file="a.json",
                captions=(Caption(caption_id=i, text="x"),),
            )
        )
    folder = tmp_path / "shards"
    folder.mkdir()
    results = [
        write_shard(raws[:3], ["a"], folder, "toy-train-v1-000000.tar"),
        write_shard(raws[3:], ["a"], folder, "toy-train-v1-000001.tar"),
    ]
    write_manifest(folder, "toy", ["a"], {"train": split_manifest(results, [])})
    return folder


def test_record_survives_the_tar():
    record = make_record()
    again = parse_sample(sample_bytes(record), "test")
    assert again.annotation_json() == record.annotation_json()
    assert (again.image, again.semantic_mask, again.image_format) == (record.image, record.semantic_mask, "jpg")
    assert again.objects.boxes.dtype == np.float32
    np.testing.assert_array_equal(again.objects.boxes, record.objects.boxes)


def test_members_are_plain_ustar_without_time_or_owner():
    with tarfile.open(fileobj=io.BytesIO(sample_bytes(make_record()) + bytes(1024))) as tar:
        members = tar.getmembers()
    assert [m.name for m in members] == ["000000000001.jpg", "000000000001.json", "000000000001.semantic.png"]
    assert all((m.mtime, m.uid, m.uname) == (0, 0, "") for m in members)


def test_positions_cross_shards_and_reader_pickles(shard_folder):
    import pickle

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


def test_equal_input_gives_equal_bytes(shard_folder, tmp_path):
    first = json.loads((shard_folder / "manifest.json").read_text())
    raws = [
        RawRecord(
            key=f"{i:04d}",
            image_id=i,
            image=tmp_path / f"{i}.jpg",
            annotation_file="a.json",
            captions=(Caption(caption_id=i, text="x"),),
        )
        for i in range(3)
    ]
    other = tmp_path / "other"
    other.mkdir()
    assert write_shard(raws, ["a"], other, "toy-train-v1-000000.tar").shard == first["splits"]["train"]["shards"][0]


@pytest.mark.parametrize("damage", ["cut", "flip", "missing", "index"])
def test_damaged_shards_are_refused(shard_folder, damage):
    manifest = load_manifest(shard_folder)
    verify_shards(shard_folder, manifest)
    victim = shard_folder / ("toy-train-v1-000001.index.json" if damage == "index" else "toy-train-v1-000001.tar")
    data = bytearray(victim.read_bytes())
    if damage == "cut":
        victim.write_bytes(data[: len(data) // 1024 * 512])
    elif damage == "missing":
        victim.unlink()
    else:
        data[len(data) // 2] ^= 1
        victim.write_bytes(data)
    with pytest.raises(DataError, match="toy-train-v1-000001"):
        verify_shards(shard_folder, manifest)


def test_reading_past_a_cut_is_an_error_not_a_short_epoch(shard_folder):
    reader = SplitReader(shard_folder, load_manifest(shard_folder), "train")
    path = shard_folder / "toy-train-v1-000001.tar"
    path.write_bytes(path.read_bytes()[:1024])
    with pytest.raises(DataError, match="shorter than its index"):
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
    result = write_shard(raws, [], tmp_path, "toy-val-v1-000000.tar")
    entry = split_manifest([result], [])
    assert entry["num_source"] == 2 == entry["num_samples"] + sum(entry["dropped"]["record"].values())
