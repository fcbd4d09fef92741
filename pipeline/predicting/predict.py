"""Predict with a trained run or a registered model; print one JSON document, draw pictures.

    sightline predict segmentation_fcn photo.jpg
    sightline predict models:/vqa_lstm@champion photo.jpg --question "what colour is the circle?"

A run's name stands for artifacts/<run>/best.ckpt, read with the code of this folder. An MLflow URI stands for a model
with the code that it ships, which may be older or newer: that one runs in a process of its own, and only if this
project registered it, or with --trust.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.errors import ConfigError, DataError
from pipeline.system.project import Project
from pipeline.training import run_files


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the command line says; `texts` by the name of the input, such as `question`.

    `label` is the model's name, where `model` is a temporary file.
    """

    model: str
    images: Sequence[Path]
    texts: Mapping[str, str]
    out: Path
    trust: bool
    label: str | None


def run(request: Request) -> int:
    """The command: predict, print the document."""
    images = [_readable(image) for image in request.images]
    if re.match(r"(models|runs):/", request.model):
        return _predict_with_uri(request, images)
    checkpoint = _checkpoint(Project.here(), request.model)
    label = request.label or (checkpoint.parent.name if checkpoint.suffix == ".ckpt" else request.model)
    document = predict(checkpoint, images, request.texts, request.out, label)
    print(json.dumps({"model": request.label or request.model, **document}, indent=1, ensure_ascii=False))
    return 0


def predict(
    checkpoint: Path, images: Sequence[Path], texts: Mapping[str, str], out: Path, label: str
) -> dict[str, Any]:
    """Predict for each image with the texts, or for the texts alone, and draw it as `<out>/<image stem>.<label>.png`.

    Args:
        texts: by the name of the input, `question` and the like.

    Returns:
        JSON values: run, task and, of each image, the inputs, `answers` (one for each item of it) and `picture`.

    Raises:
        ConfigError: an input is missing, or was given to a model that does not take it.
        DataError: a file is no image, or the checkpoint cannot be read.
    """
    import cv2

    from pipeline.training.predictor import load_predictor

    predictor = load_predictor(checkpoint)
    file_label = re.sub(r"[^\w.-]+", "-", label.removeprefix("models:/").removeprefix("runs:/"))
    results = []
    taken: set[Path] = set()
    alone: Sequence[Path | None] = [None]
    for image in images or alone:
        try:
            record = predictor.record({**({} if image is None else {"image": image.read_bytes()}), **texts})
        except DataError as error:
            raise DataError(error.what, where=str(image), allowed="a whole JPEG or PNG file") from error
        predictions = predictor.predict(record)
        out.mkdir(parents=True, exist_ok=True)
        target = _free_name(out, f"{image.stem if image else '-'.join(texts)}.{file_label}", taken)
        if not cv2.imwrite(str(target), predictor.picture(record, predictions)[..., ::-1]):
            raise DataError("the picture cannot be written", where=str(target))
        asked = {**({} if image is None else {"image": str(image)}), **texts}
        results.append({**asked, "answers": predictor.answers(predictions), "picture": str(target)})
    return {"run": predictor.run["name"], "task": predictor.run["task_name"], "predictions": results}


def _free_name(folder: Path, stem: str, taken: set[Path]) -> Path:
    """Two images of one call may share a stem; pictures of an earlier call are replaced."""
    number = 1
    while (path := folder / f"{stem}{'' if number == 1 else f'-{number}'}.png") in taken:
        number += 1
    taken.add(path)
    return path


def _readable(path: Path) -> Path:
    if not path.is_file():
        raise DataError("no such image file", value=str(path))
    return path


def _checkpoint(project: Project, model: str) -> Path:
    """The checkpoint file of a run's name; a path that ends in `.ckpt` is taken as it is."""
    if model.endswith(".ckpt"):
        return Path(model)
    checkpoint = project.artifacts(model) / "best.ckpt"
    if not re.fullmatch(r"[\w-]+", model) or not checkpoint.is_file():
        trained = sorted(path.parent.name for path in (project.root / "artifacts").glob("*/best.ckpt"))
        raise ConfigError(
            "no such trained run",
            value=model,
            where=str(project.root / "artifacts"),
            allowed=", ".join(trained) or "none is trained yet",
            fix=f"dvc repro train@{model}" if not trained else "use one of these, or a models:/ or runs:/ URI",
        )
    run_files.trained(project, model)
    return checkpoint


def _predict_with_uri(request: Request, images: Sequence[Path]) -> int:
    """Fetch the model and let the code that it ships predict, in a process that cannot see this folder's code."""
    from pipeline.tracking import connection
    from pipeline.tracking import mlflow_run as tracking

    project = Project.here()
    client = connection.connect(_tracking_config(project.root), project.tracking_root)
    with tempfile.TemporaryDirectory() as temporary:
        folder = tracking.fetch_signed(request.model, client, Path(temporary), trust=request.trust)
        checkpoints = list((folder / "artifacts").glob("*.ckpt"))
        if len(checkpoints) != 1 or not (folder / "code" / "pipeline" / "cli.py").is_file():
            raise ConfigError("not a Sightline model", value=request.model)
        command = [sys.executable, "-P", "-m", "pipeline.cli", "predict", str(checkpoints[0]), *map(str, images)]
        command += ["--out", str(request.out), "--label", request.model]
        command += [f"--{name}={text}" for name, text in request.texts.items()]
        path = os.pathsep.join(filter(None, [str(folder / "code"), os.environ.get("PYTHONPATH")]))
        return subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=False).returncode


def _tracking_config(root: Path) -> Any:
    """`tracking:` of params.yaml, or the defaults where there is no such file."""
    from pipeline.settings.params import FILE, load_params
    from pipeline.settings.sections import TrackingConfig

    return load_params(root).section(TrackingConfig, "tracking") if (root / FILE).is_file() else TrackingConfig()
