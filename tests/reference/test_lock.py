"""dvc.lock against the code, the settings and the metrics beside it: what is committed was made by what is committed.

`make test` leaves this out, since any change of code makes it fail until `make repro` has run; CI does not (.ci/run).
It needs no data: what lies in DVC's cache alone is compared by the digests that dvc.lock has of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo

from pipeline.settings.code import STAGES, WHOLE, Code
from pipeline.settings.params import load_params

pytestmark = pytest.mark.filterwarnings("default")  # DVC's libraries' own
FIX = "dvc.lock is not of this code: run `make repro` (`make lecture`) and commit dvc.lock and metrics/"
PROJECTS = (".", "lecture")


@pytest.fixture(scope="module")
def repo(root: Path) -> Iterator[Repo]:
    with Repo(str(root)) as found:
        yield found


@pytest.fixture(params=PROJECTS)
def project(request: pytest.FixtureRequest, root: Path) -> Path:
    return root / request.param


@pytest.fixture
def stages(repo: Repo, project: Path) -> list[Any]:
    """Those of one project: DVC sees both, as they lie in one repository."""
    return [stage for stage in repo.index.stages if Path(stage.path).parent == project]


def test_every_stage_was_run_with_this_code_and_these_settings(stages: list[Any]) -> None:
    made = {out.def_path for stage in stages for out in stage.outs}
    changed = {}
    for stage in stages:
        # Beside what other stages write, or a folder of all of it.
        own = [d for d in stage.deps if not any(_lies_in(d.def_path, o) or _lies_in(o, d.def_path) for o in made)]
        found = [f"{path}: {state}" for dep in own for path, state in dep.status().items()]
        if stage.changed_stage():
            found.append("its command, or what it lists, is another")
        if found:
            changed[stage.addressing] = found
    assert not changed, FIX


def _lies_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


def test_the_code_behind_each_stage_is_this_code(project: Path) -> None:
    """Stages depend on digests of the code, which `check` writes anew each time."""
    document, code = load_params(project).document, Code()
    stale = {}
    for name, stage in yaml.safe_load((project / "dvc.lock").read_text())["stages"].items():
        for dep in stage.get("deps", []):
            if dep["path"].startswith("data/code/"):
                kind, part = Path(dep["path"]).parent.name, Path(dep["path"]).stem
                entry, of = ({}, part) if part in WHOLE else (document[STAGES[kind]][part], kind)
                text = json.dumps({"sha256": code.digest(entry, of)}, indent=1) + "\n"
                if hashlib.md5(text.encode()).hexdigest() != dep["md5"]:
                    stale[name] = dep["path"]
    assert not stale, FIX


def test_each_stage_read_what_the_stage_before_it_wrote(stages: list[Any], project: Path) -> None:
    locked = yaml.safe_load((project / "dvc.lock").read_text())["stages"]
    assert locked.keys() == {stage.addressing.partition(":")[2] or stage.addressing for stage in stages}, FIX
    written = {out["path"]: out["md5"] for stage in locked.values() for out in stage.get("outs", [])}
    stale = {
        name: dep["path"]
        for name, stage in locked.items()
        for dep in stage.get("deps", [])
        if written.get(dep["path"], dep["md5"]) != dep["md5"]
    }
    assert not stale, FIX


def test_the_committed_metrics_are_those_of_the_lock(stages: list[Any]) -> None:
    metrics = [out for stage in stages for out in stage.outs if not out.use_cache]
    assert metrics
    assert not {out.def_path: out.status() for out in metrics if out.status()}, FIX
