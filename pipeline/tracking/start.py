"""What a run begins with, whatever it is called by: found, fetched, and laid into its state folder."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from contracts.errors import DataError
from pipeline.settings.train_config import InitConfig
from pipeline.system.disk import file_sha256
from pipeline.system.project import Project
from pipeline.tracking.names import Named, checkpoint_of, exact
from pipeline.training.run_files import BEST
from pipeline.training.runs import RunData
from pipeline.training.starting import is_laid, lay_state, lay_weights


def lay_start(project: Project, data: RunData, state: Path) -> None:
    """Lay what run `data.run` begins with into its state folder, once: a training that goes on began with the same.

    Raises:
        ConfigError: no registered model, no part of the model is called so, or MLflow does not answer.
        DataError: the weights do not fit, or the file has changed since the run's fingerprint was taken.
    """
    init = data.run.init
    if init is None or is_laid(state):
        return
    from pipeline.training.beginning import weights_of_file, weights_of_torchvision  # what trains

    if init.extend:
        lay_state(project, data, state)
    elif init.kind == "torchvision":
        lay_weights(data, state, weights_of_torchvision(init.source), {"from": init.source})
    else:
        with ExitStack() as held:
            path, about = _found(project, init, held)
            about["sha256"] = file_sha256(path)
            if data.start is not None and about["sha256"] != data.start:
                raise DataError(
                    "the weights to start from have changed meanwhile", where=str(path), fix="run this again"
                )
            lay_weights(data, state, weights_of_file(path), about)


def _found(project: Project, init: InitConfig, held: ExitStack) -> tuple[Path, dict[str, Any]]:
    """The file with the weights, and what the record says of it: of an alias the version that it stands for now."""
    if init.run is not None:
        return project.artifacts(init.run) / BEST, {"from": init.source}
    if init.kind == "file":
        return project.root / init.source, {"from": init.source}
    model = exact(project, Named(given=init.source, uri=init.source))
    return checkpoint_of(project, model, held, trust=False), {"from": init.source, "uri": model.uri}
