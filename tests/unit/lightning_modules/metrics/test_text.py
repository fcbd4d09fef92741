"""Translation against published scores, recognition against golden cases and a textbook edit distance."""

import json
import math
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics.bleu import BLEU

from contracts.errors import DataError
from lightning_modules.metrics.text import measure_recognition, measure_translation

SENTENCES = st.lists(st.sampled_from(["the", "dog", "bit", "a", "man", ",", "3.5", "Hé"]), max_size=7).map(" ".join)
PAIRS = st.lists(st.tuples(SENTENCES, SENTENCES, SENTENCES), min_size=1, max_size=6)
TEXTS = st.text("ab Aé́İ", max_size=6)
LINES = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=6)


def _golden(path):
    if not path.is_file():
        pytest.skip(f"no golden values: {path}")
    return json.loads(path.read_text())


def _translate(rows):
    return measure_translation([row[0] for row in rows], [row[1:] for row in rows])


def _recognise(rows, **options):
    return measure_recognition([row[0] for row in rows], [row[1] for row in rows], **options)


def _drawn_again(rows, weights):
    return [row for row, weight in zip(rows, weights, strict=True) for _ in range(weight)]


def _textbook_distance(first, second):
    table = np.zeros((len(first) + 1, len(second) + 1), int)
    table[:, 0], table[0] = range(len(first) + 1), range(len(second) + 1)
    for i, a in enumerate(first, start=1):
        for j, b in enumerate(second, start=1):
            table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (a != b))
    return int(table[-1, -1])


def test_bleu_equals_sacrebleus_example(shared_dir):
    golden = _golden(shared_dir / "golden/official/text/expected.json")["bleu"]
    references = list(zip(*golden["refs"], strict=True))  # streams -> all references of a sentence
    bleu, chrf = measure_translation(golden["sys"], references)
    assert bleu.values == {"BLEU": pytest.approx(golden["score"], abs=1e-10)}
    assert bleu.source.rpartition("|version:")[0] == golden["signature"].rpartition("|version:")[0]
    assert chrf.source.startswith("nrefs:2|case:mixed|eff:yes|nc:6|nw:0|space:no|")
    assert (bleu.num_items, bleu.unit) == (3, "sentences")


@pytest.mark.parametrize("system", ["SYSTRAN.4847", "uedin-nmt.4722"])
def test_translation_equals_the_published_scores(shared_dir, system):
    folder = shared_dir / "golden/bleu_wmt17_en_de"
    expected = _golden(folder / "expected.json")[f"newstest2017.{system}.en-de"]
    files = (folder / f"systems/newstest2017.{system}.en-de.txt", folder / "newstest2017-ref.de")
    # Only "\n" ends a line here: some hold other line separators.
    hypotheses, references = (f.read_bytes().decode().removesuffix("\n").split("\n") for f in files)
    bleu, chrf = measure_translation(hypotheses, [[text] for text in references])
    assert bleu.num_items == 3004
    assert bleu.values["BLEU"] == pytest.approx(expected["BLEU_13a_cased"], abs=1e-10)
    assert chrf.values["chrF2"] == pytest.approx(expected["chrF2"], abs=1e-10)
    assert bleu.resample(np.ones((1, 3004), int))["BLEU"][0] == pytest.approx(expected["BLEU_13a_cased"], abs=1e-10)


@given(PAIRS, st.data())
@settings(max_examples=60)
def test_resampled_bleu_is_that_of_the_sentences_drawn(rows, data):
    weights = np.array(
        [[1] * len(rows), data.draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows)))]
    )
    bleu = _translate(rows)[0]
    expected = [bleu.values["BLEU"]]
    again = _drawn_again(rows, weights[1])
    if again:
        expected.append(
            BLEU().corpus_score([r[0] for r in again], [[r[1] for r in again], [r[2] for r in again]]).score
        )
    drawn = bleu.resample(weights[: len(expected)])["BLEU"]
    assert drawn.dtype == np.float64
    np.testing.assert_allclose(drawn, expected, rtol=0, atol=1e-10)


@given(PAIRS, st.randoms(use_true_random=False))
@settings(max_examples=30)
def test_order_of_sentences_does_not_matter_to_translation(rows, random):
    shuffled = random.sample(rows, len(rows))
    for first, second in zip(_translate(rows), _translate(shuffled), strict=True):
        assert first.values == second.values


def test_translation_of_a_reference_is_perfect_and_chrf_has_no_resample():
    bleu, chrf = measure_translation(["the dog bit the man ."], [["something else", "the dog bit the man ."]])
    assert (bleu.values["BLEU"], chrf.values["chrF2"]) == (pytest.approx(100), pytest.approx(100))
    assert chrf.resample is None


def test_nothing_to_measure_is_nan():
    for measurement in (*measure_translation([], []), measure_recognition([], [])):
        assert measurement.num_items == 0
        assert all(math.isnan(value) for value in measurement.values.values())


@pytest.mark.parametrize(
    ("hypotheses", "references", "message"),
    [
        (["a"], [["a"], ["b"]], r"one hypothesis for each item .*: 1\n  allowed: 2"),
        (["a", "b"], [["a", "b"], ["c"]], r"another number of references .*: 1\n  where: sentence 1\n  allowed: 2"),
        (["a"], [[]], r"or none: 0\n  where: sentence 0\n  allowed: 1"),
    ],
)
def test_references_that_do_not_fit_are_refused(hypotheses, references, message):
    with pytest.raises(DataError, match=message):
        measure_translation(hypotheses, references)


def test_cer_equals_the_golden_cases(shared_dir):
    for case in _golden(shared_dir / "golden/official/text/expected.json")["cer"]:
        expected = next(case[name] for name in ("cer", "cer_exact", "cer_nfc") if name in case)
        assert measure_recognition([case["hyp"]], [case["ref"]]).values["CER"] == expected, case


def test_recognition_by_hand():
    values = measure_recognition(["the cat", "", "xy"], ["the bat sat", "", "x"]).values
    # characters: "the cat" needs 1 substitution and 4 insertions for 11; "xy" 1 deletion for 1
    assert values["CER"] == 6 / 12
    assert values["WER"] == 3 / 4  # bat, sat; x
    assert values["word_accuracy"] == pytest.approx(1 / 3)  # the empty pair
    assert values["1-NED"] == pytest.approx(1 - (5 / 11 + 0 + 1 / 2) / 3)


def test_rates_are_of_sums_and_empty_references_count_insertions():
    values = measure_recognition(["b", "abcdefghi", "xx"], ["a", "abcdefghi", ""]).values
    assert values["CER"] == 3 / 10  # the mean of rates would be undefined
    assert values["WER"] == 2 / 2


def test_only_empty_references_have_a_rate_where_nothing_was_read():
    assert measure_recognition(["", ""], ["", ""]).values == {"CER": 0, "WER": 0, "word_accuracy": 1, "1-NED": 1}
    values = measure_recognition(["", "a"], ["", ""]).values
    assert math.isnan(values["CER"]) and math.isnan(values["WER"])
    assert (values["word_accuracy"], values["1-NED"]) == (0.5, 0.5)
    # White space is characters but no words.
    assert measure_recognition([""], [" "]).values["CER"] == 1
    assert measure_recognition([""], [" "]).values["WER"] == 0


def test_case_is_a_variant():
    kept, lowered = (measure_recognition(["Ab", "İ"], ["ab", "i̇"], case=case) for case in ("keep", "lower"))
    assert kept.values["CER"] > 0
    assert lowered.values["CER"] == 0 and lowered.values["word_accuracy"] == 1
    # The capital with caron has no composed form, its lower case has; no other folding is done.
    assert measure_recognition(["J\u030c"], ["\u01f0"], case="lower").values["CER"] == 0
    assert measure_recognition(["ss"], ["ß"], case="lower").values["CER"] == 2
    assert "case kept" in kept.variant and "case lowered" in lowered.variant


@given(TEXTS, TEXTS)
@settings(max_examples=150)
def test_distances_are_the_textbook_ones(hypothesis, reference):
    hypothesis, reference = (unicodedata.normalize("NFC", text) for text in (hypothesis, reference))
    values = measure_recognition([hypothesis, ""], [reference, "a"]).values  # the second keeps the lengths above 0
    words = hypothesis.split(), reference.split()
    assert values["CER"] == pytest.approx((_textbook_distance(hypothesis, reference) + 1) / (len(reference) + 1))
    assert values["WER"] == pytest.approx((_textbook_distance(*words) + 1) / (len(words[1]) + 1))
    assert values["word_accuracy"] == (hypothesis == reference) / 2


@given(LINES, st.data(), st.sampled_from(["keep", "lower"]))
@settings(max_examples=80)
def test_resampled_recognition_is_that_of_the_items_drawn(rows, data, case):
    weights = np.array(
        [[1] * len(rows), data.draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows)))]
    )
    measured = _recognise(rows, case=case)
    drawn = measured.resample(weights)
    again = _recognise(_drawn_again(rows, weights[1]), case=case)
    assert drawn.keys() == measured.values.keys()
    for name, values in drawn.items():
        assert values[0] == pytest.approx(measured.values[name], abs=1e-12, nan_ok=True)
        if again.num_items:
            assert values[1] == pytest.approx(again.values[name], abs=1e-12, nan_ok=True)


@given(LINES, st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_order_of_items_does_not_change_a_digit_of_recognition(rows, random):
    np.testing.assert_equal(_recognise(rows).values, _recognise(random.sample(rows, len(rows))).values)


def test_other_numbers_of_texts_are_refused():
    with pytest.raises(DataError, match="one hypothesis for each item"):
        measure_recognition(["a", "b"], ["a"])
