"""Word alignment: links of a sentence pair a line, `0-0 1-2 2?1`, as the shared tasks of 2003 and 2005 and Pharaoh
write them: `i-j` joins word i of the source with word j of the target, `i?j` or `ipj` says that this is possible only.

Files count words from 0 or from 1, and nothing in them says which: read wrongly, a good aligner scores like a bad one.
"""

from __future__ import annotations

import re
from pathlib import Path

from contracts.errors import ConfigError, DataError
from lightning_modules.metrics.alignment import Link, measure_alignment
from pipeline.measuring.scorers import Inputs, Scores
from pipeline.measuring.scorers._files import read_lines

_LINK = re.compile(r"(\d{1,9})([-?p])(\d{1,9})", re.ASCII)


def score(inputs: Inputs) -> Scores:
    """`AER` and what it is made of.

    Raises:
        ConfigError: `--first-word` says nothing of both files.
        DataError: a file that cannot be read, what is no link, or files of different length.
    """
    first_truth, first_found = _first_words(inputs.first_word)
    truth, found = _links(inputs.truth, first_truth), _links(inputs.predictions, first_found)
    if len(truth) != len(found):
        raise DataError(
            "these files have different numbers of lines",
            value=f"{len(found)} in {inputs.predictions}, {len(truth)} in {inputs.truth}",
            allowed="line i of both is the same sentence pair",
        )
    # What a system calls possible it has found as well.
    links = [sure | possible for sure, possible in found]
    return Scores(
        measurements=[measure_alignment(links, [sure for sure, _ in truth], [possible for _, possible in truth])]
    )


def _first_words(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([01]),([01])", text)
    if match is None:
        raise ConfigError(
            "not what words are counted from", value=text, where="--first-word",
            allowed="two numbers, 0 or 1, of the truth and of the predictions", fix="--first-word 1,0",
        )  # fmt: skip
    return int(match[1]), int(match[2])


def _links(path: Path, first: int) -> list[tuple[set[Link], set[Link]]]:
    """Sure and possible links of each line, from 0."""
    lines = []
    for number, line in enumerate(read_lines(path), start=1):
        links: tuple[set[Link], set[Link]] = set(), set()
        for part in line.split():
            match = _LINK.fullmatch(part)
            link = None if match is None else (int(match[1]) - first, int(match[3]) - first)
            if match is None or link is None or min(link) < 0:
                raise DataError(
                    "this is no link of two words", value=part, where=f"{path}, line {number}",
                    allowed=f"i-j, or i?j and ipj for possible ones, words counted from {first}",
                    fix="--first-word says what the words of both files are counted from" if match else "",
                )  # fmt: skip
            links[match[2] != "-"].add(link)
        lines.append(links)
    return lines
