"""`pipeline.measuring.score voc-boxes` on folders built from the official kit's golden cases, and on broken ones."""

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.measuring import score
from pipeline.measuring.scorers import Inputs
from tests.command import sightline

XML = "<annotation>{}</annotation>"
OBJECT = (
    "<object><name>{}</name><difficult>{}</difficult><part><bndbox><xmin>x</xmin></bndbox></part>"
    "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
)


def write_truth(folder: Path, images, objects) -> Path:
    """A VOC folder: objects are (image, class, xmin, ymin, xmax, ymax, difficult)."""
    (folder / "Annotations").mkdir(parents=True)
    for image in images:
        rows = [OBJECT.format(name, difficult, *box) for key, name, *box, difficult in objects if key == image]
        (folder / "Annotations" / f"{image}.xml").write_text(XML.format("".join(rows)))
    return folder


def write_found(folder: Path, rows, prefix: str = "comp3_det_val_") -> Path:
    """Text files: rows are (image, class, score, xmin, ymin, xmax, ymax)."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in {row[1] for row in rows}:
        lines = [" ".join(map(repr, row[2:])) for row in rows if row[1] == name]
        images = [row[0] for row in rows if row[1] == name]
        text = "".join(f"{image} {line}\n" for image, line in zip(images, lines, strict=True))
        (folder / f"{prefix}{name}.txt").write_text(text)
    return folder


def scored(capsys, truth: Path, predictions: Path, *more: str) -> dict:
    assert sightline("score", ["voc-boxes", "--truth", str(truth), "--predictions", str(predictions), *more]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("flag", ["Unspecified", "", "0", "false"])
def test_names_with_blanks_and_flags_that_nobody_set(tmp_path, capsys, flag) -> None:
    objects = [("cup (1)", "cat", 1, 1, 9, 9, flag), ("cup (1) 1", "cat", 1, 1, 9, 9, "true")]
    truth = write_truth(tmp_path / "t", ["cup (1)", "cup (1) 1", "other"], objects)
    (truth / "ImageSets/Main").mkdir(parents=True)
    (truth / "ImageSets/Main/val.txt").write_text("cup (1)  1\ncup (1) 1\n")
    (truth / "Annotations/._other.xml").write_bytes(b"\0")
    document = scored(capsys, truth, write_found(tmp_path / "f", [("cup (1)", "cat", 0.9, 1, 1, 9, 9)]))
    assert document["mAP_2010"] == 1
    assert (document["num_items"], document["per_class"]["cat"]["num_objects"]) == (2, 1)


@pytest.mark.parametrize(("name", "iou"), [("synth", 0.5), ("padilla", 0.3), ("padilla", 0.5), ("padilla", 0.75)])
def test_equals_the_official_kit(shared_dir, tmp_path, capsys, name, iou) -> None:
    folder = shared_dir / "golden/official/voc"
    case = json.loads((folder / f"{name}.json").read_text())
    rows = [row for row in json.loads((folder / "expected.json").read_text())["results"] if row["set"] == name]
    expected = {row["class"]: row for row in rows if row["iou"] == iou}
    truth = write_truth(tmp_path / "VOC2012", case["images"], case["gt"])
    document = scored(capsys, truth, write_found(tmp_path / "found", case["dt"]), "--iou", str(iou))
    assert f"IoU >= {iou:g} " in document["variant"]
    assert document["per_class"].keys() == expected.keys() and len(expected) >= 1
    for category, row in expected.items():
        ours = document["per_class"][category]
        assert ours["num_detections"] == row["detections"]
        if row["ap_allpoint_voc2010"] is None:  # 0 / 0 in the kit: nothing to find
            assert (ours["AP_2007"], ours["AP_2010"], ours["num_objects"]) == (None, None, 0)
            continue
        assert ours["AP_2007"] == pytest.approx(row["ap_11point_voc2007"], abs=1e-12)
        assert ours["AP_2010"] == pytest.approx(row["ap_allpoint_voc2010"], abs=1e-12)
    measured = [row for row in expected.values() if row["ap_allpoint_voc2010"] is not None]
    assert document["mAP_2007"] == pytest.approx(np.mean([row["ap_11point_voc2007"] for row in measured]), abs=1e-12)
    assert document["mAP_2010"] == pytest.approx(np.mean([row["ap_allpoint_voc2010"] for row in measured]), abs=1e-12)
    assert (document["num_items"], document["unit"]) == (len(case["images"]), "images")
    as_json = [
        {"image_id": image, "class": category, "score": value, "bbox": box}
        for image, category, value, *box in case["dt"]
    ]
    (tmp_path / "found.json").write_text(json.dumps(as_json))
    assert scored(capsys, truth, tmp_path / "found.json", "--iou", str(iou)) == document


def test_equals_the_published_cats(shared_dir, tmp_path, capsys) -> None:
    folder = shared_dir / "golden/voc_ap_toy/cats"
    found = []
    for path in sorted((folder / "dets_classname_abs_xywh").glob("*.txt")):
        for line in path.read_text().splitlines():
            name, value, x, y, w, h = line.split()
            # The published number takes x + w for the last pixel, as for the XML's xmax.
            found.append((path.stem, name, float(value), int(x), int(y), int(x) + int(w), int(y) + int(h)))
    document = scored(
        capsys, folder / "gts_vocpascal_format", write_found(tmp_path / "found", found), "--bootstrap", "50"
    )
    assert document["mAP_2007"] == pytest.approx(0.8863636363636364, abs=1e-12)
    assert document["mAP_2010"] == pytest.approx(0.8958333333333334, abs=1e-12)
    assert (document["per_class"]["cat"]["num_objects"], document["num_items"]) == (12, 10)
    for name, (low, high) in document["intervals"].items():
        assert low <= document[name] <= high and low < high


def test_equal_scores_keep_the_order_of_the_file(tmp_path, capsys) -> None:
    truth = write_truth(tmp_path / "t", ["a", "b"], [("a", "cat", 1, 1, 10, 10, 0)])
    right, wrong = ("a", "cat", 0.5, 1, 1, 10, 10), ("b", "cat", 0.5, 1, 1, 10, 10)
    first = scored(capsys, truth, write_found(tmp_path / "f1", [right, wrong]))
    second = scored(capsys, truth, write_found(tmp_path / "f2", [wrong, right]))
    assert (first["mAP_2010"], second["mAP_2010"]) == (1.0, 0.5)


def test_absent_classes_and_missing_files(tmp_path, capsys) -> None:
    objects = [("a", "cat", 1, 1, 10, 10, 0), ("a", "dog", 1, 1, 10, 10, 0)]
    truth = write_truth(tmp_path / "t", ["a"], objects)
    found = write_found(tmp_path / "f", [("a", "cat", 0.5, 1, 1, 10, 10), ("a", "cow", 0.5, 1, 1, 10, 10)])
    arguments = ["voc-boxes", "--truth", str(truth), "--predictions", str(found)]
    assert sightline("score", arguments) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert document["per_class"] == {
        "cat": {"AP_2007": 1.0, "AP_2010": 1.0, "num_objects": 1, "num_detections": 1},
        "cow": {"AP_2007": None, "AP_2010": None, "num_objects": 0, "num_detections": 1},
        "dog": {"AP_2007": 0.0, "AP_2010": 0.0, "num_objects": 1, "num_detections": 0},
    }
    assert document["mAP_2010"] == 0.5
    assert "class 'cow': the truth has no such object" in err
    assert "class 'dog': the predictions have no such detection" in err


def test_the_set_of_the_file_names_restricts_the_images(tmp_path, capsys) -> None:
    objects = [(image, "traffic_light", 1, 1, 10, 10, 0) for image in "abc"]
    truth = write_truth(tmp_path / "t", "abc", objects)
    rows = [("b", "traffic_light", 0.5, 1, 1, 10, 10)]
    assert scored(capsys, truth, write_found(tmp_path / "f", rows))["per_class"]["traffic_light"]["num_objects"] == 3
    (truth / "ImageSets" / "Main").mkdir(parents=True)
    for name, listed in (("val", "b\n"), ("mini_val", "b  1\nc -1\n")):
        (truth / "ImageSets" / "Main" / f"{name}.txt").write_text(listed)
        document = scored(capsys, truth, write_found(tmp_path / name, rows, f"comp4_det_{name}_"))
        assert document["per_class"].keys() == {"traffic_light"}
        assert (
            document["num_items"]
            == document["per_class"]["traffic_light"]["num_objects"]
            == len(listed.split("\n")) - 1
        )


BOX = "<bndbox><xmin>{}</xmin><ymin>1</ymin><xmax>{}</xmax><ymax>5</ymax></bndbox>"
CAT = "f/comp3_det_val_cat.txt"


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        (CAT, "a 0.5 1 1 10 10\nz 0.5 1 1 10 10\n", [f"{CAT}, line 2", "image that the truth does not have: 'z'"]),
        (CAT, "a 0.5 1 1 10\n", [f"{CAT}, line 1", "image_id score xmin ymin xmax ymax"]),
        (CAT, "\na x 1 1 10 10\n", [f"{CAT}, line 2", "a score must be a finite number: 'x'"]),
        (CAT, "a nan 1 1 10 10\n", ["a score must be a finite number: 'nan'"]),
        (CAT, "a 0.5 1 1 inf 10\n", [f"{CAT}, line 1", "invalid box", "inf"]),
        (CAT, "a 0.5 9 1 3 10\n", [f"{CAT}, line 1", "invalid box", "['9', '1', '3', '10']"]),
        (CAT, b"a 0.5 1 1 10 10\n\xff", [f"{CAT}, line 2", "not UTF-8"]),
        ("f/comp4_det_val_cat.txt", "", ["several competitions", "comp3_det_val", "comp4_det_val"]),
        ("f/comp3_det_test_cat.txt", "", ["several competitions", "comp3_det_val", "comp3_det_test"]),
        ("f/comp3_det_cat.txt", "", ["comp3_det_cat.txt", "lacks a part", "comp3_det_<set>_<class>.txt"]),
        ("t/Annotations/a.xml", "<annotation>", ["broken XML", "a.xml"]),
        ("t/Annotations/a.xml", XML.format("<object>" + BOX + "</object>"), ["no name", "a.xml, object 1"]),
        ("t/Annotations/a.xml", XML.format("<object><name>cat</name></object>"), ["invalid box", "a.xml, object 1"]),
        (
            "t/Annotations/a.xml",
            XML.format(f"<object><name>cat</name>{BOX.format(6, 5)}</object>"),
            ["no area", "a.xml, object 1", "xmax >= xmin"],
        ),
        ("t/ImageSets/Main/val.txt", "a\nq\n", ["no XML file: 'q'", "q.xml", "Main"]),
        ("t/ImageSets/Main/val.txt", "\n", ["this set has no image", "val.txt"]),
        ("t/ImageSets/Main/val.txt", "a\na\n", ["listed twice: 'a'", "val.txt"]),
    ],
)
def test_bad_files(tmp_path, capsys, file, content, said) -> None:
    write_truth(tmp_path / "t", ["a"], [("a", "cat", 1, 1, 10, 10, 0)])
    write_found(tmp_path / "f", [("a", "cat", 0.5, 1, 1, 10, 10)])
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert sightline("score", ["voc-boxes", "--truth", str(tmp_path / "t"), "--predictions", str(tmp_path / "f")]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("DataError: ")
    assert all(text in err for text in said), err


GOOD = {"image_id": "a", "category": "cat", "score": 0.5, "bbox": [1, 1, 10, 10]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image_id": "z"}, ["[1], image_id 'z'", "image that the truth does not have"]),
        ({"category": None}, ["'category' has a wrong value: None"]),
        ({"label": "dog"}, ["'category' has a wrong value", "under one of category, class, label"]),
        ({"score": None}, ["'score' has a wrong value: None", "finite number"]),
        ({"bbox": [1, 2, 3]}, ["'bbox' has a wrong value: [1, 2, 3]", "[xmin, ymin, xmax, ymax]"]),
        ({"bbox": [1, 2, 3, None]}, ["invalid box", "[1], image_id 'a'"]),
        ({"bbox": [1, 2, 3, "4"]}, ["'bbox' has a wrong value"]),
        ({"image_id": ...}, ["'image_id' is missing", "[1]"]),
        ({"category": ...}, ["'category' is missing", "[1], image_id 'a'"]),
        ({"score": ...}, ["'score' is missing"]),
        ({"bbox": ...}, ["'bbox' is missing"]),
    ],
)
def test_bad_json(tmp_path, capsys, change, said) -> None:
    write_truth(tmp_path / "t", ["a"], [("a", "cat", 1, 1, 10, 10, 0)])
    entry = {key: value for key, value in {**GOOD, **change}.items() if value is not ...}
    (tmp_path / "f.json").write_text(json.dumps([GOOD, entry]))
    assert (
        sightline("score", ["voc-boxes", "--truth", str(tmp_path / "t"), "--predictions", str(tmp_path / "f.json")])
        == 2
    )
    err = capsys.readouterr().err
    assert all(text in err for text in ["f.json", *said]), err


def test_folders_without_anything(tmp_path, capsys) -> None:
    (tmp_path / "empty").mkdir()
    truth = write_truth(tmp_path / "t", ["a"], [])
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "readme.txt").touch()
    for truth_path, found, said in (
        (truth, tmp_path / "empty", "no .txt file"),
        (truth, tmp_path / "notes", "no detection file here"),
        (truth, tmp_path / "nosuch", "no such file or folder"),
        (tmp_path, tmp_path / "notes" / "readme.txt", "several data sets: ['t']"),
        (tmp_path / "empty", write_found(tmp_path / "f", [("a", "cat", 0.5, 1, 1, 2, 2)]), "no .xml file"),
    ):
        assert sightline("score", ["voc-boxes", "--truth", str(truth_path), "--predictions", str(found)]) == 2
        assert said in capsys.readouterr().err


boxes = st.tuples(st.integers(1, 30), st.integers(1, 30), st.integers(0, 30), st.integers(0, 30))
numbers = itertools.count()


@settings(max_examples=25)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["cat", "dog"]), boxes), min_size=1, max_size=8))
def test_the_truth_itself_is_perfect(tmp_path_factory, rows) -> None:
    rows = list(dict.fromkeys(rows))
    objects = [(image, name, x, y, x + w, y + h, 0) for image, name, (x, y, w, h) in rows]
    folder = tmp_path_factory.getbasetemp() / f"perfect{next(numbers)}"
    truth = write_truth(folder / "t", "abc", objects)
    found = write_found(folder / "f", [(image, name, 1.0, *box) for image, name, *box, _ in objects])
    document = score.score("voc-boxes", Inputs(truth=truth, predictions=found))
    shutil.rmtree(folder)
    assert (document["mAP_2007"], document["mAP_2010"]) == (pytest.approx(1.0), pytest.approx(1.0))
    assert sum(values["num_objects"] for values in document["per_class"].values()) == len(rows)
