"""dvc.lock against the code, the settings and the metrics beside it: what is committed was made by what is committed.

`make test` leaves this out, since any change of code makes it fail until `make repro` has run; CI does not (.ci/run).
It needs no data: what lies in DVC's cache alone is compared by the digests that dvc.lock has of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

pytestmark = pytest.mark.filterwarnings("default")  # DVC's libraries' own
FIX = "dvc.lock is not of this code: run `make repro` and commit dvc.lock and metrics/"


@pytest.fixture(scope="module")
def repo(root: Path) -> Iterator[Repo]:
    with Repo(str(root)) as found:
        yield found


def test_every_stage_was_run_with_this_code_and_these_settings(repo: Repo) -> None:
    made = {out.def_path for stage in repo.index.stages for out in stage.outs}
    changed = {}
    for stage in repo.index.stages:
        own = [dep for dep in stage.deps if not any(_lies_in(dep.def_path, out) for out in made)]
        found = [f"{path}: {state}" for dep in own for path, state in dep.status().items()]
        if stage.changed_stage():
            found.append("its command, or what it lists, is another")
        if found:
            changed[stage.addressing] = found
    assert not changed, FIX


def _lies_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


def test_each_stage_read_what_the_stage_before_it_wrote(repo: Repo, root: Path) -> None:
    stages = yaml.safe_load((root / "dvc.lock").read_text())["stages"]
    assert stages.keys() == {stage.addressing for stage in repo.index.stages}, FIX
    written = {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", [])}
    stale = {
        name: dep["path"]
        for name, stage in stages.items()
        for dep in stage.get("deps", [])
        if written.get(dep["path"], dep["md5"]) != dep["md5"]
    }
    assert not stale, FIX


def test_the_committed_metrics_are_those_of_the_lock(repo: Repo) -> None:
    metrics = [out for stage in repo.index.stages for out in stage.outs if not out.use_cache]
    assert metrics
    assert not {out.def_path: out.status() for out in metrics if out.status()}, FIX
