"""Boxes of other programs, joined to the pictures of another source; and those that the shard stage looks for."""

from __future__ import annotations

import itertools
import shutil
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import webdataset
from scipy.io import loadmat, savemat

from contracts.errors import ConfigError, DataError
from contracts.raw import Problem, RawRecord
from contracts.records import Record
from contracts.searching import Search
from lightning_modules.augment.images import decode_image
from lightning_modules.metrics.proposals import measure_proposals
from lightning_modules.ops.proposing import search_regions
from lightning_modules.ops.selective_search import selective_search
from pipeline.ingest.sources import OpenSource, image_folder, proposals, read_joined, voc
from pipeline.settings.sections import DatasetConfig, ShardsConfig
from pipeline.shards.manifest import load_manifest, shard_name
from pipeline.shards.reader import SplitReader
from pipeline.shards.writing import shard_dataset
from pipeline.system.project import Project

SMALL = Search(mode="single", scales=(25.0,), min_side=8, max_boxes=20)
BOXES = np.array([[3, 2, 10, 12], [0, 0, 15, 11]], np.uint16)


def picture(path: Path, number: int, size: tuple[int, int] = (48, 64)) -> None:
    generator = np.random.default_rng(number)
    pixels = np.tile(generator.integers(0, 120, 3, np.uint8), (*size, 1))
    y, x = generator.integers(0, 20, 2)
    pixels[y : y + 20, x : x + 24] = 250
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Class folders of 6 pictures to train on and 3 to validate on."""
    for split, number in [*(("train", i) for i in range(6)), *(("val", i) for i in range(10, 13))]:
        picture(tmp_path / "raw" / split / "bright" / f"{split}{number}.jpg", number)
    return tmp_path


def sharded(folder: Path, to: str, workers: int = 0, **settings: Any) -> Project:
    config = DatasetConfig(origin="local", input="raw", sources={"image_folder": {}}, **settings)
    project = Project(folder / to)
    opened = [OpenSource(name="image_folder", module=image_folder, root=folder / "raw", config=image_folder.Config())]
    if not workers:
        shard_dataset("d", config, opened, project, ShardsConfig(samples=2), itertools.starmap)
        return project
    with ProcessPoolExecutor(workers) as pool:

        def run_all(function: Any, jobs: Any) -> Any:
            return pool.map(function, *zip(*jobs, strict=True))

        shard_dataset("d", config, opened, project, ShardsConfig(samples=2), run_all)
    return project


def records(project: Project, split: str = "train") -> list[Record]:
    reader = SplitReader(project.shards("d"), load_manifest(project.shards("d")), split)
    return [reader.read(i) for i in range(len(reader))]


def test_the_shard_stage_stores_what_selective_search_finds(folder):
    project = sharded(folder, "one", proposals=SMALL)
    for record in records(project):
        boxes, scores = search_regions(record.image, (record.height, record.width), SMALL)
        assert record.proposals is not None and 1 <= len(boxes) <= 20
        np.testing.assert_array_equal(record.proposals.boxes, boxes)
        np.testing.assert_allclose(record.proposals.scores, scores)
    manifest = load_manifest(project.shards("d"))
    assert manifest["splits"]["train"]["totals"]["num_proposals"] == sum(
        len(r.proposals.boxes) for r in records(project) if r.proposals is not None
    )
    assert all(record.proposals is None for record in records(sharded(folder, "none")))


def test_shards_are_the_same_bytes_with_one_worker_and_three(folder):
    one, three = sharded(folder, "one", proposals=SMALL), sharded(folder, "three", workers=3, proposals=SMALL)
    assert load_manifest(one.shards("d"))["digest"] == load_manifest(three.shards("d"))["digest"]
    other = sharded(folder, "seed", proposals=replace(SMALL, seed=1))
    assert load_manifest(one.shards("d"))["digest"] != load_manifest(other.shards("d"))["digest"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves the tar open
def test_any_reader_of_webdataset_finds_them(folder):
    project = sharded(folder, "one", proposals=SMALL)
    tar = project.shards("d") / shard_name("d", "train", 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        samples = list(webdataset.WebDataset(str(tar), shardshuffle=False).decode())
    assert [len(s["json"]["proposals"]["boxes"]) for s in samples] == [
        len(r.proposals.boxes) for r in records(project)[:2] if r.proposals is not None
    ]


def test_wide_pictures_are_searched_smaller_and_boxes_rounded_outwards(tmp_path):
    picture(tmp_path / "a.png", 1, (96, 128))
    data = (tmp_path / "a.png").read_bytes()
    search = replace(SMALL, width=64)
    boxes, _ = search_regions(data, (96, 128), search)
    small = cv2.resize(decode_image(data), (64, 48), interpolation=cv2.INTER_AREA)
    found = selective_search(small, mode="single", scales=(25.0,), min_side=8)[0][:20]
    np.testing.assert_array_equal(boxes, found * 2)
    odd, _ = search_regions(data, (97, 131), search)
    assert (odd == np.round(odd)).all() and (odd[:, 2] <= 131).all() and (odd[:, 3] <= 97).all()
    exact = found * np.array([131 / 64, 97 / 48] * 2)
    assert (odd[:, :2] <= exact[:, :2]).all() and (odd[:, 2:] >= np.minimum(exact[:, 2:], [131, 97])).all()
    assert (np.abs(odd - exact) < 1).all()


def test_files_of_the_demo_count_from_0_and_lists_from_1(tmp_path):
    savemat(tmp_path / "000004_boxes.mat", {"boxes": BOXES})
    listed = np.empty((1, 2), object)
    listed[0, 0], listed[0, 1] = BOXES, BOXES[:0]
    names = np.empty((2, 1), object)
    names[:, 0] = ["000007", "000005"]
    savemat(tmp_path / "voc_2007_val.mat", {"images": names, "boxes": listed})
    (of_file,) = proposals.read(tmp_path, "train", proposals.Config(layout="files", boxes="{image}_boxes.mat"))
    empty, of_list = proposals.read(tmp_path, "val", proposals.Config(boxes="voc_2007_{split}.mat"))
    assert isinstance(of_file, RawRecord) and isinstance(of_list, RawRecord) and isinstance(empty, RawRecord)
    assert of_file.key.startswith("vocdevkit-voc2007-jpegimages-000004")
    assert of_file.proposals is not None and of_list.proposals is not None and empty.proposals is not None
    assert of_file.proposals.boxes.tolist() == [[3, 2, 11, 13], [0, 0, 16, 12]]  # x1 y1 x2 y2
    assert of_list.proposals.boxes.tolist() == [[1, 2, 12, 10], [-1, -1, 11, 15]]  # y1 x1 y2 x2
    assert of_list.proposals.scores.tolist() == [1, 0.5]
    assert len(empty.proposals.boxes) == 0
    assert proposals.splits(tmp_path, proposals.Config(boxes="voc_2007_{split}.mat")) == ("val",)


def test_boxes_that_are_none_are_told(tmp_path):
    savemat(tmp_path / "a.mat", {"boxes": np.zeros((3, 5))})
    (problem,) = proposals.read(tmp_path, "train", proposals.Config(layout="files", boxes="{image}.mat"))
    assert isinstance(problem, Problem)
    assert (problem.reason, problem.item_id, problem.detail) == ("bad_proposals", "a", "float64 (3, 5)")
    (tmp_path / "a.mat").write_bytes(b"no MATLAB")
    with pytest.raises(DataError, match="not a file of proposals"):
        list(proposals.read(tmp_path, "train", proposals.Config(layout="files", boxes="{image}.mat")))


@pytest.mark.parametrize("settings", [{"layout": "files"}, {"images": "a.jpg"}, {"only": ()}, {"boxes": "{image}.mat"}])
def test_settings_that_name_no_picture_are_refused(settings):
    with pytest.raises(ConfigError):
        proposals.Config(**settings)


def test_published_boxes_are_joined_to_the_photographs(shared_dir, tmp_path):
    """Fast R-CNN's own boxes of two images find 10 of 10 objects at IoU 0.5; the other six images have none."""
    folder = shared_dir / "data" / "voc2007_proposals"
    if not folder.is_dir():
        pytest.skip(f"no published boxes: {folder} is absent")
    shutil.copytree(folder / "VOCdevkit", tmp_path / "VOCdevkit")
    shutil.copytree(folder / "data", tmp_path / "data")
    shutil.copy(tmp_path / "data/demo/000004_boxes.mat", tmp_path / "data/demo/999999_boxes.mat")  # of no picture
    opened = [
        OpenSource(
            name="voc", module=voc, root=tmp_path,
            config=voc.Config(folders=("VOCdevkit/VOC2007",), image_sets="Main", train="", val="test", test=""),
        ),
        OpenSource(
            name="proposals", module=proposals, root=tmp_path,
            config=proposals.Config(layout="files", boxes="data/demo/{image}_boxes.mat"),
        ),
    ]  # fmt: skip
    found = [item for item in read_joined(opened, "val") if isinstance(item, RawRecord)]
    given = {str(item.image_id): item.proposals.boxes for item in found if item.proposals is not None}
    assert len(found) == 8 and {name: len(boxes) for name, boxes in given.items()} == {"000004": 2888, "001551": 2057}
    assert loadmat(tmp_path / "data/demo/000004_boxes.mat")["boxes"].max() == 499
    assert given["000004"].max() == 500
    objects = {str(r.image_id): np.array([o.box for o in r.objects]) for r in found if str(r.image_id) in given}
    values = measure_proposals(given, objects, counts=(3000,)).values
    assert values["recall_50@3000"] == 1.0
