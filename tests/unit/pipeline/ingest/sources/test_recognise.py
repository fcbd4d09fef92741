"""Files of other kinds are named, with how they are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.errors import DataError
from pipeline.ingest.sources import OpenSource, coco, joined_splits
from pipeline.ingest.sources._recognise import what_lies_in

CASES = {
    "panoptic": ("p.json", '{"annotations": [{"segments_info": []}]}', "a COCO panoptic file: no source reads it"),
    "roboflow": ("valid/_annotations.coco.json", "{}", "a Roboflow export: .*splits: {val: valid}"),
    "coco": ("a/labels.json", '{"images": [{"file_name": "x"}]}', 'a COCO file: .*instances: "a/labels.json".*split:'),
    "captions": ("c.json", '{"annotations": [{"caption": ""}], "images": []}', 'a COCO file: .*captions: "c.json"'),
    "labelme": ("1.json", '{"shapes": [], "imagePath": "1.jpg"}', "LabelMe's JSON: sources: {labelme"),
    "vqa": ("q.json", '{"questions": [{"question_id": 1}]}', "VQA questions: sources: {vqa"),
    "cvat": ("annotations.xml", '<annotations><image id="0" name="a"/></annotations>', "CVAT's XML: export"),
    "labelimg": (
        "1.xml",
        "<annotation><object><bndbox></bndbox></object></annotation>",
        "Pascal VOC's XML outside its folders: sources",
    ),
    "yolo": ("data.yaml", "train: images\nnc: 2\nnames: [a, b]\n", "YOLO's data.yaml: sources: {yolo: {}}"),
    "yolo labels": ("labels/1.txt", "0 0.5 0.5 0.25 0.25\n1 0.1 .2 0.3 0.4\n", "YOLO's labels"),
    "visual7w": (
        "v7w.json",
        '{"images": [{"qa_pairs": [{"multiple_choices": ["a"]}]}]}',
        "Visual7W's questions: sources",
    ),
    "tars": ("000.tar", "", "WebDataset tars: sources: {webdataset"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_kind_is_told_by_its_content(tmp_path: Path, name: str) -> None:
    file, text, expected = CASES[name]
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(text)
    (tmp_path / f"._{Path(file).name}").write_text(text)
    with pytest.raises(DataError, match=rf"(?s)no split.*what lies there:\n    - {file} looks like {expected}"):
        joined_splits([OpenSource(name="coco", module=coco, root=tmp_path, config=coco.Config())])
    assert len(what_lies_in(tmp_path)) == 1


def test_a_file_that_was_taken_for_coco_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"shapes": [], "imagePath": "1.jpg"}')
    config = coco.Config(instances="a.json", images=".", captions="")
    for step in (coco.classes, lambda root, config: list(coco.read(root, "train", config))):
        with pytest.raises(DataError, match=r"(?s)lists no (categories|images).*looks like LabelMe's JSON"):
            step(tmp_path, config)


def test_pascal_folders_are_told_from_any_file_in_them(tmp_path: Path) -> None:
    for folder in ("JPEGImages", "ImageSets/Main"):
        (tmp_path / "VOC" / folder).mkdir(parents=True)
    (tmp_path / "VOC/ImageSets/Main/train.txt").write_text("000001\n000002\n")
    (line,) = what_lies_in(tmp_path)
    assert "Pascal VOC's folders" in line and 'folders: ["VOC"]' in line


def test_lists_of_names_and_other_texts_are_nothing(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("000000\n000001\n000002\n000003\n000004\n")
    (tmp_path / "README.txt").write_text("5 pictures of cups")
    (tmp_path / "settings.json").write_text("[1, 2]")
    assert what_lies_in(tmp_path) == []
