"""Corpus BLEU against the official coco-caption numbers, hand-computed cases and its brevity rule."""

import json
import math

import pytest

from contracts.text import words
from lightning_modules.metrics.bleu import CorpusBLEU


@pytest.fixture(scope="module")
def official(shared_dir):
    """Official tokens of the 1,000 demo images' references and of the demo captions, and the published scores."""
    folder = shared_dir / "golden/official/captions"
    if not folder.is_dir():
        pytest.skip(f"no golden captions in {folder}")
    tokens = {t["in"].strip(): t["out"].split() for t in json.loads((folder / "ptb_tokens.json").read_text())}
    references: dict[int, list[list[str]]] = {}
    for caption in json.loads((folder / "captions_val2014_1000_gt.json").read_text())["annotations"]:
        text = " ".join(caption["caption"].split("\n")).strip()
        references.setdefault(caption["image_id"], []).append(tokens[text])
    results = json.loads((folder / "captions_val2014_fakecap_results.json").read_text())
    hypotheses = {r["image_id"]: tokens[r["caption"].strip()] for r in results}
    expected = json.loads((folder / "expected.json").read_text())["recomputed"]
    keys = sorted(references)
    return [hypotheses[k] for k in keys], [references[k] for k in keys], expected


def _check(scores, expected):
    for order in range(1, 5):
        assert scores[f"BLEU-{order}"] == pytest.approx(expected[f"Bleu_{order}"], abs=1e-12)


def test_equals_the_official_scores(official):
    hypotheses, references, expected = official
    _check(CorpusBLEU(references)(hypotheses), expected["fakecap"])


def test_equals_the_official_scores_where_the_brevity_penalty_works(official):
    hypotheses, references, expected = official
    _check(CorpusBLEU(references)([h[:5] for h in hypotheses]), expected["short"])


def test_equals_the_official_scores_of_first_reference_against_the_others(official):
    _, references, expected = official
    _check(CorpusBLEU([r[1:] for r in references])([r[0] for r in references]), expected["ref1"])


def test_hand_computed_precisions():
    # unigrams: the, cat, sat of 4; bigrams "the cat", "cat sat" of 3; one trigram of 2; no 4-gram
    scores = CorpusBLEU([[words("the cat sat down")]])([words("the cat sat up")])
    assert scores["BLEU-1"] == pytest.approx(3 / 4)
    assert scores["BLEU-2"] == pytest.approx(math.sqrt(3 / 4 * 2 / 3))
    assert scores["BLEU-3"] == pytest.approx((3 / 4 * 2 / 3 * 1 / 2) ** (1 / 3))
    assert scores["BLEU-4"] == 0


def test_of_equally_near_reference_lengths_the_shorter_counts():
    # 3 words lie between 2 and 4: with 4 the penalty would be exp(1 - 4/3)
    assert CorpusBLEU([[words("a b c d"), words("a b")]])([words("a b c")])["BLEU-1"] == pytest.approx(1.0)


def test_counts_are_summed_over_images_not_averaged():
    references = [[words("a")], [words("b c d e")]]
    scores = CorpusBLEU(references)([words("a"), words("x y z w")])
    assert scores["BLEU-1"] == pytest.approx(1 / 5)  # the mean over images would be 1/2


def test_images_may_have_different_numbers_of_references_and_empty_hypotheses():
    references = [[words("a b"), words("c d"), words("e f")], [words("a b")]]
    assert CorpusBLEU(references)([[], words("a b")])["BLEU-2"] == pytest.approx(math.exp(1 - 4 / 2))
    assert CorpusBLEU(references)([[], []]) == {f"BLEU-{n}": 0.0 for n in range(1, 5)}


def test_order_of_images_does_not_matter():
    references = [[words("a b c d e")], [words("f g h i j")]]
    hypotheses = [words("a b c d x"), words("f g h i")]
    assert CorpusBLEU(references)(hypotheses) == CorpusBLEU(references[::-1])(hypotheses[::-1])


def test_another_number_of_hypotheses_is_refused():
    with pytest.raises(ValueError, match="2 hypotheses for 1 images"):
        CorpusBLEU([[words("a")]])([["a"], ["b"]])
