"""Raw data in a real S3 server: it is sharded from there as from a folder, on machines that have no file of it."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from contracts.errors import ConfigError, DataError
from pipeline.ingest import sources
from pipeline.settings.params import load_params
from pipeline.shards import raw_listing, stores, writing
from pipeline.shards.manifest import load_manifest
from pipeline.stages.fetch import fetch
from pipeline.stages.shard import open_sources, shard
from pipeline.system.project import Project
from tests.s3_server import Proxy
from tests.shipped import tiny_datasets


def project_of(folder: Path, datasets: dict[str, Any]) -> Project:
    folder.mkdir(parents=True, exist_ok=True)
    document = {
        "datasets": datasets,
        "runs": {},
        "train": {},
        "loader": {},
        "tracking": {},
        "registry": {},
        "shards": {"samples": 16},
        "cluster": {"engine": "local"},
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(document))
    return Project(folder)


def sharded(project: Project) -> dict[str, Any]:
    """Fetch and shard its one data set; its manifest."""
    params = load_params(project.root)
    (name,) = params.document["datasets"]
    fetch(project, params, name)
    shard(project, params, name)
    return load_manifest(project.shards(name))


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Raw files of the shipped generated data sets, a few of each."""
    datasets = tiny_datasets(6, 3)
    project = project_of(tmp_path_factory.mktemp("worlds"), datasets)
    for name in datasets:
        fetch(project, load_params(project.root), name)
    return project


def both(tmp_path: Path, raw: Path, entry: dict[str, Any], name: str = "data") -> tuple[Project, Project]:
    """Projects of the same data set: in a folder, and in the store."""
    shutil.copytree(raw, tmp_path / f"s3/shop/raw/{name}")  # the server's objects lie there
    common = {**entry, "origin": "local"}
    here = project_of(tmp_path / "here", {name: {**common, "input": str(raw)}})
    there = project_of(tmp_path / "there", {name: {**common, "input": f"s3://shop/raw/{name}"}})
    return here, there


@pytest.fixture(scope="module")
def labelme(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures within annotation files, in base64."""
    folder = tmp_path_factory.mktemp("labelme")
    for split, count in (("train", 5), ("val", 2)):
        (folder / split).mkdir()
        for i in range(count):
            pixels = np.random.default_rng(i + count).integers(0, 256, (40, 50, 3), np.uint8)
            data = base64.b64encode(cv2.imencode(".png", pixels)[1].tobytes()).decode()
            shape = {"label": "ab"[i % 2], "points": [[3, 4], [20, 25]], "shape_type": "rectangle", "flags": {}}
            document = {"shapes": [shape], "imagePath": f"{i}.png", "imageData": data} | {
                "imageHeight": 40,
                "imageWidth": 50,
            }
            (folder / split / f"{i}.json").write_text(json.dumps(document))
    return folder


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """UCF-101's folders and lists, of two classes."""
    folder = tmp_path_factory.mktemp("videos")
    lists = folder / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 A\n2 B\n")
    for seed, (split, kind, group) in enumerate(
        [("train", "A", 1), ("train", "B", 1), ("test", "A", 2), ("test", "B", 2)]
    ):
        path = folder / "UCF-101" / kind / f"v_{kind}_g0{group}_c01.avi"
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (48, 32))
        for pixels in np.random.default_rng(seed).integers(0, 256, (6, 32, 48, 3), np.uint8):
            writer.write(pixels)
        writer.release()
        with open(lists / f"{split}list01.txt", "a") as file:
            file.write(f"{kind}/{path.name} {'AB'.index(kind) + 1}\n")
    return folder


@pytest.mark.parametrize("name", ["coco", "voc", "labelme", "ucf101"])
def test_shards_are_those_of_a_folder(name, tmp_path, s3: Proxy, worlds, labelme, videos):
    if name == "labelme":
        raw, entry = labelme, {"sources": {"labelme": {"train": "train", "val": "val"}}}
    elif name == "ucf101":
        raw, entry = videos, {"sources": {"ucf101": {}}, "splits": {"val": "test"}}
    else:
        raw = worlds.raw(name)
        entry = {"sources": load_params(worlds.root).document["datasets"][name]["sources"]}
    here, there = both(tmp_path, raw, entry, name)
    assert sharded(there) == sharded(here)
    for path in here.shards(name).iterdir():
        assert (there.shards(name) / path.name).read_bytes() == path.read_bytes()
    assert there.quarantine(name).read_bytes() == here.quarantine(name).read_bytes()
    names = there.raw_names(name)
    pictures = [path for path in names.rglob("*") if path.suffix in (".jpg", ".png", ".avi")]
    assert all(not path.stat().st_size for path in pictures) and (pictures or name == "labelme")


def test_a_video_is_opened_by_the_name_that_it_has(tmp_path, s3: Proxy, videos):
    """macOS writes a letter and its accent apart, and a list that was made elsewhere does not."""
    raw = tmp_path / "raw"
    shutil.copytree(videos, raw)
    (raw / "UCF-101/A").rename(raw / "UCF-101/A\u0308")
    for path in (raw / "UCF-101/A\u0308").iterdir():
        path.rename(path.with_name(path.name.replace("_A_", "_A\u0308_")))
    for path in (raw / "ucfTrainTestlist").iterdir():
        path.write_text(path.read_text().replace("A", "\u00c4"))
    here, there = both(tmp_path, raw, {"sources": {"ucf101": {}}, "splits": {"val": "test"}})
    manifest = sharded(here)
    assert not here.quarantine("data").read_text()
    assert sharded(there) == manifest


def test_what_writes_a_shard_needs_no_file_of_this_machine(tmp_path, s3: Proxy, worlds):
    """As on a node that shares no folder with the command."""
    entry = {"sources": load_params(worlds.root).document["datasets"]["coco"]["sources"]}
    here, there = both(tmp_path, worlds.raw("coco"), entry)
    manifest = sharded(here)
    params = load_params(there.root)
    fetch(there, params, "data")
    opened = open_sources(there, params, "data")
    raws = [raw for raw in sources.read_joined(opened, "val") if not isinstance(raw, sources.Problem)]
    door = writing._door(params.dataset("data"), params.section(writing.ShardsConfig, "shards"), opened[0])
    shutil.rmtree(there.root)
    (tmp_path / "node").mkdir()
    s3.delay_s = 0.05
    result = writing.write_shard(raws, manifest["classes"], tmp_path / "node", "a.tar", door)
    assert not result.problems and result.shard is not None and result.shard["samples"] == 3


def test_what_is_missing_or_elsewhere_is_told_as_of_a_folder(tmp_path, s3: Proxy, labelme):
    """One picture is away, one is named outside, one is no picture."""
    raw = tmp_path / "raw"
    shutil.copytree(labelme, raw)
    for i, name in enumerate(["gone.png", "../../x.png", "bad.png", "näh.png"]):
        document = json.loads((raw / "train" / f"{i}.json").read_text())
        (raw / "train" / f"{i}.json").write_text(json.dumps(document | {"imageData": None, "imagePath": name}))
    (raw / "train/bad.png").write_bytes(b"no picture")
    cv2.imwrite(str(raw / "train" / "na\u0308h.png"), np.zeros((40, 50, 3), np.uint8))  # as macOS writes it
    entry = {"sources": {"labelme": {"train": "train", "val": "val"}}, "max_quarantined": 1.0}
    here, there = both(tmp_path, raw, entry)
    assert sharded(there) == sharded(here)
    told = [[json.loads(line) for line in p.quarantine("data").read_text().splitlines()] for p in (here, there)]
    assert [line["reason"] for line in told[0]] == [line["reason"] for line in told[1]]
    assert {line["reason"] for line in told[1]} >= {"missing_image", "not_an_image"}
    assert {str(there.raw_names("data")) in line["file"] for line in told[1]} == {True}


def test_masks_are_compared_with_their_xml_where_they_lie(tmp_path, s3: Proxy, worlds):
    """A source that reads a few pictures gets what lies in the store, not the empty file of that name."""
    raw = tmp_path / "raw"
    shutil.copytree(worlds.raw("voc"), raw)
    section = load_params(worlds.root).document["datasets"]["voc"]["sources"]["voc"]
    for path in raw.rglob("*.xml"):  # other names, so that nothing but the masks says which class is which
        path.write_text(path.read_text().replace("<name>", "<name>x"))
    for mask in raw.rglob("SegmentationClass/*.png"):
        pixels = np.full(cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE).shape, 7, np.uint8)
        cv2.imwrite(str(mask), pixels)
    here, there = both(tmp_path, raw, {"sources": {"voc": section}})
    for project in (here, there):
        with pytest.raises(ConfigError, match="the label masks do not follow the sorted class names"):
            sharded(project)


def test_a_store_that_fails_is_no_fault_of_the_data(tmp_path, s3: Proxy, labelme, monkeypatch):
    entry = {"sources": {"labelme": {"train": "train", "val": "val"}}}
    _, there = both(tmp_path, labelme, entry)
    params = load_params(there.root)
    s3.faults = ["503", "reset", "cut"]
    fetch(there, params, "data")
    s3.faults = ["503", "", "cut", "reset"]
    shard(there, params, "data")
    assert not there.quarantine("data").read_text()
    shutil.rmtree(tmp_path / "s3/shop")
    (tmp_path / "s3/shop").mkdir()
    with pytest.raises(DataError, match="the data set's folder is not in the store"):
        shard(there, params, "data")
    with pytest.raises(DataError, match="no such folder in the store, or an empty one"):
        fetch(there, params, "data")
    assert there.raw_names("data").is_dir(), "what was there stays"
    monkeypatch.setattr(stores, "PATIENCE_S", 0.2)
    s3.down_until = float("inf")
    with pytest.raises(DataError, match="the object store failed to"):
        fetch(there, params, "data")


def test_the_stand_in_is_made_again_where_it_is_gone_unless_the_data_has_changed(tmp_path, s3: Proxy, labelme):
    entry = {"sources": {"labelme": {"train": "train", "val": "val"}}}
    _, there = both(tmp_path, labelme, entry)
    params, first = load_params(there.root), sharded(there)
    shutil.rmtree(there.root / "state")
    shard(there, params, "data")
    assert load_manifest(there.shards("data")) == first
    shutil.rmtree(there.root / "state")
    stores.upload(labelme / "train/0.json", "s3://shop/raw/data/train/9.json")
    with pytest.raises(DataError, match="the raw data in the store is not what was fetched"):
        shard(there, params, "data")
    assert sharded(there) != first


def test_names_that_no_file_can_have_are_left_out() -> None:
    names = ["a/b.json", "a", "../x.json", "/y.json", "a//c.json", "d/", "e/./f.json", "ok.json", "z\0.json"]
    assert raw_listing._usable(names) == ["a/b.json", "ok.json"]
