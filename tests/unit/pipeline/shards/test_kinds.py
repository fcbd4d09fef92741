"""Texts and clips from files to shards: WebDataset reads them, the index counts them, no group is in two splits."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from contracts.annotations import Sentence
from contracts.errors import ConfigError, DataError
from contracts.records import Record
from pipeline.settings.params import load_params
from pipeline.shards.bookkeeping import check_shared, identities, joined
from pipeline.shards.manifest import load_manifest
from pipeline.shards.reader import SplitReader, open_splits
from pipeline.stages.fetch import fetch
from pipeline.stages.shard import shard
from pipeline.system.project import Project
from tests.pictures import encode, scene

WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def sharded(folder: Path, sources: dict[str, Any], **dataset: Any) -> Project:
    section = {"origin": "local", "input": str(folder / "raw"), "sources": sources, **dataset}
    document = {
        "datasets": {"d": section}, "runs": {}, "shards": {"samples": 4}, "cluster": {"engine": "local"},
    }  # fmt: skip
    (folder / "params.yaml").write_text(yaml.safe_dump(document))
    project, params = Project(folder), load_params(folder)
    fetch(project, params, "d")
    shard(project, params, "d")
    return project


def pairs(folder: Path, **splits: int) -> None:
    """Files of that many lines; a later split goes on where one before it stopped."""
    (folder / "raw").mkdir()
    start = 0
    for split, number in splits.items():
        said = [f"{WORDS[i % 10]} times {i}" for i in range(start, start + number)]
        (folder / f"raw/{split}.en").write_text("".join(f"{line}\n" for line in said))
        (folder / f"raw/{split}.xx").write_text("".join(f"{line[::-1]}\n" for line in said))
        start += number


PAIRS = {"sentences": {"languages": {"source": "en", "target": "xx"}}}


def clips(folder: Path, lines: list[str]) -> None:
    """Folders of six frames each, all different, and a list."""
    for number, name in enumerate(sorted({line.split()[0] for line in lines})):
        (folder / "raw" / name).mkdir(parents=True)
        for i in range(6):
            pixels = np.roll(scene(), (number, i), axis=(0, 1))
            (folder / f"raw/{name}/img_{i + 1:05d}.jpg").write_bytes(encode(pixels))
    (folder / "raw/train.txt").write_text("\n".join(lines))


def by_webdataset(folder: Path, split: str) -> list[dict[str, Any]]:
    import webdataset as wds

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(wds.WebDataset(sorted(map(str, folder.glob(f"d-{split}-*.tar"))), shardshuffle=False))


def test_pairs_become_tars_that_webdataset_reads(tmp_path: Path) -> None:
    pairs(tmp_path, train=6, val=3)
    folder = sharded(tmp_path, PAIRS).shards("d")
    manifest = load_manifest(folder, "d")
    longest = [len(f"{WORDS[i]} times {i}".split()) for i in range(6)]
    assert manifest["splits"]["train"]["totals"] == {
        "num_sentences": 12, "num_sources": 6, "num_targets": 6, "length": sum(longest),
    }  # fmt: skip
    reader = open_splits(folder, manifest)["train"]
    assert reader.keys()[0] == "train-000000001" and len(reader.shards) == 2
    assert reader.count("length").tolist() == longest
    assert reader.count("num_frames").tolist() == [0] * 6, "what no index has is 0"
    record = reader.read(4)
    assert record.sentences == (
        Sentence(role="source", language="en", text="five times 4"),
        Sentence(role="target", language="xx", text="4 semit evif"),
    )
    samples = by_webdataset(folder, "train")
    assert [sample["__key__"] for sample in samples] == reader.keys()
    assert samples[4]["json"] == record.annotation_json()
    assert {key for sample in samples for key in sample if not key.startswith("__")} == {"json"}


def test_clips_become_tars_that_webdataset_reads(tmp_path: Path) -> None:
    clips(tmp_path, [f"v{i} 6 {'run' if i % 2 else 'jump'}" for i in range(8)])
    folder = sharded(tmp_path, {"frame_folders": {"fps": 2, "every": 2}}, split={"val": 0.25}).shards("d")
    manifest = load_manifest(folder, "d")
    assert manifest["splits"]["val"]["totals"] == {"num_labels": 2, "num_frames": 6, "length": 6}
    reader = SplitReader(folder, manifest, "train")
    samples = by_webdataset(folder, "train")
    for position, sample in enumerate(samples):
        record = reader.read(position)
        raw = tmp_path / "raw" / str(record.image_id)
        frames = tuple((raw / f"img_{i:05d}.jpg").read_bytes() for i in (1, 3, 5))
        assert frames == record.frames == tuple(sample[f"{i:04d}.jpg"] for i in range(3))
        assert record.times_s == (0.0, 1.0, 2.0) and record.group == record.image_id
        assert sample["__key__"] == record.key and sample["json"] == record.annotation_json()
    assert len(samples) == 6 and manifest["classes"] == ["jump", "run"]


def test_a_count_that_nobody_tells_is_refused_by_name(tmp_path: Path) -> None:
    pairs(tmp_path, train=2, val=2)
    folder = sharded(tmp_path, PAIRS).shards("d")
    reader = SplitReader(folder, load_manifest(folder), "train")
    assert reader.select(["num_sources", "length"]).tolist() == [0, 1]
    assert reader.select(["num_objects"]).tolist() == []
    with pytest.raises(ConfigError, match="num_sorces"):
        reader.select(["num_sorces"])


def test_parts_of_one_video_are_drawn_together(tmp_path: Path) -> None:
    """Whatever `by` says: their group is known."""
    lines = [f"v{v} {first} {first + 1} run" for v in range(6) for first in (1, 3, 5)]
    clips(tmp_path, lines)
    folder = sharded(tmp_path, {"frame_folders": {"span": "range"}}, split={"val": 0.34}, max_shared=0).shards("d")
    groups = {
        split: [reader.read(i).group for i in range(len(reader))]
        for split, reader in open_splits(folder, load_manifest(folder)).items()
    }
    assert len(groups["val"]) == 6 and len(set(groups["val"])) == 2
    assert not set(groups["val"]) & set(groups["train"])


def test_a_group_in_two_splits_is_told_or_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clips(tmp_path, [f"v{i} 1 3 run" for i in range(4)])
    (tmp_path / "raw/val.txt").write_text("v0 4 6 run\nv3 4 6 run")
    source = {"frame_folders": {"span": "range"}}
    sharded(tmp_path, source)
    assert "2 of 2 groups of split 'val' of d are in split 'train' too, by name" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"(?s)2 of 2 groups of split 'val'.*max_shared: 1"):
        sharded(tmp_path, source, max_shared=1)
    sharded(tmp_path, source, max_shared=2)


def test_a_pair_in_two_splits_is_told_or_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs(tmp_path, train=5, val=3)
    for language in ("en", "xx"):
        with open(tmp_path / f"raw/val.{language}", "a") as file:
            file.write((tmp_path / f"raw/train.{language}").read_text().split("\n")[2] + "\n")
    sharded(tmp_path, PAIRS)
    told = "1 of 4 texts of split 'val' of d are in split 'train' too, letter by letter"
    assert told in capsys.readouterr().err
    with pytest.raises(DataError, match=told):
        sharded(tmp_path, PAIRS, max_shared=0)


def test_what_makes_two_records_one() -> None:
    def pair(*texts: str, key: str = "a", group: str = "") -> dict[str, int]:
        said = tuple(Sentence(role="text", text=text) for text in texts)
        return identities(Record(key=key, image_id=1, group=group, sentences=said))

    assert pair("a", "b") == pair("a", "b", key="b") and pair("a", "b").keys() == {"text"}
    assert pair("a", "b") != pair("ab", "") and pair("a", "b") != pair("b", "a")
    assert pair("a", group="g").keys() == {"text", "group"} and pair("a", group="g")["text"] == pair("a")["text"]
    clip = Record(key="k", image_id=1, width=1, height=1, frames=(b"a", b"b"), times_s=(0.0, 1.0))
    one, two = clip, replace(clip, frames=(b"ab", b""))
    assert identities(one).keys() == {"clip"} and identities(one) != identities(two)


def test_groups_count_once_and_kinds_apart() -> None:
    first = joined([{"group": np.array([1, 1, 2], np.uint64)}, {"group": np.array([2, 3], np.uint64)}, {}])
    second = joined([{"group": np.array([3, 3], np.uint64), "image": np.array([1], np.uint64)}])
    (note,) = check_shared("d", {"train": first, "val": second}, None)
    assert note.startswith("1 of 1 groups of split 'val' of d")
    with pytest.raises(DataError, match="1 of 3 groups of split 'train'"):
        check_shared("d", {"val": second, "train": first}, 0)


def test_an_index_that_counts_what_records_do_not_is_refused(tmp_path: Path) -> None:
    pairs(tmp_path, train=2, val=2)
    folder = sharded(tmp_path, PAIRS).shards("d")
    manifest = load_manifest(folder)
    (entry,) = manifest["splits"]["train"]["shards"]
    path = folder / entry["name"].replace(".tar", ".index.json")
    index = json.loads(path.read_text())
    assert index.keys() == {"key", "offset", "size", "crc", "counts"}
    for counts, said in (
        ({"num_frogs": [1, 1]}, "num_frogs"),
        ({"has_alignment": [2, 0]}, "has_alignment: neither 0 nor 1"),
        ({"num_texts": [1]}, "num_texts has 1 rows of 2"),
        ({"num_masks": [1, 0]}, "more masks than objects"),
        ({"num_texts": [1, 0]}, "totals of split 'train'"),
    ):
        data = json.dumps(index | {"counts": index["counts"] | counts}).encode()
        path.write_bytes(data)
        entry["index_sha256"] = sha256(data).hexdigest()
        with pytest.raises(DataError, match=said):
            SplitReader(folder, manifest, "train")
