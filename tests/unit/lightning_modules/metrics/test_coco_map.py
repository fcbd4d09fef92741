"""COCO AP and AR against the official numbers, pycocotools on random input, and what it gets wrong on odd input."""

import contextlib
import io
import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from contracts.errors import DataError
from lightning_modules.metrics.coco_map import STAT_NAMES, CocoDetections, CocoEvaluation, CocoTruth
from lightning_modules.ops.masks import encode_masks, fill_boxes
from tests.golden_coco import BOX, SEGM

SIZE = (120, 160)


def truth_of(images, annotations, categories, masks=False):
    return CocoTruth(
        sizes=images,
        categories=categories,
        image_ids=[a["image_id"] for a in annotations],
        category_ids=np.array([a["category_id"] for a in annotations], np.int64),
        boxes=np.array([a["bbox"] for a in annotations], float),
        areas=np.array([a["area"] for a in annotations], float),
        is_crowd=np.array([a["iscrowd"] for a in annotations], bool),
        masks=[a["segmentation"] for a in annotations] if masks else None,
    )


def found_of(results):
    def column(name):
        return [r[name] for r in results] if results and name in results[0] else None

    return CocoDetections(
        image_ids=column("image_id") or [],
        category_ids=np.array(column("category_id") or [], np.int64),
        scores=np.array(column("score") or [], float),
        boxes=np.array(column("bbox") or np.zeros((0, 4)), float) if not column("segmentation") else None,
        masks=column("segmentation"),
    )


@pytest.mark.parametrize(("iou_type", "expected"), [("bbox", BOX), ("segm", SEGM)])
def test_equals_the_official_numbers(shared_dir, iou_type, expected):
    folder = shared_dir / "golden/coco_bbox_segm_val2014_100"
    document = json.loads((folder / "instances_val2014_100.json").read_text())
    results = json.loads((folder / f"instances_val2014_fake{iou_type}100_results.json").read_text())
    images = {i["id"]: (i["height"], i["width"]) for i in document["images"]}
    categories = {c["id"]: c["name"] for c in document["categories"]}
    truth = truth_of(images, document["annotations"], categories, masks=True)
    evaluation = CocoEvaluation(truth, found_of(results), iou_type)
    np.testing.assert_allclose(list(evaluation.stats.values()), expected, rtol=0, atol=1e-9)
    assert np.nanmean(list(evaluation.class_ap().values())) == pytest.approx(expected[0], abs=1e-9)
    ones = evaluation.measure().resample(np.ones((1, 100), np.int64))
    np.testing.assert_allclose([ones[name][0] for name in STAT_NAMES], expected, rtol=0, atol=1e-12)
    assert evaluation.errors()["Miss"] > 0


def random_case(seed, num_images=12, ids=range(1, 100)):
    """Objects of all sizes with crowds, detections that are moved, doubled, of the wrong class or of nothing."""
    rng = np.random.default_rng(seed)
    images = {int(ids[i]): SIZE for i in range(num_images)}
    annotations, results = [], []

    def box():
        side = rng.choice([8, 40, 100])
        w, h = rng.uniform(side / 2, side, 2)
        return [rng.uniform(0, SIZE[1] - w), rng.uniform(0, SIZE[0] - h), w, h]

    for image in images:
        for _ in range(rng.integers(0, 7)):
            b, category = box(), int(rng.integers(1, 4))
            area = b[2] * b[3] * rng.uniform(0.5, 1)
            crowd = int(rng.random() < 0.15)
            annotations.append({"image_id": image, "category_id": category, "bbox": b, "area": area, "iscrowd": crowd})
            for _ in range(rng.integers(0, 3)):
                moved = (np.array(b) + rng.normal(0, 2, 4) * rng.integers(0, 2)).clip(0.5).tolist()
                other = category if rng.random() < 0.8 else int(rng.integers(1, 4))
                results.append({"image_id": image, "category_id": other, "bbox": moved, "score": rng.random()})
        for _ in range(rng.integers(0, 14)):
            results.append({"image_id": image, "category_id": 1, "bbox": box(), "score": rng.random() / 2})
    return images, annotations, results


def official(images, annotations, results, iou_type="bbox"):
    """pycocotools on the same input; -1 (nothing to measure) as NaN."""
    coco = COCO()
    coco.dataset = {
        "images": [{"id": k, "height": h, "width": w} for k, (h, w) in images.items()],
        "annotations": [{**a, "id": i} for i, a in enumerate(annotations, 1)],
        "categories": [{"id": c, "name": str(c)} for c in (1, 2, 3)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes([dict(r) for r in results]), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return np.where(evaluation.stats < 0, np.nan, evaluation.stats)


CATEGORIES = {1: "1", 2: "2", 3: "3"}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0.11 with numpy 2
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_equals_pycocotools_on_random_input(seed, iou_type):
    images, annotations, results = random_case(seed)
    if iou_type == "segm":
        with_masks(annotations, results)
    evaluation = CocoEvaluation(
        truth_of(images, annotations, CATEGORIES, masks=iou_type == "segm"), found_of(results), iou_type
    )
    expected = official(images, annotations, results, iou_type)
    np.testing.assert_allclose(list(evaluation.stats.values()), expected, rtol=0, atol=1e-9)


def with_masks(*parts):
    """Each box's filled mask in its place, or beside it for the truth."""
    for items in parts:
        for item in items:
            x, y, w, h = item["bbox"]
            mask = encode_masks(fill_boxes(np.array([[x, y, x + w, y + h]]), SIZE))[0]
            item["segmentation"] = {"size": list(SIZE), "counts": mask}
    for result in parts[-1]:
        del result["bbox"]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0.11 with numpy 2
@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(4))
def test_a_resample_is_the_evaluation_of_the_images_it_draws(seed, iou_type):
    images, annotations, results = random_case(seed)
    if iou_type == "segm":
        with_masks(annotations, results)
    weights = np.random.default_rng(seed).multinomial(len(images), np.full(len(images), 1 / len(images)), size=3)
    truth = truth_of(images, annotations, CATEGORIES, masks=iou_type == "segm")
    measured = CocoEvaluation(truth, found_of(results), iou_type).measure("box_")
    drawn = measured.resample(weights)
    for b, row in enumerate(weights):
        copies = [(image, copy) for image, count in zip(images, row, strict=True) for copy in range(count)]
        repeated = [
            [{**a, "image_id": n} for n, (image, _) in enumerate(copies, 1) for a in own if a["image_id"] == image]
            for own in (annotations, results)
        ]
        expected = official(dict.fromkeys(range(1, len(copies) + 1), SIZE), *repeated, iou_type)
        ours = [drawn["box_" + name][b] for name in STAT_NAMES]
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-9)


def crowded_case(num_images, *, per_image=100, num_categories=20):
    """Seven objects of all sizes an image, crowds among them, and detections near them, of their category or not."""
    rng = np.random.default_rng(num_images)
    number, count = num_images * 7, num_images * per_image
    sides = np.exp(rng.uniform(2, 5.5, (number, 2)))
    boxes = np.concatenate([rng.uniform(0, 400, (number, 2)), sides], axis=1)
    categories = rng.integers(1, num_categories + 1, number)
    truth = CocoTruth(
        sizes=dict.fromkeys(range(num_images), (480, 640)),
        categories={c: str(c) for c in range(1, num_categories + 1)},
        image_ids=np.repeat(np.arange(num_images), 7).tolist(),
        category_ids=categories,
        boxes=boxes,
        areas=sides.prod(axis=1) * 0.7,
        is_crowd=rng.random(number) < 0.03,
    )
    images = np.repeat(np.arange(num_images), per_image)
    near = images * 7 + rng.integers(0, 7, count)
    moved = boxes[near] + rng.normal(size=(count, 4)) * sides[near].mean(axis=1, keepdims=True) * rng.choice(
        [0.05, 0.2, 2.0], (count, 1)
    )
    moved[:, 2:] = moved[:, 2:].clip(1)
    found = CocoDetections(
        image_ids=images.tolist(),
        category_ids=np.where(rng.random(count) < 0.7, categories[near], rng.integers(1, num_categories + 1, count)),
        scores=rng.random(count).round(2),  # many are equal
        boxes=moved,
    )
    return truth, found


@pytest.mark.parametrize("one_category", [False, True])
def test_resampling_a_crowded_split_once_gives_its_own_numbers(one_category):
    """With one category there are more than 100 detections of it in an image, the last of which do not count."""
    truth, found = crowded_case(40, per_image=150)
    if one_category:
        ones = [np.ones_like(part.category_ids) for part in (truth, found)]
        truth, found = replace(truth, categories={1: "1"}, category_ids=ones[0]), replace(found, category_ids=ones[1])
    evaluation = CocoEvaluation(truth, found, "bbox")
    drawn = evaluation.measure().resample(np.ones((1, 40)))
    np.testing.assert_allclose([drawn[n][0] for n in STAT_NAMES], list(evaluation.stats.values()), rtol=0, atol=1e-12)


def test_matches_are_taken_from_hotcoco_in_small_portions():
    """Walked as a whole, its dicts take 1 MB an image."""
    evaluation = CocoEvaluation(*crowded_case(200), "bbox")
    evaluation.stats  # noqa: B018  what hotcoco itself needs is not counted
    tracemalloc.start()
    evaluation.measure().resample(np.ones((2, 200)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e3 * 200


@settings(max_examples=25)
@given(st.integers(0, 1000), st.randoms(use_true_random=False))
def test_neither_ids_nor_the_order_of_images_change_the_numbers(seed, random):
    images, annotations, results = random_case(seed, num_images=5)
    base = CocoEvaluation(truth_of(images, annotations, CATEGORIES), found_of(results), "bbox").stats
    order = list(images)
    random.shuffle(order)
    renamed = {old: f"k{new:03}" for new, old in enumerate(order)}
    moved = [[{**i, "image_id": renamed[i["image_id"]]} for i in items] for items in (annotations, results)]
    sizes = {renamed[k]: v for k, v in images.items()}
    again = CocoEvaluation(truth_of(sizes, moved[0], CATEGORIES), found_of(moved[1]), "bbox").stats
    np.testing.assert_allclose(list(again.values()), list(base.values()), rtol=0, atol=1e-12)


@settings(max_examples=25)
@given(st.integers(0, 1000))
def test_a_right_detection_never_lowers_recall_nor_a_wrong_last_one_raises_ap(seed):
    images, annotations, results = random_case(seed, num_images=4)
    objects = [a for a in annotations if not a["iscrowd"]]
    if not objects:
        return
    truth = truth_of(images, annotations, CATEGORIES)
    base = CocoEvaluation(truth, found_of(results), "bbox").stats
    right = {"image_id": objects[0]["image_id"], "category_id": objects[0]["category_id"], "bbox": objects[0]["bbox"]}
    better = CocoEvaluation(truth, found_of([*results, {**right, "score": 2.0}]), "bbox").stats
    assert better["AR100"] >= base["AR100"] - 1e-12
    wrong = {"image_id": objects[0]["image_id"], "category_id": 1, "bbox": [150.0, 110.0, 0.5, 0.5], "score": -1.0}
    worse = CocoEvaluation(truth, found_of([*results, wrong]), "bbox").stats
    assert worse["AP"] <= base["AP"] + 1e-12


def perfect(num_images: int = 3, area: float = 400.0):
    images = {f"k{i}": (50, 50) for i in range(num_images)}
    annotations = [
        {"image_id": k, "category_id": 1, "bbox": [5.0, 5.0, 20.0, 20.0], "area": area, "iscrowd": 0} for k in images
    ]
    results = [{"image_id": k, "category_id": 1, "bbox": [5.0, 5.0, 20.0, 20.0], "score": 0.9} for k in images]
    return images, annotations, results


def evaluate(images, annotations, results, categories=None):
    return CocoEvaluation(truth_of(images, annotations, categories or {1: "a"}), found_of(results), "bbox")


def test_perfect_detections_score_one():
    stats = evaluate(*perfect(), {1: "a", 2: "b"}).stats
    assert stats["AP"] == stats["AP50"] == stats["AR100"] == pytest.approx(1.0)
    assert np.isnan(stats["APl"])  # no object of that size


def test_an_image_without_detections_counts():
    images, annotations, results = perfect(4)
    assert evaluate(images, annotations, results[:2]).stats["AR100"] == pytest.approx(0.5)


def test_no_detections_at_all_score_zero():
    images, annotations, _ = perfect()
    evaluation = evaluate(images, annotations, [])
    assert evaluation.stats["AP"] == evaluation.stats["AR1"] == evaluation.stats["APs"] == 0.0
    assert np.isnan(evaluation.stats["APm"])  # as when something was detected
    assert evaluation.class_ap() == {1: 0.0}
    assert len(evaluation.pr_points(1)[0]) == 0
    assert evaluation.measure().resample is None and set(evaluation.errors().values()) == {0.0}


def test_no_objects_at_all():
    images, annotations, results = perfect()
    assert evaluate(images, [], results).stats["AP"] == 0.0
    crowd = [{**a, "iscrowd": 1} for a in annotations]
    assert evaluate(images, crowd, results).stats["AP"] == 0.0


def test_errors_tell_the_kinds_apart():
    images = {f"k{i}": (100, 100) for i in range(6)}
    box = [10.0, 10.0, 40.0, 40.0]
    annotations = [{"image_id": k, "category_id": 1, "bbox": box, "area": 1600.0, "iscrowd": 0} for k in images]
    found = {"image_id": "k0", "category_id": 1, "bbox": box, "score": 0.9}
    poor = {**found, "image_id": "k1", "bbox": [30.0, 10.0, 40.0, 40.0], "score": 0.95}
    errors = evaluate(images, annotations, [found, poor], {1: "a", 2: "b"}).errors()
    assert errors["Loc"] > 0 and errors["Miss"] > 0 and errors["Dupe"] == errors["Cls"] == 0
    doubled = evaluate(images, annotations, [found, {**found, "score": 0.8}, {**found, "image_id": "k1", "score": 0.7}])
    assert doubled.errors()["Dupe"] > 0 and doubled.errors()["Loc"] == 0


def test_bad_input_says_what_and_where():
    images, annotations, results = perfect()
    truth, found = truth_of(images, annotations, {1: "a"}), found_of(results)
    with pytest.raises(DataError, match=r"(?s)image that the annotations do not have: 'x'.*entry 2"):
        CocoEvaluation(truth, replace(found, image_ids=["k0", "x", "k2"]), "bbox")
    with pytest.raises(DataError, match=r"(?s)category.*: 9.*entry 3 \(image 'k2'\)"):
        CocoEvaluation(truth, replace(found, category_ids=np.array([1, 1, 9])), "bbox")
    boxes = np.array([[0, 0, 1, 1], [0, 0, -1, 2], [0, 0, 0, 0]])
    for values in ({"scores": np.array([0.1, np.nan, 0.2])}, {"boxes": boxes}):
        with pytest.raises(DataError, match=r"(?s)invalid (box|score).*entry 2 \(image 'k1'\)"):
            CocoEvaluation(truth, replace(found, **values), "bbox")
    with pytest.raises(DataError, match=r"(?s)invalid area.*the annotations, entry 1"):
        CocoEvaluation(replace(truth, areas=np.array([np.inf, 1, 1])), found, "bbox")
