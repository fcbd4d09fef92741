"""Proposal recall against pycocotools, textbook matching and hand-computed cases."""

import contextlib
import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from contracts.errors import ConfigError, DataError
from lightning_modules.metrics.proposals import measure_proposals
from lightning_modules.ops.boxes import pairwise_ious

SEEDS = st.integers(0, 10_000)


def _boxes(generator, count):
    """Boxes on a small grid: many overlaps and many equal ones."""
    low = generator.integers(0, 8, (count, 2))
    return np.concatenate([low, low + generator.integers(3, 7, (count, 2))], axis=1).astype(np.float64)


def _jittered(generator, boxes, count):
    """Boxes near some of `boxes`, without equal overlaps."""
    picked = boxes[generator.integers(len(boxes), size=count)] if len(boxes) else _boxes(generator, count)
    return picked + generator.uniform(-0.7, 0.7, picked.shape)


def _split(seed, num_images=4):
    generator = np.random.default_rng(seed)
    objects = {f"{i}": _boxes(generator, generator.integers(0, 5)) for i in range(num_images)}
    proposals = {key: _jittered(generator, boxes, generator.integers(0, 12)) for key, boxes in objects.items()}
    labels = {key: generator.integers(0, 3, len(boxes)) for key, boxes in objects.items()}
    return proposals, objects, labels


def _coco_recall(proposals, objects, counts):
    """COCOeval without categories."""
    truth = COCO()
    images = [{"id": i, "width": 20, "height": 20} for i, _ in enumerate(sorted(objects))]
    annotations = [
        {"image_id": i, "category_id": 1, "bbox": [*box[:2], *(box[2:] - box[:2])], "iscrowd": 0, "area": 1.0}
        for i, key in enumerate(sorted(objects))
        for box in objects[key]
    ]
    results = [
        {"image_id": i, "category_id": 1, "bbox": [*box[:2], *(box[2:] - box[:2])], "score": -float(rank)}
        for i, key in enumerate(sorted(objects))
        for rank, box in enumerate(proposals[key])
    ]
    truth.dataset = {
        "images": images,
        "categories": [{"id": 1}],
        "annotations": [{"id": i, **a} for i, a in enumerate(annotations, start=1)],
        "info": {},
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.params.useCats, evaluation.params.maxDets = 0, list(counts)
        evaluation.evaluate()
        evaluation.accumulate()
    return {f"coco_AR@{k}": evaluation.eval["recall"][:, 0, 0, i].mean() for i, k in enumerate(counts)}


def _textbook_matching(ious):
    """Take the greatest entry, cross out its row and column, again."""
    ious, out = ious.copy(), np.zeros(ious.shape[1])
    while ious.size and ious.max() > 0:
        row, column = np.unravel_index(ious.argmax(), ious.shape)
        out[column] = ious[row, column]
        ious[row], ious[:, column] = -1, -1
    return out


@given(SEEDS)
@settings(max_examples=30)
def test_coco_recall_equals_pycocotools(seed):
    proposals, objects, _ = _split(seed)
    if not any(map(len, objects.values())) or not any(map(len, proposals.values())):
        return  # pycocotools fails on either
    values = measure_proposals(proposals, objects, counts=(1, 3, 100)).values
    for name, expected in _coco_recall(proposals, objects, (1, 3, 100)).items():
        assert values[name] == pytest.approx(expected, abs=1e-12)


@given(SEEDS)
@settings(max_examples=50)
def test_recall_and_average_recall_equal_a_textbook_matching(seed):
    proposals, objects, labels = _split(seed)
    for k in (1, 4, 100):
        ious = {key: pairwise_ious(proposals[key][:k], objects[key]) for key in objects}
        matched = np.concatenate([_textbook_matching(ious[key]) for key in sorted(objects)])
        best = np.concatenate([ious[key].max(axis=0, initial=0) for key in sorted(objects)])
        if not len(matched):
            return
        values = measure_proposals(proposals, objects, counts=(k,), labels=labels).values
        assert values[f"recall_50@{k}"] == pytest.approx((matched >= 0.5).mean())
        assert values[f"recall_70@{k}"] == pytest.approx((matched >= 0.7).mean())
        # the integral of the recall over IoU, by a fine sum
        levels = np.linspace(0.5, 1, 2001)
        assert values[f"AR@{k}"] == pytest.approx((matched[None] >= levels[:, None]).mean(), abs=1e-3)
        flat = np.concatenate([labels[key] for key in sorted(objects)])
        assert values[f"MABO@{k}"] == pytest.approx(np.mean([best[flat == c].mean() for c in np.unique(flat)]))
        assert measure_proposals(proposals, objects, counts=(k,)).values[f"ABO@{k}"] == pytest.approx(best.mean())


@given(SEEDS, st.booleans())
@settings(max_examples=60)
def test_resample_is_the_recall_of_the_images_drawn(seed, labelled):
    proposals, objects, labels = _split(seed)
    measured = measure_proposals(proposals, objects, counts=(2, 10), labels=labels if labelled else None)
    times = np.random.default_rng(seed).integers(0, 3, len(objects))
    names = {f"{key}.{copy}": key for key, n in zip(sorted(objects), times, strict=True) for copy in range(n)}
    parts = [{name: part[key] for name, key in names.items()} for part in (proposals, objects, labels)]
    again = measure_proposals(parts[0], parts[1], counts=(2, 10), labels=parts[2] if labelled else None)
    drawn = measured.resample(np.stack([np.ones_like(times), times]))
    assert drawn.keys() == measured.values.keys() == again.values.keys()
    for name, values in drawn.items():
        expected = [measured.values[name], again.values[name]]
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-12, err_msg=name)


@given(SEEDS)
@settings(max_examples=60)
def test_one_more_proposal_and_a_greater_count_never_lower_anything(seed):
    proposals, objects, labels = _split(seed)
    if not any(map(len, objects.values())):
        return
    generator = np.random.default_rng(seed)
    more = {
        key: np.insert(boxes, generator.integers(len(boxes) + 1), _jittered(generator, objects[key], 1), axis=0)
        for key, boxes in proposals.items()
    }
    before, after = (measure_proposals(p, objects, counts=(3, 50), labels=labels).values for p in (proposals, more))
    for name, value in before.items():
        if name.endswith("@50"):  # at 3 the new one may push another out
            assert after[name] >= value - 1e-12, name
            assert value >= before[name.replace("@50", "@3")] - 1e-12, name


@given(SEEDS)
@settings(max_examples=30)
def test_order_of_images_does_not_change_a_digit(seed):
    proposals, objects, labels = _split(seed)
    turned = [dict(reversed(part.items())) for part in (proposals, objects, labels)]
    first = measure_proposals(proposals, objects, labels=labels)
    np.testing.assert_equal(first.values, measure_proposals(turned[0], turned[1], labels=turned[2]).values)


def test_one_box_finds_one_object_but_is_the_best_of_both():
    objects = {"a": np.array([[0, 0, 10, 10], [0, 0, 10, 8]])}
    values = measure_proposals({"a": np.array([[0, 0, 10, 9]])}, objects, counts=(1,)).values
    assert values["recall_50@1"] == 0.5
    assert values["AR@1"] == pytest.approx(0.9 - 0.5)  # 2 * mean(0.4, 0)
    assert values["ABO@1"] == pytest.approx((9 / 10 + 8 / 9) / 2)
    assert values["coco_AR@1"] == pytest.approx(9 / 10 / 2)  # .5 to .9 of one of the two


def test_of_equal_overlaps_coco_takes_the_later_object():
    objects = {"a": np.array([[0.0, 0, 10, 10], [4, 0, 14, 10]])}
    proposals = {"a": np.array([[2.0, 0, 12, 10], [0, 0, 10, 10]])}  # between the two, then the first
    expected = _coco_recall(proposals, objects, (1, 2))
    assert expected["coco_AR@2"] == pytest.approx((4 * 2 + 6 * 1) / 20)  # 2/3 of the later, all of the first
    values = measure_proposals(proposals, objects, counts=(1, 2)).values
    assert {name: values[name] for name in expected} == pytest.approx(expected)


def test_overlap_of_exactly_the_threshold_counts():
    values = measure_proposals({"a": np.array([[0, 0, 10, 5]])}, {"a": np.array([[0, 0, 10, 10]])}, counts=(1,)).values
    assert values == {"recall_50@1": 1, "recall_70@1": 0, "AR@1": 0, "coco_AR@1": pytest.approx(0.1), "ABO@1": 0.5}


def test_perfect_proposals_after_bad_ones_are_found_at_a_greater_count():
    objects = {"a": np.array([[0, 0, 4, 4], [5, 5, 9, 9]])}
    proposals = {"a": np.concatenate([np.full((2, 4), 20), objects["a"]])}
    measured = measure_proposals(proposals, objects, counts=(2, 3, 4), labels={"a": np.array([7, 1])})
    for name in ("recall_50", "recall_70", "AR", "coco_AR", "MABO"):
        assert [measured.values[f"{name}@{k}"] for k in (2, 3, 4)] == pytest.approx([0, 0.5, 1]), name
    assert (measured.num_items, measured.num_clusters, measured.not_computed) == (2, 1, {})


def test_without_labels_mabo_is_absent_with_a_reason():
    measured = measure_proposals({}, {}, counts=(5,))
    assert "MABO@5" not in measured.values and measured.not_computed == {"MABO@5": "the objects have no class labels"}


def test_images_without_objects_contribute_nothing():
    proposals, objects = {"a": np.array([[0, 0, 4, 4]])}, {"a": np.array([[0, 0, 4, 4]])}
    alone = measure_proposals(proposals, objects)
    empty = measure_proposals(proposals | {"b": np.array([[0, 0, 4, 4]])}, objects | {"b": np.zeros((0, 4))})
    assert alone.values == empty.values


@pytest.mark.parametrize("labels", [None, {"a": np.zeros(0, np.int64)}])
def test_no_object_is_nan(labels):
    values = measure_proposals({"a": np.array([[0, 0, 4, 4]])}, {"a": np.zeros((0, 4))}, labels=labels).values
    assert values and all(math.isnan(value) for value in values.values())


BOX = np.array([[0.0, 0, 4, 4]])


@pytest.mark.parametrize(
    ("proposals", "labels", "message"),
    [
        ({}, None, r"proposals and objects are of different images: 1\n  where: image a"),
        ({"a": BOX, "b": BOX}, None, r"different images: 1\n  where: image b"),
        ({"a": BOX}, {}, "labels and objects are of different images"),
        ({"a": BOX[0]}, None, r"proposals of another shape: \(4,\)\n  where: image a"),
        ({"a": BOX[:, ::-1]}, None, "invalid proposals\n  where: image a"),
        ({"a": BOX * np.nan}, None, "invalid proposals"),
        (
            {"a": BOX},
            {"a": np.array([1, 2])},
            r"labels do not fit the objects: \(2,\)\n  where: image a\n  allowed: \(1,\)",
        ),
    ],
)
def test_bad_input_is_refused(proposals, labels, message):
    with pytest.raises(DataError, match=message):
        measure_proposals(proposals, {"a": BOX}, labels=labels)


@pytest.mark.parametrize("counts", [(), (0,), (10, -1)])
def test_counts_must_be_positive(counts):
    with pytest.raises(ConfigError, match="numbers of 1 and more"):
        measure_proposals({"a": BOX}, {"a": BOX}, counts=counts)
