"""Drawn pictures for the door, and what it said of them."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from contracts.raw import RawRecord
from pipeline.ingest.door import RULES, Admission, admit

HEIGHT, WIDTH = 20, 30


def scene(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """(H, W, 3) uint8: left half red, top left corner blue, so that every orientation looks different."""
    pixels = np.full((height, width, 3), (200, 30, 30), np.uint8)
    pixels[:, width // 2 :] = (30, 200, 30)
    pixels[: height // 2, : width // 2] = (30, 30, 200)
    return pixels


def encode(image: Image.Image | np.ndarray, kind: str = "JPEG", **options: object) -> bytes:
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def raw(path: Path, size: tuple[int, int] | None = (WIDTH, HEIGHT), **fields: object) -> RawRecord:
    width, height = size or (0, 0)
    return RawRecord(key="a", image_id=1, image=path, annotation_file="a.json", width=width, height=height, **fields)  # type: ignore[arg-type]


def admitted(
    tmp_path: Path, data: bytes, size: tuple[int, int] | None = (WIDTH, HEIGHT), **fields: object
) -> Admission:
    path = tmp_path / "image.bin"
    path.write_bytes(data)
    return admit(raw(path, size, **fields), ["thing"])


def refused(admission: Admission) -> str:
    assert admission.record is None
    assert not admission.fixes
    (problem,) = admission.problems
    assert problem.kind == "record"
    assert problem.key == "a"
    assert problem.item_id == "1"
    assert problem.reason in RULES
    return problem.reason


def decode(data: bytes) -> np.ndarray:
    """(H, W, 3) uint8 RGB as training decodes it, orientation ignored."""
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    assert decoded is not None
    return decoded[:, :, ::-1]


def pixels_of(admission: Admission) -> np.ndarray:
    assert admission.record is not None
    assert admission.problems == []
    decoded = decode(admission.record.image)
    assert decoded.shape[:2] == (admission.record.height, admission.record.width)
    return decoded
