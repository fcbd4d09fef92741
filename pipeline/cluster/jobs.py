"""A project handed to a Ray cluster as a job: Ray's Jobs API carries it there, runs it and keeps its log.

What travels is the project's folder as git would take it (Ray leaves out what .gitignore names), and the packages where
they are installed beside it. No secret does: the job finds tokens and credentials in its nodes' own environment.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from contracts.errors import ConfigError
from contracts.redact import redact
from pipeline.cluster.join import authentication, has_token, wrong_token
from pipeline.settings.code import CODE, PACKAGES
from pipeline.system.backoff import Backoff, GaveUp

ADDRESS = "http://127.0.0.1:8265"
VARIABLE = "RAY_API_SERVER_ADDRESS"  # Ray's own
STOPPED = 130
_EXCLUDED = ["/.git/", "/.dvc/cache/", "/.dvc/tmp/", "/.venv/", "__pycache__/"]  # where no .gitignore says so
_VARIABLES = {
    "RAY_JOB_STOP_WAIT_TIME_S": "120",  # at most, to end in order on a busy machine; Ray gives 3
    "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1",  # its stages carry the code to their workers themselves
}
_NOT_YET = "No available agent"  # Ray's words, while its head is starting
_START_S = 60.0
_PAUSE_S = 1.0
_GIVE_UP_S = 600.0  # without an answer of the cluster, whose head may be starting again


class Jobs:
    """The jobs of the cluster at `address`, the url of its dashboard."""

    def __init__(self, address: str):
        from ray.job_submission import JobSubmissionClient

        self.address = address
        self._client = JobSubmissionClient(address)

    def submit(
        self,
        root: Path,
        arguments: Sequence[str],
        *,
        folder: str | None = None,
        variables: Mapping[str, str],
        metadata: Mapping[str, str],
    ) -> str:
        """Start `sightline repro <arguments>` in a copy of the project at `root`.

        Args:
            folder: where the job works, on a file system that all nodes see; None: a folder of the job's own.
            variables: for its environment. metadata: what the cluster shows with the job.

        Returns:
            The job's id.

        Raises:
            ConfigError: the cluster has no node that takes jobs, also not in a minute.
        """
        command = ["python", "-m", "pipeline.cli", "job", *(["--folder", folder] if folder else []), "--", *arguments]
        here = all((root / package).is_dir() for package in PACKAGES)
        runtime_env = {
            "working_dir": str(root),
            "excludes": _EXCLUDED,
            **({} if here else {"py_modules": [str(CODE / package) for package in PACKAGES]}),
            "env_vars": {**_VARIABLES, **variables},
        }
        backoff = Backoff(first_s=1.0, longest_s=5.0, patience_s=_START_S)
        try:
            return backoff.run(
                lambda: self._client.submit_job(
                    entrypoint=shlex.join(command), runtime_env=dict(runtime_env), metadata=dict(metadata)
                ),
                passes=lambda error: isinstance(error, RuntimeError) and _NOT_YET in str(error),
            )
        except GaveUp as end:
            raise no_dashboard(self.address, end.error) from end.error

    def follow(self, job: str) -> int:
        """Print the job's log until it ends; a connection that breaks is taken up again.

        Returns:
            The job's exit code; 130 where it was stopped.

        Raises:
            ConfigError: the cluster has no such job, or no longer answers.
        """
        seen, silent_since = 0, None
        while True:
            try:
                seen = asyncio.run(self._print_log(job, seen))
                info = self._info(job)
                silent_since = None
                if info.status.is_terminal():
                    return _exit_code(info)
            except (RuntimeError, OSError) as error:  # the head is away, or its proxy
                silent_since = silent_since or time.monotonic()
                if time.monotonic() - silent_since > _GIVE_UP_S:
                    raise no_dashboard(self.address, error) from error
            time.sleep(_PAUSE_S)

    def stop(self, job: str) -> None:
        """Ask the job to write its state and end."""
        self._info(job)
        self._client.stop_job(job)

    def _info(self, job: str) -> Any:
        try:
            return self._client.get_job_info(job)
        except RuntimeError as error:
            if "404" not in str(error):
                raise
            known = ", ".join(found.submission_id for found in self._client.list_jobs() if found.submission_id)
            raise ConfigError("the cluster has no such job", value=job, where=self.address, allowed=known) from error

    async def _print_log(self, job: str, seen: int) -> int:
        """Print what comes after the first `seen` characters, which were printed before a connection broke."""
        passed = 0
        async for text in self._client.tail_job_logs(job):
            new = text[max(0, seen - passed) :]
            passed += len(text)
            if new:
                print(new, end="", flush=True)
                seen = passed
        return seen


@contextmanager
def jobs(address: str | None) -> Iterator[Jobs]:
    """The jobs of a cluster; with this user's token, where there is one.

    Args:
        address: url of the cluster's dashboard; None: RAY_API_SERVER_ADDRESS, or this machine's.

    Raises:
        ConfigError: nobody answers there, or a token is asked for that is not this user's.
    """
    address = address or os.environ.get(VARIABLE) or ADDRESS
    if urlsplit(address).scheme not in ("http", "https"):
        raise ConfigError(
            "not the address of a dashboard",
            value=redact(address),
            where=f"--address or {VARIABLE}",
            allowed="http://HOST:8265 or https://...",
            fix="`ray start --head` prints it; from outside, forward the port or ask for the cluster's ingress",
        )
    from ray.exceptions import AuthenticationError

    logging.getLogger("ray").setLevel(logging.ERROR)  # it tells of every file that it leaves out
    with authentication({"RAY_AUTH_MODE": "token" if has_token() else "disabled"}):
        try:
            found = Jobs(address)
        except AuthenticationError:
            raise wrong_token(address, "the Ray cluster refuses this token, or there is none") from None
        except (ConnectionError, RuntimeError) as error:
            raise no_dashboard(address, error) from error
        yield found


def no_dashboard(address: str, error: Exception) -> ConfigError:
    return ConfigError(
        "no Ray cluster answers",
        value=redact(address),
        where=f"--address or {VARIABLE}",
        allowed="the url of a cluster's dashboard, such as http://HOST:8265",
        fix=f"start one with `ray start --head`, or forward its port ({redact(str(error).splitlines()[0])})",
    )


def _exit_code(info: Any) -> int:
    if info.status == "STOPPED":
        return STOPPED
    if info.status == "SUCCEEDED":
        return 0
    if info.driver_exit_code is None:  # it never ran
        print(redact(info.message or ""), file=sys.stderr, flush=True)
    return info.driver_exit_code or 1
