"""A project sent to a cluster: what it tells of itself, and who waits for it."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from contracts.redact import redact
from pipeline.cluster.jobs import Jobs
from pipeline.settings.code import CODE
from pipeline.settings.params import load_params
from pipeline.settings.sections import TrackingConfig
from pipeline.system.project import Project
from pipeline.tracking.lineage import VARIABLES, Lineage, lineage

TRACKING = "MLFLOW_TRACKING_URI"


def submit(cluster: Jobs, root: Path, arguments: Sequence[str], *, folder: str | None, detach: bool, stop: bool) -> int:
    """Send the project, and follow its log unless `detach`.

    Returns:
        The job's exit code; 0 with `detach`.

    Raises:
        KeyboardInterrupt: Ctrl-C; the job goes on, or is asked to stop with `stop`.
        SightlineError: the project's settings are wrong, or the cluster does not answer.
    """
    project = Project(root)
    config = load_params(root).section(TrackingConfig, "tracking")
    if folder is None and not (os.environ.get(TRACKING) or config.uri):
        print(
            f"warning: the job's MLflow runs go with its folder: name a server ({TRACKING} or tracking.uri), or a "
            "--folder that stays",
            file=sys.stderr,
            flush=True,
        )
    code = lineage(root)
    if not code.commit:  # a project of its own folder, whose code is installed
        code = lineage(CODE)
    job = cluster.submit(
        root, arguments, folder=folder, variables=variables(code, os.environ), metadata=told(project, code)
    )
    print(f"job {job} at {redact(cluster.address)}", flush=True)
    if detach:
        return 0
    try:
        return cluster.follow(job)
    except KeyboardInterrupt:
        if stop:
            cluster.stop(job)
            print(f"job {job} is asked to stop", flush=True)
            return cluster.follow(job)
        print(
            f"job {job} goes on: `sightline follow-job {job}` shows it, `sightline stop-job {job}` ends it", flush=True
        )
        raise


def variables(code: Lineage, here: Mapping[str, str]) -> dict[str, str]:
    """For the job's environment. What has a password stays here: the cluster shows a job's variables."""
    uri = here.get(TRACKING, "")
    return {
        "LOGNAME": getpass.getuser(),  # whose runs they are in MLflow
        **({VARIABLES[0]: code.commit} if code.commit and not code.changed else {}),
        **({TRACKING: uri} if uri and redact(uri) == uri else {}),
    }


def told(project: Project, code: Lineage) -> dict[str, str]:
    """Where a job comes from: who, which commit, what differs from it, and the results that it begins with."""
    return {
        "user": getpass.getuser(),
        "git_commit": code.commit or "unknown",
        "git_changed": ", ".join(code.changed),
        "dvc_lock_sha256": project.lock_digest(),
    }
