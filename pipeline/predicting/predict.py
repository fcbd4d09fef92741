"""Predict with a trained run or a registered model; print one JSON document, draw pictures.

    sightline predict segmentation_fcn photo.jpg
    sightline predict vqa_lstm@champion photo.jpg --question "what colour is the circle?"
    sightline predict telling photo.jpg --question "what color is it?" --candidates "red | dark blue"
    sightline predict a_clip_model frames/ clip.gif --fps 10

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
from typing import Any, Literal

from contracts.errors import ConfigError, DataError
from contracts.inputs import Clip, Given
from pipeline.system.project import Project
from pipeline.tracking.names import Named, fetch, named


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the command line says; `texts` by the name of the input, such as `question`. `images` are files, or of a
    model that takes clips also folders of frames; `fps` is that of clips, None: what their files say.

    `label` is the model's name, where `model` is a temporary file.
    """

    model: str
    images: Sequence[Path]
    texts: Mapping[str, str]
    out: Path
    trust: bool
    label: str | None
    fps: float | None = None


def run(request: Request) -> int:
    """The command: predict, print the document."""
    for path in request.images:
        if not path.exists():
            raise _no_file(path)
    project = Project.here()
    chosen = named(project, request.model)
    if chosen.uri is not None:
        return _predict_with_shipped_code(request, project, chosen)
    assert chosen.checkpoint is not None
    checkpoint = chosen.checkpoint
    label = request.label or (checkpoint.parent.name if chosen.run is None else chosen.run)
    document = predict(checkpoint, request.images, request.texts, request.out, label, fps=request.fps)
    print(json.dumps({"model": request.label or request.model, **document}, indent=1, ensure_ascii=False))
    return 0


def _no_file(path: Path) -> DataError:
    return DataError("no such image file", value=str(path))


def predict(
    checkpoint: Path,
    images: Sequence[Path],
    texts: Mapping[str, str],
    out: Path,
    label: str,
    *,
    fps: float | None = None,
) -> dict[str, Any]:
    """Predict for each image or clip with the texts, or for the texts alone, and draw it as
    `<out>/<image stem>.<label>.png`.

    Args:
        images: files; of a model that takes clips what `read_clip` reads, with `fps`.
        texts: by the name of the input, `question` and the like.

    Returns:
        JSON values: run, task and, of each image or clip, the inputs, `answers` (one for each item of it), `picture`.

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
    kind: Literal["image", "clip"] = "clip" if "clip" in predictor.inputs else "image"
    for image in images or alone:
        pixels: dict[str, Given] = {} if image is None else {kind: _read(image, kind, fps)}
        try:
            record = predictor.record({**pixels, **texts})
        except DataError as error:
            allowed = error.allowed or "a whole JPEG or PNG file"
            raise DataError(error.what, where=f"{image} {error.where}".strip(), allowed=allowed) from error
        predictions = predictor.predict(record)
        out.mkdir(parents=True, exist_ok=True)
        target = _free_name(out, f"{image.stem if image else '-'.join(texts)}.{file_label}", taken)
        if not cv2.imwrite(str(target), predictor.picture(record, predictions)[..., ::-1]):
            raise DataError("the picture cannot be written", where=str(target))
        asked = {**({} if image is None else {str(kind): str(image)}), **texts}
        results.append({**asked, "answers": predictor.answers(predictions), "picture": str(target)})
    return {"run": predictor.run["name"], "task": predictor.run["task_name"], "predictions": results}


def _free_name(folder: Path, stem: str, taken: set[Path]) -> Path:
    """Two images of one call may share a stem; pictures of an earlier call are replaced."""
    number = 1
    while (path := folder / f"{stem}{'' if number == 1 else f'-{number}'}.png") in taken:
        number += 1
    taken.add(path)
    return path


def _read(path: Path, kind: Literal["image", "clip"], fps: float | None) -> bytes | Clip:
    if kind == "clip":
        from pipeline.predicting.clips import read_clip

        return read_clip(path, fps)
    if fps is not None:
        raise ConfigError("this model takes no clip", value=f"--fps {fps:g}", allowed=kind, fix="leave it out")
    if not path.is_file():
        raise _no_file(path)
    return path.read_bytes()


def _predict_with_shipped_code(request: Request, project: Project, chosen: Named) -> int:
    """Fetch the model and let the code that it ships predict, in a process that cannot see this folder's code."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = fetch(project, chosen, Path(temporary), trust=request.trust)
        checkpoints = list((folder / "artifacts").glob("*.ckpt"))
        if len(checkpoints) != 1 or not (folder / "code" / "pipeline" / "cli.py").is_file():
            raise ConfigError("not a Sightline model", value=request.model)
        images = map(str, request.images)
        command = [sys.executable, "-P", "-m", "pipeline.cli", "predict", str(checkpoints[0]), *images]
        command += ["--out", str(request.out), "--label", str(chosen.uri)]
        command += [] if request.fps is None else ["--fps", str(request.fps)]
        command += [f"--{name}={text}" for name, text in request.texts.items()]
        path = os.pathsep.join(filter(None, [str(folder / "code"), os.environ.get("PYTHONPATH")]))
        return subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=False).returncode
