"""Path templates of the sources' settings, keys, ids and numbers as people write them."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import ConfigError
from pipeline.ingest.sources._files import (
    Spool,
    _NoNaN,
    check_template,
    find_id,
    is_inside,
    item_id,
    number,
    record_key,
)
from pipeline.shards.samples import tar_member
from pipeline.system.reading import listed


@pytest.mark.parametrize("template", ["{split}2014", "images/{split}/{image_id:012d}.jpg", "plain", "{split:s}"])
def test_names_and_widths_are_taken(template):
    check_template("images", template, split="train", image_id=1)


@pytest.mark.parametrize(
    "template",
    [
        "{split:>9999999999}",
        "{split:100}",
        "{split.__class__}",
        "{split[0]}",
        "{split!r}",
        "{other}",
        "{}",
        "{split",
        "{split:d}",
    ],
)
def test_what_else_a_template_could_do_is_refused(template):
    """The first would take ten gigabytes."""
    with pytest.raises(ConfigError, match="images cannot be filled in"):
        check_template("images", template, split="train", image_id=1)


def test_a_key_is_the_whole_path_and_two_paths_have_two():
    assert record_key("train2017/000000000009.jpg") == "train2017-000000000009"
    assert record_key("./train2017//a.jpg") == record_key("train2017\\a.jpg") == "train2017-a"
    alike = [
        "a/b.jpg", "a-b.jpg", "a b.jpg", "A/b.jpg", "a/b.png", "a/b.jpeg", "a.b.jpg", "a/b", "ab/b.jpg", "a/b.JPG",
        "正常.jpg", "缺陷.jpg", "å/b.jpg", f"{'x' * 200}/b.jpg", f"{'x' * 201}/b.jpg", "---.jpg", "b.jpg",
    ]  # fmt: skip
    keys = [record_key(name) for name in alike]
    assert len(set(keys)) == len(alike)
    assert all(re.fullmatch(r"[a-z0-9_-]{1,80}", key) for key in keys)
    assert all(tar_member(f"{key}.semantic.png", b"") for key in keys)
    composed, taken_apart = (unicodedata.normalize(form, "Bäume/é.png") for form in ("NFC", "NFD"))
    assert composed != taken_apart and record_key(composed) == record_key(taken_apart)
    assert record_key("Bäume/Zwölf Eichen.png").startswith("b-ume-zw-lf-eichen-")


def test_ids_are_found_whether_number_or_text():
    known: list[int | str] = [0, 25, "7", "a"]
    assert [find_id(value, known) for value in (0, "0", 25.0, "25", 7, "a", "7")] == [0, 0, 25, 25, "7", "a", "7"]
    assert [find_id(value, known) for value in (True, None, [25], "25a", 25.5, "9" * 30, -25)] == [None] * 7
    assert find_id(1, [1, "1"]) == 1 and find_id("1", [1, "1"]) == "1"  # exactly that one goes first
    assert [item_id(v) for v in (0, "x", 2.0, -1, "", None, True, 1.5)] == [0, "x", 2, None, None, None, None, None]


def test_numbers_may_be_written_as_text():
    assert [number(v) for v in ("20.50", " 3", 4, 1.5)] == [(20.5, True), (3, True), (4, False), (1.5, False)]
    assert [number(v)[0] for v in ("3 px", "", "1_0", "9" * 50, None, True, [1])] == [None] * 7


def test_a_spool_takes_ids_of_both_kinds():
    with Spool() as spool:
        for group, own_id in [(0, 1), ("g", "x"), (0, "1"), ("g", "x"), (0, 1)]:
            spool.add(group, own_id, [group, own_id])
        assert spool.seal() == ["x", 1]
        assert spool.of(0) == [[0, 1], [0, "1"]]
        assert spool.of("g") == [["g", "x"]]
        assert spool.of("h") == []


def test_hidden_files_are_not_listed(tmp_path):
    for name in ("a.jpg", "._a.jpg", ".DS_Store"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in listed(tmp_path)] == ["a.jpg"]


def test_safe_names() -> None:
    assert [is_inside(name) for name in ("a/b.jpg", "a..b.jpg", "", "..", "a/../b", "..\\b", "C:\\b", "\\b")] == [
        True, True, False, False, False, False, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize("size", [1, 7, 64, 1 << 16])
def test_nan_inside_texts_is_left_alone(tmp_path: Path, size: int) -> None:
    text = json.dumps({"a": [math.nan, -math.inf, math.inf], "b": 'NaN, "NaN" \\', "c": ["x" * 200, math.nan]})
    (tmp_path / "f").write_text(text)

    class Dripping:
        """Reads as few bytes as a pipe may give."""

        def __init__(self, file: Any):
            self.file = file

        def read(self, _: int) -> bytes:
            return self.file.read(size)

    with open(tmp_path / "f", "rb") as file:
        reader = _NoNaN(Dripping(file))  # type: ignore[arg-type]
        out = b"".join(iter(lambda: reader.read(1 << 16), b""))
    assert json.loads(out) == {"a": [None] * 3, "b": 'NaN, "NaN" \\', "c": ["x" * 200, None]}
