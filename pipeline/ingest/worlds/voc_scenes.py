"""The generated world in the layout of the Pascal VOC 2012 kit: boxes, class masks and object masks.

Classes are numbered in alphabetical order from 1, as the kit does; 0 is background and 255 the border round objects.
Objects of which less than half can be seen, or very little at all, are difficult.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
from PIL import Image

from contracts.ranges import check_ranges
from pipeline.ingest.worlds._output import RANGES, SplitSizes, encode_jpeg, image_rng
from pipeline.ingest.worlds._scenes import SHAPES, Scene, SceneObject, SceneStyle, draw_scene

VOID = 255
DIFFICULT_BELOW = 0.5  # visible fraction
_TINY = 0.005  # of the image's area: less visible than this is difficult too
_MIN_VISIBLE = 0.3
_SPLITS = {"train": (2, 0), "val": (3, 500_000)}  # stream of random numbers, first image number


@dataclass(frozen=True, kw_only=True)
class Config:
    """`image_size` is the longer side in pixels; images are square or an eighth narrower or lower."""

    seed: int = 1
    image_size: int = 128
    num_records: SplitSizes = field(default=SplitSizes(train=1200, val=240))
    jpeg_quality: int = 92
    max_objects: int = 4

    def __post_init__(self) -> None:
        check_ranges(self, **RANGES)


def generate(root: Path, config: Config, progress: Callable[[int], None]) -> None:
    """Write both splits under `root`.

    Args:
        progress: called with the number of images done since the last call.
    """
    kit = root / "VOCdevkit" / "VOC2012"
    for name in (
        "JPEGImages",
        "Annotations",
        "SegmentationClass",
        "SegmentationObject",
        "ImageSets/Main",
        "ImageSets/Segmentation",
    ):
        (kit / name).mkdir(parents=True, exist_ok=True)
    present: dict[str, dict[str, dict[str, int]]] = {}  # split -> image -> class -> 1, or 0 if only difficult ones
    for split, (_, first) in _SPLITS.items():
        present[split] = {}
        for index in range(getattr(config.num_records, split)):
            stem = f"2012_{first + index + 1:06d}"
            present[split][stem] = _write_image(kit, stem, scene_of(config, split, index), config)
            progress(1)
    present["trainval"] = present["train"] | present["val"]
    for split, images in present.items():
        _write_image_sets(kit, split, images)


def scene_of(config: Config, split: str, index: int) -> Scene:
    """The `index`-th scene of a split."""
    style = SceneStyle(
        image_size=config.image_size,
        max_objects=config.max_objects,
        min_visible=_MIN_VISIBLE,
        overlap_probability=0.4,
        border_probability=0.2,
    )
    return draw_scene(image_rng(config.seed, _SPLITS[split][0], index), style)


def is_difficult(o: SceneObject) -> bool:
    return o.visible_fraction < DIFFICULT_BELOW or int(o.mask.sum()) < _TINY * o.mask.size


def class_and_object_masks(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) uint8 labels of classes and of objects (1 = first object); pixels on both sides of a border are 255."""
    object_mask = np.zeros(scene.image.shape[:2], np.uint8)
    class_mask = np.zeros_like(object_mask)
    for number, o in enumerate(scene.objects, 1):
        object_mask[o.mask] = number
        class_mask[o.mask] = SHAPES.index(o.shape) + 1
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    border = cv2.dilate(object_mask, cross) != cv2.erode(object_mask, cross)
    class_mask[border] = VOID
    object_mask[border] = VOID
    return class_mask, object_mask


def voc_palette() -> list[int]:
    """The 256 colours of the kit's VOCcolormap.m, flat: bits of the index dealt to R, G, B from the top bit down."""
    flat: list[int] = []
    for index in range(256):
        rgb, rest = [0, 0, 0], index
        for bit in range(7, -1, -1):
            for channel in range(3):
                rgb[channel] |= ((rest >> channel) & 1) << bit
            rest >>= 3
        flat += rgb
    return flat


_PALETTE = voc_palette()


def _write_image(kit: Path, stem: str, scene: Scene, config: Config) -> dict[str, int]:
    """Write the four files of one image; return 1 for each class that is there, 0 if only as difficult objects."""
    (kit / "JPEGImages" / f"{stem}.jpg").write_bytes(encode_jpeg(scene.image, config.jpeg_quality))
    (kit / "Annotations" / f"{stem}.xml").write_text(annotation_xml(scene, stem), encoding="utf-8")
    masks = zip(("SegmentationClass", "SegmentationObject"), class_and_object_masks(scene), strict=True)
    for folder, mask in masks:
        picture = Image.fromarray(mask)
        picture.putpalette(_PALETTE)  # turns the mode from L to P
        picture.save(kit / folder / f"{stem}.png")
    states: dict[str, int] = {}
    for o in scene.objects:
        states[o.shape] = max(states.get(o.shape, 0), int(not is_difficult(o)))
    return states


def annotation_xml(scene: Scene, stem: str) -> str:
    """The kit's XML: boxes are 1-based and inclusive."""
    height, width = scene.image.shape[:2]
    root = ElementTree.Element("annotation")
    _add(root, "folder", "VOC2012")
    _add(root, "filename", f"{stem}.jpg")
    source = _add(root, "source")
    for name, text in (
        ("database", "Sightline generated scenes"),
        ("annotation", "PASCAL VOC2012"),
        ("image", "generated"),
    ):
        _add(source, name, text)
    size = _add(root, "size")
    for name, value in (("width", width), ("height", height), ("depth", 3)):
        _add(size, name, str(value))
    _add(root, "segmented", "1")
    for o in scene.objects:
        x1, y1, x2, y2 = o.box
        item = _add(root, "object")
        _add(item, "name", o.shape)
        _add(item, "pose", "Unspecified")
        _add(item, "truncated", str(int(o.is_truncated)))
        _add(item, "difficult", str(int(is_difficult(o))))
        box = _add(item, "bndbox")
        for name, value in (("xmin", x1 + 1), ("ymin", y1 + 1), ("xmax", x2), ("ymax", y2)):
            _add(box, name, str(value))
    ElementTree.indent(root, space="\t")
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _add(parent: ElementTree.Element, name: str, text: str | None = None) -> ElementTree.Element:
    child = ElementTree.SubElement(parent, name)
    child.text = text
    return child


def _write_image_sets(kit: Path, split: str, images: dict[str, dict[str, int]]) -> None:
    """`<split>.txt`: one image a line; `<class>_<split>.txt`: with 1, 0 (only difficult ones) or -1 beside it."""
    stems = sorted(images)
    for folder in ("Main", "Segmentation"):
        (kit / "ImageSets" / folder / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in stems))
    for name in SHAPES:
        lines = [f"{stem} {images[stem].get(name, -1):2d}\n" for stem in stems]
        (kit / "ImageSets" / "Main" / f"{name}_{split}.txt").write_text("".join(lines))
