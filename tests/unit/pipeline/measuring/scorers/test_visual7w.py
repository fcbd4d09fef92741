"""`pipeline.measuring.score visual7w` against the official script's golden case, and on broken files."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.measuring import score
from pipeline.measuring.scorers import Inputs
from tests.command import sightline

PAIRS = [{"qa_id": 5 + i, "type": kind, "answer": f"It is {i}."} for i, kind in enumerate(["what", "who", "who"])]
RESULTS = [{"qa_id": pair["qa_id"], "candidates": [{"answer": pair["answer"].upper()}]} for pair in PAIRS]


def write(folder: Path, truth, results) -> list[str]:
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "results.json").write_text(json.dumps(results))
    return ["visual7w", "--truth", str(folder / "truth.json"), "--predictions", str(folder / "results.json")]


def published(pairs) -> dict:
    """The data set file's shape, two pairs an image."""
    groups = [pairs[i : i + 2] for i in range(0, len(pairs), 2)]
    return {"dataset": "v7w", "images": [{"image_id": 7 * i, "qa_pairs": group} for i, group in enumerate(groups)]}


@pytest.mark.parametrize("shape", [list, published, lambda p: {"pairs": p}, lambda p: {"qa_pairs": p}])
def test_equals_the_official_script(shared_dir, tmp_path, capsys, shape) -> None:
    golden = json.loads((shared_dir / "golden/official/v7w/golden_visual7w.json").read_text())
    arguments = write(tmp_path, shape(golden["pairs"]), golden["results"])
    assert sightline("score", [*arguments, "--bootstrap", "20"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["overall"] == 0.5
    by_type = {"how": 1.0, "what": 0.5, "when": 1.0, "where": 0.0, "who": 0.0}
    assert {name: document[name] for name in by_type} == by_type
    assert "which" not in document
    assert (document["num_items"], document["unit"]) == (6, "questions")
    low, high = document["intervals"]["overall"]
    assert low <= 0.5 <= high


def test_an_image_is_drawn_with_all_its_questions(tmp_path, capsys) -> None:
    """With one image every resample is the split itself; pairs without an image are drawn alone."""
    results = [RESULTS[0], {**RESULTS[1], "candidates": [{"answer": "wrong"}]}, RESULTS[2]]
    for truth, ends in (({"images": [{"image_id": 1, "qa_pairs": PAIRS}]}, [2 / 3, 2 / 3]), (PAIRS, [0, 1])):
        assert sightline("score", [*write(tmp_path, truth, results), "--bootstrap", "400"]) == 0
        assert json.loads(capsys.readouterr().out)["intervals"]["overall"] == pytest.approx(ends)


def test_a_year_may_be_a_number_and_only_the_first_candidate_counts(tmp_path, capsys) -> None:
    truth = [{"qa_id": 0, "type": "when", "answer": 1999}, {"qa_id": 1, "type": "when", "answer": "Dusk."}]
    results = [
        {"qa_id": 1, "candidates": [{"answer": "dawn."}, {"answer": "dusk."}]},
        {"qa_id": 0, "candidates": [{"answer": "1999"}]},
    ]
    assert sightline("score", write(tmp_path, truth, results)) == 0
    assert json.loads(capsys.readouterr().out)["overall"] == 0.5


def test_the_splits_that_are_answered_count_whole(tmp_path, capsys) -> None:
    """The published file has three splits; results are of one."""
    images = [
        {"image_id": i, "split": split, "qa_pairs": PAIRS[i : i + 1]}
        for i, split in enumerate(["train", "test", "test"])
    ]
    arguments = write(tmp_path, {"images": images}, RESULTS[1:])
    assert sightline("score", arguments) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert (document["overall"], document["num_items"]) == (1.0, 2)
    assert "split test: 2 of the 3 questions" in err
    assert sightline("score", write(tmp_path, {"images": images}, RESULTS[2:])) == 2
    assert "missing qa_id (1 of 2): [6]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change_truth", "change_results", "said"),
    [
        (None, lambda r: r.pop(0), ["missing qa_id (1 of 3): [5]", "results.json", "truth.json"]),
        (None, lambda r: r.append({**r[0], "qa_id": 99}), ["unknown qa_id (1 of 4): [99]", "results.json"]),
        (None, lambda r: r.append(r[1]), ["duplicate qa_id: 6", "results.json: [1] and [3]"]),
        (None, lambda r: r[0].update(candidates=[]), ["'candidates' has a wrong value: []", "[0], qa_id 5"]),
        (None, lambda r: r[0].update(candidates=["x"]), ["'candidates' has a wrong value: ['x']"]),
        (None, lambda r: r[0].update(candidates=[{}]), ["'candidates' has a wrong value: [{}]"]),
        (None, lambda r: r[0].pop("candidates"), ["'candidates' is missing", "results.json: [0], qa_id 5"]),
        (None, lambda r: r[0].update(qa_id="5"), ["'qa_id' has a wrong value: '5'", "whole number"]),
        (lambda t: t.append(t[0]), None, ["duplicate qa_id: 5", "truth.json: [3]"]),
        (lambda t: t[1].pop("type"), None, ["'type' is missing", "truth.json: [1], qa_id 6"]),
        (
            lambda t: t[1].update(type="unit"),
            None,
            ["'type' has a wrong value: 'unit'", "truth.json: [1], qa_id 6", "which"],
        ),
        (lambda t: t[1].pop("answer"), None, ["'answer' is missing", "truth.json: [1], qa_id 6"]),
        (lambda t: t[1].update(answer=None), None, ["'answer' has a wrong value: None"]),
        (list.clear, None, ["no question-answer pairs", "truth.json"]),
    ],
)
def test_bad_files(tmp_path, capsys, change_truth, change_results, said) -> None:
    truth, results = json.loads(json.dumps([PAIRS, RESULTS]))
    for change, entries in ((change_truth, truth), (change_results, results)):
        if change is not None:
            change(entries)
    assert sightline("score", write(tmp_path, truth, results)) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("DataError: ")
    assert all(text in err for text in said), err


@pytest.mark.parametrize(
    ("truth", "said"),
    [
        ({"annotations": []}, ["no question-answer pairs here: ['annotations']", "top level", "qa_pairs"]),
        ({"images": [{"image_id": 3}]}, ["'qa_pairs' is missing", "images[0], image_id 3"]),
        ({"images": [{"image_id": 3, "qa_pairs": [4]}]}, ["'qa_pairs' has a wrong value: [4]", "images[0]"]),
        (
            {"images": [{"qa_pairs": [{"qa_id": 1, "answer": "a"}]}]},
            ["'type' is missing", "images[0].qa_pairs[0], qa_id 1"],
        ),
    ],
)
def test_a_truth_of_another_shape(tmp_path, capsys, truth, said) -> None:
    assert sightline("score", write(tmp_path, truth, RESULTS)) == 2
    err = capsys.readouterr().err
    assert all(text in err for text in [*said, "truth.json"]), err


@settings(max_examples=25)
@given(st.lists(st.booleans(), min_size=1, max_size=9), st.randoms())
def test_the_share_of_right_answers(tmp_path_factory, right, random) -> None:
    folder = tmp_path_factory.getbasetemp()
    pairs = [{"qa_id": i, "type": "what", "answer": f"A{i}"} for i in range(len(right))]
    results = [{"qa_id": i, "candidates": [{"answer": f"a{i}" if ok else "no"}]} for i, ok in enumerate(right)]
    random.shuffle(results)
    write(folder, published(pairs), results)
    document = score.score("visual7w", Inputs(truth=folder / "truth.json", predictions=folder / "results.json"))
    assert document["overall"] == document["what"] == pytest.approx(sum(right) / len(right))
