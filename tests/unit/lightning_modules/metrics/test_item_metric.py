"""Each official metric as a `torchmetrics.Metric`: its numbers, and all that torchmetrics does with one."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from torchmetrics import Metric, MetricCollection
from torchmetrics.text import CharErrorRate, SacreBLEUScore, WordErrorRate

from contracts.errors import ConfigError, DataError
from lightning_modules.metrics.bootstrap import intervals
from lightning_modules.metrics.caption_scores import CaptionScores
from lightning_modules.metrics.item_metric import ItemMetric
from lightning_modules.metrics.mean_ap import CocoMeanAP, VOCMeanAP
from lightning_modules.metrics.measurement import values_of
from lightning_modules.metrics.proposal_recall import ProposalRecall
from lightning_modules.metrics.segmentation_scores import SegmentationScores
from lightning_modules.metrics.text_scores import RecognitionScores, TranslationScores
from lightning_modules.metrics.top_accuracy import TopAccuracy
from tests.metric_cases import cases

NAMES = (
    "coco_boxes", "coco_masks", "voc", "captions", "vqa", "visual7w", "segmentation", "translation", "recognition",
    "classes", "videos", "proposals", "alignment", "by_length", "perplexity", "multilabel",
)  # fmt: skip
SMALL = (
    "visual7w", "recognition", "classes", "videos", "proposals", "voc", "segmentation", "alignment", "by_length",
    "perplexity", "multilabel",
)  # fmt: skip


@pytest.fixture(scope="module")
def all_cases(shared_dir):
    made = cases(shared_dir)
    assert tuple(made) == NAMES
    return made


def fill(metric: ItemMetric, case, size: int = 7) -> ItemMetric:
    for start in range(0, len(case.truths), size):
        metric.update(case.predictions[start : start + size], case.truths[start : start + size])
    return metric


def numbers(computed: dict[str, torch.Tensor]) -> dict[str, float]:
    assert all(value.dtype == torch.float64 and value.ndim == 0 for value in computed.values())
    return {name: float(value) for name, value in computed.items()}


@pytest.mark.parametrize("name", NAMES)
def test_gives_the_official_numbers(all_cases, name):
    case = all_cases[name]
    metric = fill(case.build(), case)
    assert isinstance(metric, Metric)
    values = numbers(metric.compute())
    assert {n: values[n] for n in case.expected} == pytest.approx(case.expected, abs=case.within)
    measured = metric.measure()
    assert values_of(measured) == values
    pairs = zip(case.predictions, case.truths, strict=True)
    alone = metric.measure_items((truth["id"], truth.get("group", truth["id"]), found, truth) for found, truth in pairs)
    assert values_of(alone) == values, "without a state"
    for measurement in measured:
        if measurement.resample is not None:
            columns = measurement.num_items if measurement.num_clusters is None else measurement.num_clusters
            again = measurement.resample(np.ones((1, columns)))
            assert {n: float(v[0]) for n, v in again.items() if v[0] == v[0]} == pytest.approx(
                {n: measurement.values[n] for n in again if n in values}, abs=1e-9
            )


@pytest.mark.parametrize("name", SMALL)
def test_order_batches_and_what_is_delivered_twice_change_no_digit(all_cases, name):
    case = all_cases[name]
    expected = numbers(fill(case.build(), case).compute())
    order = np.random.default_rng(3).permutation(len(case.truths))
    order = [*order, *order[: len(order) // 2 + 1]]
    metric = case.build()
    for i in order:
        metric.update([case.predictions[i]], [case.truths[i]])
    assert numbers(metric.compute()) == expected
    assert metric.ids() == sorted(item["id"] for item in case.truths)


@pytest.mark.parametrize("name", SMALL)
def test_tensors_are_taken_as_arrays_are(all_cases, name):
    case = all_cases[name]

    def tensors(items):
        return [
            {key: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for key, value in item.items()}
            for item in items
        ]

    metric = case.build()
    metric.update(tensors(case.predictions), tensors(case.truths))
    assert numbers(metric.compute()) == numbers(fill(case.build(), case).compute())


@pytest.mark.parametrize("name", SMALL)
def test_survives_what_torchmetrics_and_others_do_with_a_metric(all_cases, name):
    case = all_cases[name]
    half = len(case.truths) // 2
    first, second = slice(0, half), slice(half, None)
    expected = numbers(fill(case.build(), case).compute())
    metric = case.build()
    metric.update(case.predictions[first], case.truths[first])
    for copied in (metric.clone(), copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        copied.update(case.predictions[second], case.truths[second])
        assert numbers(copied.compute()) == expected
    assert len(metric.ids()) == half, "copies are apart"
    metric.persistent(True)
    loaded = case.build()
    loaded.persistent(True)
    loaded.load_state_dict(metric.state_dict())
    loaded.to(torch.float16)  # no state of numbers to round
    loaded.update(case.predictions[second], case.truths[second])
    assert numbers(loaded.compute()) == expected
    other = case.build()
    other.update(case.predictions[second], case.truths[second])
    other.merge_state(metric)
    assert numbers(other.compute()) == expected
    loaded.reset()
    assert loaded.ids() == []
    loaded.update(case.predictions, case.truths)
    assert numbers(loaded.compute()) == expected


@pytest.mark.parametrize("name", ["visual7w", "classes", "segmentation"])
def test_forward_gives_the_batch_and_takes_it_in(all_cases, name):
    case = all_cases[name]
    metric, alone = case.build(), case.build()
    metric.update(case.predictions[:-2], case.truths[:-2])
    alone.update(case.predictions[-2:], case.truths[-2:])
    assert numbers(metric(case.predictions[-2:], case.truths[-2:])) == numbers(alone.compute())
    assert numbers(metric.compute()) == numbers(fill(case.build(), case).compute())


def test_a_collection_shares_what_is_kept_alike(all_cases):
    voc = all_cases["voc"]
    names = voc.arguments["class_names"]
    collection = MetricCollection({"coco": CocoMeanAP(names), "voc": VOCMeanAP(names)})
    fill(collection, voc)
    assert list(collection.compute_groups.values()) == [["coco", "voc"]]
    together = collection.compute()
    assert together["mAP_2010"] == fill(voc.build(), voc).compute()["mAP_2010"]
    assert together["AP50"] == fill(CocoMeanAP(names), voc).compute()["AP50"]
    apart = MetricCollection({"void": SegmentationScores(3), "all": SegmentationScores(3, ignored=None)})
    item = {"id": 1, "label_map": np.zeros((2, 2), np.uint8)}
    apart.update([item], [item])
    assert len(apart.compute_groups) == 2, "equal so far is not equal"


def test_one_number_for_a_log(all_cases):
    case = all_cases["classes"]
    metric = fill(case.build(value="top5"), case)
    assert isinstance(metric.compute(), torch.Tensor) and float(metric.compute()) == 3 / 4
    with pytest.raises(ConfigError, match=r"TopAccuracy has no such number: 'top3'\n  allowed: top1, top5"):
        fill(case.build(value="top3"), case).compute()


def test_expected_items_are_asserted(all_cases):
    case = all_cases["classes"]
    metric = fill(case.build(), case)
    metric.expect([0, 1, 2, 3])
    metric.compute()
    metric.expect([0, 1, 2, "x"])
    metric.reset()
    fill(metric, case)
    for look in (metric.compute, metric.measure):
        with pytest.raises(DataError, match=r"saw 4 of 4 items\n  where: missing \['x'\], unexpected \[3\]"):
            look()
    metric.expect(None)
    metric.compute()


def test_groups_are_drawn_as_a_whole():
    rows = [("a", "a", "page1"), ("b", "x", "page1"), ("c", "x", "page2")]
    metric = RecognitionScores()
    for i, (wanted, read, page) in enumerate(rows):
        metric.update([{"id": i, "text": read}], [{"id": i, "text": wanted, "group": page}])
    (measured,) = metric.measure()
    assert (measured.num_items, measured.num_clusters) == (3, 2)
    drawn = measured.resample(np.array([[1, 1], [2, 0], [0, 2]]))["word_accuracy"]
    np.testing.assert_allclose(drawn, [1 / 3, 1 / 2, 0], atol=1e-15)
    assert intervals([measured], num_resamples=50)["word_accuracy"][0] == 0


def refused(metric, prediction, truth):
    with pytest.raises(DataError) as error:
        metric.update([{"id": "k", **prediction}], [{"id": "k", **truth}])
    return str(error.value)


EMPTY = np.zeros((2, 2), int)
BOXES = {"boxes": np.zeros((2, 4)), "labels": np.ones(2, int), "scores": np.ones(2)}


@pytest.mark.parametrize(
    ("metric", "prediction", "truth", "message"),
    [
        (RecognitionScores(), {"id": "l", "text": "a"}, {"text": "a"}, "another item: 'l'\n  allowed: id 'k'"),
        (RecognitionScores(), {}, {"text": "a"}, "a prediction without 'text': ['id']\n  where: item 'k'"),
        (RecognitionScores(), {"text": 3}, {"text": "a"}, "'text' of a prediction is a text: 3\n  where: item 'k'"),
        (TranslationScores(), {"text": "a"}, {"references": "ab"}, "'references' of a truth is a list of texts: 'ab'"),
        (TopAccuracy(), {"scores": [[1.0]]}, {"label": 0}, "shape: (1, 1)\n  where: item 'k'\n  allowed: (any)"),
        (TopAccuracy(), {"scores": object()}, {"label": 0}, "plain values, arrays and tensors: 'object'"),
        (TopAccuracy(), {"scores": [1.0]}, {"label": 0, "id": 1.5}, "a text or a whole number: 1.5"),
        (CocoMeanAP(["a"]), BOXES | {"scores": np.ones(3)}, BOXES, "'scores' of a prediction has another shape: (3,)"),
        (CocoMeanAP(["a"]), BOXES, BOXES | {"boxes": np.zeros((2, 5))}, "allowed: (2, 4)"),
        (VOCMeanAP(["a"]), BOXES, BOXES | {"is_crowd": np.ones(1)}, "'is_crowd' of a truth has another shape: (1,)"),
        (ProposalRecall(), BOXES, BOXES | {"labels": np.ones(1)}, "'labels' of a truth has another shape: (1,)"),
        (SegmentationScores(2), {"label_map": EMPTY}, {"label_map": EMPTY + 2}, "allowed: 0..1"),
    ],
)  # fmt: skip
def test_items_that_do_not_fit_are_refused(metric, prediction, truth, message):
    assert message in refused(metric, prediction, truth)


def test_each_truth_needs_its_prediction():
    with pytest.raises(DataError, match=r"one prediction for each truth: 0\n  allowed: 1"):
        RecognitionScores().update([], [{"id": 1, "text": "a"}])


def test_masks_are_taken_as_arrays_and_boxes_of_nothing_in_any_shape():
    mask = np.zeros((1, 20, 30), np.uint8)
    mask[0, 5:15, 5:25] = 1
    box = {"boxes": np.array([[5, 5, 25, 15.0]]), "labels": np.array([1])}
    nothing = {"boxes": torch.zeros(0), "labels": torch.zeros(0), "scores": torch.zeros(0), "masks": []}
    found = [{"id": 1, **box, "scores": np.ones(1), "masks": mask}, {"id": 2, **nothing}]
    truths = [{"id": 1, **box, "masks": mask.astype(bool)}, {"id": 2, **box, "masks": mask}]
    metric = CocoMeanAP(["a"], "segm", prefix="mask_")
    metric.update(found, truths)
    assert float(metric.compute()["mask_AR100"]) == 0.5
    metric.update([{"id": 3, **box, "scores": np.ones(1)}], [{"id": 3, **box, "masks": mask}])
    with pytest.raises(DataError, match=r"a prediction without a mask for each box\n  where: item 3"):
        metric.compute()


def test_what_needs_java_says_why_it_is_not_there(all_cases, monkeypatch):
    monkeypatch.setenv("PATH", "")
    case = all_cases["captions"]
    metric = CaptionScores(java=True)
    metric.update(case.predictions[:3], [*case.truths[:2], {**case.truths[2], "captions": ["."]}])
    own, meteor, spice = metric.measure()
    assert own.num_items == 2, "an image whose references have no token is left out"
    assert "no Java" in meteor.not_computed["METEOR"] and "SPICE" in spice.not_computed
    assert set(metric.compute()) == set(own.values)


def test_nothing_in_a_strangers_state_is_run():
    class Evil:
        def __reduce__(self):
            return (len, ("run",))

    metric = RecognitionScores()
    metric.encoded.append(torch.frombuffer(bytearray(pickle.dumps(("", [Evil()]))), dtype=torch.uint8))
    with pytest.raises(DataError, match=r"neither a plain value nor an array: 'len'"):
        metric.ids()


def test_torchmetrics_own_differ_by_what_the_docs_say(all_cases):
    """Where they are equal to the last digit one day, ours can go."""
    case = all_cases["translation"]
    texts, references = [p["text"] for p in case.predictions], [t["references"] for t in case.truths]
    close = 100 * float(SacreBLEUScore()(texts, references))
    assert 1e-9 < abs(close - case.expected["BLEU"]) < 1e-5
    one = [{"id": 1, "text": "the dog bit the"}], [{"id": 1, "references": ["the cat ran home today"]}]
    metric = TranslationScores()
    metric.update(*one)
    assert float(metric.compute()["BLEU"]) == pytest.approx(12.44, abs=0.01), "sacrebleu's exponential smoothing"
    assert float(SacreBLEUScore()(["the dog bit the"], [["the cat ran home today"]])) == 0
    for name, theirs in (("CER", CharErrorRate()), ("WER", WordErrorRate())):
        ours = RecognitionScores(value=name)
        for i, (read, wanted) in enumerate([("a b", "a c"), ("hallo you", "hello you")]):
            ours.update([{"id": i, "text": read}], [{"id": i, "text": wanted}])
            theirs.update(read, wanted)
        assert float(theirs.compute()) == pytest.approx(float(ours.compute()), rel=1e-6)
        theirs.update("e\u0301", "é")  # the same word, written otherwise
        ours.update([{"id": 9, "text": "e\u0301"}], [{"id": 9, "text": "é"}])
        assert float(theirs.compute()) > float(ours.compute())
