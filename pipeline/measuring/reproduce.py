"""`sightline reproduce`: whether a run comes out the same again, from nothing but what it recorded.

A fresh clone at the run's commit makes data, training and evaluation anew, with an empty cache and a store of its own;
then both are compared in the order in which one thing follows from another: data, environment, code and settings,
numbers. The first difference is named. On the same kind of processor with the same packages numbers must be equal, else
within the run's own 95 % intervals.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contracts.errors import ConfigError, DataError
from pipeline.settings.code import CODE
from pipeline.settings.params import FILE
from pipeline.system.environment import digest, environment
from pipeline.system.project import Project, read_json
from pipeline.training.run_files import RECORD
from pipeline.training.scores import MEASURED

_ID = re.compile(r"[0-9a-f]{32}")
SHARE_WITHOUT_INTERVAL = 0.05  # of a metric's value, on another kind of processor


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What a run is known by: `record` is artifacts/<run>/run.json, or what MLflow's tags have of it; `measured` is
    evaluations/<run>/measured.json."""

    run: str
    record: Mapping[str, Any]
    measured: Mapping[str, Any]

    @property
    def cpu(self) -> str | None:
        return (self.record.get("environment") or self.record).get("cpu")

    @property
    def packages_sha256(self) -> str | None:
        known = self.record.get("environment")
        return digest(known["packages"]) if known else self.record.get("packages_sha256")

    @property
    def is_of_this_environment(self) -> bool:
        now = environment()
        return (self.cpu, self.packages_sha256) == (now["cpu"], digest(now["packages"]))


@dataclass(frozen=True, kw_only=True)
class Row:
    """One thing that was compared. `told`: how both stand, where they differ. `counts`: it decides."""

    what: str
    first: str
    second: str
    same: bool
    counts: bool = True
    allowed: str = ""


@dataclass
class Outcome:
    rows: list[Row] = field(default_factory=list)

    @property
    def difference(self) -> Row | None:
        """The first that counts."""
        return next((row for row in self.rows if row.counts and not row.same), None)


def run(name: str, *, keep: Path | None) -> int:
    """The command. Exit code 1: something that counts came out otherwise.

    Args:
        keep: where the clone is made and stays; None: a temporary folder.

    Raises:
        ConfigError: the run was trained by code that is in no commit, or the folder is not empty.
        DataError: it was not trained or measured here, the commit is not here, or the clone could not be trained.
    """
    project = Project.here()
    first = recorded(project, name)
    name, commit = first.run, _commit(first)
    if keep is not None and keep.exists() and any(keep.iterdir()):
        raise ConfigError("this folder is not empty", value=str(keep), where="--keep", fix="name a new one")
    _tell_environment(first)
    with ExitStack() as held:
        place = keep or Path(held.enter_context(tempfile.TemporaryDirectory(prefix="reproduce-")))
        code = place.resolve() / "code"
        again = clone(project, commit, code)
        _train(again, name, commit, code)
        outcome = compare(first, recorded(again, name))
    show(outcome)
    return 1 if outcome.difference else 0


def recorded(project: Project, name: str) -> Recorded:
    """Of a run by its name, or by its id in MLflow, which also older trainings of it have.

    Raises:
        ConfigError: MLflow has no such run, or does not answer.
        DataError: the run was not trained or measured here.
    """
    if _ID.fullmatch(name) and not project.artifacts(name).exists():
        from pipeline.tracking.recorded import recorded_in_mlflow

        record, measured = recorded_in_mlflow(project, name)
        return Recorded(run=str(measured["run"]), record=record, measured=measured)
    record = read_json(project.artifacts(name) / RECORD, "the record of the training", f"dvc repro train@{name}")
    path = project.evaluation(name) / MEASURED
    return Recorded(
        run=name, record=record, measured=read_json(path, "the metrics of the run", f"dvc repro evaluate@{name}")
    )


def _commit(first: Recorded) -> str:
    commit, changed = str(first.record.get("git_commit", "")), list(first.record.get("git_changed", ()))
    if changed:
        raise ConfigError(
            f"run {first.run} was trained by code that is in no commit", value=", ".join(changed),
            fix="commit it, and train it once more",
        )  # fmt: skip
    if not commit:
        raise ConfigError(f"of run {first.run} no commit is known", fix="train it in a git repository")
    return commit


def clone(project: Project, commit: str, code: Path) -> Project:
    """The repository of the code at `commit`, as the folder `code`; the project in it, or beside it where it lies
    elsewhere: as it stands now, since the fingerprint tells whether it has changed.

    Raises:
        DataError: git does not have the commit.
    """
    for command in (
        ["git", "clone", "--quiet", "--no-checkout", str(CODE), str(code)],
        ["git", "-C", str(code), "checkout", "--quiet", "--detach", commit],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise DataError(
                "the run's commit cannot be checked out", value=commit, where=str(CODE),
                allowed=done.stderr.strip()[:300], fix="`git fetch` it first",
            )  # fmt: skip
    root = project.root.resolve()
    if root.is_relative_to(CODE):
        return Project(code / root.relative_to(CODE))
    folder = code.parent / "project"
    folder.mkdir()
    for file in (FILE, "dvc.yaml"):
        (folder / file).write_bytes((root / file).read_bytes())
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet", "--no-scm"], cwd=folder, check=True)
    return Project(folder)


def _train(again: Project, name: str, commit: str, code: Path) -> None:
    env = {key: value for key, value in os.environ.items() if not key.startswith("SIGHTLINE_")}
    env |= {
        "PYTHONPATH": str(code),
        "MLFLOW_TRACKING_URI": f"sqlite:///{again.root / 'mlflow.db'}",  # the run's own store gets nothing of it
        "SIGHTLINE_GIT_COMMIT": commit,
    }
    # The lock knows outputs that are in no cache here: without it nothing is taken for done.
    (again.root / "dvc.lock").unlink(missing_ok=True)
    command = [sys.executable, "-m", "pipeline.cli", "repro", f"evaluate@{name}"]
    if subprocess.run(command, cwd=again.root, env=env, check=False).returncode:
        raise DataError(
            f"run {name} could not be made again", where=str(again.root), fix="what went wrong is told above",
        )  # fmt: skip


def compare(first: Recorded, second: Recorded) -> Outcome:
    """Everything that the second could differ in, in the order of causes."""
    outcome = Outcome()
    keys = {"data (manifest)": "manifest_digest", "code that trains": "code", "settings": "fingerprint"}
    for what, key in keys.items():
        old, new = first.record.get(key), second.record.get(key)
        if old is not None:  # MLflow has the code's digest in the fingerprint alone
            outcome.rows.append(Row(what=what, first=old[:16], second=str(new)[:16], same=old == new))
    outcome.rows += _environment(first)
    outcome.rows += _numbers(first, second, equal=first.is_of_this_environment)
    return outcome


def _environment(first: Recorded) -> list[Row]:
    """Told only: what it leads to, the numbers show."""
    now, known = environment(), first.record.get("environment")
    sha256 = digest(now["packages"])
    told = {
        "cpu": (first.cpu or "not recorded", now["cpu"]),
        "packages": (str(first.packages_sha256 or "not recorded")[:16], sha256[:16]),
    }
    if known:
        had, has = set(known["packages"]), set(now["packages"])
        told |= {"python": (known["python"], now["python"])}
        told |= {"packages": (_few(sorted(had - has)), _few(sorted(has - had)))}
    return [Row(what=w, first=old, second=new, same=old == new, counts=False) for w, (old, new) in told.items()]


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _numbers(first: Recorded, second: Recorded, *, equal: bool) -> list[Row]:
    """Each metric, the task's own first."""
    old, new = first.measured["metrics"], second.measured["metrics"]
    intervals = {row["name"]: row.get("interval_95") for row in first.measured["measured"]}
    rows = []
    for name in sorted(old.keys() | new.keys(), key=lambda name: (name != first.measured["metric"], name)):
        a, b = old.get(name), new.get(name)
        if a is None or b is None:
            rows.append(Row(what=name, first=str(a), second=str(b), same=False))
            continue
        low, high = intervals.get(name) or (a - SHARE_WITHOUT_INTERVAL * abs(a), a + SHARE_WITHOUT_INTERVAL * abs(a))
        same, allowed = (a == b, "equal") if equal else (low <= b <= high, f"{low:.6g} to {high:.6g}")
        rows.append(Row(what=name, first=repr(a), second=repr(b), same=same, allowed=allowed))
    return rows


def _tell_environment(first: Recorded) -> None:
    if first.cpu is None:
        what = "the run recorded no environment: its numbers must lie within its intervals"
    elif first.is_of_this_environment:
        what = f"the same environment ({first.cpu}): its numbers must be equal"
    else:
        what = f"another environment than the run's ({first.cpu}): its numbers must lie within its intervals"
    print(what, flush=True)


def show(outcome: Outcome) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "the run", "again", "allowed", ""):
        table.add_column(column, overflow="fold")
    for row in outcome.rows:
        mark = "" if row.same else "differs" if row.counts else "differs, told only"
        table.add_row(row.what, row.first, row.second, row.allowed, mark)
    Console(highlight=False, width=None if Console().is_terminal else 120).print(table)
    found = outcome.difference
    where = "" if found is None else f"the first difference: {found.what}: {found.first} then, {found.second} now"
    print(where or "it came out the same")
