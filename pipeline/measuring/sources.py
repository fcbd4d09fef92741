"""Where the runs of a report lie: in this project, in another project's folder, in a git revision or DVC experiment.

Of a revision, dvc.lock says what the outputs were, and DVC's cache has them: nothing is checked out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import yaml

from contracts.errors import ConfigError, DataError
from pipeline.settings.params import FILE, read_params
from pipeline.settings.parse import nearest
from pipeline.system import git, progress
from pipeline.system.heal import Cache
from pipeline.system.project import Project

EVALUATIONS = "evaluations"


class Files(Protocol):
    """A project's outputs, wherever they lie; paths are relative to its folder."""

    @property
    def place(self) -> str: ...

    def runs(self) -> list[str]:
        """Runs that were evaluated, in the order of params.yaml where that is known."""

    def read(self, path: str) -> bytes | None:
        """None where there is no such file."""

    def below(self, folder: str) -> list[str]:
        """The files of a folder, by name; none where there is no such folder."""


class InFolder:
    """What lies in a project's folder."""

    def __init__(self, root: Path):
        self.root = root
        self.place = str(root)

    def declared(self) -> list[str]:
        return list(read_params(self.root).document["runs"])

    def runs(self) -> list[str]:
        return [name for name in self.declared() if Project(self.root).measured(name).is_file()]

    def read(self, path: str) -> bytes | None:
        try:
            return (self.root / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def below(self, folder: str) -> list[str]:
        return sorted(f"{folder}/{path.name}" for path in (self.root / folder).glob("*") if path.is_file())


class InRevision:
    """What a revision's dvc.lock names, read from DVC's cache.

    Raises:
        ConfigError: git knows no such revision, or it has no dvc.lock here.
    """

    def __init__(self, root: Path, revision: str, cache: Cache):
        self.root, self.revision, self.cache = root, revision, cache
        self.place = f"{root} at {revision}"
        commit = _commit(root, revision)
        lock = git.output(root, "show", f"{commit}:./dvc.lock") if commit else None
        if lock is None:
            raise ConfigError(
                "no such revision with a dvc.lock", value=revision, where=str(root),
                fix="name a commit, a branch, a tag, or an experiment of `dvc exp list --all`",
            )  # fmt: skip
        self.outs = _outs(lock)

    @cached_property
    def _files(self) -> dict[str, str]:
        kept = (EVALUATIONS, "registry")
        return {
            f"{out}/{path}" if path else out: md5
            for out, tree in self.outs.items()
            if out.split("/")[0] in kept
            for path, md5 in self.cache.files(tree)
        }

    def runs(self) -> list[str]:
        return sorted(out.split("/")[1] for out in self.outs if out.startswith(f"{EVALUATIONS}/"))

    def read(self, path: str) -> bytes | None:
        md5 = self._files.get(path)
        place = None if md5 is None else self.cache.place(md5)
        return place.read_bytes() if place is not None and place.is_file() else None

    def below(self, folder: str) -> list[str]:
        return sorted(path for path in self._files if path.rpartition("/")[0] == folder)


def _outs(lock: str) -> dict[str, str]:
    """Outputs of a dvc.lock: path -> digest."""
    stages = (yaml.load(lock, getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}).get("stages", {})
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", ())}


@dataclass(frozen=True, kw_only=True)
class Source:
    """A run to be shown: where its files lie, and what the page calls it."""

    files: Files
    run: str
    label: str


def find(project: Project, names: Sequence[str], *, experiments: bool = False) -> list[Source]:
    """The runs that a command line names.

    Args:
        names: each a run of params.yaml, `RUN@REVISION`, `@REVISION` for all runs of it, or the folder of another
            project; none: all runs that were evaluated.
        experiments: add what DVC's experiments evaluated otherwise than the workspace and each other.

    Raises:
        ConfigError: an unknown run, revision or folder. DataError: a run that was not evaluated, or none was.
    """
    here = InFolder(project.root)
    cache = Cache.of(project.root) if experiments or any("@" in name for name in names) else None
    found = [source for name in names for source in _named(here, name, cache)]
    if not names:
        runs = here.runs()
        found = [Source(files=here, run=run, label=run) for run in runs]
        if absent := [run for run in here.declared() if run not in runs]:
            progress.note(f"not evaluated, so not shown: {', '.join(absent)}")
    if experiments:
        assert cache is not None
        found += _experiments(project.root, cache, {source.run for source in found} if names else None)
    if not found and (names or here.declared()):  # a project that only prepares data has a page without runs
        raise DataError(
            "no run was evaluated", where=str(project.root / EVALUATIONS), fix="`sightline repro` trains and evaluates"
        )
    return list({source.label: source for source in found}.values())


def _named(here: InFolder, name: str, cache: Cache | None) -> Iterator[Source]:
    run, at, revision = name.partition("@")
    if at:
        assert cache is not None
        files = InRevision(here.root, revision, cache)
        wanted = [run] if run else files.runs()
        for one in wanted:
            _require(files, one, files.runs())
            yield Source(files=files, run=one, label=f"{one}@{revision}")
    elif name in (known := here.declared()):
        _require(here, name, known)
        yield Source(files=here, run=name, label=name)
    elif (Path(name) / FILE).is_file():
        other = InFolder(Path(name).resolve())
        yield from (Source(files=other, run=run, label=f"{name.rstrip('/')}/{run}") for run in other.runs())
    else:
        raise ConfigError(
            "no such run", value=name, where="RUN",
            allowed=f"{', '.join(known)}; RUN@REVISION; the folder of a project", fix=nearest(name, known),
        )  # fmt: skip


def _require(files: Files, run: str, known: Sequence[str]) -> None:
    if files.read(f"{EVALUATIONS}/{run}/measured.json") is None:
        fix = f"`dvc repro evaluate@{run}`"
        if isinstance(files, InRevision):
            fix = "`dvc fetch --all-commits` where a remote has it; experiments of before the report have none"
        raise DataError("this run was not evaluated", value=run, where=files.place, allowed=", ".join(known), fix=fix)


def _experiments(root: Path, cache: Cache, only: set[str] | None) -> Iterator[Source]:
    """Runs of DVC's experiments, newest first; equal outputs are shown once."""
    workspace = git.output(root, "show", "HEAD:./dvc.lock")
    lock = root / "dvc.lock"
    text = lock.read_text() if lock.is_file() else workspace or ""
    seen = set(_outs(text).values())
    for name in experiment_names(root):
        try:
            files = InRevision(root, name, cache)
        except ConfigError:
            continue  # of before dvc.lock
        for run in files.runs():
            digest = files.outs[f"{EVALUATIONS}/{run}"]
            if digest in seen or (only is not None and run not in only):
                continue
            seen.add(digest)
            if files.read(f"{EVALUATIONS}/{run}/measured.json") is not None:
                yield Source(files=files, run=run, label=f"{run}@{name}")


def experiment_names(root: Path) -> list[str]:
    """Of all experiments that DVC keeps, newest first."""
    listed = git.output(root, "for-each-ref", "--sort=-committerdate", "--format=%(refname)", "refs/exps") or ""
    parts = [line.split("/") for line in listed.splitlines()]
    return [part[-1] for part in parts if len(part) == 5]  # refs/exps/<2 digits>/<38 more>/<name>


def _commit(root: Path, revision: str) -> str | None:
    for name in (f"refs/exps/*/*/{revision}", None):
        if name is None:
            found = git.output(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        else:
            found = git.output(root, "for-each-ref", "--format=%(objectname)", "--sort=-committerdate", name)
        if found:
            return found.split()[0]
    return None
