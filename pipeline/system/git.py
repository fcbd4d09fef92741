"""What git says of a folder, whether it is in a repository at all, and what DVC must be told where it is in none.

A downloaded archive of the project has no `.git`, and a container may have no git at all. The first is looked for in
the folders, so that the second is no matter.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

NO_GIT = "no_scm"


def output(folder: Path, *command: str) -> str | None:
    """What `git <command>` prints; None where there is no git, no repository, or one that git refuses (another user's),
    or where git knows no such thing."""
    try:
        result = subprocess.run(["git", "-C", str(folder), *command], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return result.stdout if result.returncode == 0 else None


def in_repository(folder: Path) -> bool:
    """Whether `folder`, which need not be there yet, or one above it has a `.git`."""
    folder = folder.resolve()
    return any((above / ".git").exists() for above in (folder, *folder.parents))


def tell_dvc(folder: Path) -> None:
    """Where `folder` is in no git repository, say so once in .dvc/config.local, which is this machine's own: otherwise
    DVC refuses to work there. A folder without DVC is left alone, for DVC's own words."""
    folder = folder.resolve()
    dvc = next((above / ".dvc" for above in (folder, *folder.parents) if (above / ".dvc").is_dir()), None)
    if dvc is None or in_repository(folder):
        return
    files = [path for path in (dvc / "config", dvc / "config.local") if path.is_file()]
    if any(NO_GIT in path.read_text() for path in files):
        return
    told = [sys.executable, "-m", "dvc", "config", "--local", f"core.{NO_GIT}", "true"]
    subprocess.run(told, cwd=folder, check=True)
    print(
        f"note: this folder is in no git repository; DVC is told so in {dvc / 'config.local'}. After `git init`: "
        f"dvc config --local --unset core.{NO_GIT}",
        file=sys.stderr,
        flush=True,
    )
