"""`score translation` against sacrebleu's published numbers, and on files that do not go together."""

import json

import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.measuring import score
from pipeline.measuring.scorers import Inputs
from tests.command import sightline


@pytest.mark.parametrize("system", ["online-A.0", "uedin-nmt.4722"])
def test_equals_the_published_systems(shared_dir, capsys, system) -> None:
    folder = shared_dir / "golden/bleu_wmt17_en_de"
    name = f"newstest2017.{system}.en-de"
    expected = json.loads((folder / "expected.json").read_text())[name]
    found = folder / "systems" / f"{name}.txt"
    assert (
        sightline("score", ["translation", "--truth", str(folder / "newstest2017-ref.de"), "--predictions", str(found)])
        == 0
    )
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert document["BLEU"] == pytest.approx(expected["BLEU_13a_cased"], abs=1e-12)
    assert document["chrF2"] == pytest.approx(expected["chrF2"], abs=1e-12)
    assert document["signature"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert document["chrF2_signature"].startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")
    assert document["source"] == f"BLEU: {document['signature']}; chrF2: {document['chrF2_signature']}"
    assert (document["num_items"], document["unit"]) == (3004, "sentences")
    # online-A's first line starts with a byte order mark, which is part of what was published.
    assert ("byte order mark" in err) == (system == "online-A.0")


def test_a_folder_of_references(shared_dir, tmp_path, capsys) -> None:
    case = json.loads((shared_dir / "golden/official/text/expected.json").read_text())["bleu"]
    (tmp_path / "refs").mkdir()
    for i, lines in enumerate(case["refs"]):
        (tmp_path / "refs" / f"{i}.txt").write_text("\r\n".join([*lines, ""]), newline="")
    (tmp_path / "refs" / ".hidden").write_text("nothing")
    (tmp_path / "found.txt").write_text("\n".join(case["sys"]))  # without a last line feed
    arguments = ["--truth", str(tmp_path / "refs"), "--predictions", str(tmp_path / "found.txt"), "--bootstrap", "50"]
    assert sightline("score", ["translation", *arguments]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["BLEU"] == pytest.approx(case["score"], abs=1e-12)
    assert document["signature"].split("|version")[0] == case["signature"].split("|version")[0]
    assert document["signature"].startswith("nrefs:2|")
    assert "BLEU" in document["intervals"]


@pytest.mark.parametrize(
    ("truth", "found", "said"),
    [
        ("a\nb\n", "a\n", ["different numbers of lines", "1 in", "found.txt", "2 in", "truth.txt"]),
        ("a\n", "a\n\n", ["different numbers of lines", "2 in", "1 in"]),
        ("", "a\n", ["this file is empty", "truth.txt"]),
        (b"\xe4\n", "a\n", ["not UTF-8", "truth.txt, line 1"]),
        (None, "a\n", ["cannot read this file", "truth.txt"]),
        ("a\n", None, ["cannot read this file", "found.txt"]),
    ],
)
def test_bad_files(tmp_path, capsys, truth, found, said) -> None:
    for name, content in (("truth.txt", truth), ("found.txt", found)):
        if content is not None:
            (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    files = ["--truth", str(tmp_path / "truth.txt"), "--predictions", str(tmp_path / "found.txt")]
    assert sightline("score", ["translation", *files]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("DataError: ")
    assert all(text in err for text in said), err


def test_an_empty_folder_of_references(tmp_path, capsys) -> None:
    (tmp_path / "refs").mkdir()
    (tmp_path / "found.txt").write_text("a\n")
    files = ["--truth", str(tmp_path / "refs"), "--predictions", str(tmp_path / "found.txt")]
    assert sightline("score", ["translation", *files]) == 2
    assert "no reference file in this folder" in capsys.readouterr().err


sentences = st.lists(st.text("ab \u2028\x85.,", max_size=12), min_size=1, max_size=5)


@settings(max_examples=25)
@given(sentences)
def test_files_are_scored_as_sacrebleu_scores_their_lines(tmp_path_factory, lines) -> None:
    """Whatever counts as a line end elsewhere stays inside a sentence."""
    folder = tmp_path_factory.getbasetemp()
    references = [line[::-1] + " a" for line in lines]
    (folder / "bleu_truth.txt").write_bytes("".join(f"{line}\n" for line in references).encode())
    (folder / "bleu_found.txt").write_bytes("".join(f"{line}\n" for line in lines).encode())
    inputs = Inputs(truth=folder / "bleu_truth.txt", predictions=folder / "bleu_found.txt")
    document = score.score("translation", inputs)
    assert document["BLEU"] == pytest.approx(sacrebleu.corpus_bleu(lines, [references]).score, abs=1e-9)
    assert document["num_items"] == len(lines)
