"""Score anybody's predictions in an official result format; print one JSON document.

    python -m pipeline.score vqa --truth annotations.json --questions questions.json --predictions results.json
    python -m pipeline.score voc-boxes --truth VOCdevkit/VOC2012 --predictions results/ --bootstrap 1000

The document has every metric under its official name, what it is measured on (`num_items` of `unit`), which variant
it is and what computed it; a metric that cannot be computed here says why. Nothing else goes to stdout.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from contracts.errors import ConfigError, DataError, SightlineError
from lightning_modules.metrics.measurement import Measurement
from pipeline import discover
from pipeline.guard import guard_process
from pipeline.project import write_json
from pipeline.scorers import Inputs, Scores


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0, 2 for what the user can mend (told without a traceback), 130 when interrupted."""
    arguments = _parser().parse_args(argv)
    try:
        guard_process()
        _check(arguments)
        with contextlib.redirect_stdout(sys.stderr):  # some libraries print
            document = score(
                arguments.task,
                Inputs(
                    truth=arguments.truth,
                    predictions=arguments.predictions,
                    questions=arguments.questions,
                    use_java=not arguments.no_java,
                ),
                num_resamples=arguments.bootstrap,
            )
        if arguments.out is not None:
            _write(arguments.out, document)
    except SightlineError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return 2
    except KeyboardInterrupt:
        return 130
    try:
        print(json.dumps(document, indent=1), flush=True)  # in ASCII, whatever the terminal's encoding is
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter's last flush complains
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.score", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", metavar="TASK", help=", ".join(tasks()))
    parser.add_argument("--truth", metavar="PATH", type=Path, help="annotation file or folder")
    parser.add_argument("--predictions", metavar="PATH", type=Path, help="result file or folder")
    parser.add_argument("--questions", metavar="PATH", type=Path, help="question file (vqa only)")
    parser.add_argument("--out", metavar="FILE", type=Path, help="write the document there as well")
    parser.add_argument(
        "--bootstrap", metavar="N", type=int, default=0, help="add 95 %% intervals from N resamples (1000 is usual)"
    )
    parser.add_argument("--no-java", action="store_true", help="leave METEOR and SPICE out (captions only)")
    return parser


def tasks() -> list[str]:
    """What can be scored, as the command line names it."""
    return [name.replace("_", "-") for name in discover.names("scorer")]


def _check(arguments: argparse.Namespace) -> None:
    """Everything that can be known before a file is read."""
    task, known = arguments.task, tasks()
    if task not in known:
        near = difflib.get_close_matches(task, known, n=1)
        raise ConfigError(
            "unknown task", value=task, where="TASK", allowed=", ".join(known),
            fix=f"did you mean {near[0]!r}?" if near else "",
        )  # fmt: skip
    for option in ("truth", "predictions"):
        if getattr(arguments, option) is None:
            raise ConfigError(f"--{option} is missing", where=f"task {task}", fix=f"--{option} PATH")
    if task == "vqa" and arguments.questions is None:
        raise ConfigError("the question file is missing", where="--questions", fix="--questions questions.json")
    if task != "vqa" and arguments.questions is not None:
        raise ConfigError(
            "this task takes no question file", value=str(arguments.questions), where="--questions", allowed="with vqa"
        )
    if task != "captions" and arguments.no_java:
        raise ConfigError("this task needs no Java", value=task, where="--no-java", allowed="with captions")
    if arguments.bootstrap < 0:
        raise ConfigError(
            "a negative number of resamples", value=arguments.bootstrap, where="--bootstrap",
            allowed="1 or more; 0 for no intervals",
        )  # fmt: skip
    if arguments.out is not None and arguments.out.is_dir():
        raise ConfigError("this is a folder", value=str(arguments.out), where="--out", allowed="the name of a file")


def score(task: str, inputs: Inputs, *, num_resamples: int = 0) -> dict[str, Any]:
    """The document of one task, ready for JSON.

    Args:
        num_resamples: of the intervals; 0 for none.

    Raises:
        DataError: the files are missing, broken or do not go together.
    """
    module = discover.load("scorer", task.replace("-", "_"), where="TASK")
    scores: Scores = module.score(inputs)
    for note in scores.notes:
        print(f"note: {note}", file=sys.stderr, flush=True)
    document = _document(scores)
    if num_resamples:
        from lightning_modules.metrics.bootstrap import intervals

        found = intervals(scores.measurements, num_resamples=num_resamples, seed=0)
        document["intervals"] = {name: [float(low), float(high)] for name, (low, high) in found.items()}
    return _plain(document)


def _document(scores: Scores) -> dict[str, Any]:
    """Values, official nested fields, reasons, and what all of it was measured on."""
    first = scores.measurements[0]
    out: dict[str, Any] = {}
    for measurement in scores.measurements:
        for name, value in measurement.values.items():
            group, slash, member = name.partition("/")  # "perAnswerType/yes/no" is "yes/no" of perAnswerType
            if slash:
                out.setdefault(group, {})[member] = value
            else:
                out[name] = value
    out |= scores.details
    for measurement in scores.measurements:
        for name, reason in measurement.not_computed.items():
            out[name] = f"not computed: {reason}"
    return out | {
        "num_items": first.num_items,
        "unit": first.unit,
        "variant": _joined(scores.measurements, "variant"),
        "source": _joined(scores.measurements, "source"),
    }


def _joined(measurements: Sequence[Measurement], field: str) -> str:
    """A field of all measurements: one text if they agree, else each with the names of what it holds for."""
    names: dict[str, list[str]] = {}
    for measurement in measurements:
        if measurement.values:
            names.setdefault(getattr(measurement, field), []).extend(measurement.values)
    if len(names) == 1:
        return next(iter(names))
    return "; ".join(f"{', '.join(of_text)}: {text}" for text, of_text in names.items())


def _plain(value: Any) -> Any:
    """JSON knows no NaN: null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write(path: Path, document: Mapping[str, Any]) -> None:
    try:
        write_json(path, document)
    except OSError as error:
        raise DataError("the document cannot be written", value=str(path), where=str(error)) from None


if __name__ == "__main__":
    sys.exit(main())
