"""The formats of other tools by the lines of params.yaml that docs/adding.md gives, through fetch and shard."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.settings.params import load_params
from pipeline.shards.manifest import load_manifest
from pipeline.shards.reader import open_splits
from pipeline.stages.fetch import fetch
from pipeline.stages.shard import shard
from pipeline.system.project import Project
from tests.conftest import FLAGS
from tests.formats import box_error, drawn, put

BOX = (16.0, 12.0, 48.0, 36.0)
RECTANGLE = {"label": "pen", "points": [[16, 12], [48, 36]], "shape_type": "rectangle"}


def picture(i: int) -> bytes:
    return drawn([BOX], colour=5 * i)


def yolo(folder: Path) -> dict[str, Any]:
    put(
        folder / "data.yaml",
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 1\nnames: ['pen']\n",
    )
    for i in range(10):
        split = "train" if i < 8 else "valid"
        put(folder / split / f"images/{i}_jpg.rf.0123456789.jpg", picture(i))
        put(folder / split / f"labels/{i}_jpg.rf.0123456789.txt", "0 0.5 0.5 0.5 0.5")
    return {"sources": {"yolo": {}}}


def labelme(folder: Path) -> dict[str, Any]:
    for i in range(10):
        put(folder / f"IMG {i}.jpg", picture(i))
        put(folder / f"IMG {i}.json", json.dumps({"shapes": [RECTANGLE], "imagePath": f"IMG {i}.jpg"}))
    return {"sources": {"labelme": {"train": "."}}, "split": {"val": 0.2}}


def webdataset(folder: Path) -> dict[str, Any]:
    folder.mkdir()
    for shard_number in range(2):
        with tarfile.open(folder / f"{shard_number:05d}.tar", "w") as file:
            for i in range(5):
                for suffix, content in {"jpg": picture(i), "json": b'{"caption": "a pen", "label": "pen"}'}.items():
                    info = tarfile.TarInfo(f"{shard_number:05d}{i:04d}.{suffix}")
                    info.size = len(content)
                    file.addfile(info, io.BytesIO(content))
    return {"sources": {"webdataset": {"tars": "*.tar"}}, "split": {"val": 0.2}}


def image_folder(folder: Path) -> dict[str, Any]:
    for i in range(10):
        put(folder / ("train" if i < 8 else "valid") / ("pen" if i % 2 else "ink") / f"{i}.jpg", picture(i))
    return {"sources": {"image_folder": {}}, "splits": {"val": "valid"}}


@pytest.mark.parametrize(
    ("made", "counts"),
    [
        (yolo, {"num_objects": 10}),
        (labelme, {"num_objects": 10}),
        (webdataset, {"num_captions": 10, "num_labels": 10}),
        (image_folder, {"num_labels": 10}),
    ],
)
def test_every_annotation_arrives(tmp_path: Path, made: Any, counts: dict[str, int]) -> None:
    section = {"origin": "local", "input": "mine", **made(tmp_path / "mine")}
    runs = {"run": FLAGS["runs"]["classification"] | {"dataset": "mine"}}
    document = FLAGS | {"datasets": {"mine": section}, "runs": runs, "shards": {"samples": 3}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(document))
    project, params = Project(tmp_path), load_params(tmp_path)
    fetch(project, params, "mine")
    shard(project, params, "mine")
    manifest = load_manifest(project.shards("mine"), "mine")
    assert {name: entry["num_samples"] for name, entry in manifest["splits"].items()} == {"train": 8, "val": 2}
    assert all(not entry["dropped"] for entry in manifest["splits"].values())
    totals = [entry["totals"] for entry in manifest["splits"].values()]
    found = sum(map(Counter, totals), Counter())
    del found["length"]
    assert found == counts
    records = [r.read(i) for r in open_splits(project.shards("mine"), manifest).values() for i in range(len(r))]
    assert all(box_error(record) <= 1 for record in records if len(record.objects))
