"""Which code trained: from git, or from the environment where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.errors import ConfigError
from pipeline.tracking.lineage import VARIABLES, Lineage, lineage
from tests.dvc_project import run

COMMIT = "0123456789" * 4


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    for name in ("pipeline/a.py", "pipeline/b c.py", "params.yaml", "dvc.lock", "metrics/seg.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1")
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "start"]):
        run(tmp_path, "git", *command)
    return tmp_path


def test_code_that_is_in_no_commit_is_named(clone: Path) -> None:
    commit = run(clone, "git", "rev-parse", "HEAD").strip()
    for name in ("params.yaml", "dvc.lock", "metrics/seg.json"):
        (clone / name).write_text("2")  # settings are stored with the run, results change as it goes on
    assert lineage(clone) == Lineage(commit)
    (clone / "pipeline/b c.py").write_text("2")
    (clone / "pipeline/a.py").unlink()
    (clone / "lightning_modules/tasks").mkdir(parents=True)
    (clone / "lightning_modules/tasks/new.py").write_text("")
    assert lineage(clone) == Lineage(commit, ("lightning_modules/tasks/new.py", "pipeline/a.py", "pipeline/b c.py"))
    run(clone, "git", "add", "-A")
    assert len(lineage(clone).changed) == 3, "staged is not committed"


def test_without_git_the_environment_says_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert lineage(tmp_path) == Lineage("")
    monkeypatch.setenv("CI_COMMIT_SHA", "f" * 40)
    assert lineage(tmp_path) == Lineage("f" * 40)
    monkeypatch.setenv("SIGHTLINE_GIT_COMMIT", COMMIT)
    assert lineage(tmp_path) == Lineage(COMMIT)
    monkeypatch.setenv("PATH", str(tmp_path))  # no git at all
    assert lineage(tmp_path) == Lineage(COMMIT)
    monkeypatch.setenv("SIGHTLINE_GIT_COMMIT", "main")
    with pytest.raises(ConfigError, match=r"(?s)not a git commit: 'main'.*SIGHTLINE_GIT_COMMIT"):
        lineage(tmp_path)


def test_a_clone_knows_better_than_the_environment(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_GIT_COMMIT", COMMIT)
    assert lineage(clone).commit == run(clone, "git", "rev-parse", "HEAD").strip() != COMMIT
