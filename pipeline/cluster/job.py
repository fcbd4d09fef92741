"""What a job that `sightline submit` sent runs on the cluster: `sightline repro`, in a copy of the project.

Without a folder it works in the copy that Ray unpacked for it, which goes when the job ends; so what it made is pushed
to the project's DVC remote, runs included, and `dvc fetch --run-cache` and `sightline repro
--pull` bring it to whoever submitted it.
"""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from contracts.errors import ConfigError
from pipeline.settings.code import PACKAGES
from pipeline.system.removal import remove_tree


def work(folder: Path | None, arguments: Sequence[str]) -> int:
    """Run `sightline repro <arguments>` in `folder`, or here; push what it made.

    Returns:
        Its exit code, or that of the push.

    Raises:
        ConfigError: the folder cannot be written.
    """
    if folder is not None:
        lay(Path.cwd(), folder)
        os.chdir(folder)
    code = run([sys.executable, "-m", "pipeline.cli", "repro", *arguments])
    if code == 0 and has_remote(Path.cwd()):
        code = run([sys.executable, "-m", "dvc", "push", "--quiet", "--run-cache"])
        if code == 0:
            print("what this job made is in DVC's remote: `dvc fetch --run-cache`, then `sightline repro --pull`")
    return code


def run(command: Sequence[str]) -> int:
    """The exit code of a command that is told of this process's end: it writes a state then."""
    with subprocess.Popen(command) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            raise


def lay(source: Path, folder: Path) -> None:
    """Bring the project to `folder`: its files take the place of those there, and what was made there stays.

    Raises:
        ConfigError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for package in PACKAGES:  # a module that was deleted must not be imported from there
            if (source / package).is_dir() and (folder / package).is_dir():
                remove_tree(folder / package, inside=folder)
        shutil.copytree(source, folder, dirs_exist_ok=True, symlinks=True)
    except OSError as error:
        raise ConfigError(
            "the job cannot work there",
            value=str(folder),
            where="--folder",
            allowed="a folder on a file system that every node of the cluster sees and may write",
            fix=str(error),
        ) from error


def has_remote(folder: Path) -> bool:
    """Whether the project names a default DVC remote, which is there from every machine: a url, or an absolute path."""
    config = configparser.ConfigParser()
    config.read([folder / ".dvc" / "config", folder / ".dvc" / "config.local"])
    name = config.get("core", "remote", fallback="")
    url = config.get(f"'remote \"{name}\"'", "url", fallback="")
    return "://" in url or url.startswith("/")
