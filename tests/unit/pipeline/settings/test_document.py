"""What a file of settings may be at all: read in one way, or told with its line or key."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.errors import ConfigError
from pipeline.settings.document import MAX_BYTES, read_document


@pytest.fixture
def read(tmp_path):
    def reading(content: str | bytes):
        path = tmp_path / "params.yaml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return read_document(path)

    return reading


def test_scalars_are_those_of_yaml_1_2(read):
    text = "a: 1e-3\nb: no\nc: 2024-01-01\nd: 010\ne: 1:30\nf: ~\ng:\nh: True\ni: -12\nj: .5\nk: 1.\nl: '3'\nm: 0x1f\n"
    assert read(text) == (
        {
            "a": 1e-3, "b": "no", "c": "2024-01-01", "d": "010", "e": "1:30", "f": None, "g": None, "h": True,
            "i": -12, "j": 0.5, "k": 1.0, "l": "3", "m": "0x1f",
        },
        [],
    )  # fmt: skip


def test_anchors_and_merges_work_and_may_be_laid_over(read):
    document, problems = read("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: *a\n")
    assert document == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}, "c": {"x": 1, "y": 2}}
    assert document["a"] is not document["c"], "a change of one must not change the other"
    assert problems == []


def test_a_byte_order_mark_is_no_mistake(read):
    assert read(b"\xef\xbb\xbfa: 1\n") == ({"a": 1}, [])


def test_every_doubled_key_is_told_with_its_lines(read):
    _, problems = read("a: {b: 1, b: 2}\nc:\n  d: 1\n  e: 2\n  d: 1\na: 3\n")
    assert sorted(problems) == [
        "line 1: 'b' stands twice in one section, first in line 1; leave one of them",
        "line 5: 'd' stands twice in one section, first in line 3; leave one of them",
        "line 6: 'a' stands twice in one section, first in line 1; leave one of them",
    ]


def test_keys_that_are_no_text_are_told_with_their_lines(read):
    document, problems = read("1: a\ntrue: b\nnull: c\n1.5: d\ngood: {2: 3, x: y}\n")
    assert document == {"good": {"x": "y"}}
    said = [f"line {line}: a key must be text (is {key}); put it in quotes" for line, key in
            ((1, "1"), (2, "true"), (3, "null"), (4, "1.5"), (5, "2"))]  # fmt: skip
    assert sorted(problems) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: {b: .nan}", "a.b: must be a finite number (is nan)"),
        ("a: [1, -.inf]", "a.1: must be a finite number (is -inf)"),
        ("a: 1e999", "a: must be a finite number (is inf)"),
        ("a: 99999999999999999999", "a: must be a number of at most 64 bits"),
        ('a: "x\\0"', "a: holds a character that no text may hold"),
        ('a: "\\ud800"', "a: holds a character that no text may hold"),
    ],
)
def test_values_that_no_part_can_take_are_told_with_their_keys(read, text, said):
    (problem,) = read(text)[1]
    assert problem.startswith(said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "params.yaml is empty"),
        ("# nothing\n", "params.yaml is empty"),
        ("[1, 2]", "params.yaml must be a mapping"),
        ("text", "params.yaml must be a mapping"),
        ("5", "params.yaml must be a mapping"),
        ("a: [", "params.yaml is not valid YAML"),
        ("\ta: 1", "params.yaml, line 1, column 1"),
        ("a: 1\n---\nb: 2\n", "params.yaml is not valid YAML"),
        ("? [a]\n: 1\n", "params.yaml is not valid YAML"),
        ("a: !!binary aGk=", "params.yaml is not valid YAML"),
        ("a: !!timestamp x", "params.yaml is not valid YAML"),
        ("a: !!int x", "params.yaml is not valid YAML"),
        ("a: !!python/object/apply:os.system [id]", "params.yaml is not valid YAML"),
        ("a: " + "9" * 5000, "params.yaml is not valid YAML"),
        (b"a: \0", "params.yaml is not valid YAML"),
        ("a: 1\nb: é".encode("latin-1"), "params.yaml is not UTF-8 text"),
        ("[" * 3_000, "params.yaml is nested too deeply"),
        ("a: " + "[" * 40 + "]" * 40, "does an anchor hold itself"),
        ("a: &a [*a]", "does an anchor hold itself"),
        (f"a: &a [{'x,' * 99}]\nb: &b [{'*a,' * 99}]\nc: [{'*b,' * 99}]", "does an anchor hold itself"),
        ("a: " + "x" * MAX_BYTES, "params.yaml is too large"),
    ],
)
def test_what_is_no_document_is_told(read, content, said):
    with pytest.raises(ConfigError) as caught:
        read(content)
    assert said in str(caught.value)


def test_a_folder_in_the_files_place_and_no_file(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"no params\.yaml here"):
        read_document(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").mkdir()
    with pytest.raises(ConfigError, match=r"params\.yaml cannot be read: 'Is a directory'"):
        read_document(tmp_path / "params.yaml")


def test_where_a_byte_is_no_utf_8_is_told(read):
    with pytest.raises(ConfigError, match=r"params\.yaml, line 2"):
        read("a: 1\nb: é".encode("latin-1"))
