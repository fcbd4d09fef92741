"""The generated VOC kit: XML, palettes, image sets; equal bytes for equal settings."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from contracts.errors import ConfigError
from pipeline.ingest.worlds import coco_scenes
from pipeline.ingest.worlds._output import SplitSizes
from pipeline.ingest.worlds._scenes import SHAPES, Scene
from pipeline.ingest.worlds.voc_scenes import (
    Config,
    class_and_object_masks,
    generate,
    is_difficult,
    scene_of,
    voc_palette,
)

CONFIG = Config(seed=3, num_records=SplitSizes(train=60, val=15))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("voc_scenes")
    done: list[int] = []
    generate(folder, CONFIG, done.append)
    assert sum(done) == 75
    return folder


@pytest.fixture(scope="module")
def kit(root: Path) -> Path:
    return root / "VOCdevkit" / "VOC2012"


def _scenes() -> dict[str, Scene]:
    found = {f"2012_{i + 1:06d}": scene_of(CONFIG, "train", i) for i in range(60)}
    return found | {f"2012_{500_001 + i}": scene_of(CONFIG, "val", i) for i in range(15)}


def _files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_equal_settings_give_equal_bytes(root: Path, tmp_path: Path) -> None:
    generate(tmp_path, CONFIG, lambda _: None)
    assert _files(tmp_path) == _files(root)


def test_xml_boxes_are_one_based_inclusive_and_tight(kit: Path) -> None:
    num_difficult = num_truncated = num_objects = 0
    for stem, scene in _scenes().items():
        xml = ElementTree.parse(kit / "Annotations" / f"{stem}.xml").getroot()
        assert xml.findtext("filename") == f"{stem}.jpg" and xml.findtext("segmented") == "1"
        height, width = scene.image.shape[:2]
        assert [xml.findtext(f"size/{n}") for n in ("width", "height", "depth")] == [str(width), str(height), "3"]
        for item, o in zip(xml.iter("object"), scene.objects, strict=True):
            assert item.findtext("name") == o.shape
            ys, xs = np.nonzero(o.mask)
            box = [int(item.findtext(f"bndbox/{n}") or -1) for n in ("xmin", "ymin", "xmax", "ymax")]
            assert box == [xs.min() + 1, ys.min() + 1, xs.max() + 1, ys.max() + 1]
            assert item.findtext("difficult") == str(int(is_difficult(o)))
            assert item.findtext("truncated") == str(int(o.is_truncated))
            num_objects += 1
            num_difficult += is_difficult(o)
            num_truncated += o.is_truncated
    assert 0 < num_difficult < 0.2 * num_objects
    assert 0.03 * num_objects < num_truncated < 0.5 * num_objects


def test_segmentation_files_have_the_official_palette_and_borders(kit: Path) -> None:
    borders = []
    for stem, scene in _scenes().items():
        with Image.open(kit / "SegmentationClass" / f"{stem}.png") as picture:
            assert picture.mode == "P" and picture.getpalette() == voc_palette()
            classes = np.array(picture)
        with Image.open(kit / "SegmentationObject" / f"{stem}.png") as picture:
            assert picture.mode == "P"
            objects = np.array(picture)
        assert np.array_equal(classes == 255, objects == 255)
        inside = (objects != 255) & (objects > 0)
        assert np.array_equal(inside, (classes != 255) & (classes > 0))
        for number, o in enumerate(scene.objects, 1):
            here = objects == number
            assert here.any() and not (here & ~o.mask).any()
            assert set(np.unique(classes[here])) == {SHAPES.index(o.shape) + 1}
            assert here.sum() > 0.4 * o.mask.sum()  # a border does not eat an object
        covered = np.any([o.mask for o in scene.objects], axis=0)
        assert not covered[objects == 0].any()
        borders.append((objects == 255).mean())
    assert 0.02 < np.mean(borders) < 0.2


def test_a_square_has_a_border_of_one_pixel_on_both_sides() -> None:
    scene = scene_of(CONFIG, "train", 0)
    mask = np.zeros((20, 20), bool)
    mask[5:15, 5:15] = True
    o = scene.objects[0]
    square = type(o)(
        shape="square", color="red", texture="plain", size="large", mask=mask, visible_fraction=1.0, is_truncated=False
    )
    classes, objects = class_and_object_masks(Scene(image=np.zeros((20, 20, 3), np.uint8), objects=(square,)))
    assert classes[10].tolist() == [0] * 4 + [255] * 2 + [4] * 8 + [255] * 2 + [0] * 4
    assert objects[10].tolist() == [0] * 4 + [255] * 2 + [1] * 8 + [255] * 2 + [0] * 4


def test_palette_is_the_kits() -> None:
    palette = np.array(voc_palette()).reshape(256, 3)
    assert palette[[0, 1, 2, 3, 15, 20, 255]].tolist() == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [128, 128, 0],
        [192, 128, 128],
        [0, 64, 128],
        [224, 224, 192],
    ]


def test_image_sets(kit: Path) -> None:
    sets = {name: (kit / "ImageSets/Main" / f"{name}.txt").read_text().split() for name in ("train", "val", "trainval")}
    assert len(sets["train"]) == 60 and len(sets["val"]) == 15
    assert sets["trainval"] == sorted(sets["train"] + sets["val"])
    for name, stems in sets.items():
        assert (kit / "ImageSets/Segmentation" / f"{name}.txt").read_text().split() == stems
    scenes = _scenes()
    states = set()
    for shape in SHAPES:
        for name, stems in sets.items():
            lines = (kit / "ImageSets/Main" / f"{shape}_{name}.txt").read_text().splitlines()
            assert [line.split()[0] for line in lines] == stems
            for line in lines:
                stem, state = line.split()
                states.add(int(state))
                difficult = [is_difficult(o) for o in scenes[stem].objects if o.shape == shape]
                assert int(state) == (-1 if not difficult else int(not all(difficult)))
                assert line == f"{stem} {int(state):2d}"
    assert states == {-1, 0, 1}


def test_images_differ_from_the_coco_world(kit: Path) -> None:
    scene, _, _ = coco_scenes.scene_of(coco_scenes.Config(seed=CONFIG.seed), "train", 0)
    other = scene_of(CONFIG, "train", 0)
    assert scene.image.shape != other.image.shape or not np.array_equal(scene.image, other.image)


def test_impossible_settings_are_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="max_objects"):
        Config(max_objects=50)
