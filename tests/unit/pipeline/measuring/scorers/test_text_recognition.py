"""`pipeline.measuring.score text-recognition`: plain lines, lines with ids, and files that do not go together."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.measuring import score
from pipeline.measuring.scorers import Inputs
from tests.command import sightline


def write(folder, truth: str | bytes, found: str | bytes) -> list[str]:
    for name, content in (("truth.txt", truth), ("found.txt", found)):
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    files = ["--truth", str(folder / "truth.txt"), "--predictions", str(folder / "found.txt")]
    return ["text-recognition", *files]


def test_equals_the_hand_made_rates(shared_dir, tmp_path, capsys) -> None:
    cases = json.loads((shared_dir / "golden/official/text/expected.json").read_text())["cer"]
    assert len(cases) == 6
    for case in cases:
        expected = next(case[name] for name in ("cer", "cer_exact", "cer_nfc") if name in case)
        assert sightline("score", write(tmp_path, case["ref"] + "\n", case["hyp"] + "\n")) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["CER"] == pytest.approx(expected, abs=1e-12), case


def test_lines_with_ids_are_matched_by_id(tmp_path, capsys) -> None:
    truth = "w1\tone\nw2\ttwo words\nw3\t\n"
    found = "\ufeffw3\t\nw2\ttwo wards\nw1\tone\n"
    assert sightline("score", write(tmp_path, truth, found)) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["CER"] == pytest.approx(1 / 12)
    assert document["WER"] == pytest.approx(1 / 3)
    assert document["word_accuracy"] == pytest.approx(2 / 3)
    assert document["1-NED"] == pytest.approx(1 - (1 / 9) / 3)
    assert (document["num_items"], document["unit"]) == (3, "texts")


def test_a_text_may_hold_tabs(tmp_path, capsys) -> None:
    assert sightline("score", write(tmp_path, "1\ta\tb\n", "1\ta\tb\n")) == 0
    assert json.loads(capsys.readouterr().out)["word_accuracy"] == 1.0
    assert sightline("score", write(tmp_path, "a\tb\nc\n", "a\tb\nc\n")) == 0  # not every line: plain text
    assert json.loads(capsys.readouterr().out)["CER"] == 0.0


def test_one_windows_file_is_no_error_in_each_line(tmp_path, capsys) -> None:
    assert sightline("score", write(tmp_path, "a\r\nb\r\n", "a\nb\n")) == 0
    assert json.loads(capsys.readouterr().out)["CER"] == 0.0


def test_nothing_to_read_has_no_rate(tmp_path, capsys) -> None:
    assert sightline("score", write(tmp_path, "\n", "abc\n")) == 0
    assert json.loads(capsys.readouterr().out)["CER"] is None


@pytest.mark.parametrize(
    ("truth", "found", "said"),
    [
        ("a\nb\n", "a\n", ["different numbers of lines", "1 in", "found.txt", "2 in", "truth.txt", "id<TAB>text"]),
        ("1\ta\n2\tb\n", "1\ta\n", ["missing id (1 of 2): ['2']", "found.txt", "truth.txt"]),
        ("1\ta\n", "1\ta\n3\tb\n", ["unknown id (1 of 2): ['3']", "found.txt"]),
        ("1\ta\n2\tb\n", "1\ta\n1\tb\n", ["duplicate id: '1'", "found.txt, line 2"]),
        ("1\ta\n1\tb\n", "1\ta\n2\tb\n", ["duplicate id: '1'", "truth.txt, line 2"]),
        ("1\ta\n2\tb\n", "1\ta\n2\n", ["a line has no tab: '2'", "found.txt, line 2", "as in", "truth.txt"]),
        ("a\nb\n", "1\ta\n2\tb\n", ["a line has no tab: 'a'", "truth.txt, line 1"]),
        ("", "a\n", ["this file is empty", "truth.txt"]),
        ("a\n", b"\xff\n", ["not UTF-8", "found.txt, line 1"]),
    ],
)
def test_bad_files(tmp_path, capsys, truth, found, said) -> None:
    assert sightline("score", write(tmp_path, truth, found)) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("DataError: ")
    assert all(text in err for text in said), err


texts = st.text(st.characters(exclude_characters="\n\r\t\ufeff", exclude_categories=["Cs"]), max_size=8)


@settings(max_examples=40)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=6), st.randoms())
def test_ids_and_any_order_give_what_plain_lines_give(tmp_path_factory, pairs, random) -> None:
    folder = tmp_path_factory.getbasetemp()
    inputs = Inputs(truth=folder / "truth.txt", predictions=folder / "found.txt")
    write(folder, *("".join(f"{pair[side]}\n" for pair in pairs) for side in (0, 1)))
    plain = score.score("text-recognition", inputs)
    rows = [[f"{i}\t{pair[side]}\n" for i, pair in enumerate(pairs)] for side in (0, 1)]
    random.shuffle(rows[1])
    write(folder, "".join(rows[0]), "".join(rows[1]))
    assert score.score("text-recognition", inputs) == plain
    assert plain["word_accuracy"] is not None and math.isfinite(plain["1-NED"])
