"""A project's own MLflow store after the project was moved or copied: its paths are made those of the new folder.

MLflow keeps absolute paths in its database. Without this, a copy would write pictures and models into the folder it
was copied from, and a moved project could not open those it has.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from pipeline.tracking.event_tail import say

DATABASE = "mlflow.db"
ARTIFACTS, OTHERS = "mlartifacts", "mlruns"  # ours, and those of MLflow's own experiment "Default"
_COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
_WAIT_S = 5.0  # as MLflow waits for SQLite


def rebase(database: Path, root: Path) -> None:
    """Make the paths of a project's own store those of `root`, where the project lay elsewhere when it was made.

    Only artifacts in the project's own folder `mlartifacts` are meant, never those of another place that
    `tracking.artifacts` names. One transaction: all of it or nothing.

    Args:
        database: SQLite; nothing happens where it does not exist.

    Raises:
        sqlite3.Error: another process keeps the database locked, or it cannot be changed.
    """
    if not database.is_file():
        return
    with closing(sqlite3.connect(database, timeout=_WAIT_S, isolation_level=None)) as store:
        if not _former_roots(store, root):
            return
        store.execute("BEGIN IMMEDIATE")  # who waited for another process finds it done
        former = _former_roots(store, root)
        for old in former:
            _move(store, old, str(root))
        store.execute("COMMIT")
    for old in former:
        say(f"this project's MLflow store was made in {old}: its paths are those of {root} now")


def _former_roots(store: sqlite3.Connection, root: Path) -> list[str]:
    """The folders that our experiments were made in, other than `root`."""
    known = {name for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not {table for table, _ in _COLUMNS} <= known:
        return []  # no store yet, or one of another version, which MLflow tells of
    found = set()
    for name, place in store.execute("SELECT name, artifact_location FROM experiments"):
        folder, _, rest = (place or "").rpartition(f"/{ARTIFACTS}/")
        if folder.startswith("/") and rest == name and folder != str(root) and _was_a_project(Path(folder)):
            found.add(folder)
    return sorted(found)


def _was_a_project(folder: Path) -> bool:
    """Not a place for artifacts alone: the project is gone from there, or is there, too."""
    return not (folder / ARTIFACTS).is_dir() or (folder / DATABASE).is_file()


def _move(store: sqlite3.Connection, old: str, new: str) -> None:
    for kept in (ARTIFACTS, OTHERS):
        before, after = f"{old}/{kept}/", f"{new}/{kept}/"
        for table, column in _COLUMNS:
            store.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                (after, len(before) + 1, len(before), before),
            )
