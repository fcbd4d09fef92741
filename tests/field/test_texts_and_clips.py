"""Multi30k's files and frame folders as people have them, from files to shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from contracts.records import Record
from pipeline.settings.params import load_params
from pipeline.shards.manifest import load_manifest
from pipeline.shards.reader import open_splits
from pipeline.stages.fetch import fetch
from pipeline.stages.shard import shard
from pipeline.system.project import Project


def sharded(folder: Path, data: Path, sources: dict[str, Any], **dataset: Any) -> tuple[dict, dict[str, list[Record]]]:
    """The manifest, and the records of each split."""
    section = {"origin": "local", "input": str(data), "sources": sources, **dataset}
    document = {
        "datasets": {"d": section}, "runs": {}, "shards": {"samples": 500}, "cluster": {"engine": "local"},
    }  # fmt: skip
    (folder / "params.yaml").write_text(yaml.safe_dump(document))
    project, params = Project(folder), load_params(folder)
    fetch(project, params, "d")
    shard(project, params, "d")
    manifest = load_manifest(project.shards("d"), "d")
    readers = open_splits(project.shards("d"), manifest)
    return manifest, {split: [reader.read(i) for i in range(len(reader))] for split, reader in readers.items()}


def test_multi30k_as_published(shared_dir: Path, tmp_path: Path) -> None:
    """Its 1,014 lines of validation as train, and two of its tests as one; U+00A0 and trailing blanks are in them."""
    source = {
        "sentences": {"files": "data/task1/raw/{split}.{language}", "languages": {"source": "fr", "target": "en"}}
    }
    names = {"train": "val", "val": ["test_2016_flickr", "test_2017_mscoco"]}
    manifest, records = sharded(tmp_path, shared_dir / "data/multi30k", source, splits=names)
    counts = {"train": 1014, "val": 1461}
    for split, entry in manifest["splits"].items():
        assert entry["num_samples"] == entry["num_source"] == counts[split] and not entry["dropped"]
        assert entry["totals"]["num_sources"] == entry["totals"]["num_targets"] == counts[split]
    first, last = records["val"][0], records["val"][-1]
    assert [s.text for s in first.sentences] == [
        "Un homme avec un chapeau orange regardant quelque chose.", "A man in an orange hat starring at something.",
    ]  # fmt: skip
    assert (first.key, last.key) == ("test_2016_flickr-000000001", "test_2017_mscoco-000000461")
    texts = [s.text for split in records.values() for record in split for s in record.sentences]
    assert all(text == " ".join(text.split()) for text in texts)


def test_clips_of_frame_folders(shared_dir: Path, tmp_path: Path) -> None:
    """The list has no line end at its end, and numbers from 1; each clip has a size of its own."""
    source = {"frame_folders": {"lists": "demo_dataset/annotations.txt", "folder": "demo_dataset", "span": "range",
                                "classes": ["jumping", "running"], "every": 3}}  # fmt: skip
    data = shared_dir / "data/video_frames_demo"
    manifest, records = sharded(tmp_path, data, source, split={"val": 0.5})
    found = {record.image_id: record for split in records.values() for record in split}
    lines = [line.split() for line in (data / "demo_dataset/annotations.txt").read_text().splitlines()]
    assert found.keys() == {line[0] for line in lines} and manifest["classes"] == ["jumping", "running"]
    for name, first, last, label in lines:
        record = found[name]
        numbers = range(int(first), int(last) + 1, 3)
        frames = [(data / f"demo_dataset/{name}/img_{i:05d}.jpg").read_bytes() for i in numbers]
        assert [*record.frames] == frames and record.labels == (manifest["classes"][int(label)],)
        assert record.group == name and record.times_s[1] == 3 / 25
        sizes = {cv2.imdecode(np.frombuffer(frame, np.uint8), cv2.IMREAD_COLOR).shape for frame in record.frames}
        assert sizes == {(record.height, record.width, 3)}
    assert sum(entry["totals"]["num_frames"] for entry in manifest["splits"].values()) == sum(
        len(record.frames) for record in found.values()
    )


def test_clips_of_several_classes(shared_dir: Path, tmp_path: Path) -> None:
    source = {"frame_folders": {"lists": "annotations.txt", "span": "range"}}
    data = shared_dir / "data/video_frames_demo/demo_dataset_multilabel"
    manifest, records = sharded(tmp_path, data, source, split={"val": 0.5})
    labels = {record.image_id: record.labels for split in records.values() for record in split}
    assert labels == {
        "jumping/0001": ("0", "2", "4"), "jumping/0002": ("0", "1", "3"), "running/0001": ("1", "2"),
        "running/0002": ("1", "3"),
    }  # fmt: skip
    assert manifest["classes"] == ["0", "1", "2", "3", "4"]
