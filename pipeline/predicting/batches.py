"""Inputs to predictions, a batch at a time; what cannot be used is told in its place, and the rest goes on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import ConfigError, DataError, SightlineError
from contracts.inputs import Given
from pipeline.predicting.given import Item, Kind
from pipeline.system.out_of_memory import is_out_of_memory

if TYPE_CHECKING:
    from contracts.records import Record
    from lightning_modules.base.task import Prediction
    from pipeline.training.predictor import Predictor

ON_GPU, ON_CPU = 16, 4  # inputs in a batch


@dataclass(frozen=True, kw_only=True)
class Answered:
    """An input with its record and one prediction for each of the record's items, or with what is wrong with it."""

    item: Item
    record: Record | None = None
    predictions: list[Prediction] | None = None
    error: DataError | None = None


def load(checkpoint: Path, score: float | None) -> Predictor:
    """The trained model on a GPU, where there is one. `score`: in place of its task's `picture_score`.

    Raises:
        ConfigError: this task has no scores.
        DataError: the checkpoint cannot be read.
    """
    import torch

    from pipeline.training.predictor import load_predictor

    predictor = load_predictor(checkpoint)
    if torch.cuda.is_available():
        predictor.module.to("cuda")
    if score is not None:
        task = predictor.module.task
        if not hasattr(task.config, "picture_score"):
            raise ConfigError(
                "the answers of this task are not chosen by a score", value=f"--score {score:g}",
                where=f"run {predictor.run['name']} ({predictor.run['task_name']})",
                allowed="tasks that find objects, or several classes of an image", fix="leave it out",
            )  # fmt: skip
        task.config = replace(task.config, picture_score=score)
    return predictor


def default_size() -> int:
    import torch

    return ON_GPU if torch.cuda.is_available() else ON_CPU


def answered(
    predictor: Predictor, items: Iterable[Item], kind: Kind, texts: Mapping[str, str], size: int
) -> Iterator[Answered]:
    """Each item in its order; `size` of them are held at a time.

    Raises:
        ConfigError: an input is missing or not taken by this model, or a batch does not fit into memory.
    """
    items = iter(items)
    while chunk := list(islice(items, size)):
        found = [_recorded(predictor, item, kind, texts) for item in chunk]
        good = [one for one in found if one.record is not None]
        predicted = iter(_predicted(predictor, good))
        yield from (one if one.record is None else next(predicted) for one in found)


def _recorded(predictor: Predictor, item: Item, kind: Kind, texts: Mapping[str, str]) -> Answered:
    if item.error is not None:
        return Answered(item=item, error=item.error)
    pixels: dict[str, Given] = {} if item.data is None else {kind: item.data}
    try:
        return Answered(item=item, record=predictor.record({**pixels, **texts}))
    except DataError as error:
        allowed = error.allowed or "a whole JPEG or PNG file"
        where = f"{item.name} {error.where}".strip()
        return Answered(item=item, error=DataError(_first_line(error), where=where, allowed=allowed, fix=error.fix))


def _predicted(predictor: Predictor, good: list[Answered]) -> list[Answered]:
    """With predictions. Where a batch is refused, each of it alone, so that one does not take the others with it."""
    if not good:
        return []
    try:
        predictions = predictor.predict_all([one.record for one in good if one.record is not None])
    except DataError as error:
        if len(good) == 1:
            return [replace(good[0], record=None, error=error)]
        return [result for one in good for result in _predicted(predictor, [one])]
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        fix = f"--batch {len(good) // 2}" if len(good) > 1 else "use a machine with more memory, or smaller images"
        raise ConfigError("there is not enough memory", value=f"{len(good)} images in a batch", fix=fix) from error
    return [replace(one, predictions=list(each)) for one, each in zip(good, predictions, strict=True)]


def described(error: SightlineError) -> dict[str, Any]:
    """As JSON values."""
    parts = {"where": error.where, "allowed": error.allowed, "fix": error.fix}
    return {"kind": type(error).__name__, "message": _first_line(error), **{k: v for k, v in parts.items() if v}}


def _first_line(error: SightlineError) -> str:
    """What is wrong, with the value."""
    return str(error).split("\n", 1)[0]
