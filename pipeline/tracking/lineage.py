"""Which code trains: the commit that is checked out, and what differs from it.

Where there is no git, as in a container that a cluster's job runs in, the environment says which commit its image was
made from: SIGHTLINE_GIT_COMMIT, or what the CI systems set.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from contracts.errors import ConfigError
from pipeline.settings.code import PACKAGES
from pipeline.system import git

VARIABLES = ("SIGHTLINE_GIT_COMMIT", "GITHUB_SHA", "CI_COMMIT_SHA", "GIT_COMMIT")


@dataclass(frozen=True)
class Lineage:
    """`commit` is "" where none is known; `changed` are files of the code that differ from it or are not in it."""

    commit: str
    changed: tuple[str, ...] = ()


def lineage(root: Path) -> Lineage:
    """Of the project's folder. Settings do not count as code: every resolved one is stored with the run.

    Raises:
        ConfigError: a variable of the environment holds something else than a commit.
    """
    is_code = any((root / package).is_dir() for package in PACKAGES)  # else its commits say nothing of the code
    commit = git.output(root, "rev-parse", "HEAD") if is_code else None
    if commit is None:
        return Lineage(_from_environment())
    # -z: names as they are; a renamed file is followed by its old name.
    status = (
        git.output(root, "status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", "--", *PACKAGES) or ""
    )
    return Lineage(commit.strip(), tuple(sorted(entry[3:] for entry in status.split("\0") if entry)))


def commit_of(code: Path) -> dict[str, str]:
    """The environment that tells the stages of a project outside the code's repository which commit it is; empty where
    the code is in no commit."""
    found = lineage(code)
    return {VARIABLES[0]: found.commit} if found.commit and not found.changed else {}


def _from_environment() -> str:
    for name in VARIABLES:
        if value := os.environ.get(name, "").strip():
            if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", value):
                raise ConfigError(
                    "not a git commit",
                    value=value[:80],
                    where=f"environment variable {name}",
                    allowed="the whole digest, 40 hexadecimal digits: `git rev-parse HEAD`",
                )
            return value
    return ""
