"""This project's dvc.yaml and code in a git repository of its own, for tests that run the real DVC."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.waiting import until

BIN = Path(sys.executable).parent


def environment() -> dict[str, str]:
    names = {f"GIT_{who}_{what}": "t@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return os.environ | names | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}


def run(folder: Path, *command: str) -> str:
    """What a command that succeeds prints."""
    result = attempt(folder, *command)
    assert result.returncode == 0, f"{command}: {result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    return result.stdout + result.stderr


def attempt(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, check=False, umask=0o022
    )


def stages_run(folder: Path, *targets: str) -> list[str]:
    """What `dvc repro` of these runs: `check` in any case."""
    output = run(folder, "dvc", "repro", *targets)
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]


def run_queue(folder: Path) -> None:
    """`dvc exp run --run-all`.

    DVC's worker looks in files whether the queue is empty, and reads one half written now and then: that ends the
    thread which looks, and the worker waits for ever with all its work done. It is ended then.
    """
    queue = folder / ".dvc/tmp/exps/celery"
    waiting = len(list(queue.glob("broker/in/*.celery.msg")))
    with open(folder / "queue.log", "w") as log:
        process = subprocess.Popen(
            ["dvc", "exp", "run", "--run-all"], cwd=folder, env=environment(), stdout=log, stderr=log, umask=0o022
        )
    with process:
        until(lambda: process.poll() is not None or _succeeded(queue) == waiting)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            for left in (*psutil.Process(process.pid).children(recursive=True), process):
                left.kill()
    assert _succeeded(queue) == waiting, (folder / "queue.log").read_text()[-3000:]


def _succeeded(queue: Path) -> int:
    return sum('"SUCCESS"' in path.read_text() for path in queue.glob("result/celery-task-meta-*"))


def make(root: Path, folder: Path, params: Mapping[str, Any]) -> Path:
    """A copy of the code at `root` with these params, committed; nothing has run yet."""
    folder.mkdir()
    for name in ("contracts", "lightning_modules", "pipeline", ".dvc"):
        shutil.copytree(root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "cache", "tmp"))
    for name in ("dvc.yaml", ".dvcignore", ".gitignore"):
        shutil.copyfile(root / name, folder / name)
    (folder / "data").mkdir()
    shutil.copyfile(root / "data" / ".gitignore", folder / "data" / ".gitignore")
    (folder / "params.yaml").write_text(yaml.safe_dump({"registry": {}} | dict(params)))
    for command in (["git", "init", "-q"], ["git", "add", "-A"], ["git", "commit", "-qm", "start"]):
        run(folder, *command)
    return folder


def open_to_others(path: Path) -> list[Path]:
    """What others than the user may do anything with, of `path` and all that can be reached through it."""
    if not path.lstat().st_mode & 0o077:
        return []
    return [path, *(found for child in (path.iterdir() if path.is_dir() else ()) for found in open_to_others(child))]
