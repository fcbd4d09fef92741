"""Reading and checking what users give: every error names the file, the place and what is allowed."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import DataError
from pipeline.measuring.scorers._files import (
    check_same_ids,
    entries_of,
    list_files,
    read_entries,
    read_json,
    read_lines,
)


@pytest.fixture
def file(tmp_path: Path):
    """Writes a file and returns its path."""

    def write(content: str | bytes) -> Path:
        path = tmp_path / "given.json"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_json_with_and_without_a_byte_order_mark(file) -> None:
    assert read_json(file('{"a": [1, 2.5, "ä"]}')) == {"a": [1, 2.5, "ä"]}
    assert read_json(file(b"\xef\xbb\xbf[1]")) == [1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", ["broken JSON", "given.json, line 1 column 1"]),
        ('[{"a": 1},\n {"a": NaN}]', ["broken JSON", "NaN}]", "line 2 column 8", "without NaN"]),
        ('[{"a": 1}, {"a"', ["broken JSON", "line 1"]),
        (b'["\xff"]', ["broken JSON", "given.json"]),
    ],
)
def test_broken_json(file, content, said) -> None:
    with pytest.raises(DataError) as error:
        read_json(file(content))
    assert all(text in str(error.value) for text in said), error.value


def test_a_file_that_is_not_there(tmp_path) -> None:
    for path in (tmp_path / "nosuch.json", tmp_path):
        with pytest.raises(DataError, match="cannot read this file"):
            read_json(path)


@pytest.mark.parametrize(
    ("document", "name", "said"),
    [
        ({"images": []}, "", "an object with the keys 'images'"),
        ([], "annotations", "a list of 0"),
        (3, "annotations", "3"),
        ({"images": []}, "annotations", "'annotations' is missing: ['images']"),
        ({"annotations": {}}, "annotations", "{}"),
        ([{}, 5], "", "an entry must be a JSON object: 5\n  where: f.json: [1]"),
    ],
)
def test_the_wrong_shape(document, name, said) -> None:
    with pytest.raises(DataError) as error:
        entries_of(document, Path("f.json"), id_name="id", name=name)
    assert said in str(error.value) and "f.json" in str(error.value) and "allowed" in str(error.value)


@pytest.mark.parametrize(
    ("entry", "read", "said"),
    [
        ({"id": 7}, lambda e: e.text(0, "caption"), "'caption' is missing\n  where: f.json: list[0], id 7"),
        ({"id": 7, "caption": 3}, lambda e: e.text(0, "caption"), "'caption' has a wrong value: 3"),
        ({"id": 7, "score": True}, lambda e: e.number(0, "score"), "'score' has a wrong value: True"),
        ({"id": 7, "score": "1"}, lambda e: e.number(0, "score"), "'score' has a wrong value: '1'"),
        ({}, lambda e: e.ids(), "'id' is missing\n  where: f.json: list[0]\n"),
        ({"id": 2.5}, lambda e: e.ids(), "'id' has a wrong value: 2.5"),
        ({"id": None}, lambda e: e.ids(), "'id' has a wrong value: None"),
        ({"id": True}, lambda e: e.ids(), "'id' has a wrong value: True"),
        ({"id": ""}, lambda e: e.ids(), "'id' has a wrong value: ''"),
    ],
)
def test_a_value_that_cannot_be_used(entry, read, said) -> None:
    with pytest.raises(DataError) as error:
        read(entries_of({"list": [entry]}, Path("f.json"), id_name="id", name="list"))
    assert said in str(error.value)


def test_an_id_that_is_there_twice(file) -> None:
    path = file(json.dumps([{"id": 4}, {"id": 5}, {"id": 4.0}]))
    with pytest.raises(DataError, match=r"duplicate id: 4\n  where: .*given.json: \[0\] and \[2\]"):
        read_entries(path, id_name="id").ids()


@given(st.sets(st.integers() | st.text()), st.sets(st.integers() | st.text()))
def test_ids_pass_only_if_they_are_the_same(truth, given_ids) -> None:
    def check() -> None:
        check_same_ids(truth, given_ids, name="image_id", truth_file=Path("t.json"), given_file=Path("p.json"))

    if truth == given_ids:
        check()
        return
    with pytest.raises(DataError) as error:
        check()
    wrong = given_ids - truth or truth - given_ids
    assert f"({len(wrong)} of" in error.value.what
    assert error.value.where == "p.json" and "t.json" in error.value.allowed


def test_the_first_wrong_ids_are_named() -> None:
    with pytest.raises(DataError, match=r"missing image_id \(8 of 10\): \[2, 3, 4, 5, 6\]\n  where: p.json"):
        check_same_ids(range(10), [0, 1], name="image_id", truth_file=Path("t.json"), given_file=Path("p.json"))


@given(st.lists(st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"])), min_size=1))
def test_lines_come_back_as_they_were_written(tmp_path_factory, lines) -> None:
    path = tmp_path_factory.getbasetemp() / "lines.txt"
    for end, last in (("\n", "\n"), ("\r\n", "\r\n")):
        path.write_bytes((end.join(lines) + last).encode())
        assert read_lines(path, keep_mark=True) == lines


def test_lines_are_split_at_line_feeds_only(file) -> None:
    assert read_lines(file("\ufeffa\u2028b\x0b\r\n\n c")) == ["a\u2028b\x0b\r", "", " c"]
    with pytest.raises(DataError, match="this file is empty"):
        read_lines(file(""))
    with pytest.raises(DataError, match=r"not UTF-8 text: b'\\xe4'\n  where: .*, line 3"):
        read_lines(file(b"a\nb\n\xe4"))


def test_files_of_a_folder(tmp_path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        list_files(tmp_path / "nosuch", ".png")
    with pytest.raises(DataError, match=r"no .png file in this folder"):
        list_files(tmp_path, ".png")
    for name in ("b.PNG", "a.png", ".hidden.png", "c.jpg"):
        (tmp_path / name).touch()
    assert list(list_files(tmp_path, ".png")) == ["a", "b"]
