"""The formats of other tools with anything in their files: records and problems, or a DataError. Nothing else.

As test_fuzz_annotations.py, whose watch sees what is read.
"""

from __future__ import annotations

import base64
import io
import json
import tarfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.ingest.sources import image_folder, labelme, webdataset, yolo
from tests.faults.test_fuzz_annotations import (
    CASES,
    SIZE,
    damaged,
    edits,
    folder,  # noqa: F401 (a fixture)
    fresh,
    pictures,
    read_all,
    watch,  # noqa: F401 (a fixture)
    with_values,
)

YOLO_FILES = {
    "data.yaml": b"path: .\ntrain: images/train\nval: [lists/val.txt]\nnames:\n  0: cat\n  1: dog\n",
    "lists/val.txt": b"./../images/val/b.jpg\nimages/val/c.jpg\n",
    "labels/train/a.txt": b"0 0.5 0.5 0.5 0.5\n1 0.1 0.1 0.9 0.1 0.9 0.9\n",
    "labels/val/b.txt": b"1 0.25 0.5 0.5 0.5\n",
}
SHAPES = {
    "shapes": [
        {"label": "cat", "points": [[1, 1], [9, 9]], "shape_type": "rectangle", "group_id": None},
        {"label": "dog", "points": [[1, 1], [9, 1], [9, 9]], "shape_type": "polygon", "group_id": 1},
        {"label": "dog", "points": [[5, 5], [5, 8]], "shape_type": "circle", "group_id": 1},
    ],
    "imagePath": "a.jpg",
    "imageData": None,
    "imageHeight": SIZE[1],
    "imageWidth": SIZE[0],
}


def picture() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", SIZE, (90, 60, 30)).save(out, "JPEG")
    return out.getvalue()


def tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as file:
        texts = {"txt": b"a cat", "cls": b"1", "json": b'{"caption": ["a", "b"], "label": "cat"}'}
        for name in ("a", "b"):
            for suffix, content in {"jpg": picture(), **texts}.items():
                info = tarfile.TarInfo(f"{name}.{suffix}")
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
    return out.getvalue()


TAR = tar()


@settings(CASES, max_examples=300)
@given(name=st.sampled_from(sorted(YOLO_FILES)), changes=edits)
def test_yolo_bytes(folder: Path, name: str, changes: list) -> None:  # noqa: F811
    fresh(folder)
    pictures(folder, "images/train/a.jpg", "images/val/b.jpg", "images/val/c.jpg")
    for file, content in YOLO_FILES.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(damaged(content, changes) if file == name else content)
    read_all(folder, (yolo, yolo.Config()))


@settings(CASES, max_examples=300)
@given(data=st.data(), inside=st.booleans(), listed=st.booleans())
def test_labelme_values(folder: Path, data: st.DataObject, inside: bool, listed: bool) -> None:  # noqa: F811
    fresh(folder)
    text = base64.b64encode(picture()).decode() if inside else None
    document = data.draw(with_values(SHAPES | {"imageData": text}))
    if not inside:
        pictures(folder, "train/a.jpg")
    (folder / "train").mkdir(exist_ok=True)
    (folder / "train/a.json").write_text(json.dumps(document))
    if listed:
        (folder / "labels.txt").write_text("cat\ndog\n")
    read_all(folder, (labelme, labelme.Config()))


@settings(CASES, max_examples=300)
@given(changes=edits)
def test_labelme_bytes(folder: Path, changes: list) -> None:  # noqa: F811
    fresh(folder)
    document = SHAPES | {"imageData": base64.b64encode(picture()).decode(), "imagePath": "../../secret/secret.jpg"}
    (folder / "train").mkdir()
    (folder / "train/a.json").write_bytes(damaged(json.dumps(document).encode(), changes))
    read_all(folder, (labelme, labelme.Config(classes=("cat", "dog"))))


@settings(CASES, max_examples=400)
@given(changes=edits, classes=st.sampled_from([(), ("cat", "dog")]))
def test_tar_bytes(folder: Path, changes: list, classes: tuple[str, ...]) -> None:  # noqa: F811
    fresh(folder)
    (folder / "train").mkdir()
    (folder / "train/a.tar").write_bytes(damaged(TAR, changes))
    read_all(folder, (webdataset, webdataset.Config(classes=classes)))


def test_links_out_of_the_folder(folder: Path) -> None:  # noqa: F811
    fresh(folder)
    pictures(folder, "train/cat/b.jpg")
    for name in ("train/cat/a.jpg", "images/a.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(folder.parent / "secret/secret.jpg")
    (folder / "data.yaml").write_text("train: images\nnames: [cat]\n")
    (folder / "labels").mkdir()
    (folder / "labels/a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (folder / "train/a.json").write_text(json.dumps(SHAPES | {"imagePath": "cat/a.jpg"}))
    read_all(folder, (image_folder, image_folder.Config()))
    read_all(folder, (yolo, yolo.Config()))
    read_all(folder, (labelme, labelme.Config()))
