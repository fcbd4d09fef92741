"""Checkpoints: what training goes on from, and what is kept of it; both rebuild task and model from stored params.

A state (`state-<step>.ckpt`) is everything Lightning needs to go on. It is written under a temporary name, synced,
renamed, and described by a `.json` beside it with its sha256, so the newest whole one can always be told.
The best checkpoint (`best.ckpt`) is weights, the resolved run and the data spec: enough to predict anywhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from contracts.errors import DataError
from contracts.records import DataSpec
from lightning_modules.base.task import BaseTask
from pipeline.settings import discover
from pipeline.settings.parse import Problems, parse, raise_if
from pipeline.settings.train_config import TrainConfig
from pipeline.system.disk import publish, write_text
from pipeline.system.project import heal
from pipeline.training.run_files import BEST as BEST
from pipeline.training.state_file import told, write

if TYPE_CHECKING:
    from lightning_modules.base.module import TaskModule

_SHOWN = 5


def build_task(run: Mapping[str, Any], data: DataSpec) -> BaseTask:
    """The task of a resolved run (`Run.to_dict()`)."""
    module = discover.load("task", run["task_name"], where="task_name")
    return module.Task(_config(module.Task.Config, run["task"]), data)


def build_module(run: Mapping[str, Any], data: DataSpec) -> TaskModule:
    """Task and model of a resolved run joined in a TaskModule, weights as initialised."""
    from lightning_modules.base.module import TaskModule  # imports Lightning, which who only reads files does without

    task = build_task(run, data)
    module = discover.load("model", run["model_name"], where="model_name")
    model = module.Model(_config(module.Config, run["model"]), task.spec())
    train = _config(TrainConfig, run["train"])
    monitor, mode = train.monitor or task.metric, train.monitor_mode or task.metric_mode
    return TaskModule(task, model, train.phases, monitor=monitor, mode=mode, seed=train.seed)


def _config(cls: type, section: Mapping[str, Any]) -> Any:
    problems: Problems = []
    config = parse(cls, section, cls.__qualname__, problems)
    raise_if(problems, "the stored run")
    return config


def file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_digest(state_dict: Mapping[str, torch.Tensor]) -> str:
    """sha256 over names and bytes of all weights: equal digests mean bit-identical models."""
    digest = hashlib.sha256()
    for name in sorted(state_dict):
        digest.update(name.encode())
        digest.update(state_dict[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def publish_state(part: Path, folder: Path, step: int, keep: int = 2) -> None:
    """Turn a freshly written Lightning checkpoint into the newest state, and drop states beyond the last `keep`."""
    target, size = folder / f"state-{step:08d}.ckpt", part.stat().st_size
    with told(part, size):
        digest = file_sha256(part)
        publish(part, target)
        write_text(target.with_suffix(".json"), json.dumps({"step": step, "sha256": digest, "bytes": size}))
    for old in sorted(folder.glob("state-*.ckpt"))[:-keep]:
        old.with_suffix(".json").unlink(missing_ok=True)
        old.unlink(missing_ok=True)


def read_note(path: Path) -> dict[str, Any]:
    """A small JSON file of the state folder; {} where there is none, or where it is empty, cut or something else."""
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def newest_state(folder: Path) -> Path | None:
    """The newest state that is whole; damaged ones are passed over with a message."""
    for path in sorted(folder.glob("state-*.ckpt"), reverse=True):
        if read_note(path.with_suffix(".json")).get("sha256") == file_sha256(path):
            return path
        print(f"checkpoint {path.name} is damaged or was not finished: passed over", flush=True)
    return None


def save_best(
    path: Path, *, run: Mapping[str, Any], data: DataSpec, weights: Mapping[str, torch.Tensor], info: dict
) -> None:
    """Write the best checkpoint atomically. `weights` are the TaskModule's, `info` plain values (step, metrics)."""
    part = path.with_suffix(".part")
    write({"run": dict(run), "data": data.to_dict(), "state_dict": dict(weights), "info": info}, part)
    publish(part, path)


def load_best(path: Path) -> dict[str, Any]:
    """The document `save_best` wrote, read without unpickling anything but tensors and plain values.

    Raises:
        DataError: there is no such file, or it is no checkpoint of ours.
    """
    if not path.is_file():
        raise DataError("no checkpoint here", where=str(path), fix="train the run first: `dvc repro train@<run>`")
    try:
        document = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the damaged bytes lead it to
        raise DataError(
            "the checkpoint cannot be read", value=str(error)[:200], where=str(path), fix=heal(path)
        ) from error
    if not isinstance(document, dict) or not {"run", "data", "state_dict"} <= document.keys():
        raise DataError("not a Sightline checkpoint", where=str(path))
    return document


def load_module(path: Path) -> tuple[TaskModule, dict[str, Any]]:
    """The trained module of a best checkpoint and the checkpoint's document."""
    document = load_best(path)
    module = build_module(_untrained(document["run"]), DataSpec.from_dict(document["data"]))
    module.load_state_dict(document["state_dict"])
    return module.eval(), document


def start_from(module: TaskModule, path: Path, part: str | None) -> None:
    """Put the weights of another run's best checkpoint, or of one part of its model, in the place of the module's.

    Raises:
        DataError: there is no checkpoint, or not the same weights, of the same shapes, on both sides.
    """
    source, prefix = load_best(path), "model." if part is None else f"model.{part}."
    own = {name: value for name, value in module.state_dict().items() if name.startswith(prefix)}
    given = {name: value for name, value in source["state_dict"].items() if name.startswith(prefix)}
    differing = [
        f"{name.removeprefix('model.')} is {_shape(given.get(name))} there and {_shape(own.get(name))} here"
        for name in sorted(own.keys() | given.keys())
        if name not in own or name not in given or own[name].shape != given[name].shape
    ]
    if differing or not own:
        more = f" and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
        raise DataError(
            f"the weights of run {source['run']['name']} do not fit this model",
            value="; ".join(differing[:_SHOWN]) + more if differing else "neither model has such a part",
            where="init" if part is None else f"init.part: {part}",
            allowed="parts that are built alike: the same backbone, the same vocabulary, as many classes",
            fix="name a part that both models have, such as init: {run: .., part: backbone}",
        )
    module.load_state_dict(given, strict=False)


def _shape(value: torch.Tensor | None) -> str:
    return "nothing" if value is None else f"{tuple(value.shape)}"


def _untrained(run: dict[str, Any]) -> dict[str, Any]:
    """The run without the wish for pretrained weights: the checkpoint has all of them, nothing need be fetched."""
    return {**run, "model": {**run["model"], **({"pretrained": False} if "pretrained" in run["model"] else {})}}
