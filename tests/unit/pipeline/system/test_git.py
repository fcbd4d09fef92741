"""A folder in no git repository: DVC is told once, and where there is one, nothing is."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pipeline.system.git import in_repository, tell_dvc


@pytest.fixture
def project(tmp_path):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    analytics = false\n")
    (tmp_path / "lecture").mkdir()
    return tmp_path


def test_dvc_is_told_once_that_there_is_no_git(project, capsys, monkeypatch):
    local = project / ".dvc/config.local"
    local.write_text('[cache]\n    dir = "elsewhere"\n')
    tell_dvc(project / "lecture")
    assert "no git repository" in capsys.readouterr().err
    assert "no_scm = true" in local.read_text() and "elsewhere" in local.read_text()
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "root"], cwd=project, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("told twice"))
    tell_dvc(project)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("kind", ["folder", "worktree"])
def test_in_a_repository_nothing_is_said(project, kind, capsys):
    git = project / ".git"
    git.mkdir() if kind == "folder" else git.write_text("gitdir: elsewhere\n")
    tell_dvc(project / "lecture")
    assert not (project / ".dvc/config.local").exists() and capsys.readouterr().err == ""
    assert in_repository(project / "not there yet" / "deeper")


def test_a_folder_without_dvc_is_left_alone(tmp_path, capsys):
    tell_dvc(tmp_path)
    assert list(tmp_path.iterdir()) == [] and capsys.readouterr().err == ""


def test_init_needs_no_program_called_git(project, monkeypatch):
    from pipeline.ingest.new_project import _dvc_config

    monkeypatch.setenv("PATH", str(project))
    assert "no_scm = true" in _dvc_config(project / "new")
    (project / ".git").mkdir()
    assert "no_scm" not in _dvc_config(project / "new")
