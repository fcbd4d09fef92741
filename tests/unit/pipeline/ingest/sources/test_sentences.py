"""Parallel text: lines belong together by their number, whatever ends them; what cannot belong together stops."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import ConfigError, DataError
from contracts.records import Record
from pipeline.ingest.sources import OpenSource, _lines, joined_splits, sentences
from tests.formats import put, through_door

DE, EN = "Ein Hund.\nZwei Katzen.\n", "A dog.\nTwo cats.\n"


def said(records: list[Record]) -> list[tuple[str, ...]]:
    return [tuple(sentence.text for sentence in record.sentences) for record in records]


def read(folder: Path, **config: Any) -> Any:
    return through_door(sentences, folder, sentences.Config(**config))


def test_line_by_line_with_names_of_their_own(tmp_path: Path) -> None:
    for split in ("train", "dev", "test1", "test2"):
        put(tmp_path / f"text/{split}.de", DE.replace("Ein", split))
        put(tmp_path / f"text/{split}.en.gz", gzip.compress(EN.encode()))
    found = read(
        tmp_path, files="text/{split}.{language}", splits={"val": "dev", "test": ("test2", "test1")}
    )  # fmt: skip
    assert not found.problems and not found.fixes and found.classes == ()
    assert {split: len(records) for split, records in found.records.items()} == {"train": 2, "val": 2, "test": 4}
    assert said(found.records["val"]) == [("dev Hund.", "A dog."), ("Zwei Katzen.", "Two cats.")]
    assert [record.key for record in found.records["test"]] == [
        "test1-000000001", "test1-000000002", "test2-000000001", "test2-000000002",
    ]  # fmt: skip
    (first, *_) = found.records["val"]
    assert [(s.role, s.language) for s in first.sentences] == [("source", "de"), ("target", "en")]
    assert (first.image_id, first.media, first.group) == ("dev:1", "text", first.key)


def test_line_ends_byte_order_marks_and_blank_lines(tmp_path: Path) -> None:
    """U+2028 and a lone carriage return end no line; blank lines at the end are none."""
    put(tmp_path / "train.de", b"\xef\xbb\xbfEin Hund.\r\n\r\nZwei\xe2\x80\xa8Katzen.\r\nDrei.\r\n\r\n\r\n")
    put(tmp_path / "train.en", "A dog.\n\nTwo\rcats.\nThree.")
    found = read(tmp_path)
    assert said(found.records["train"]) == [
        ("Ein Hund.", "A dog."),
        ("Zwei Katzen.", "Two cats."),
        ("Drei.", "Three."),
    ]
    assert [record.key[-1] for record in found.records["train"]] == ["1", "3", "4"]
    assert found.reasons == {"empty_sentence": 1} and found.fixes == {"sentence_normalised": 2}
    assert (found.problems[0].item_id, found.problems[0].key) == ("train:2", "train-000000002")


def test_a_long_file_is_cut_into_the_same_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f"{'w' * (i % 40)} {i}" for i in range(500)]
    for language in ("de", "en"):
        put(tmp_path / f"train.{language}", "\r\n".join(lines))
    for size in (1, 7, 1 << 20):
        monkeypatch.setattr("pipeline.ingest.sources._lines._BLOCK", size)
        found = [line.decode() for line in _lines.lines_of(tmp_path / "train.de")]
        assert found == lines


def test_a_line_that_is_not_utf8_is_refused_and_the_next_one_read(tmp_path: Path) -> None:
    put(tmp_path / "train.de", b"M\xe4dchen\nHund\n")
    put(tmp_path / "train.en", "girl\ndog\n")
    found = read(tmp_path)
    assert said(found.records["train"]) == [("Hund", "dog")] and found.reasons == {"not_utf8": 1}
    (problem,) = found.problems
    assert (problem.item_id, problem.file, problem.detail) == ("train:1", str(tmp_path / "train.de"), r"b'\xe4dchen'")


@pytest.mark.parametrize(("de", "en", "ended"), [(DE + "Drei.", EN, "train.en"), (DE, EN + "\n\nFour.", "train.de")])
def test_files_of_different_length_stop_the_stage(tmp_path: Path, de: str, en: str, ended: str) -> None:
    put(tmp_path / "train.de", de)
    put(tmp_path / "train.en", en)
    with pytest.raises(DataError, match=rf"(?s)not equally many lines.*{ended} ends before line [35].*train\.de"):
        read(tmp_path)


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    put(tmp_path / "train.de", DE)
    with pytest.raises(DataError, match=r"(?s)text file is missing.*train\.en or train\.en\.gz"):
        read(tmp_path)
    for damaged in (gzip.compress(EN.encode())[:-9], b"no gzip at all", gzip.compress(EN.encode())[:12] + b"\xff" * 40):
        put(tmp_path / "train.en.gz", damaged)
        with pytest.raises(DataError, match=r"(?s)zipped file is damaged.*train\.en\.gz"):
            read(tmp_path)
    config = sentences.Config(splits={"train": ("train", "more")})
    with pytest.raises(DataError, match=r"not all of them are there: \['more'\]"):
        joined_splits([OpenSource(name="s", module=sentences, root=tmp_path, config=config)])


def test_text_of_one_language(tmp_path: Path) -> None:
    put(tmp_path / "all.txt", "one\ntwo two\n")
    found = read(tmp_path, files="all.txt", languages={"text": "en"})
    assert said(found.records["train"]) == [("one",), ("two two",)] and [*found.records] == ["train"]
    assert found.records["train"][1].counts() == {"num_sentences": 1, "num_texts": 1, "length": 2}


def test_alignments(tmp_path: Path) -> None:
    put(tmp_path / "train.de", "ein Hund\nja\nnein danke\n")
    put(tmp_path / "train.en", "a dog\nyes\nno\n")
    put(tmp_path / "train.links", "1-1 2-2 1?2 2p1\n1x1\n\n")
    found = read(tmp_path, alignment="{split}.links", first_word=1)
    first, second, third = (record.alignment for record in found.records["train"])
    assert first is not None and first.links == ((0, 0), (1, 1)) and first.possible_links == ((0, 1), (1, 0))
    assert second is None and found.reasons == {"bad_alignment": 1}
    assert third is not None and third.links == ()
    put(tmp_path / "train.links", "1-1\n")
    with pytest.raises(DataError, match=r"train\.links ends before line 2"):
        read(tmp_path, alignment="{split}.links", first_word=1)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"languages": {}}, "do not go together"),
        ({"files": "{split}.txt"}, "do not go together"),
        ({"files": "{split}.{lang}"}, "cannot be filled in"),
        ({"alignment": "{language}"}, "cannot be filled in"),
        ({"alignment": "a", "languages": {"text": "en"}}, "joins a source with a target"),
    ],
)
def test_settings_that_contradict_themselves(config: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        sentences.Config(**config)
