"""Small data sets drawn in the shapes that people have, and what of them gets through source and door."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from contracts.raw import Problem
from contracts.records import Record
from pipeline.ingest.door import RULES, admit
from pipeline.ingest.sources import OpenSource, joined_classes, joined_splits, read_joined

Box = tuple[float, float, float, float]


def drawn(boxes: Sequence[Box] = (), size: tuple[int, int] = (64, 48), colour: int = 30, kind: str = "JPEG") -> bytes:
    """An image of one grey with white rectangles (x1, y1, x2, y2)."""
    pixels = np.full((size[1], size[0], 3), colour, np.uint8)
    for x1, y1, x2, y2 in boxes:
        pixels[round(y1) : round(y2), round(x1) : round(x2)] = 255
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def put(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@dataclass
class Read:
    """What became of a data set."""

    classes: tuple[str, ...]
    records: dict[str, list[Record]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    fixes: Counter[str] = field(default_factory=Counter)

    @property
    def reasons(self) -> Counter[str]:
        return Counter(problem.reason for problem in self.problems)


def through_door(module: ModuleType, root: Path, config: Any = None) -> Read:
    """Every split of a source, each record through the door."""
    settings = module.Config() if config is None else config
    opened = [OpenSource(name=module.__name__, module=module, root=root, config=settings)]  # type: ignore[arg-type]
    out = Read(classes=joined_classes(opened))
    for split in joined_splits(opened):
        kept = out.records.setdefault(split, [])
        for item in read_joined(opened, split):
            if isinstance(item, Problem):
                out.problems.append(item)
                continue
            admission = admit(item, out.classes)
            out.problems += admission.problems
            out.fixes += admission.fixes
            if admission.record is not None:
                kept.append(admission.record)
    assert out.reasons.keys() <= RULES.keys()
    return out


def box_error(record: Record) -> float:
    """Largest distance in pixels between a box and the white rectangle that was drawn, for images with one of them."""
    pixels = np.asarray(Image.open(io.BytesIO(record.image)).convert("L")) > 140
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    seen = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    return float(np.abs(record.objects.boxes[0] - seen).max())
