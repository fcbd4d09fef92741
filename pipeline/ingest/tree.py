"""What lies in a folder, as far as a short look tells: names, and the first and last bytes of annotation files.

Bounded in folders, names and bytes, since the folder may hold millions of files or lie on a network; with the standard
library alone, since `sightline check` looks, too.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

VIDEOS = (".avi", ".mp4", ".mkv", ".webm", ".mov", ".mpg", ".mpeg", ".m4v", ".flv", ".wmv", ".3gp", ".ogv", ".ts")
IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
_ANNOTATIONS = (".json", ".xml", ".txt", ".tags", ".tsv", ".yaml", ".yml", ".tar")
_NUM_FOLDERS, _NUM_NAMES, _NUM_IMAGES, _OF_EACH, _NUM_OPENED = 300, 5000, 3, 12, 60
_MAX_DEPTH = 5
_HEAD_BYTES = 1 << 16
_SEGMENT_LINE = re.compile(rb"\S*[^\s\d.]\S*([ \t]+\d+(\.\d+)?){2}[ \t\r]*(\n|$)")
_WORD_LINE = re.compile(rb"[^\s]+\.(png|jpe?g|bmp|tiff?)[\t ]+[^\s]", re.IGNORECASE)
_YOLO_LINE = re.compile(rb"\s*\d+([ \t]+-?\d*\.?\d+(e-?\d+)?){4,}[ \t\r]*(\n|$)")


@dataclass
class Folder:
    """Some of what a folder holds, each sorted: its folders, annotation files, videos, the first images."""

    folders: list[str] = field(default_factory=list)
    annotations: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    videos: list[str] = field(default_factory=list)


class Tree:
    """The folders below `root`, by their paths below it (`.` is itself); breadth first, no hidden ones.

    Args:
        most_s: seconds after which the look ends where it is; None: only its other bounds count.
    """

    def __init__(self, root: Path, most_s: float | None = None):
        self.root = root
        self._ends = None if most_s is None else time.monotonic() + most_s
        self.folders: dict[str, Folder] = {}
        waiting = [(".", 0)]
        while waiting and len(self.folders) < _NUM_FOLDERS and not self.is_over:
            name, depth = waiting.pop(0)
            self.folders[name] = found = self._look(name)
            if depth < _MAX_DEPTH:
                waiting += [(joined(name, below), depth + 1) for below in found.folders]

    @property
    def is_over(self) -> bool:
        return self._ends is not None and time.monotonic() > self._ends

    def _look(self, name: str) -> Folder:
        found = Folder()
        try:
            with os.scandir(self.root / name) as entries:
                for number, entry in enumerate(entries):
                    if number == _NUM_NAMES or (number % 500 == 499 and self.is_over):
                        break
                    if entry.name.startswith(".") or entry.name == "__MACOSX":
                        continue
                    suffix = os.path.splitext(entry.name)[1].lower()
                    if suffix in IMAGES:
                        found.images.append(entry.name)
                    elif suffix in VIDEOS:
                        found.videos.append(entry.name)
                    elif suffix in _ANNOTATIONS:
                        found.annotations.append(entry.name)
                    elif entry.is_dir():
                        found.folders.append(entry.name)
        except OSError:  # it may not be read, or is gone: nothing is known of it then
            return Folder()
        seen: dict[str, int] = {}
        kept = []
        for one in sorted(found.annotations):
            suffix = os.path.splitext(one)[1].lower()
            seen[suffix] = seen.get(suffix, 0) + 1
            if seen[suffix] <= _OF_EACH:
                kept.append(one)
        return Folder(sorted(found.folders), kept, sorted(found.images)[:_NUM_IMAGES], sorted(found.videos))

    def has(self, name: str) -> bool:
        """Whether there is such a file or folder below the root, seen or not."""
        try:
            return (self.root / name).exists()
        except (OSError, ValueError):
            return False

    def images(self) -> Iterator[Path]:
        """The first images of each folder."""
        for name, folder in self.folders.items():
            yield from (self.root / name / image for image in folder.images)

    @cached_property
    def files(self) -> list[tuple[str, str, bytes]]:
        """Annotation files that were opened: path below the root, kind, and their first and last bytes."""
        found: list[tuple[str, str, bytes]] = []
        for name, folder in self.folders.items():
            for file in folder.annotations:
                if len(found) == _NUM_OPENED or self.is_over:
                    return found
                path = joined(name, file)
                try:
                    content = _ends_of(self.root / path)
                except OSError:
                    continue
                found.append((path, _kind(path, content), content))
        return found

    def of_kind(self, kind: str) -> list[tuple[str, bytes]]:
        return [(path, content) for path, one, content in self.files if one == kind]


def joined(folder: str, name: str) -> str:
    """`folder/name` as a path below the root, without a leading `./`."""
    return name if folder == "." else folder if name == "." else f"{folder}/{name}"


def _ends_of(path: Path) -> bytes:
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
        size = os.fstat(file.fileno()).st_size
        if size <= len(head):
            return head
        file.seek(max(len(head), size - _HEAD_BYTES))
        return head + b"\n" + file.read(_HEAD_BYTES)


def _kind(name: str, content: bytes) -> str:
    """What an annotation file is: `coco`, `karpathy`, `questions`, `answers`, `visual7w`, `labelme`, `voc`, `yolo`,
    `labels`, `segments`, `words`, `text_beside`, `mmocr`, `tar`, `` ."""
    suffix, last = os.path.splitext(name)[1].lower(), name.rsplit("/", 1)[-1]
    if suffix == ".json":
        if b'"segments_info"' in content or "panoptic" in last:
            return ""
        if b'"shapes"' in content and b'"imagePath"' in content:
            return "labelme"
        if b'"qa_pairs"' in content and b'"multiple_choices"' in content:
            return "visual7w"
        if b'"question_id"' in content:
            return "questions" if b'"questions"' in content else "answers" if b'"annotations"' in content else ""
        if b'"sentences"' in content and b'"filename"' in content and b'"split"' in content:
            return "karpathy"
        if b'"data_list"' in content and b'"img_path"' in content and b'"text"' in content:
            return "mmocr"
        is_coco = b'"images"' in content and (b'"file_name"' in content or b'"annotations"' in content)
        return "coco" if is_coco else ""
    if suffix == ".xml":
        return "voc" if b"<annotation" in content and b"<bndbox>" in content else ""
    if suffix in (".yaml", ".yml"):
        return "yolo" if b"names:" in content and (b"train:" in content or b"nc:" in content) else ""
    if suffix == ".txt":
        if content.startswith(b"__label__"):
            return "labels"
        if last.endswith(".gt.txt"):
            return "text_beside"
        if _WORD_LINE.match(content.removeprefix(b"\xef\xbb\xbf")):
            return "words"
        return "yolo_labels" if _YOLO_LINE.match(content) else "segments" if _SEGMENT_LINE.match(content) else ""
    if suffix in (".tags", ".tsv"):
        return "words" if _WORD_LINE.match(content) else ""
    return "tar" if suffix == ".tar" else ""
