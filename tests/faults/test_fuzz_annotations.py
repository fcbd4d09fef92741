"""Annotation files, pictures and archives with anything in them: records and problems, or a DataError. Nothing else.

Each case starts from small valid files and damages bytes or values. What is read is watched: no name in a file may lead
out of the data set's folder.
"""

from __future__ import annotations

import copy
import io
import json
import os
import shutil
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from contracts.errors import ConfigError, DataError
from contracts.raw import RawRecord
from pipeline.ingest import sources
from pipeline.ingest.door import PROBLEMS, DoorConfig, admit
from pipeline.ingest.door.images import clean_image
from pipeline.ingest.door.rules import Refused
from pipeline.ingest.extract import extract
from pipeline.ingest.sources import OpenSource, camvid, coco, voc, vqa
from pipeline.shards.writing import problem_line

SIZE = (16, 12)
CASES = settings(
    derandomize=True, database=None, suppress_health_check=list(HealthCheck), print_blob=False
)  # fmt: skip


class Watch:
    """Which files are opened or listed below a forbidden folder. (An audit hook cannot be taken out again.)"""

    def __init__(self) -> None:
        self.forbidden, self.seen = "", list[str]()
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple) -> None:
        if self.forbidden and event in ("open", "os.listdir", "os.scandir") and isinstance(arguments[0], str | Path):
            path = os.path.realpath(arguments[0]) if "\0" not in str(arguments[0]) else ""
            if path.startswith((self.forbidden, "/etc/passwd")):
                self.seen.append(path)


@pytest.fixture(scope="module")
def watch() -> Watch:
    return Watch()


@pytest.fixture
def folder(tmp_path: Path, watch: Watch) -> Iterator[Path]:
    """The data set's folder; beside it lies one that nothing may read."""
    secret = tmp_path / "secret"
    secret.mkdir()
    Image.new("RGB", SIZE).save(secret / "secret.jpg")
    (secret / "secret.xml").write_text(xml())
    Image.new("L", SIZE).save(secret / "secret.png")
    (tmp_path / "raw").mkdir()
    watch.forbidden, watch.seen = str(secret), []
    yield tmp_path / "raw"
    watch.forbidden = ""
    assert watch.seen == []


VALUES: list[Any] = [
    None, True, 0, -1, 1, 3, 0.5, 1e308, -1e308, float("nan"), float("inf"), 2**31, 2**63 - 1, 2**63, 2**64, 10**400,
    "", " ", "a", "1", "NaN", "\0", "\ud800", "x" * 300, "../../secret/secret.jpg", "..\\secret", "C:\\a.jpg",
    "/etc/passwd", "a/../../b.jpg", ".", "a" + "/b" * 2000,
    [], {}, [[]], [None] * 4, [1, 2, 3], [0, 0, 1e400, 1], [[1] * 6], [[1e308] * 8], {"size": [12, 16]},
    {"size": [12, 16], "counts": "0"}, {"size": [12, 16], "counts": [192]}, {"size": [12, 16], "counts": [-1, 193]},
    {"size": [12, 16], "counts": [2**62, 2**62, -(2**63) + 192]}, {"size": [12, 16], "counts": "\u00e9zz"},
]  # fmt: skip
TOKENS = [
    b"", b"\0", b"\xff", b"\xef\xbb\xbf", b'"', b"[", b"]", b"{", b"}", b",", b"NaN", b"-Infinity", b"1e999",
    b"9" * 400, b"\\u", b"\xff\xfe", b"<", b">", b"&", b"&lol;", b"<![CDATA[", b"../../secret/secret", b" ", b"\n",
    b"null", b"true",
    b"[" * 3000, b'{"a":' * 3000, b"<a>" * 3000, b'<?xml version="1.0" encoding="x"?>', b"\xff\xd9", b"IEND", b"/",
]  # fmt: skip
edits = st.lists(
    st.tuples(
        st.floats(0, 1), st.sampled_from(["flip", "cut", "delete", "insert", "replace"]), st.sampled_from(TOKENS)
    ),
    min_size=1,
    max_size=4,
)


def damaged(data: bytes, changes: list[tuple[float, str, bytes]]) -> bytes:
    out = bytearray(data)
    for share, how, token in changes:
        at = int(share * max(0, len(out) - 1))
        if how == "flip" and out:
            out[at] ^= 1 << (len(token) % 8)
        elif how == "cut":
            del out[at:]
        elif how == "delete":
            del out[at : at + 1 + len(token)]
        elif how == "insert":
            out[at:at] = token
        else:
            out[at : at + len(token)] = token
    return bytes(out)


def places(document: Any, path: tuple = ()) -> list[tuple]:
    found = [path] if path else []
    entries = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in entries:
        found += places(value, (*path, key))
    return found


@st.composite
def with_values(draw: st.DrawFn, document: dict) -> dict:
    """The document with up to three values replaced, removed or doubled."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        *path, last = draw(st.sampled_from(places(document)))
        target = document
        for key in path:
            target = target[key]
        how = draw(st.sampled_from(["value", "value", "value", "remove", "double"]))
        if how == "remove":
            del target[last]
        elif how == "double" and isinstance(target, list):
            target.append(copy.deepcopy(target[last]))
        else:
            target[last] = copy.deepcopy(draw(st.sampled_from(VALUES)))
        if not places(document):
            break
    return document


def read_all(folder: Path, *modules: tuple[ModuleType, Any]) -> None:
    """Everything that the stage reads of a data set, through the door."""
    opened = [OpenSource(name=m.__name__, module=m, root=folder, config=config) for m, config in modules]  # type: ignore[arg-type]
    door = DoorConfig(root=folder)
    try:
        splits, classes = sources.joined_splits(opened), sources.joined_classes(opened)
    except (ConfigError, DataError):
        return
    for split in splits:
        try:
            for item in sources.read_joined(opened, split):
                problems = admit(item, classes, door).problems if isinstance(item, RawRecord) else [item]
                for problem in problems:
                    assert problem.reason in PROBLEMS
                    line = problem_line(split, problem).encode("utf-8", "backslashreplace")
                    assert json.loads(line)["reason"] == problem.reason
        except DataError as error:
            str(error).encode("utf-8", "backslashreplace")


def fresh(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def pictures(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE, (90, 60, 30)).save(folder / name)


BOX = {"bbox": [1, 1, 6, 6], "iscrowd": 0, "area": 36}
INSTANCES = {
    "images": [{"id": i, "file_name": f"{i}.jpg", "width": SIZE[0], "height": SIZE[1]} for i in (1, 2)],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 6, 1, 6, 6]], **BOX},
        {"id": 2, "image_id": 2, "category_id": 2, "segmentation": {"size": [12, 16], "counts": [10, 20, 162]}, **BOX},
    ],
}
CAPTIONS = {
    "images": INSTANCES["images"],
    "annotations": [{"id": i, "image_id": i, "caption": "a cat"} for i in (1, 2)],
}
QUESTIONS = {"questions": [{"question_id": 10 + i, "image_id": i, "question": "what?"} for i in (1, 2)]}
ANSWERS = {
    "annotations": [
        {"question_id": 10 + i, "image_id": i, "multiple_choice_answer": "cat", "answers": [{"answer": "cat"}] * 10}
        for i in (1, 2)
    ]
}
COCO = coco.Config(images="images", instances="instances_{split}.json", captions="captions_{split}.json")
VQA = vqa.Config(questions="questions_{split}.json", annotations="answers_{split}.json", images="images/{image_id}.jpg")
JSON_FILES: dict[str, dict] = {
    "instances_train.json": INSTANCES,
    "captions_train.json": CAPTIONS,
    "questions_train.json": QUESTIONS,
    "answers_train.json": ANSWERS,
}


def write_json(folder: Path, changed: str, data: bytes) -> None:
    fresh(folder)
    pictures(folder, "images/1.jpg", "images/2.jpg")
    for name, document in JSON_FILES.items():
        (folder / name).write_bytes(data if name == changed else json.dumps(document).encode())


@settings(CASES, max_examples=700)
@given(data=st.data())
def test_json_values(folder: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(JSON_FILES)))
    document = data.draw(with_values(JSON_FILES[name]))
    write_json(folder, name, json.dumps(document).encode())
    read_all(folder, (coco, COCO), (vqa, VQA))


@settings(CASES, max_examples=500)
@given(name=st.sampled_from(sorted(JSON_FILES)), changes=edits)
def test_json_bytes(folder: Path, name: str, changes: list) -> None:
    write_json(folder, name, damaged(json.dumps(JSON_FILES[name]).encode(), changes))
    read_all(folder, (coco, COCO), (vqa, VQA))


@pytest.mark.parametrize("levels", [100, 1500, 100_000])
@pytest.mark.parametrize("name", sorted(JSON_FILES))
def test_nesting_without_end(folder: Path, name: str, levels: int) -> None:
    for path in places(JSON_FILES[name]):
        document = copy.deepcopy(JSON_FILES[name])
        target: Any = document
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = "@"
        for nested in ("[" * levels + "]" * levels, '{"a":' * levels + "1" + "}" * levels):
            write_json(folder, name, json.dumps(document).replace('"@"', nested).encode())
            read_all(folder, (coco, COCO), (vqa, VQA))


def xml(name: str = "cat") -> str:
    box = "<xmin>2</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax>"
    return (
        f"<annotation><size><width>{SIZE[0]}</width><height>{SIZE[1]}</height></size>"
        f"<object><name>{name}</name><difficult>0</difficult><bndbox>{box}</bndbox></object></annotation>"
    )


VOC_FILES = {
    "Annotations/a.xml": xml().encode(),
    "Annotations/b.xml": xml("dog").encode(),
    "ImageSets/Main/train.txt": b"a\nb\n",
    "class_names.txt": b"cat\ndog\n",
}
BOMB = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10 if i else "x" * 100}">' for i in range(12))
DOCUMENT_TYPES = [
    f"<!DOCTYPE a [{BOMB}]><annotation><object><name>&e11;</name></object></annotation>",
    '<!DOCTYPE a [<!ENTITY x SYSTEM "file://{secret}/secret.xml">]><annotation><object><name>&x;</name></object></annotation>',
    '<!DOCTYPE a SYSTEM "{secret}/secret.xml"><annotation/>',
    '<!DOCTYPE a [<!ENTITY % p SYSTEM "{secret}/secret.xml"> %p;]><annotation/>',
]


def write_voc(folder: Path, changed: str, data: bytes) -> None:
    fresh(folder)
    pictures(folder, "JPEGImages/a.jpg", "JPEGImages/b.jpg")
    mask = np.zeros(SIZE[::-1], np.uint8)
    mask[2:8, 2:8] = 1
    for kind in ("SegmentationClass", "SegmentationObject"):
        (folder / kind).mkdir()
        Image.fromarray(mask).save(folder / kind / "a.png")
    for name, content in VOC_FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data if name == changed else content)
    if changed == "no class list":
        (folder / "class_names.txt").unlink()


VOC = voc.Config(folders=(".",))


@settings(CASES, max_examples=500)
@given(name=st.sampled_from(sorted(VOC_FILES)), changes=edits, listed=st.booleans())
def test_xml_and_list_bytes(folder: Path, name: str, changes: list, listed: bool) -> None:
    write_voc(folder, name, damaged(VOC_FILES[name], changes))
    if not listed:
        (folder / "class_names.txt").unlink()
    read_all(folder, (voc, VOC))


@pytest.mark.parametrize("document", DOCUMENT_TYPES)
def test_a_document_type_is_not_followed(folder: Path, document: str) -> None:
    write_voc(folder, "Annotations/a.xml", document.replace("{secret}", str(folder.parent / "secret")).encode())
    read_all(folder, (voc, VOC))
    (problem,) = [item for item in voc.read(folder, "train", VOC) if not isinstance(item, RawRecord)]
    assert (problem.reason, problem.detail) == ("broken_xml", "it declares a document type")


@pytest.mark.parametrize("name", ["../../secret/secret", "/etc/passwd", "../raw/JPEGImages/a", ".", "..", "a\0b"])
def test_a_list_names_no_file_elsewhere(folder: Path, name: str) -> None:
    write_voc(folder, "ImageSets/Main/train.txt", f"a\n{name}\n".encode())
    read_all(folder, (voc, VOC))
    record, problem = sorted(voc.read(folder, "train", VOC), key=lambda item: not isinstance(item, RawRecord))
    assert isinstance(record, RawRecord)
    assert getattr(problem, "reason", "") == "unsafe_path"


def test_an_annotation_of_another_folder_behind_a_link_is_not_read(folder: Path) -> None:
    write_voc(folder, "", b"")
    (folder / "JPEGImages/a.jpg").unlink()
    (folder / "JPEGImages/a.jpg").symlink_to(folder.parent / "secret/secret.jpg")
    (folder / "SegmentationClass/b.png").symlink_to(folder.parent / "secret/secret.png")
    read_all(folder, (voc, VOC))  # the door's own watch


@settings(CASES, max_examples=200)
@given(changes=edits)
def test_mask_bytes(folder: Path, changes: list) -> None:
    fresh(folder)
    pictures(folder, "CamVid/train/a.png", "CamVid/train/b.png")
    (folder / "CamVid/trainannot").mkdir()
    out = io.BytesIO()
    Image.fromarray(np.full(SIZE[::-1], 3, np.uint8)).save(out, "PNG")
    (folder / "CamVid/trainannot/a.png").write_bytes(damaged(out.getvalue(), changes))
    read_all(folder, (camvid, camvid.Config()))


def picture_files() -> list[bytes]:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (*SIZE[::-1], 3), np.uint8))
    variants: list[tuple[str, dict]] = [(kind, {}) for kind in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")]
    variants += [("JPEG", {"progressive": True}), ("TIFF", {"compression": "tiff_lzw"}), ("MPO", {"save_all": True})]
    out = []
    for kind, options in variants:
        file = io.BytesIO()
        image.save(file, kind, **options)
        out.append(file.getvalue())
    return out


@settings(CASES, max_examples=600)
@given(data=st.sampled_from(picture_files()), changes=edits)
def test_picture_bytes(data: bytes, changes: list) -> None:
    try:
        clean = clean_image(damaged(data, changes), claimed=None, has_pixel_annotations=True)
    except Refused as refused:
        found = refused.reason
    else:
        found = ""
        with Image.open(io.BytesIO(clean.data)) as image:
            image.load()
            assert image.size == (clean.width, clean.height)
    assert found == "" or found in PROBLEMS


def archive_files() -> list[bytes]:
    out = [io.BytesIO() for _ in range(4)]
    with zipfile.ZipFile(out[0], "w", zipfile.ZIP_DEFLATED) as deflated, zipfile.ZipFile(out[1], "w") as stored:
        for file in (deflated, stored):
            file.writestr("a/one.txt", "one" * 50)
            file.writestr("two.txt", "two")
    for file, mode in ((out[2], "w"), (out[3], "w:gz")):
        with tarfile.open(fileobj=file, mode=mode) as tar:  # type: ignore[call-overload]
            for name in ("a/one.txt", "two.txt"):
                info = tarfile.TarInfo(name)
                info.size = 150
                tar.addfile(info, io.BytesIO(b"one" * 50))
    return [file.getvalue() for file in out]


@settings(CASES, max_examples=300)
@given(data=st.sampled_from(archive_files()), changes=edits)
def test_archive_bytes(folder: Path, data: bytes, changes: list) -> None:
    fresh(folder)
    (folder / "archive").write_bytes(damaged(data, changes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            extract(folder / "archive", folder / "out", lambda _: None)
        except DataError as error:
            message = str(error)
        else:
            message = str(folder / "archive")
    assert str(folder / "archive") in message
    assert {path.name for path in folder.parent.iterdir()} == {"raw", "secret"}
