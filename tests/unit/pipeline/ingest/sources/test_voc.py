"""The VOC source: XML, image lists, masks and the rules for the class list."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from contracts.errors import ConfigError, DataError
from contracts.raw import Problem, RawRecord
from pipeline.ingest.door import RULES, admit
from pipeline.ingest.sources import voc
from pipeline.ingest.sources._files import record_key

OBJECT = (
    "<object><name>{name}</name><difficult>{difficult}</difficult><truncated>{truncated}</truncated>"
    "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    "<bndbox><ymax>{ymax}</ymax><xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax></bndbox></object>"
)
HERE = voc.Config(folders=(".",))


def thing(name: str = "dog", box: tuple = (3, 4, 10, 12), difficult: object = 0, truncated: object = 0) -> str:
    xmin, ymin, xmax, ymax = box
    return OBJECT.format(
        name=name, difficult=difficult, truncated=truncated, xmin=xmin, ymin=ymin, xmax=xmax, ymax=ymax
    )


def add(folder: Path, stem: str, *objects: str, labels: np.ndarray | None = None, xml: bool = True) -> None:
    """One 30 x 20 image with its XML and masks."""
    for name in ("JPEGImages", *(["Annotations"] if xml else [])):
        (folder / name).mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(folder / f"JPEGImages/{stem}.jpg")
    if xml:
        size = "<size><width>30</width><height>20</height><depth>3</depth></size>"
        (folder / f"Annotations/{stem}.xml").write_text(f"<annotation>{size}{''.join(objects)}</annotation>")
    if labels is not None:
        for name in ("SegmentationClass", "SegmentationObject"):
            (folder / name).mkdir(exist_ok=True)
            picture = Image.fromarray(labels.astype(np.uint8))
            picture.putpalette(list(range(256)) * 3)
            picture.save(folder / name / f"{stem}.png")


def lists(folder: Path, kind: str = "Main", **names: str) -> None:
    (folder / "ImageSets" / kind).mkdir(parents=True, exist_ok=True)
    for name, text in names.items():
        (folder / "ImageSets" / kind / f"{name}.txt").write_text(text)


def read(root: Path, split: str = "train", config: voc.Config = HERE) -> tuple[list[RawRecord], list[tuple[str, str]]]:
    items = list(voc.read(root, split, config))
    problems = [item for item in items if isinstance(item, Problem)]
    assert {p.reason for p in problems} <= RULES.keys()
    return [i for i in items if isinstance(i, RawRecord)], [(p.reason, p.item_id) for p in problems]


def marks(*values: int) -> np.ndarray:
    """(20, 30) labels with a strip of each value."""
    out = np.zeros((20, 30))
    for i, value in enumerate(values):
        out[3 * i : 3 * i + 2, 5:20] = value
    return out


def test_xml_becomes_a_record(tmp_path: Path) -> None:
    add(tmp_path, "2007_000032", thing(difficult=1), thing("cat", (1.5, 2, 30, 20), truncated=1), labels=marks(8, 12))
    add(tmp_path, "B.2", thing())
    lists(tmp_path, train="B.2.jpg\n2007_000032  1\n\n", val="2007_000032")
    records, problems = read(tmp_path)
    assert problems == []
    assert [r.image_id for r in records] == ["2007_000032", "B.2"]
    assert records[0].key == record_key("JPEGImages/2007_000032.jpg")
    first, second = records[0].objects
    assert (first.category, first.box, first.is_difficult, first.is_truncated) == ("dog", (2, 3, 10, 12), True, False)
    assert (second.object_id, second.box, second.is_truncated) == ("2", (0.5, 1, 30, 20), True)
    assert (records[0].width, records[0].height) == (30, 20)
    assert records[0].semantic_mask == tmp_path / "SegmentationClass/2007_000032.png"
    assert records[0].instance_mask == tmp_path / "SegmentationObject/2007_000032.png"
    assert records[1].semantic_mask is records[1].instance_mask is None
    assert voc.splits(tmp_path, HERE) == ("train", "val")
    assert voc.classes(tmp_path, HERE) == voc.OFFICIAL_CLASSES
    (zero_based,), _ = read(tmp_path, "val", voc.Config(folders=(".",), one_based=False))
    assert zero_based.objects[0].box == (3, 4, 10, 12)


def test_boxes_without_area_are_seen_at_the_door(tmp_path: Path) -> None:
    add(
        tmp_path, "a", thing(box=(5, 5, 5, 5)), thing(box=(9, 5, 3, 8)), thing(box=("x", 1, 2, 3)), "<object/>", thing()
    )
    (record,), problems = read(tmp_path)
    assert problems == []
    assert [o.object_id for o in record.objects] == ["1", "2", "3", "4", "5"]  # masks count positions
    admission = admit(record, voc.OFFICIAL_CLASSES)
    assert [p.reason for p in admission.problems] == [
        "zero_area_box",
        "negative_box",
        "box_not_finite",
        "unknown_class",
    ]
    assert admission.record is not None
    assert admission.record.objects.boxes.tolist() == [[2, 3, 10, 12]]


def test_lists_that_lie(tmp_path: Path) -> None:
    for stem in ("a", "b", "c"):
        add(tmp_path, stem, thing())
    (tmp_path / "Annotations/b.xml").write_text("<annotation><object>")
    (tmp_path / "Annotations/c.xml").unlink()
    add(tmp_path, "d", thing())
    (tmp_path / "JPEGImages/d.jpg").unlink()
    lists(tmp_path, train="d\na\nb\nc\na\n")
    records, problems = read(tmp_path)
    assert problems == [("duplicate_key", "a"), ("broken_xml", "b"), ("missing_annotation", "c")]
    assert [r.image_id for r in records] == ["a", "d"]
    assert [p.reason for p in admit(records[1], voc.OFFICIAL_CLASSES).problems] == ["missing_image"]


def test_segmentation_only_and_no_lists(tmp_path: Path) -> None:
    add(tmp_path, "a", labels=marks(1, 2), xml=False)
    (tmp_path / "class_names.txt").write_text("_background_\nleaf\nroot\n\n")
    assert voc.splits(tmp_path, HERE) == ("train",)
    assert voc.classes(tmp_path, HERE) == ("leaf", "root")
    (record,), _ = read(tmp_path)
    assert (record.objects, record.instance_mask, record.width) == ((), None, 0)
    assert admit(record, ("leaf", "root")).record is not None
    assert [p.reason for p in admit(record, ("leaf",)).problems] == ["mask_unknown_label"]


def test_several_folders_are_one_data_set(tmp_path: Path) -> None:
    for year, stem in (("VOC2007", "000005"), ("VOC2012", "2008_000008")):
        add(tmp_path / year, stem, thing())
        lists(tmp_path / year, trainval=stem)
    lists(tmp_path / "VOC2007", test="000005")
    config = voc.Config(folders=("VOC2007", "VOC2012"), train="trainval", val="", test="test")
    assert voc.splits(tmp_path, config) == ("train", "test")
    assert [r.image_id for r in read(tmp_path, "train", config)[0]] == ["000005", "2008_000008"]
    assert [r.image_id for r in read(tmp_path, "test", config)[0]] == ["000005"]


def test_every_image_by_a_star(tmp_path: Path) -> None:
    add(tmp_path, "a", thing())
    lists(tmp_path, train="")
    config = voc.Config(folders=(".",), val="*")
    assert voc.splits(tmp_path, config) == ("train", "val")
    assert [r.image_id for r in read(tmp_path, "val", config)[0]] == ["a"]


def test_class_list_rules(tmp_path: Path) -> None:
    add(tmp_path, "a", thing("wolf"), thing("ant"))
    assert voc.classes(tmp_path, HERE) == ("ant", "wolf")
    (tmp_path / "labels.txt").write_text("__ignore__\nwolf\nant\n")
    assert voc.classes(tmp_path, HERE) == ("wolf", "ant")
    (tmp_path / "class_names.txt").write_text("elk\nwolf\nant\n")
    assert voc.classes(tmp_path, HERE) == ("elk", "wolf", "ant")
    assert voc.classes(tmp_path, voc.Config(folders=(".",), classes=("x",))) == ("x",)


def test_sorted_names_must_fit_the_masks(tmp_path: Path) -> None:
    add(tmp_path, "a", thing("wolf"), thing("ant"), labels=marks(1, 2, 255))
    add(tmp_path, "b", thing("wolf"), labels=marks(2))
    assert voc.classes(tmp_path, HERE) == ("ant", "wolf")
    add(tmp_path, "c", thing("wolf"), labels=marks(1))  # here 1 is the wolf
    with pytest.raises(ConfigError, match=r"(?s)do not follow the sorted.*c\.png.*class_names\.txt"):
        voc.classes(tmp_path, HERE)


def test_lists_with_blanks_and_flags(tmp_path: Path) -> None:
    for stem in ("cup (1)", "cup", "cup 1"):
        add(tmp_path, stem, thing())
    lists(tmp_path, train="cup (1)\ncup  -1\ncup 1\n")
    records, problems = read(tmp_path)
    assert problems == []
    assert {r.image_id for r in records} == {"cup (1)", "cup", "cup 1"}


def test_files_beside_the_pictures_and_the_only_folder_of_lists(tmp_path: Path) -> None:
    add(tmp_path, "a", thing(), labels=marks(1))
    for name in ("a.json", "a.txt", "._a.jpg", "a.zip"):
        (tmp_path / "JPEGImages" / name).touch()
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text("a\n")
    (record,), problems = read(tmp_path)
    assert problems == []
    assert record.image.suffix in (".jpg", ".png")


def test_a_jpeg_mask_is_refused_with_the_reason(tmp_path: Path) -> None:
    add(tmp_path, "a", xml=False)
    (tmp_path / "class_names.txt").write_text("leaf\n")
    (tmp_path / "SegmentationClass").mkdir()
    Image.fromarray(marks(1).astype(np.uint8)).save(tmp_path / "SegmentationClass/a.jpg")
    (record,), _ = read(tmp_path)
    (problem,) = admit(record, ("leaf",)).problems
    assert (problem.reason, problem.kind, problem.file) == ("mask_not_png", "record", str(record.semantic_mask))
    assert "JPEG" in problem.detail and "JPEG" in RULES[problem.reason]


def colored(tmp_path: Path, *colors: tuple[int, int, int], mode: str = "RGB") -> None:
    """A picture `a` whose label mask shows these colours side by side."""
    add(tmp_path, "a", xml=False)
    (tmp_path / "SegmentationClass").mkdir()
    with Image.open(next((tmp_path / "JPEGImages").iterdir())) as image:
        width, height = image.size
    pixels = np.zeros((height, width, 3), np.uint8)
    for i, color in enumerate(colors):
        pixels[:, i] = color
    mask = Image.fromarray(pixels)
    (mask.quantize(256) if mode == "P" else mask.convert(mode)).save(tmp_path / "SegmentationClass/a.png")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colours_are_labels_by_cvats_label_map(tmp_path: Path, mode: str) -> None:
    colored(tmp_path, (9, 9, 9), (200, 0, 0), (224, 224, 192), (0, 0, 7), mode=mode)
    (tmp_path / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:9,9,9::\nleaf:200,0,0::\n\n__ignore__:0,0,7::\nno color:::\n"
    )
    assert voc.classes(tmp_path, HERE) == ("leaf", "no color")
    (record,), _ = read(tmp_path)
    admission = admit(record, voc.classes(tmp_path, HERE))
    assert admission.record is not None
    labels = np.asarray(Image.open(io.BytesIO(admission.record.semantic_mask)))
    assert labels[0, :5].tolist() == [0, 1, 255, 255, 0]
    assert admission.labels["pixel", 1] == labels.shape[0]
    assert ("pixel", 255) not in admission.labels


def test_colours_that_no_one_explains_are_refused(tmp_path: Path) -> None:
    colored(tmp_path, (1, 2, 3))
    (tmp_path / "class_names.txt").write_text("leaf\n")
    (record,), _ = read(tmp_path)
    assert [p.reason for p in admit(record, ("leaf",)).problems] == ["mask_not_indexed"]
    (tmp_path / "labelmap.txt").write_text("leaf:200,0,0::\n")
    (record,), _ = read(tmp_path)
    (problem,) = admit(record, ("leaf",)).problems
    assert (problem.reason, problem.detail) == ("mask_unknown_color", "1 colours, such as [(1, 2, 3)]")


@pytest.mark.parametrize("text", ["leaf\n", "leaf:1,2\n", "leaf:1,2,300::\n", "a:1,2,3::\nb:1,2,3::\n", "a:::\na:::\n"])
def test_broken_label_maps_stop(tmp_path: Path, text: str) -> None:
    add(tmp_path, "a", xml=False)
    (tmp_path / "labelmap.txt").write_text(text)
    with pytest.raises(DataError, match=r"labelmap\.txt, line"):
        voc.classes(tmp_path, HERE)


def test_mask_values_say_what_the_values_stand_for(tmp_path: Path) -> None:
    add(tmp_path, "a", labels=marks(0, 255, 7), xml=False)
    config = voc.Config(folders=(".",), mask_values={"background": 0, "cell": 255, "ignore": (7, 8)})
    assert voc.classes(tmp_path, config) == ("cell",)
    (record,), _ = read(tmp_path, "train", config)
    assert record.label_map == {0: 0, 255: 1, 7: 255, 8: 255}
    assert admit(record, ("cell",)).labels["pixel", 1] > 0
    with pytest.raises(ConfigError, match="each value once"):
        voc.Config(mask_values={"a": 1, "b": (1, 2)})
    (tmp_path / "class_names.txt").write_text("leaf\n")
    with pytest.raises(ConfigError, match="unknown classes"):
        read(tmp_path, "train", config)


def test_masks_without_any_names_stop(tmp_path: Path) -> None:
    add(tmp_path, "a", labels=marks(1), xml=False)
    with pytest.raises(ConfigError, match="no class list"):
        voc.classes(tmp_path, HERE)


@pytest.mark.parametrize("text", ["", "a\na\n"])
def test_bad_class_files_stop(tmp_path: Path, text: str) -> None:
    add(tmp_path, "a", thing())
    (tmp_path / "class_names.txt").write_text(text)
    with pytest.raises(ConfigError, match="class list"):
        voc.classes(tmp_path, HERE)


def test_configuration_mistakes(tmp_path: Path) -> None:
    bad: list[dict[str, Any]] = [{"folders": ()}, {"classes": ("a", "a")}]
    for fields in bad:
        with pytest.raises(ConfigError):
            voc.Config(**fields)
    with pytest.raises(DataError, match="JPEGImages"):
        read(tmp_path)
