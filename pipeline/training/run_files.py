"""What the stages after training read of a run, each compared with what it says it belongs to.

`artifacts/<run>/run.json` knows the digest of the best checkpoint and the data it was trained on;
`evaluations/<run>/measured.json` the digest of the checkpoint and the data that were measured. Imports nothing that is
slow: a refusal comes at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from pydantic import AllowInfNan
from typing_extensions import TypedDict

from contracts.errors import DataError
from pipeline.shards.manifest import Sha256
from pipeline.system.disk import file_sha256
from pipeline.system.project import Project, heal, read_json

BEST, RECORD = "best.ckpt", "run.json"
FAILURE, DONE, EVENTS = "failure.json", "done.json", "events.jsonl"  # of the state folder
START = "start.ckpt"  # there, too: the weights that the training begins with, where others are there already
BEGUN = "begun.json"  # there, too, and in run.json as `init`: where they are from, and what of them was taken
NOTE_TAG = "mlflow.note.content"  # the tag that is a run's description on MLflow's page
LAST = "last"  # folder of a run's artifacts: the state that it ended with, for a run that extends it


class Trained(TypedDict):
    """Of what training writes into `run.json`, what later stages need."""

    run_id: str
    git_commit: str
    git_changed: list[str]
    code: Sha256
    manifest_digest: Sha256
    checkpoint_sha256: Sha256
    fingerprint: Sha256
    training: NotRequired[dict[str, int]]  # `step` and `epochs` that it ended with


class Measured(TypedDict):
    """Of what `evaluate` writes into `evaluations/<run>/measured.json`, what registration needs."""

    split: Literal["train", "val", "test"]
    metric: str
    metric_mode: Literal["max", "min"]
    value: Annotated[float, AllowInfNan(False)] | None
    metrics: dict[str, float]
    constant: dict[str, Annotated[float, AllowInfNan(False)]]
    manifest_digest: Sha256
    checkpoint_sha256: Sha256


def trained(project: Project, name: str, manifest: Mapping[str, Any] | None = None) -> Trained:
    """The record of the training of run `name`, after its best checkpoint was compared with it.

    Args:
        manifest: the data's, which must be the one that was trained on; None where no data is read.

    Raises:
        DataError: record or checkpoint is missing or damaged, or of other data.
    """
    folder = project.artifacts(name)
    fix = heal(Path("artifacts") / name)
    record: Trained = read_json(folder / RECORD, "the record of the training", fix, Trained)
    checkpoint = folder / BEST
    if not checkpoint.is_file():
        raise DataError("there is no checkpoint", where=str(checkpoint), fix=fix)
    found = file_sha256(checkpoint)
    if found != record["checkpoint_sha256"]:
        raise DataError(
            "the checkpoint is not the one that training wrote",
            value=f"sha256 {found}",
            where=str(checkpoint),
            allowed=f"sha256 {record['checkpoint_sha256']}",
            fix=fix,
        )
    if manifest is not None and manifest["digest"] != record["manifest_digest"]:
        raise DataError(
            "the run was trained on other data than is here",
            value=f"manifest {manifest['digest']}",
            where=str(project.shards(manifest["dataset"])),
            allowed=f"manifest {record['manifest_digest']}",
            fix=f"train on this data with `dvc repro train@{name}`, or `dvc checkout` what belongs together",
        )
    return record


def measured(project: Project, name: str, record: Trained) -> Measured:
    """What was measured of run `name`, which must be those of the checkpoint and the data of `record`.

    Raises:
        DataError: missing, damaged, or of another checkpoint or other data.
    """
    path, fix = project.measured(name), f"measure again with `dvc repro --force evaluate@{name}`"
    document: Measured = read_json(path, "the metrics of the run", fix, Measured)
    for what, key in (("another checkpoint", "checkpoint_sha256"), ("other data", "manifest_digest")):
        if document[key] != record[key]:  # type: ignore[literal-required]
            raise DataError(
                f"these are metrics of {what}",
                value=document[key],  # type: ignore[literal-required]
                where=f"{path}: {key}",
                allowed=record[key],  # type: ignore[literal-required]
                fix=fix,
            )
    return document
