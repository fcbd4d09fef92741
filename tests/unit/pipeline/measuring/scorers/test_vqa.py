"""`pipeline.measuring.score vqa` against the official evaluator's numbers, and on files that do not go together."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.measuring import score
from pipeline.measuring.scorers import Inputs
from tests.command import sightline


def scored(capsys, questions: Path, annotations: Path, results: Path, *more: str) -> dict:
    files = ["--questions", str(questions), "--truth", str(annotations), "--predictions", str(results)]
    assert sightline("score", ["vqa", *files, *more]) == 0
    return json.loads(capsys.readouterr().out)


def documents(items: list[dict]) -> dict:
    """The three official documents of items with question_id, image_id, answer, answers and the two types."""
    return {
        "questions": {
            "questions": [{"question_id": i["question_id"], "image_id": i["image_id"], "question": "?"} for i in items]
        },
        "annotations": {
            "annotations": [
                {
                    "question_id": item["question_id"],
                    "image_id": item["image_id"],
                    "answer_type": item["answer_type"],
                    "question_type": item["question_type"],
                    "answers": [{"answer": text, "answer_id": i + 1} for i, text in enumerate(item["answers"])],
                }
                for item in items
            ]
        },
        "results": [{"question_id": item["question_id"], "answer": item["answer"]} for item in items],
    }


def write(folder: Path, contents: dict) -> tuple[Path, Path, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, document in contents.items():
        (folder / f"{name}.json").write_text(json.dumps(document))
    return folder / "questions.json", folder / "annotations.json", folder / "results.json"


@pytest.mark.parametrize("name", ["always_yes", "most_common_answer", "first_annotator"])
def test_real_questions_equal_the_official_evaluator(shared_dir, capsys, name) -> None:
    folder = shared_dir / "golden/vqa_accuracy_official"
    expected = json.loads((folder / "expected.json").read_text())[name]["accuracy"]
    prefix = "v2_OpenEnded_mscoco_train2014"
    document = scored(
        capsys,
        folder / f"{prefix}_questions.json",
        folder / "v2_mscoco_train2014_annotations.json",
        folder / f"{prefix}_{name}_results.json",
    )
    assert round(document["overall"], 2) == expected["overall"]
    for group in ("perAnswerType", "perQuestionType"):
        assert {key: round(value, 2) for key, value in document[group].items()} == expected[group]
    assert (document["num_items"], document["unit"]) == (518, "questions")


def test_hard_answers_equal_the_official_evaluator(shared_dir, tmp_path, capsys) -> None:
    golden = json.loads((shared_dir / "golden/official/vqa/golden_vqa.json").read_text())
    items = [{**item, "image_id": item["question_id"] // 3} for item in golden["items"]]
    document = scored(capsys, *write(tmp_path, documents(items)), "--bootstrap", "100")
    assert document["overall"] == pytest.approx(72.7346938776, abs=1e-9)
    for group in ("perAnswerType", "perQuestionType"):
        assert document[group] == pytest.approx(golden["expected"][group], abs=1e-9)
    assert document["num_items"] == 245
    for name, (low, high) in document["intervals"].items():
        group, _, member = name.partition("/")
        assert low <= (document[group][member] if member else document[group]) <= high
    assert len(document["intervals"]) == 8


ITEMS = [
    {
        "question_id": 10 + i,
        "image_id": i // 2,
        "answer": "yes",
        "answers": ["yes", "no"],
        "answer_type": "yes/no",
        "question_type": "is the",
    }
    for i in range(4)
]


def changed(name: str, change) -> dict:
    """The good documents with `change` done to the list of entries of one."""
    out = json.loads(json.dumps(documents(ITEMS)))
    entries = out[name] if name == "results" else out[name][name]
    change(entries)
    return out


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("results", lambda e: e.pop(1), ["missing question_id (1 of 4): [11]", "results.json", "questions.json"]),
        ("results", lambda e: e.append({"question_id": 99, "answer": ""}), ["unknown question_id (1 of 5): [99]"]),
        ("results", lambda e: e.append(e[2]), ["duplicate question_id: 12", "results.json: [2] and [4]"]),
        ("results", lambda e: e[1].pop("answer"), ["'answer' is missing", "results.json: [1], question_id 11"]),
        ("results", lambda e: e[1].update(answer=[3]), ["'answer' has a wrong value: [3]", "question_id 11", "a text"]),
        ("results", lambda e: e[1].update(question_id="x11"), ["unknown question_id", "'x11'"]),
        ("results", lambda e: e.append({**e[1], "question_id": "11"}), ["there twice, as a number and as a text: 11"]),
        ("annotations", lambda e: e.pop(0), ["missing question_id (1 of 4): [10]", "annotations.json"]),
        ("annotations", lambda e: e[0].update(image_id=7), ["another image", "7", "annotations[0], question_id 10"]),
        ("annotations", lambda e: e[0].update(answers=[]), ["'answers' has a wrong value: []", "question_id 10"]),
        ("annotations", lambda e: e[0].update(answers=["yes"]), ["'answers' has a wrong value: ['yes']"]),
        (
            "annotations",
            lambda e: e[0].update(answer_type=[]),
            ["'answer_type' has a wrong value: []", "id 10"],
        ),
        ("questions", lambda e: e.append(e[0]), ["duplicate question_id: 10", "questions.json: questions[0]"]),
        ("questions", lambda e: e[0].pop("image_id"), ["'image_id' is missing", "questions[0], question_id 10"]),
        ("questions", list.clear, ["lists no questions", "questions.json: questions"]),
    ],
)
def test_bad_files(tmp_path, capsys, name, change, said) -> None:
    questions, annotations, results = write(tmp_path, changed(name, change))
    files = ["--questions", str(questions), "--truth", str(annotations), "--predictions", str(results)]
    assert sightline("score", ["vqa", *files]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("DataError: ")
    assert all(text in err for text in said), err


def test_files_are_judged_as_the_source_judges_them(tmp_path, capsys) -> None:
    """Ids as text, answers as numbers, no types and no image in the annotations."""
    contents = documents([{**item, "answer": 2, "answers": ["2"]} for item in ITEMS])
    for i, entry in enumerate(contents["annotations"]["annotations"]):
        entry |= {"question_id": str(entry["question_id"]), "answers": [{"answer": 2}]}
        del entry["answer_type"], entry["image_id"]
        entry["question_type"] = None if i else ""
    document = scored(capsys, *write(tmp_path, contents))
    assert document["overall"] == 100
    assert not {"perAnswerType", "perQuestionType"} & document.keys()
    assert document["variant"].startswith("an answer that an annotator gave counts 100")


def test_an_image_is_drawn_with_all_its_questions(tmp_path, capsys) -> None:
    """With one image every resample is the split itself, however its questions differ."""
    items = [{**item, "image_id": 3, "answer": "yes" if i % 2 else "?"} for i, item in enumerate(ITEMS)]
    document = scored(capsys, *write(tmp_path, documents(items)), "--bootstrap", "20")
    assert document["intervals"]["overall"] == pytest.approx([document["overall"]] * 2)


def test_swapped_files_are_told(tmp_path, capsys) -> None:
    questions, annotations, results = write(tmp_path, documents(ITEMS))
    files = ["--questions", str(annotations), "--truth", str(questions), "--predictions", str(results)]
    assert sightline("score", ["vqa", *files]) == 2
    err = capsys.readouterr().err
    assert "'questions' is missing: ['annotations']" in err and "annotations.json: top level" in err


@settings(max_examples=25)
@given(st.permutations(range(4)), st.permutations(range(4)), st.permutations(range(4)))
def test_the_order_of_the_files_does_not_matter(tmp_path_factory, first, second, third) -> None:
    items = [{**item, "answer": text} for item, text in zip(ITEMS, ["yes", "no", "maybe", "the yes"], strict=True)]
    contents = documents(items)
    shuffled = {
        "questions": {"questions": [contents["questions"]["questions"][i] for i in first]},
        "annotations": {"annotations": [contents["annotations"]["annotations"][i] for i in second]},
        "results": [contents["results"][i] for i in third],
    }
    folder = tmp_path_factory.getbasetemp() / "vqa_order"
    found = []
    for document in (contents, shuffled):
        questions, annotations, results = write(folder, document)
        inputs = Inputs(truth=annotations, predictions=results, questions=questions)
        found.append(score.score("vqa", inputs, num_resamples=10))
    assert found[0]["intervals"] == found[1]["intervals"]
    assert found[0] == found[1]
    # With two annotators an answer that one of them gave is right; the article of "the yes" goes.
    assert found[0]["overall"] == 75
