"""Translation: detokenised text, a sentence a line, in UTF-8. Several references are several files of one folder.

A byte order mark stays part of its line, as in sacrebleu's own command: it is in a published WMT17 system's first line,
and without it that system's score differs in the fourth decimal.
"""

from __future__ import annotations

from pathlib import Path

from contracts.errors import DataError
from lightning_modules.metrics.text import measure_translation
from pipeline.measuring.scorers import Inputs, Scores
from pipeline.measuring.scorers._files import BYTE_ORDER_MARK, read_lines


def score(inputs: Inputs) -> Scores:
    """`BLEU` and `chrF2` of the corpus with the signatures that say what they are.

    Raises:
        DataError: a file that cannot be read, or files of different length.
    """
    hypotheses = read_lines(inputs.predictions, keep_mark=True)
    streams = []
    for path in _reference_files(inputs.truth):
        lines = read_lines(path, keep_mark=True)
        if len(lines) != len(hypotheses):
            raise DataError(
                "these files have different numbers of lines",
                value=f"{len(hypotheses)} in {inputs.predictions}, {len(lines)} in {path}",
                allowed="line i of the predictions translates what line i of each reference does",
            )
        streams.append(lines)
    measurements = measure_translation(hypotheses, list(zip(*streams, strict=True)))
    marked = any(lines[0].startswith(BYTE_ORDER_MARK) for lines in (hypotheses, *streams))
    signatures = {next(iter(measurement.values)): measurement.source for measurement in measurements}
    return Scores(
        measurements=measurements,
        details={"signature": signatures["BLEU"], "chrF2_signature": signatures["chrF2"]},
        notes=["a byte order mark is scored as part of the first line, as sacrebleu does"] if marked else [],
    )


def _reference_files(truth: Path) -> list[Path]:
    """One file, or all files of a folder in the order of their names."""
    if not truth.is_dir():
        return [truth]
    files = sorted(path for path in truth.iterdir() if path.is_file() and not path.name.startswith("."))
    if not files:
        raise DataError("no reference file in this folder", value=str(truth))
    return files
