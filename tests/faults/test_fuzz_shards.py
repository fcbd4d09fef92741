"""Random damage to manifest, index and tar: what is read is exactly what was written, or a DataError says why not.

Half of the damaged files are signed anew, so that digests and CRCs agree and the rules themselves must hold. A signed
file is no accident any more: what it may say otherwise is what only the writer can know, such as a class's name. The
samples themselves are never others.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.errors import DataError
from contracts.raw import RawObject, RawRecord
from contracts.records import Caption, Question, Record
from pipeline.shards.manifest import index_name, load_manifest, manifest_digest, shard_name, write_manifest
from pipeline.shards.reader import SplitReader, open_splits, verify_shards
from pipeline.shards.samples import parse_sample, tar_member
from pipeline.shards.writing import split_manifest, write_shard


def examples(number: int) -> Callable[[Any], Any]:
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=number, derandomize=True, database=None, suppress_health_check=checks)


# Text that stands for what Python cannot or would not write: put in after the JSON was made.
RAW = {'"@huge@"': "9" * 5000, '"@deep@"': "[" * 3000 + "]" * 3000, '"@nan@"': "NaN", '"@infinite@"': "1e999"}
PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 10_000),
    st.sampled_from([2**31, 2**63, 2**64, -(2**63), 10**30, 0.5, 1.0, 512.0, 1e300]),
    st.sampled_from([*(text.strip('"') for text in RAW), "", "../../x", "a" * 300, "\ud800", "0" * 64, "toy", "train"]),
    st.text(max_size=4),
)
VALUES = st.one_of(
    PLAIN, st.lists(PLAIN, max_size=3), st.dictionaries(st.sampled_from(["name", "key", "val", "x", ""]), PLAIN)
)
EDITS = st.lists(
    st.tuples(st.sampled_from(["set", "drop", "add", "twice", "swap"]), st.integers(0, 2**20), VALUES),
    min_size=1,
    max_size=3,
)
CUTS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "insert", "remove", "double", "zero"]), st.integers(0, 2**24), st.binary()
    ),
    min_size=1,
    max_size=3,
)


def edited(document: Any, edits: list[tuple[str, int, Any]]) -> Any:
    """A copy of a JSON document with some of its values changed."""
    document = json.loads(json.dumps(document))
    for kind, at, value in edits:
        places: list[tuple[Any, Any]] = []
        todo = [document]
        while todo:
            node = todo.pop()
            children = list(node.items() if isinstance(node, dict) else enumerate(node))
            places += [(node, key) for key, _ in children]
            todo += [child for _, child in children if isinstance(child, dict | list)]
        if not places:
            return value
        node, key = places[at % len(places)]
        if kind == "set":
            node[key] = value
        elif kind == "drop":
            del node[key]
        elif kind == "add":
            node.update({"more": value}) if isinstance(node, dict) else node.append(value)
        elif kind == "twice":
            node.update({f"{key}2": node[key]}) if isinstance(node, dict) else node.insert(key, node[key])
        else:
            other = list(node)[at // 7 % len(node)] if isinstance(node, dict) else at // 7 % len(node)
            node[key], node[other] = node[other], node[key]
    return document


def text_of(document: Any) -> bytes:
    text = json.dumps(document)
    for stand_in, raw in RAW.items():
        text = text.replace(stand_in, raw)
    return text.encode()


def damaged(data: bytes, cuts: list[tuple[str, int, bytes]]) -> bytes:
    out = bytearray(data)
    for kind, number, more in cuts:
        at = number % (len(out) + 1)
        if kind == "flip" and at < len(out):
            out[at] ^= 1 << (number % 8)
        elif kind == "cut":
            del out[at:]
        elif kind == "insert":
            out[at:at] = more
        elif kind == "remove":
            del out[at : at + 1 + len(more)]
        elif kind == "double":
            out[at:at] = out[max(0, at - 1 - len(more)) : at]
        elif kind == "zero":
            out[at : at + 64] = bytes(len(out[at : at + 64]))
    return bytes(out)


Samples = dict[str, dict[str, tuple[bytes, bytes, bytes]]]


@dataclass
class Whole:
    """A shard set as it was written: its files, and the samples of each split by key."""

    folder: Path
    files: dict[str, bytes]
    manifest: dict[str, Any]
    samples: Samples

    def write(self, **files: bytes) -> None:
        """The set with some files in place of its own, whose names are spelled with `__` for what Python forbids."""
        for name, data in (self.files | files).items():
            if not (path := self.folder / name).is_file() or path.read_bytes() != data:
                path.write_bytes(data)


def parts(record: Record) -> tuple[bytes, bytes, bytes]:
    return record.annotation_json(), record.image, record.semantic_mask


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Two training shards of two samples each, and one of two for validation."""
    root = tmp_path_factory.mktemp("fuzz")
    folder = root / "toy"
    folder.mkdir()
    raws = []
    for i in range(6):
        image = root / f"{i}.png"
        cv2.imwrite(str(image), np.full((8, 8, 3), 40 * i, np.uint8))
        raws.append(
            RawRecord(
                key=f"{i:03d}",
                image_id=i,
                image=image,
                annotation_file="a.json",
                captions=(Caption(caption_id=i, text=f"caption {i}"),),
                questions=(Question(question_id=i, text="what?", answers=("a",) * 10, multiple_choice_answer="a"),),
                objects=(RawObject(object_id=str(i), category="thing", box=(1, 1, 5, 6)),),
            )
        )
    splits = {}
    for split, chunks in {"train": (raws[:2], raws[2:4]), "val": (raws[4:],)}.items():
        results = [write_shard(c, ["thing"], folder, shard_name("toy", split, i)) for i, c in enumerate(chunks)]
        splits[split] = split_manifest(results, [])
    manifest = write_manifest(folder, "toy", ["thing"], splits)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    readers = open_splits(folder, load_manifest(folder, "toy"))
    samples = {
        split: {record.key: parts(record) for record in map(reader.read, range(len(reader)))}
        for split, reader in readers.items()
    }
    return Whole(folder, files, manifest, samples)


def signed(manifest: Any) -> Any:
    if isinstance(manifest, dict):
        try:
            manifest["digest"] = manifest_digest(manifest)
        except ValueError:  # a lone surrogate has no UTF-8
            return manifest
    return manifest


def named(error: DataError, place: str) -> None:
    assert place in error.where and error.fix, str(error)


def check(whole: Whole) -> dict[str, Any] | None:
    """Read everything there is; the manifest, or None where a DataError refused something."""
    try:
        manifest = load_manifest(whole.folder)
        readers = open_splits(whole.folder, manifest)
    except DataError as error:
        named(error, str(whole.folder))
        return None
    refused = False
    for split, reader in readers.items():
        for position, key in enumerate(reader.keys()):
            try:
                record = reader.read(position)
            except DataError as error:
                named(error, str(whole.folder))
                refused = True
            else:
                assert parts(record) == whole.samples[split][key]
    try:
        verify_shards(whole.folder, manifest)
    except DataError:
        return None
    return None if refused else manifest


def same(manifest: Any, other: Any) -> bool:
    return json.dumps(manifest, sort_keys=True) == json.dumps(other, sort_keys=True)


@examples(1250)
@given(edits=EDITS, sign=st.booleans())
def test_manifests_with_other_values(whole: Whole, edits: list[tuple[str, int, Any]], sign: bool) -> None:
    document = edited(whole.manifest, edits)
    whole.write(**{"manifest.json": text_of(signed(document) if sign else document)})
    manifest = check(whole)
    assert manifest is None or sign or same(manifest, whole.manifest)


@examples(1250)
@given(cuts=CUTS)
def test_manifests_with_other_bytes(whole: Whole, cuts: list[tuple[str, int, bytes]]) -> None:
    whole.write(**{"manifest.json": damaged(whole.files["manifest.json"], cuts)})
    manifest = check(whole)
    assert manifest is None or same(manifest, whole.manifest)


def resigned(whole: Whole, shard: str, changes: dict[str, Any]) -> bytes:
    """The manifest with other values for one shard, as its writer would have signed it."""
    manifest = json.loads(json.dumps(whole.manifest))
    for split in manifest["splits"].values():
        for entry in split["shards"]:
            if entry["name"] == shard:
                split["bytes"] += changes.get("bytes", entry["bytes"]) - entry["bytes"]
                entry.update(changes)
    return json.dumps(signed(manifest)).encode()


def with_index(whole: Whole, number: int, make: Callable[[bytes], bytes], sign: bool) -> bool:
    """Put a changed index in its place; whether it is the one that was written."""
    shards = [name for name in sorted(whole.files) if name.endswith(".tar")]
    shard = shards[number % len(shards)]
    before = whole.files[index_name(shard)]
    after = make(before)
    files = {index_name(shard): after}
    if sign:
        files["manifest.json"] = resigned(whole, shard, {"index_sha256": hashlib.sha256(after).hexdigest()})
    whole.write(**files)
    return after == before


@examples(1250)
@given(number=st.integers(0, 2), edits=EDITS, sign=st.booleans())
def test_indices_with_other_values(whole: Whole, number: int, edits: list[tuple[str, int, Any]], sign: bool) -> None:
    as_written = with_index(whole, number, lambda data: text_of(edited(json.loads(data), edits)), sign)
    assert check(whole) is None or sign or as_written


@examples(1250)
@given(number=st.integers(0, 2), cuts=CUTS, sign=st.booleans())
def test_indices_with_other_bytes(whole: Whole, number: int, cuts: list[tuple[str, int, bytes]], sign: bool) -> None:
    as_written = with_index(whole, number, lambda data: damaged(data, cuts), sign)
    assert check(whole) is None or sign or as_written


@examples(800)
@given(number=st.integers(0, 2), cuts=CUTS)
def test_tars_with_other_bytes(whole: Whole, number: int, cuts: list[tuple[str, int, bytes]]) -> None:
    shard = [name for name in sorted(whole.files) if name.endswith(".tar")][number]
    tar = damaged(whole.files[shard], cuts)
    whole.write(**{shard: tar})
    assert (check(whole) is None) == (tar != whole.files[shard])


@examples(600)
@given(cuts=CUTS)
def test_tars_that_agree_with_index_and_manifest_hold_whole_samples(
    whole: Whole, cuts: list[tuple[str, int, bytes]]
) -> None:
    """Every CRC and digest is made anew, as by a defect of the writer: a record of the index's key, or a DataError."""
    shard = shard_name("toy", "val", 0)
    before = whole.files[shard]
    tar = damaged(before, cuts)[: len(before)].ljust(len(before), b"\0")
    index = json.loads(whole.files[index_name(shard)])
    places = zip(index["offset"], index["size"], strict=True)
    index["crc"] = [zlib.crc32(tar[offset : offset + size]) for offset, size in places]
    data = json.dumps(index).encode()
    digests = {"sha256": hashlib.sha256(tar).hexdigest(), "index_sha256": hashlib.sha256(data).hexdigest()}
    whole.write(**{shard: tar, index_name(shard): data, "manifest.json": resigned(whole, shard, digests)})
    reader = SplitReader(whole.folder, load_manifest(whole.folder), "val")
    for position, key in enumerate(reader.keys()):
        try:
            assert reader.read(position).key == key
        except DataError as error:
            named(error, shard)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")  # 1e39 is infinite in a box: training stops at it
@examples(1000)
@given(edits=EDITS)
def test_annotations_of_any_shape(whole: Whole, edits: list[tuple[str, int, Any]]) -> None:
    annotation, image, _ = whole.samples["val"]["004"]
    changed = text_of(edited(json.loads(annotation), edits))
    data = b"".join([*tar_member("004.png", image), *tar_member("004.json", changed)])
    try:
        assert parse_sample(data, "004", "here").key == "004"
    except DataError as error:
        named(error, "here")
