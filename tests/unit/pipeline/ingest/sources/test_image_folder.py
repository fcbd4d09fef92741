"""The source of class folders."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import ConfigError, DataError
from pipeline.ingest.sources import OpenSource, image_folder
from pipeline.settings.sections import DatasetConfig, ShardsConfig
from pipeline.shards.writing import shard_dataset
from pipeline.system.project import Project
from tests.formats import drawn, put, through_door


def test_each_image_has_its_folders_name(tmp_path: Path) -> None:
    for name in (
        "train/dog/a.jpg",
        "train/dog/deep/b.PNG",
        "train/cat/c.jpeg",
        "valid/dog/d.jpg",
        "valid/new one/e.webp",
    ):
        put(tmp_path / name, drawn(kind={".PNG": "PNG", ".webp": "WEBP"}.get(Path(name).suffix, "JPEG")))
    for name in (
        "train/.cache/x.jpg",
        "train/__MACOSX/y.jpg",
        "train/dog/._a.jpg",
        "train/dog/Thumbs.db",
        "train/notes.txt",
    ):
        put(tmp_path / name, b"not looked at")
    config = image_folder.Config(val="valid")
    assert image_folder.splits(tmp_path, config) == ("train", "val")
    read = through_door(image_folder, tmp_path, config)
    assert read.problems == [] and read.classes == ("cat", "dog", "new one")
    assert {str(r.image_id): r.labels for found in read.records.values() for r in found} == {
        "train/dog/a.jpg": ("dog",), "train/dog/deep/b.PNG": ("dog",), "train/cat/c.jpeg": ("cat",),
        "valid/dog/d.jpg": ("dog",), "valid/new one/e.webp": ("new one",),
    }  # fmt: skip


def test_names_need_not_differ_between_folders(tmp_path: Path) -> None:
    for name in ("train/dog/1.jpg", "train/cat/1.jpg", "train/cat/1.png", "val/cat/1.jpg", "train/cat/\u72d7 1.jpg"):
        put(tmp_path / name, drawn(kind="PNG" if name.endswith("png") else "JPEG"))
    read = through_door(image_folder, tmp_path)
    assert read.problems == [] and [len(found) for found in read.records.values()] == [4, 1]
    assert len({r.key for found in read.records.values() for r in found}) == 5


def test_images_in_no_class_folder_are_told(tmp_path: Path) -> None:
    put(tmp_path / "train/dog/a.jpg", drawn())
    put(tmp_path / "train/b.jpg", drawn())
    read = through_door(image_folder, tmp_path)
    assert [(p.reason, p.file) for p in read.problems] == [("image_without_class", str(tmp_path / "train/b.jpg"))]
    with pytest.raises(DataError, match="no class folder"):
        image_folder.classes(tmp_path / "train", image_folder.Config(train="dog"))


def test_a_class_that_is_not_listed_is_refused_at_the_door(tmp_path: Path) -> None:
    for name in ("dog", "cat"):
        put(tmp_path / f"train/{name}/{name}.jpg", drawn())
    read = through_door(image_folder, tmp_path, image_folder.Config(classes=("dog",)))
    assert [(p.reason, p.kind, p.item_id) for p in read.problems] == [("unknown_class", "label", "cat")]
    assert [r.labels for r in read.records["train"]] == [(), ("dog",)]
    with pytest.raises(ConfigError, match="twice"):
        image_folder.Config(classes=("a", "a"))


def test_labels_are_annotations_of_which_few_may_be_lost(tmp_path: Path) -> None:
    for i in range(8):
        put(tmp_path / f"raw/train/{'dog' if i else 'cat'}/{i}.jpg", drawn(colour=10 * i))
    put(tmp_path / "raw/val/dog/0.jpg", drawn())
    project, section = Project(tmp_path), {"image_folder": {"classes": ["dog"]}}
    module, config = image_folder, image_folder.Config(classes=("dog",))
    opened = [OpenSource(name="image_folder", module=module, root=tmp_path / "raw", config=config)]  # type: ignore[arg-type]

    def manifest(allowed: float) -> dict[str, Any]:
        dataset = DatasetConfig(origin="local", input="raw", sources=section, max_quarantined=allowed)
        return shard_dataset("dogs", dataset, opened, project, ShardsConfig())

    split = manifest(0.125)["splits"]["train"]
    assert (split["totals"]["num_labels"], split["dropped"]) == (7, {"label": {"unknown_class": 1}})
    with pytest.raises(DataError, match="too many annotations"):
        manifest(0.12)


def test_a_link_to_a_folder_above_ends(tmp_path: Path) -> None:
    put(tmp_path / "train/dog/a.jpg", drawn())
    (tmp_path / "train/dog/up").symlink_to(tmp_path / "train")
    assert len(list(image_folder.read(tmp_path, "train", image_folder.Config()))) == 1


@pytest.mark.parametrize(("name", "folder", "number"), [("flowers5", "flowers", 100), ("dog_cat", "Train_Data", 70)])
def test_real_photos(shared_dir: Path, name: str, folder: str, number: int) -> None:
    read = through_door(image_folder, shared_dir / "data" / name, image_folder.Config(train=folder))
    assert read.problems == []
    assert Counter(r.labels for r in read.records["train"]) == {(label,): number for label in read.classes}
    assert len(read.classes) == {"flowers5": 5, "dog_cat": 2}[name]
