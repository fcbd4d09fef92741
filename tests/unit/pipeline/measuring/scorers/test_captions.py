"""`pipeline.measuring.score captions` against coco-caption's numbers, and on files that do not go together."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_modules.metrics.measurement import Measurement
from pipeline.measuring import score
from pipeline.measuring.scorers import Inputs, captions
from tests.command import sightline

NAMES = ["Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L"]
TRUTH = {
    "images": [{"id": i} for i in (4, 5, 6, 7)],  # nobody has described image 7
    "annotations": [
        {"id": 10 * image + i, "image_id": image, "caption": f"A {thing} {place}."}
        for image, thing in ((4, "dog"), (5, "cat"), (6, "red bus"))
        for i, place in enumerate(("on a street", "in the park"))
    ],
}
RESULTS = [
    {"image_id": image, "caption": f"a {thing} in the park"} for image, thing in ((6, "bus"), (4, "dog"), (5, "man"))
]


def write(folder: Path, truth, results) -> list[str]:
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "results.json").write_text(json.dumps(results))
    return ["captions", "--truth", str(folder / "truth.json"), "--predictions", str(folder / "results.json")]


def test_equals_the_official_code(shared_dir, capsys) -> None:
    folder = shared_dir / "golden/official/captions"
    expected = json.loads((folder / "expected.json").read_text())["recomputed"]["fakecap"]
    files = ["--truth", str(folder / "captions_val2014_1000_gt.json")]
    files += ["--predictions", str(folder / "captions_val2014_fakecap_results.json")]
    assert sightline("score", ["captions", *files, "--no-java", "--bootstrap", "20"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {name: document[name] for name in NAMES} == pytest.approx(
        {name: expected[name] for name in NAMES}, abs=1e-10
    )
    assert document["CIDEr"] == pytest.approx(0.5997905185184199, abs=1e-9)
    assert document["METEOR"] == document["SPICE"] == "not computed: --no-java was given"
    assert (document["num_items"], document["unit"]) == (1000, "images")
    assert document["intervals"].keys() == {*NAMES, "CIDEr"}
    for name, (low, high) in document["intervals"].items():
        assert low < document[name] < high


def test_with_java_its_measurements_are_added(tmp_path, capsys, monkeypatch) -> None:
    """Texts reach Java as they were written, in the order of the images; reasons reach the user."""
    given_to_java = []

    def measure_java(references, hypotheses):
        given_to_java.append((references, hypotheses))
        meteor = Measurement(values={"METEOR": 0.25}, variant="1.5", source="meteor 1.5", num_items=3)
        spice = Measurement(values={}, variant="-", source="-", num_items=3, not_computed={"SPICE": "no models"})
        return [meteor, spice]

    monkeypatch.setattr(captions, "measure_java", measure_java)
    assert sightline("score", write(tmp_path, TRUTH, RESULTS)) == 0
    document = json.loads(capsys.readouterr().out)
    ((references, hypotheses),) = given_to_java
    assert list(hypotheses) == ["a dog in the park", "a man in the park", "a bus in the park"]
    assert list(references[2]) == ["A red bus on a street.", "A red bus in the park."]
    assert (document["METEOR"], document["SPICE"]) == (0.25, "not computed: no models")
    assert "METEOR: meteor 1.5" in document["source"] and "sightline" in document["source"]
    assert document["num_items"] == 3


@pytest.mark.parametrize(
    ("change_truth", "change_results", "said"),
    [
        (
            None,
            lambda r: r.pop(0),
            ["missing image_id (1 of 3): [6]", "results.json", "truth.json", "change the score"],
        ),
        (None, lambda r: r.append({"image_id": 7, "caption": ""}), ["unknown image_id (1 of 4): [7]", "results.json"]),
        (None, lambda r: r[0].update(image_id="6"), ["unknown image_id (1 of 3): ['6']"]),
        (None, lambda r: r.append(r[1]), ["duplicate image_id: 4", "results.json: [1] and [3]"]),
        (None, lambda r: r[1].pop("caption"), ["'caption' is missing", "results.json: [1], image_id 4"]),
        (None, lambda r: r[1].update(caption=None), ["'caption' has a wrong value: None", "image_id 4"]),
        (None, lambda r: r[1].pop("image_id"), ["'image_id' is missing", "results.json: [1]"]),
        (lambda t: t["annotations"][1].pop("caption"), None, ["'caption' is missing", "annotations[1], id 41"]),
        (lambda t: t["annotations"][1].pop("image_id"), None, ["'image_id' is missing", "annotations[1], id 41"]),
        (lambda t: t["annotations"].clear(), None, ["no captions", "truth.json: annotations"]),
        (lambda t: t.pop("annotations"), None, ["'annotations' is missing: ['images']", "truth.json: top level"]),
    ],
)
def test_bad_files(tmp_path, capsys, change_truth, change_results, said) -> None:
    truth, results = json.loads(json.dumps([TRUTH, RESULTS]))
    for change, document in ((change_truth, truth), (change_results, results)):
        if change is not None:
            change(document)
    assert sightline("score", [*write(tmp_path, truth, results), "--no-java"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("DataError: ")
    assert all(text in err for text in said), err


@settings(max_examples=20)
@given(st.permutations(RESULTS), st.lists(st.text(max_size=10), min_size=3, max_size=3))
def test_the_order_of_results_does_not_matter_and_any_text_is_scored(tmp_path_factory, shuffled, texts) -> None:
    folder = tmp_path_factory.getbasetemp()
    inputs = Inputs(truth=folder / "truth.json", predictions=folder / "results.json", use_java=False)
    captioned = {entry["image_id"]: text for entry, text in zip(RESULTS, texts, strict=True)}
    documents = []
    for results in (RESULTS, shuffled):
        write(folder, TRUTH, [{**entry, "caption": captioned[entry["image_id"]]} for entry in results])
        documents.append(score.score("captions", inputs))
    assert documents[0] == documents[1]
    assert all(0 <= documents[0][name] <= 1 for name in NAMES)
