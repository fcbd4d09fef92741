"""Score anybody's predictions in an official result format; print one JSON document.

    sightline score vqa --truth annotations.json --questions questions.json --predictions out.json
    sightline score voc-boxes --truth VOCdevkit/VOC2012 --predictions results/ --bootstrap 1000

The document has every metric under its official name, what it is measured on (`num_items` of `unit`), which variant
it is and what computed it; a metric that cannot be computed here says why. Nothing else goes to stdout.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from contracts.errors import ConfigError, DataError
from lightning_modules.metrics.measurement import Measurement
from pipeline.measuring.scorers import Inputs, Scores
from pipeline.settings import discover
from pipeline.system import progress
from pipeline.system.project import write_json

_OF_ONE_TASK = dict.fromkeys(("ignore_index", "num_classes", "class_names"), "segmentation") | {
    "iou": "voc-boxes", "first_word": "alignment",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the command line says, as it says it."""

    task: str
    truth: Path | None
    predictions: Path | None
    questions: Path | None
    out: Path | None
    bootstrap: int
    iou: float | None
    ignore_index: str | None
    num_classes: int | None
    class_names: str | None
    first_word: str | None
    no_java: bool

    @property
    def ignored(self) -> int | Literal["none"] | None:
        """The label that does not count.

        Raises:
            ConfigError: neither a label nor `none`.
        """
        text = self.ignore_index
        if text is None:
            return None
        if text == "none":
            return "none"
        label = int(text) if re.fullmatch("[0-9]{1,9}", text) else text
        if not isinstance(label, int) or label > 255:
            raise ConfigError("no label", value=label, where="--ignore-index", allowed="0 to 255, or none")
        return label

    @property
    def names(self) -> tuple[str, ...] | None:
        """Class names, of the file or the list that was given."""
        if self.class_names is None:
            return None
        path = Path(self.class_names)
        parts = path.read_text("utf-8-sig").splitlines() if path.is_file() else self.class_names.split(",")
        return tuple(part.strip() for part in parts if part.strip())


def run(request: Request) -> int:
    """The command: one JSON document on stdout, and nothing else there.

    Raises:
        ConfigError, DataError: options that do not go together; files that cannot be scored.
    """
    _check(request)
    assert request.truth is not None and request.predictions is not None
    with contextlib.redirect_stdout(sys.stderr):  # some libraries print
        document = score(
            request.task,
            Inputs(
                truth=request.truth,
                predictions=request.predictions,
                questions=request.questions,
                use_java=not request.no_java,
                iou=0.5 if request.iou is None else request.iou,
                ignore_index=request.ignored,
                class_names=request.names or (),
                num_classes=request.num_classes,
                first_word=request.first_word or "0,0",
            ),
            num_resamples=request.bootstrap,
        )
    if request.out is not None:
        _write(request.out, document)
    try:
        print(json.dumps(document, indent=1), flush=True)  # in ASCII, whatever the terminal's encoding is
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter's last flush complains
    return 0


def tasks() -> list[str]:
    """What can be scored, as the command line names it."""
    return [name.replace("_", "-") for name in discover.names("scorer")]


def _check(request: Request) -> None:
    """Everything that can be known before a file is read."""
    task, known = request.task, tasks()
    if task not in known:
        near = difflib.get_close_matches(task, known, n=1)
        raise ConfigError(
            "unknown task", value=task, where="TASK", allowed=", ".join(known),
            fix=f"did you mean {near[0]!r}?" if near else "",
        )  # fmt: skip
    for option in ("truth", "predictions"):
        if getattr(request, option) is None:
            raise ConfigError(f"--{option} is missing", where=f"task {task}", fix=f"--{option} PATH")
    if task == "vqa" and request.questions is None:
        raise ConfigError("the question file is missing", where="--questions", fix="--questions questions.json")
    if task != "vqa" and request.questions is not None:
        raise ConfigError(
            "this task takes no question file", value=str(request.questions), where="--questions", allowed="with vqa"
        )
    if task != "captions" and request.no_java:
        raise ConfigError("this task needs no Java", value=task, where="--no-java", allowed="with captions")
    for option, of_task in _OF_ONE_TASK.items():
        if getattr(request, option) is not None and task != of_task:
            name = f"--{option.replace('_', '-')}"
            raise ConfigError(f"{name} does not go with this task", value=task, where=name, allowed=f"with {of_task}")
    _check_numbers(request)
    if request.bootstrap < 0:
        raise ConfigError(
            "a negative number of resamples", value=request.bootstrap, where="--bootstrap",
            allowed="1 or more; 0 for no intervals",
        )  # fmt: skip
    if request.out is not None and request.out.is_dir():
        raise ConfigError("this is a folder", value=str(request.out), where="--out", allowed="the name of a file")


def _check_numbers(request: Request) -> None:
    iou, _, number, names = (request.iou, request.ignored, request.num_classes, request.names)
    if iou is not None and not 0 < iou <= 1:
        raise ConfigError("no IoU", value=iou, where="--iou", allowed="more than 0 and at most 1")
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
