"""What lies in a folder that a source could not read: files of other kinds, and how they are read."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path

from pipeline.system.reading import ABSENT, is_folder

_NUM_FOLDERS, _OF_EACH, _NUM_OPENED = 200, 5, 40  # of a data set that may have millions of files
_HEAD_BYTES = 1 << 16
_ANNOTATIONS = (".json", ".xml", ".txt", ".yaml", ".yml", ".csv", ".tar")
_YOLO_LINE = re.compile(rb"\s*\d+([ \t]+-?\d*\.?\d+(e-?\d+)?){4,}[ \t\r]*(\n|$)")


def what_lies_in(root: Path) -> list[str]:
    """One line for each kind of file that is known, with an example and what to do; empty if none is."""
    found: dict[str, str] = {}
    for path in itertools.islice(_annotation_files(root), _NUM_OPENED):
        name = path.relative_to(root).as_posix()
        told = _voc_folder(path, root) or _kind(path, name)
        if told is not None:
            kind, fix = told
            found.setdefault(kind, f"{name} looks like {kind}: {fix}")
    return list(found.values())


def looks_like(path: Path) -> str:
    """What a file is that was taken for another, and how it is read; "" if that is not known."""
    told = _kind(path, path.name)
    return f"it looks like {told[0]}: {told[1]}" if told is not None else ""


def _annotation_files(root: Path) -> Iterator[Path]:
    """Some of the files below `root` that may hold annotations, the first few of each folder; no hidden ones."""
    for number, (folder, names, files) in enumerate(os.walk(root)):
        if number == _NUM_FOLDERS:
            return
        names[:] = sorted(name for name in names if not name.startswith("."))
        for name in sorted(name for name in files if name.lower().endswith(_ANNOTATIONS) and name[0] != ".")[:_OF_EACH]:
            yield Path(folder, name)


def _voc_folder(path: Path, root: Path) -> tuple[str, str] | None:
    """Pascal's folders, told from any file in or beside them."""
    for folder in (path.parent, path.parent.parent, path.parent.parent.parent):
        if folder.is_relative_to(root) and is_folder(folder / "JPEGImages"):
            return "Pascal VOC's folders", f'sources: {{voc: {{folders: ["{folder.relative_to(root).as_posix()}"]}}}}'
    return None


def _kind(path: Path, name: str) -> tuple[str, str] | None:
    """What a file is, and how it is read."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        if error.errno in ABSENT:
            return None
        raise
    suffix = path.suffix.lower()
    if suffix == ".json":
        return _json_kind(head, name)
    if suffix == ".xml":
        if b"<annotations>" in head and b"<image " in head:
            return "CVAT's XML", "export from CVAT as `COCO 1.0` or `Pascal VOC 1.1` instead"
        if b"<annotation" in head and b"<bndbox>" in head:
            return "Pascal VOC's XML outside its folders", (
                "sources: {voc: {folders: [FOLDER], images: IMAGES, annotations: XML}}, with the folders of both below "
                'FOLDER ("." where they lie in it); where no lists say which are for validation, split: {val: 0.1}'
            )
    if suffix in (".yaml", ".yml") and b"names:" in head and (b"train:" in head or b"nc:" in head):
        return "YOLO's data.yaml", "sources: {yolo: {}}"
    if suffix == ".txt" and _YOLO_LINE.match(head):
        return "YOLO's labels", "sources: {yolo: {}}, with a data.yaml beside the folders that names the classes"
    if suffix == ".tar":
        return "WebDataset tars", "sources: {webdataset: {}}"
    return None


def _json_kind(head: bytes, name: str) -> tuple[str, str] | None:
    if b'"segments_info"' in head or "panoptic" in name.rsplit("/", 1)[-1]:
        return "a COCO panoptic file", (
            "no source reads it; name the instances file, or convert it by panopticapi's "
            "panoptic2detection_coco_format.py"
        )
    if b'"shapes"' in head and b'"imagePath"' in head:
        return "LabelMe's JSON", "sources: {labelme: {}}"
    if b'"qa_pairs"' in head and b'"multiple_choices"' in head:
        return "Visual7W's questions", f"sources: {{visual7w: {{questions: {name!r}, images: FOLDER}}}}"
    if b'"questions"' in head and b'"question_id"' in head:
        return "VQA questions", f"sources: {{vqa: {{questions: {name!r}, annotations: ..., images: ...}}}}"
    if b'"sentences"' in head and b'"filename"' in head and b'"split"' in head:
        return "Karpathy's splits", f"sources: {{karpathy: {{file: {name!r}}}}}"
    if name.endswith("_annotations.coco.json"):
        return "a Roboflow export", (
            'sources: {coco: {images: "{split}", instances: "{split}/_annotations.coco.json"}}, splits: {val: valid}'
        )
    if b'"images"' in head and (b'"file_name"' in head or b'"annotations"' in head):
        hint = {"captions": name} if b'"caption"' in head else {"instances": name}
        keys = ", ".join(f'{key}: "{value}"' for key, value in {"images": "FOLDER", **hint}.items())
        return "a COCO file", (
            f"sources: {{coco: {{{keys}}}}}, with {{split}} in place of train, val or test; "
            "where there is one file, split: {val: 0.1} beside `sources`"
        )
    return None
