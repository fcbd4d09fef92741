"""Top-k accuracy against a sort, its rule for ties, and videos of several clips."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from contracts.errors import DataError
from lightning_modules.metrics.classification import measure_classification


@st.composite
def scored(draw, num_videos=4):
    """Scores with many ties, labels by video, and the video of each item."""
    num, num_classes = draw(st.integers(1, 10)), draw(st.integers(1, 8))
    scores = draw(hnp.arrays(np.float32, (num, num_classes), elements=st.sampled_from([-1.0, 0.0, 0.5, 2.0])))
    of_video = np.array(draw(st.lists(st.integers(0, num_classes - 1), min_size=num_videos, max_size=num_videos)))
    videos = draw(st.lists(st.integers(0, num_videos - 1), min_size=num, max_size=num))
    return scores, of_video[videos], videos


def _sorted_hits(scores, labels, k):
    """Oracle: a stable sort keeps the lower of equal classes first."""
    return [
        label in sorted(range(len(row)), key=lambda c: -row[c])[:k] for row, label in zip(scores, labels, strict=True)
    ]


@given(scored())
@settings(max_examples=100)
def test_equals_a_stable_sort(case):
    scores, labels, _ = case
    measured = measure_classification(scores, labels)
    assert measured.values == {f"top{k}": pytest.approx(np.mean(_sorted_hits(scores, labels, k))) for k in (1, 5)}
    assert measured.values["top5"] >= measured.values["top1"]
    assert scores.shape[1] > 5 or measured.values["top5"] == 1


@given(scored())
@settings(max_examples=100)
def test_videos_equal_items_of_mean_scores(case):
    scores, labels, videos = case
    measured = measure_classification(scores, labels, groups=videos)
    names = sorted(set(videos))
    rows = [[i for i, video in enumerate(videos) if video == name] for name in names]
    means = np.stack([scores[r].astype(np.float64).mean(axis=0) for r in rows])
    of_clips = measure_classification(scores, labels).values
    of_videos = measure_classification(means, labels[[r[0] for r in rows]]).values
    expected = {f"clip_{k}": v for k, v in of_clips.items()} | {f"video_{k}": v for k, v in of_videos.items()}
    assert measured.values == pytest.approx(expected)
    assert (measured.num_items, measured.unit, measured.num_clusters) == (len(labels), "clips", len(names))


@given(scored(), st.booleans(), st.data())
@settings(max_examples=100)
def test_resample_is_the_accuracy_of_what_was_drawn(case, grouped, data):
    scores, labels, videos = case
    clusters = sorted(set(videos)) if grouped else list(range(len(labels)))
    measured = measure_classification(scores, labels, groups=videos if grouped else None)
    times = data.draw(st.lists(st.integers(0, 3), min_size=len(clusters), max_size=len(clusters)).filter(any))
    drawn = measured.resample(np.array([[1] * len(clusters), times]))
    rows, copies = [], []  # each copy of a video is a video of its own
    for i, video in enumerate(videos):
        times_drawn = times[clusters.index(video if grouped else i)]
        rows += [i] * times_drawn
        copies += [(video, copy) for copy in range(times_drawn)]
    again = measure_classification(scores[rows], labels[rows], groups=copies if grouped else None)
    assert drawn.keys() == measured.values.keys()
    for name, values in drawn.items():
        assert values == pytest.approx([measured.values[name], again.values[name]], abs=1e-12)


@given(scored(), st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_order_of_items_does_not_matter(case, random):
    scores, labels, videos = case
    order = random.sample(range(len(labels)), len(labels))
    for groups in (None, videos):
        shuffled = None if groups is None else [groups[i] for i in order]
        first = measure_classification(scores, labels, groups=groups)
        assert first.values == measure_classification(scores[order], labels[order], groups=shuffled).values


def test_ties_go_to_the_lower_class():
    scores = np.zeros((7, 7))
    values = measure_classification(scores, np.arange(7)).values
    assert values == {"top1": pytest.approx(1 / 7), "top5": pytest.approx(5 / 7)}


def test_a_video_can_be_right_where_most_clips_are_wrong():
    scores = np.array([[0, 0.1], [0, 0.1], [1.0, 0], [0, 1.0]])
    values = measure_classification(scores, np.array([0, 0, 0, 1]), groups=["a", "a", "a", "b"]).values
    assert (values["clip_top1"], values["video_top1"]) == (0.5, 1.0)


def test_no_item_is_nan():
    for groups in (None, []):
        values = measure_classification(np.zeros((0, 3)), np.zeros(0, np.int64), groups=groups).values
        assert values and all(math.isnan(value) for value in values.values())


@pytest.mark.parametrize(
    ("scores", "labels", "groups", "message"),
    [
        (np.zeros((2, 3)), np.array([0]), None, r"do not fit together: \(\(2, 3\), \(1,\)\)"),
        (np.zeros((2, 3)), np.array([0, 1]), ["a"], r"do not fit together: \(\(2, 3\), \(2,\), 1\)"),
        (np.zeros(3), np.array([0, 1, 1]), None, "do not fit together"),
        (np.array([[0, 1], [np.nan, 0]]), np.array([0, 1]), None, r"not finite: 1\n  where: item 1"),
        (np.zeros((2, 3)), np.array([0, 3]), None, r"not a class id: 3\n  where: item 1\n  allowed: integers 0\.\.2"),
        (np.zeros((2, 3)), np.array([-1, 0]), None, r"not a class id: -1\n  where: item 0"),
        (np.zeros((2, 3)), np.array([0.0, 1.0]), None, r"not a class id: dtype\('float64'\)"),
        (np.zeros((3, 3)), np.array([0, 1, 2]), ["a", "b", "b"], r"one label: \[1, 2\]\n  where: video 'b'"),
    ],
)
def test_bad_input_is_refused(scores, labels, groups, message):
    with pytest.raises(DataError, match=message):
        measure_classification(scores, labels, groups=groups)
