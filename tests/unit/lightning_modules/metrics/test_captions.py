"""Caption metrics against the official code's numbers, other implementations and themselves."""

import json
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sacrebleu.metrics.bleu import BLEU

from lightning_modules.metrics.captions import BLEU_NAMES, NAMES, CaptionMetrics
from lightning_modules.metrics.ptb_tokenizer import tokenize, tokenize_all

SETS = ("fakecap", "short", "ref1")

captions = st.lists(st.sampled_from("abcde"), max_size=9)
images = st.lists(st.tuples(captions, st.lists(captions, min_size=1, max_size=4)), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def golden(shared_dir):
    folder = shared_dir / "golden/official/captions"
    if not folder.is_dir():
        pytest.skip(f"no golden captions: {folder}")
    return folder


@pytest.fixture(scope="module", params=SETS)
def golden_set(golden, request):
    """References, hypotheses, the corpus's and each image's official values."""
    annotations = json.loads((golden / "captions_val2014_1000_gt.json").read_text())["annotations"]
    results = json.loads((golden / "captions_val2014_fakecap_results.json").read_text())
    per_image = json.loads((golden / f"per_image_{request.param}.json").read_text())
    texts: dict[int, list[str]] = {}
    for annotation in annotations:
        texts.setdefault(annotation["image_id"], []).append(annotation["caption"])
    given_by_image = {result["image_id"]: result["caption"] for result in results}
    references = [tokenize_all(texts[i]) for i in per_image["ids"]]
    hypotheses = [given_by_image[i] for i in per_image["ids"]]
    if request.param == "short":
        hypotheses = [" ".join(text.split()[:5]) for text in hypotheses]
    tokens = tokenize_all(hypotheses)
    if request.param == "ref1":
        tokens, references = [group[0] for group in references], [group[1:] for group in references]
    expected = json.loads((golden / "expected.json").read_text())["recomputed"][request.param]
    return CaptionMetrics(references), tokens, expected, per_image["per_image"]


def test_corpus_equals_the_official_values(golden_set):
    metrics, hypotheses, expected, _ = golden_set
    measured = metrics.measure(hypotheses)
    assert measured.num_items == 1000
    assert dict(measured.values) == pytest.approx({name: expected[name] for name in NAMES}, abs=1e-12)
    assert metrics.bleu(hypotheses) == {name: measured.values[name] for name in BLEU_NAMES}


def test_each_image_equals_the_official_values(golden_set):
    metrics, hypotheses, _, per_image = golden_set
    scores = metrics.per_image(hypotheses)
    assert set(scores) == set(NAMES)
    for name in NAMES:
        np.testing.assert_allclose(scores[name], per_image[name], rtol=0, atol=1e-12, err_msg=name)


def test_resampling_golden_captions_with_ones_gives_the_values(golden_set):
    metrics, hypotheses, _, _ = golden_set
    measured = metrics.measure(hypotheses)
    resampled = measured.resample(np.ones((2, 1000), np.int64))
    for name, value in measured.values.items():
        np.testing.assert_allclose(resampled[name], value, rtol=0, atol=1e-12)


def ngrams(tokens, order):
    return Counter(tuple(tokens[i : i + order]) for i in range(len(tokens) - order + 1))


def naive_cider(hypotheses, references):
    """CIDEr-D of each image, word by word from its definition."""
    scores = []
    for hypothesis, group in zip(hypotheses, references, strict=True):
        total = 0.0
        for order in (1, 2, 3, 4):
            frequency = Counter(gram for g in references for gram in set().union(*(ngrams(r, order) for r in g)))

            def vector(tokens, order=order, frequency=frequency):
                counts = ngrams(tokens, order)
                return {g: n * math.log(len(references) / max(1, frequency[g])) for g, n in counts.items()}

            def norm(vector):
                return math.sqrt(sum(value**2 for value in vector.values()))

            left = vector(hypothesis)
            for reference in group:
                right = vector(reference)
                dot = sum(min(left[gram], right[gram]) * right[gram] for gram in left if gram in right)
                difference = max(0, len(hypothesis) - 1) - max(0, len(reference) - 1)
                lengths = norm(left) * norm(right)
                total += math.exp(-(difference**2) / 72) * (dot / lengths if lengths else dot) / len(group)
        scores.append(10 * total / 4)
    return scores


def naive_rouge(hypothesis, references):
    def longest_common(a, b):
        if not a or not b:
            return 0
        if a[-1] == b[-1]:
            return 1 + longest_common(a[:-1], b[:-1])
        return max(longest_common(a[:-1], b), longest_common(a, b[:-1]))

    hypothesis, references = hypothesis or [""], [reference or [""] for reference in references]
    precision = max(longest_common(hypothesis, r) / len(hypothesis) for r in references)
    recall = max(longest_common(hypothesis, r) / len(r) for r in references)
    return (1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision) if precision else 0.0


@given(images)
@settings(max_examples=150)
def test_cider_equals_its_definition(data):
    hypotheses, references = zip(*data, strict=True)
    scores = CaptionMetrics(references).per_image(hypotheses)["CIDEr"]
    np.testing.assert_allclose(scores, naive_cider(hypotheses, references), rtol=0, atol=1e-12)


@given(st.lists(st.sampled_from("abc"), max_size=6), st.lists(st.lists(st.sampled_from("abc"), max_size=6), min_size=1))
@settings(max_examples=150)
def test_rouge_equals_its_definition(hypothesis, references):
    score = CaptionMetrics([references]).per_image([hypothesis])["ROUGE_L"][0]
    assert score == pytest.approx(naive_rouge(hypothesis, references), abs=1e-12)


@given(images)
@settings(max_examples=150)
def test_bleu_equals_sacrebleu(data):
    data = [(hypothesis, [r for r in group if r]) for hypothesis, group in data]
    assume(all(group for _, group in data) and any(hypothesis for hypothesis, _ in data))
    hypotheses, references = zip(*data, strict=True)
    width = max(map(len, references))
    columns = [[" ".join(g[i]) if i < len(g) else None for g in references] for i in range(width)]
    ours = CaptionMetrics(references).bleu(hypotheses)
    for order, name in enumerate(BLEU_NAMES, start=1):
        bleu = BLEU(tokenize="none", smooth_method="none", force=True, max_ngram_order=order)
        theirs = bleu.corpus_score([" ".join(tokens) for tokens in hypotheses], columns)
        if theirs.counts[-1]:
            # The official code adds 1e-9 to each number of n-grams, which a handful of them shows.
            assert ours[name] == pytest.approx(theirs.score / 100, rel=1e-8)
        else:
            assert ours[name] < 0.04  # and 1e-15 to each number of matches: at most (1e-15 / 1e-9) ** (1 / 4)


@given(images, st.randoms(use_true_random=False))
@settings(max_examples=100)
def test_the_order_of_images_and_references_does_not_matter(data, random):
    def values(pairs):
        hypotheses, references = zip(*pairs, strict=True)
        return CaptionMetrics(references).measure(hypotheses).values

    shuffled = [(hypothesis, random.sample(group, len(group))) for hypothesis, group in random.sample(data, len(data))]
    before, after = values(data), values(shuffled)
    for name in BLEU_NAMES:
        assert after[name] == before[name]  # from sums of integers
    assert dict(after) == pytest.approx(dict(before), abs=1e-12)


@given(images, st.data())
@settings(max_examples=100)
def test_resampling_is_scoring_the_drawn_images(data, draw):
    hypotheses, references = zip(*data, strict=True)
    weights = np.array(draw.draw(st.lists(st.integers(0, 3), min_size=len(data), max_size=len(data))))
    assume(weights.any())
    metrics = CaptionMetrics(references)
    measured = metrics.measure(hypotheses)
    resampled = measured.resample(np.stack([np.ones_like(weights), weights]))
    assert {name: values[0] for name, values in resampled.items()} == pytest.approx(dict(measured.values), abs=1e-12)

    drawn = np.repeat(np.arange(len(data)), weights)
    really = CaptionMetrics([references[i] for i in drawn]).measure([hypotheses[i] for i in drawn]).values
    for name in (*BLEU_NAMES, "ROUGE_L"):
        assert resampled[name][1] == pytest.approx(really[name], abs=1e-12)
    # CIDEr keeps the document frequencies of the split.
    assert resampled["CIDEr"][1] == pytest.approx(metrics.per_image(hypotheses)["CIDEr"][drawn].mean(), abs=1e-12)


@given(st.permutations("abcdefghijklmnop"), st.integers(4, 8))
@settings(max_examples=50)
def test_perfect_captions_have_full_marks(letters, length):
    texts = [list(letters[:length]), list(letters[-length:])]
    values = CaptionMetrics([[text] for text in texts]).measure(texts).values
    assert values["ROUGE_L"] == 1.0
    assert [values[name] for name in BLEU_NAMES] == pytest.approx([1.0] * 4, abs=1e-8)
    assert values["CIDEr"] == pytest.approx(10.0, abs=1e-12)


@given(images)
@settings(max_examples=50)
def test_values_lie_in_their_range(data):
    hypotheses, references = zip(*data, strict=True)
    for name, scores in CaptionMetrics(references).per_image(hypotheses).items():
        assert ((scores >= 0) & (scores <= (10 if name == "CIDEr" else 1) + 1e-12)).all()


def test_brevity_penalty_takes_the_shorter_of_two_equally_near_references():
    metrics = CaptionMetrics([[list("abcdef"), list("abcd")]])
    assert metrics.bleu([list("abcde")])["Bleu_1"] == pytest.approx(1.0, abs=1e-8)
    longer_only = CaptionMetrics([[list("abcdef"), list("abcdef")]])
    assert longer_only.bleu([list("abcde")])["Bleu_1"] == pytest.approx(math.exp(1 - 6 / 5), abs=1e-8)


def test_a_blank_inside_a_token_splits_it_for_bleu_and_cider_only():
    tokens = tokenize("3 1/2 in.")
    assert tokens == ["3\u00a01/2", "in"]
    scores = CaptionMetrics([[["3", "1/2", "in"]], [["x"]]]).per_image([tokens, ["x"]])
    assert scores["Bleu_3"][0] == pytest.approx(1.0, abs=1e-8)
    assert scores["CIDEr"][0] == pytest.approx(7.5)  # no 4-gram
    assert scores["ROUGE_L"][0] < 1


def test_one_image_alone_has_no_cider():
    values = CaptionMetrics([[list("abcde")]]).measure([list("abcde")]).values
    assert values["CIDEr"] == 0.0
    assert values["ROUGE_L"] == 1.0


def test_empty_hypotheses_score_nothing():
    measured = CaptionMetrics([[list("ab"), list("abc")], [list("c")]]).measure([[], []])
    assert dict(measured.values) == dict.fromkeys(NAMES, 0.0)
    assert {name: values[0] for name, values in measured.resample(np.array([[2, 0]])).items()} == measured.values


def test_an_empty_split_has_values():
    measured = CaptionMetrics([]).measure([])
    assert dict(measured.values) == dict.fromkeys(NAMES, 0.0)
    assert measured.num_items == 0
    for values in measured.resample(np.zeros((2, 0), np.int64)).values():
        assert values.tolist() == [0.0, 0.0]


def test_one_system_does_not_change_the_next_ones_scores():
    metrics = CaptionMetrics([[list("abcd")], [list("efgh")]])
    before = metrics.measure([list("abce"), list("efxy")]).values
    metrics.measure([list("zzzz"), list("pqrs")])
    assert metrics.measure([list("abce"), list("efxy")]).values == before


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(ValueError, match="1 hypotheses for 2 images"):
        CaptionMetrics([[["a"]], [["b"]]]).measure([["a"]])
    with pytest.raises(ValueError, match="image 1 has no reference"):
        CaptionMetrics([[["a"]], []])
