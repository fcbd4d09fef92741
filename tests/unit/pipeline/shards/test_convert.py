"""Shards written as other tools' formats, and read back by the sources of the same names."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from webdataset.tariterators import group_by_keys, tar_file_expander

from contracts.annotations import Proposals, Sentence, Transcript
from contracts.records import Record
from lightning_modules.ops.masks import decode_masks
from pipeline.ingest.sources import image_folder, labelme, yolo
from pipeline.ingest.sources import webdataset as tars
from pipeline.settings import discover
from pipeline.shards import convert
from pipeline.shards.manifest import load_manifest
from pipeline.shards.reader import SplitReader
from pipeline.system.project import Project
from tests.command import sightline
from tests.formats import through_door
from tests.pictures import encode, scene


def original(project: Project, dataset: str, split: str) -> dict[bytes, Record]:
    """By the picture, since keys are made of paths."""
    folder = project.shards(dataset)
    reader = SplitReader(folder, load_manifest(folder), split)
    return {record.image: record for record in (reader.read(i) for i in range(len(reader)))}


@pytest.fixture
def converted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[Project, str, str], Path]:
    def make(project: Project, dataset: str, name: str) -> Path:
        convert.convert(project, dataset, name, tmp_path / name, None)
        assert not list(tmp_path.glob(".*")), "nothing half written is left"
        return tmp_path / name

    return make


@pytest.mark.parametrize("name", discover.names("format"))
def test_records_without_a_picture_and_texts_of_pictures_are_counted(tmp_path: Path, name: str) -> None:
    said = (Sentence(role="text", text="a"),)
    kinds = [
        Record(key="t", image_id=1, sentences=said),
        Record(key="c", image_id=1, width=8, height=8, frames=(encode(scene(8, 8)),), times_s=(0.0,)),
        Record(
            key="i", image_id=1, width=8, height=8, image=encode(scene(8, 8)), image_format="jpg", labels=("cup",),
            sentences=said, transcript=Transcript(text="a"),
            proposals=Proposals(boxes=np.zeros((2, 4), np.float32), scores=np.zeros(2, np.float32)),
        ),
    ]  # fmt: skip
    left_out = discover.load("format", name, where="test").write(tmp_path, {"train": kinds}, ["cup"])
    nowhere = {"record of a text": 1, "record of a clip": 1, "sentence": 1, "transcript": 1, "proposal": 2}
    assert nowhere.items() <= left_out.items()
    assert left_out.keys() - nowhere.keys() <= {"label of an image"}


@pytest.mark.parametrize("dataset", ["coco", "voc"])
def test_yolo_keeps_boxes_and_labels(tiny_project, converted, dataset, capsys) -> None:
    folder = converted(tiny_project, dataset, "yolo")
    assert re.search(r"the format has no place for .*\d+ x mask", capsys.readouterr().out)
    back = through_door(yolo, folder)
    assert list(back.classes) == load_manifest(tiny_project.shards(dataset))["classes"] and not back.problems
    for split, records in back.records.items():
        before = original(tiny_project, dataset, split)
        assert len(before) == len(records) > 0
        for record in records:
            objects, wanted = record.objects, before[record.image].objects
            kept = ~wanted.is_crowd
            np.testing.assert_array_equal(objects.labels, wanted.labels[kept])
            np.testing.assert_allclose(objects.boxes, wanted.boxes[kept], atol=1e-4)


def test_labelme_keeps_masks_but_for_holes(tiny_project, converted) -> None:
    back = through_door(labelme, converted(tiny_project, "coco", "labelme"))
    assert not back.problems
    before = original(tiny_project, "coco", "train")
    overlaps = []
    for record in back.records["train"]:
        wanted = before[record.image].objects
        names = load_manifest(tiny_project.shards("coco"))["classes"]
        labels = [names[label - 1] for label in wanted.labels[~wanted.is_crowd]]
        assert [back.classes[label - 1] for label in record.objects.labels] == labels
        size = (record.height, record.width)
        counts = [mask for mask, is_crowd in zip(wanted.masks, wanted.is_crowd, strict=True) if not is_crowd]
        ours, theirs = decode_masks(record.objects.masks, size), decode_masks(counts, size)
        assert not (theirs & ~ours).any(), "only holes are filled"
        overlaps += ((ours & theirs).sum((1, 2)) / (ours | theirs).sum((1, 2))).tolist()
    assert len(overlaps) > 40 and np.median(overlaps) == 1.0


def test_class_folders_keep_labels(flags_project, converted) -> None:
    back = through_door(image_folder, converted(flags_project, "flags", "image_folder"))
    for split, records in back.records.items():
        before = original(flags_project, "flags", split)
        assert {record.image: record.labels for record in records} == {i: r.labels for i, r in before.items()}


def test_tars_are_read_by_webdataset_and_by_the_source(flags_project, tiny_project, converted, tmp_path) -> None:
    folder = converted(flags_project, "flags", "webdataset")
    names = tuple(load_manifest(flags_project.shards("flags"))["classes"])
    back = through_door(tars, folder, tars.Config(tars="{split}/*.tar", classes=names))
    before = original(flags_project, "flags", "train")
    assert {r.image: r.labels for r in back.records["train"]} == {i: r.labels for i, r in before.items()}
    (tmp_path / "captions").mkdir()
    convert.convert(tiny_project, "coco", "webdataset", tmp_path / "captions/tars", ["val"])
    (tar,) = (tmp_path / "captions/tars").rglob("*.tar")
    with open(tar, "rb") as file:
        samples = list(group_by_keys(tar_file_expander([{"url": tar.name, "stream": file}])))
    wanted = original(tiny_project, "coco", "val")
    assert len(samples) == len(wanted)
    for sample in samples:
        assert sample["txt"].decode() == wanted[sample["jpg"]].captions[0].text


def test_a_folder_that_is_there_is_left_alone(tiny_project, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tiny_project.root)
    (tmp_path / "mine").write_text("x")
    for arguments, said in (
        (["voc", "yolo", str(tmp_path / "mine")], "there already"),
        (["nothing", "yolo", str(tmp_path / "a")], "nothing"),
        (["voc", "yollo", str(tmp_path / "a")], "did you mean 'yolo'"),
        (["voc", "yolo", str(tmp_path / "a"), "--split", "test"], "no such split"),
    ):
        assert sightline("convert", arguments) == 2 and said in capsys.readouterr().err
    assert (tmp_path / "mine").read_text() == "x" and not (tmp_path / "a").exists()


def test_every_format_is_read_by_the_source_of_its_name() -> None:
    assert set(discover.names("format")) <= set(discover.names("source"))


def test_what_a_killed_conversion_left_is_no_obstacle(tiny_project, tmp_path) -> None:
    left = tmp_path / "new/.out.new/images"
    left.mkdir(parents=True)
    (left / "half.jpg").write_text("x")
    convert.convert(tiny_project, "voc", "yolo", tmp_path / "new/out", ["val"])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]
    assert not list((tmp_path / "new").rglob("half.jpg"))
    convert.convert(tiny_project, "voc", "yolo", tmp_path / "not/there/yet", ["val"])
    assert (tmp_path / "not/there/yet/data.yaml").is_file()
