"""COCO scorers: official numbers from official files, and what the official code takes without a word."""

import json
import re

import numpy as np
import pytest

from contracts.errors import DataError
from pipeline.measuring.scorers import Inputs, coco_boxes, coco_masks
from tests.golden_coco import BOX, SEGM


@pytest.mark.parametrize(("scorer", "kind", "expected"), [(coco_boxes, "bbox", BOX), (coco_masks, "segm", SEGM)])
def test_official_files_give_the_official_numbers(shared_dir, scorer, kind, expected):
    folder = shared_dir / "golden/coco_bbox_segm_val2014_100"
    scores = scorer.score(
        Inputs(
            truth=folder / "instances_val2014_100.json",
            predictions=folder / f"instances_val2014_fake{kind}100_results.json",
        )
    )
    np.testing.assert_allclose(list(scores.measurements[0].values.values()), expected, rtol=0, atol=1e-9)
    assert scores.measurements[0].num_items == 100
    per_class = [value["AP"] for value in scores.details["per_class"].values()]
    assert len(per_class) == 80 and np.nanmean(per_class) == pytest.approx(expected[0], abs=1e-9)


def test_ids_of_zero_and_dict_shaped_results(shared_dir):
    folder = shared_dir / "golden/voc_ap_toy/cats"
    inputs = Inputs(
        truth=folder / "gts_coco_format/toy_example_coco.JSON", predictions=folder / "dets_coco_format/coco_dets.json"
    )
    values = coco_boxes.score(inputs).measurements[0].values
    expected = {"AP": 0.5979231495, "AP50": 0.8902640264, "AP75": 0.5092409241, "AR1": 0.55, "AR10": 0.6583333333}
    assert {name: values[name] for name in expected} == pytest.approx(expected, abs=1e-9)


BOX_A = [10.0, 10.0, 20.0, 20.0]
POLYGON = [[10.0, 10, 30, 10, 30, 30, 10, 30]]
TRUTH = {
    "images": [{"id": 7, "height": 40, "width": 50}, {"id": 8, "height": 40, "width": 50}],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    "annotations": [
        {"id": 0, "image_id": 7, "category_id": 1, "bbox": BOX_A, "area": 400.0, "segmentation": POLYGON},
        {"id": 0, "image_id": 8, "category_id": 1, "bbox": BOX_A, "area": 400.0, "segmentation": POLYGON, "iscrowd": 0},
    ],
}
FOUND = [{"image_id": i, "category_id": 1, "bbox": BOX_A, "score": 0.5, "segmentation": POLYGON} for i in (7, 8)]


def scored(tmp_path, truth, found, scorer=coco_boxes):
    for name, document in (("truth.json", truth), ("found.json", found)):
        (tmp_path / name).write_text(json.dumps(document))
    return scorer.score(Inputs(truth=tmp_path / "truth.json", predictions=tmp_path / "found.json"))


@pytest.mark.parametrize("scorer", [coco_boxes, coco_masks])
def test_repeated_annotation_ids_of_zero_do_no_harm(tmp_path, scorer):
    values = scored(tmp_path, TRUTH, FOUND, scorer).measurements[0].values  # pycocotools: 0.2525
    assert values["AP"] == pytest.approx(1) and values["AR100"] == 1


@pytest.mark.parametrize("scorer", [coco_boxes, coco_masks])
def test_no_results_score_zero_and_say_so(tmp_path, scorer):
    for nothing in ([], {"annotations": []}):
        scores = scored(tmp_path, TRUTH, nothing, scorer)
        assert scores.measurements[0].values["AP"] == 0 and "no detection" in scores.notes[0]


def test_boxes_are_measured_from_masks_where_there_are_no_boxes(tmp_path):
    found = [{key: value for key, value in item.items() if key != "bbox"} for item in FOUND]
    assert scored(tmp_path, TRUTH, found).measurements[0].values["AP75"] == pytest.approx(1)


def changed(document, path, value):
    """A deep copy with one value replaced, or removed (`...`)."""
    copy = json.loads(json.dumps(document))
    *parents, last = path
    target = copy
    for key in parents:
        target = target[key]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return copy


RLE = {"size": [40, 50], "counts": [100, 20, 1880]}


@pytest.mark.parametrize(
    ("truth", "found", "message"),
    [
        ((), ((1, "image_id"), 99), r"image that the truth does not have: 99.*found\.json: \[1\], image_id 99"),
        ((), ((1, "image_id"), "x7"), r"does not have: 'x7'"),
        ((), ((1, "category_id"), 9), r"category_id' has a wrong value: 9.*\[1\], image_id 8.*categories: 1, 2"),
        ((), ((0, "category_id"), "cat"), r"'category_id' has a wrong value: 'cat'.*image_id 7"),
        ((), ((1, "score"), ...), r"'score' is missing.*image_id 8"),
        ((), ((1, "score"), "high"), r"'score' has a wrong value: 'high'"),
        ((), ((0, "bbox"), [1, 2, 3]), r"'bbox' has a wrong value: \[1, 2, 3\].*image_id 7"),
        ((), ((1, "bbox"), [1, 2, "3 px", 4]), r"'bbox' has a wrong value.*four numbers"),
        ((), ((1, "bbox"), [1, 2, -3, 4]), r"invalid box.*entry 2 \(image 8\).*not negative"),
        (((("annotations", 0, "area"), ...)), (), r"'area' is missing.*annotations\[0\], id 0"),
        ((("annotations", 1, "image_id"), 3), (), r"does not have: 3.*truth\.json: annotations\[1\]"),
        ((("images", 1, "id"), 7), (), r"duplicate id: 7.*images\[0\].*images\[1\]"),
        ((("images", 1, "id"), "x8"), (), r"does not have: 8"),
        ((("categories", 1, "id"), 1), (), r"two categories with one id: \['cat', 'dog'\].*id 1"),
        ((("annotations", 0, "segments_info"), []), (), r"panoptic file.*annotations\[0\]"),
        ((("images",), ...), (), r"'images' is missing.*truth\.json"),
    ],
)  # fmt: skip
def test_bad_files_are_refused_with_file_and_id(tmp_path, truth, found, message):
    with pytest.raises(DataError, match=f"(?s){message}"):
        scored(tmp_path, changed(TRUTH, *truth) if truth else TRUTH, changed(FOUND, *found) if found else FOUND)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"size": [40, 50], "counts": [5, 5]}, "must add up"),  # pycocotools reads memory that is not the mask's
        ({"size": [40, 50], "counts": "c26"}, "must add up"),
        ({"size": [50, 40], "counts": [100, 20, 1880]}, "must have the size of its image"),
        ([[10.0, 10, 1e9, 10, 30, 30]], "leave the image"),  # it crashes
        ([[10.0, 10, 30, 30]], "no empty one"),  # it takes it for a box
        (7, "list of polygons or a run-length"),
        ([], "no empty one"),
    ],
)
@pytest.mark.parametrize("where", ["truth", "found"])
def test_bad_masks_are_refused_with_file_and_id(tmp_path, segmentation, message, where):
    truth, found = TRUTH, FOUND
    if where == "truth":
        truth, place = changed(TRUTH, ("annotations", 1, "segmentation"), segmentation), "truth.json: annotations[1]"
    else:
        found, place = changed(FOUND, (1, "segmentation"), segmentation), "found.json: [1], image_id 8"
    with pytest.raises(DataError, match=f"(?s){message}.*{re.escape(place)}|{re.escape(place)}.*{message}"):
        scored(tmp_path, truth, found, coco_masks)


@pytest.mark.parametrize("scorer", [coco_boxes, coco_masks])
def test_what_the_data_stage_reads_is_scored(tmp_path, scorer):
    """Ids and numbers as text on either side, flat polygons, missing boxes, repeated categories."""
    truth = json.loads(json.dumps(TRUTH))
    truth["images"][1] = {"id": "8", "height": "40", "width": 50}
    truth["categories"] = [{"id": "c-1", "name": "cat"}, {"id": "2", "name": "dog"}] * 2
    for item in truth["annotations"]:
        item |= {"id": "x", "category_id": "c-1", "area": "400", "iscrowd": "0", "segmentation": POLYGON[0]}
    truth["annotations"][0] |= {"image_id": "7", "segmentation": [*POLYGON, [3, 3]]}
    del truth["annotations"][0]["bbox"]
    found = [{**FOUND[0], "category_id": "c-1", "score": "0.5"}, {**FOUND[1], "category_id": "c-1", "image_id": 8}]
    scores = scored(tmp_path, truth, found, scorer)
    assert scores.measurements[0].values["AP"] == pytest.approx(1)
    assert list(scores.details["per_class"]) == ["dog", "cat"]  # "2" is a number, and goes first
    told = "; ".join(scores.notes)
    rules = {"image_id_type", "number_from_text"}
    rules |= {"box_from_mask"} if scorer is coco_boxes else {"polygon_nested", "polygon_part_dropped"}
    assert all(rule in told for rule in rules)
    crowded = changed(truth, ("annotations", 0, "iscrowd"), "1")
    assert scored(tmp_path, crowded, found[:1], scorer).measurements[0].values["AP"] == 0  # only image 8 is left


def test_run_lengths_of_either_kind(tmp_path):
    truth = changed(TRUTH, ("annotations", 1, "segmentation"), RLE)
    found = changed(FOUND, (1, "segmentation"), RLE)
    assert scored(tmp_path, truth, found, coco_masks).measurements[0].values["AP"] == pytest.approx(1)


def test_results_with_other_categories_are_refused(tmp_path):
    document = {"annotations": FOUND, "categories": [{"id": 1, "name": "dog"}]}
    with pytest.raises(DataError, match=r"(?s)another name in the results than in the truth: 'dog'.*found\.json.*cat"):
        scored(tmp_path, TRUTH, document)
