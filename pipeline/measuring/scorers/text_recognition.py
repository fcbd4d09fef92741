"""Text recognition: a text a line in UTF-8, or `id<TAB>text` in both files, which are then matched by id."""

from __future__ import annotations

from pathlib import Path

from contracts.errors import DataError
from lightning_modules.metrics.text import measure_recognition
from pipeline.measuring.scorers import Inputs, Scores
from pipeline.measuring.scorers._files import check_same_ids, read_lines


def score(inputs: Inputs) -> Scores:
    """`CER`, `WER`, `word_accuracy` and `1-NED`.

    Raises:
        DataError: a file that cannot be read, ids that differ, or files of different length.
    """
    truth, given = read_lines(inputs.truth), read_lines(inputs.predictions)
    if _has_ids(inputs.truth, truth, inputs.predictions, given):
        references, found = _by_id(inputs.truth, truth), _by_id(inputs.predictions, given)
        check_same_ids(references, found, name="id", truth_file=inputs.truth, given_file=inputs.predictions)
        truth, given = list(references.values()), [found[text_id] for text_id in references]
    elif len(truth) != len(given):
        raise DataError(
            "these files have different numbers of lines",
            value=f"{len(given)} in {inputs.predictions}, {len(truth)} in {inputs.truth}",
            allowed="line i of both is the same text",
            fix="write id<TAB>text into both files to have them matched by id",
        )
    return Scores(measurements=[measure_recognition(given, truth)])


def _has_ids(truth_file: Path, truth: list[str], given_file: Path, given: list[str]) -> bool:
    """Whether every line of both files has a tab. One such file beside one that lacks a tab somewhere is an error:
    read as plain text, ids would be scored."""
    without = {}
    for path, lines in ((truth_file, truth), (given_file, given)):
        without[path] = next((number for number, line in enumerate(lines, start=1) if "\t" not in line), None)
    if (without[truth_file] is None) != (without[given_file] is None):
        path, number = next((path, number) for path, number in without.items() if number is not None)
        other = given_file if path == truth_file else truth_file
        raise DataError(
            "a line has no tab",
            value=(truth if path == truth_file else given)[number - 1],
            where=f"{path}, line {number}",
            allowed=f"id<TAB>text in every line, as in {other}, or plain text in both files",
        )
    return without[truth_file] is None


def _by_id(path: Path, lines: list[str]) -> dict[str, str]:
    """id -> text, in the order of the file."""
    out: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        text_id, _, text = line.partition("\t")
        if text_id in out:
            raise DataError("duplicate id", value=text_id, where=f"{path}, line {number}", allowed="each id once")
        out[text_id] = text
    return out
