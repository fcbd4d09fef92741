"""Score anybody's predictions in an official result format; print one JSON document.

    python -m pipeline.measuring.score vqa --truth annotations.json --questions questions.json --predictions out.json
    python -m pipeline.measuring.score voc-boxes --truth VOCdevkit/VOC2012 --predictions results/ --bootstrap 1000

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
from typing import Any, Literal

from contracts.errors import ConfigError, DataError, SightlineError
from lightning_modules.metrics.measurement import Measurement
from pipeline.measuring.scorers import Inputs, Scores
from pipeline.settings import discover
from pipeline.system import progress
from pipeline.system.guard import guard_process
from pipeline.system.project import write_json

_OF_ONE_TASK = dict.fromkeys(("ignore_index", "num_classes", "class_names"), "segmentation") | {"iou": "voc-boxes"}


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
                    iou=0.5 if arguments.iou is None else arguments.iou,
                    ignore_index=arguments.ignore_index,
                    class_names=arguments.class_names or (),
                    num_classes=arguments.num_classes,
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
        prog="python -m pipeline.measuring.score",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("task", metavar="TASK", help=", ".join(tasks()))
    parser.add_argument("--truth", metavar="PATH", type=Path, help="annotation file or folder")
    parser.add_argument("--predictions", metavar="PATH", type=Path, help="result file or folder")
    parser.add_argument("--questions", metavar="PATH", type=Path, help="question file (vqa only)")
    parser.add_argument("--out", metavar="FILE", type=Path, help="write the document there as well")
    parser.add_argument(
        "--bootstrap", metavar="N", type=int, default=0, help="add 95 %% intervals from N resamples (1000 is usual)"
    )
    parser.add_argument(
        "--iou", metavar="X", type=float, help="least IoU of a hit; 0.5, the kit's, if not given (voc-boxes only)"
    )
    parser.add_argument(
        "--ignore-index", metavar="N", type=_ignore_index,
        help="label of the truth that does not count, or `none`; 255 if not given (segmentation only)",
    )  # fmt: skip
    parser.add_argument("--num-classes", metavar="K", type=int, help="labels are 0 to K - 1 (segmentation only)")
    parser.add_argument(
        "--class-names", metavar="NAMES", type=_class_names,
        help="names of labels 0, 1, ..: a,b,c or a file with a name a line (segmentation only)",
    )  # fmt: skip
    parser.add_argument("--no-java", action="store_true", help="leave METEOR and SPICE out (captions only)")
    return parser


def _ignore_index(text: str) -> int | Literal["none"]:
    return "none" if text == "none" else int(text)


def _class_names(text: str) -> tuple[str, ...]:
    path = Path(text)
    parts = path.read_text("utf-8-sig").splitlines() if path.is_file() else text.split(",")
    return tuple(part.strip() for part in parts if part.strip())


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
    for option, of_task in _OF_ONE_TASK.items():
        if getattr(arguments, option) is not None and task != of_task:
            name = f"--{option.replace('_', '-')}"
            raise ConfigError(f"{name} does not go with this task", value=task, where=name, allowed=f"with {of_task}")
    _check_numbers(arguments)
    if arguments.bootstrap < 0:
        raise ConfigError(
            "a negative number of resamples", value=arguments.bootstrap, where="--bootstrap",
            allowed="1 or more; 0 for no intervals",
        )  # fmt: skip
    if arguments.out is not None and arguments.out.is_dir():
        raise ConfigError("this is a folder", value=str(arguments.out), where="--out", allowed="the name of a file")


def _check_numbers(arguments: argparse.Namespace) -> None:
    iou, ignored, number, names = (arguments.iou, arguments.ignore_index, arguments.num_classes, arguments.class_names)
    if iou is not None and not 0 < iou <= 1:
        raise ConfigError("no IoU", value=iou, where="--iou", allowed="more than 0 and at most 1")
    if isinstance(ignored, int) and not 0 <= ignored <= 255:
        raise ConfigError("no label", value=ignored, where="--ignore-index", allowed="0 to 255, or none")
    if number is not None and not 1 <= number <= 256:
        raise ConfigError("no number of classes", value=number, where="--num-classes", allowed="1 to 256")
    if names is not None and (not 1 <= len(names) <= 256 or len(set(names)) != len(names)):
        raise ConfigError(
            "no list of classes", value=names[:10], where="--class-names", allowed="1 to 256, no two alike"
        )
    if names is not None and number not in (None, len(names)):
        raise ConfigError(
            "another number of names than of classes", value=len(names), where="--class-names",
            allowed=f"{number}, as --num-classes says; label 0, the background, has a name, too",
        )  # fmt: skip


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
        progress.note(note)
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
