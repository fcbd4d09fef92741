"""`make clean-state` takes what nobody needs, and nothing else."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from pathlib import Path

import pytest
import yaml

from pipeline.settings.archives import ARCHIVES
from pipeline.settings.params import load_params
from pipeline.system.project import Project
from pipeline.training.runs import load_run
from tests.command import sightline


@pytest.fixture
def project(tiny_project, tmp_path, monkeypatch) -> Project:
    shutil.copytree(tiny_project.root, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return Project(tmp_path / "project")


def state(project: Project, name: str, age_s: float = 3600) -> Path:
    folder = project.root / "state" / name
    folder.mkdir(parents=True)
    (folder / "state-00000002.ckpt").write_bytes(bytes(1_000_000))
    for path in (*folder.iterdir(), folder):
        os.utime(path, (time.time() - age_s,) * 2)
    return folder


def test_only_what_no_run_goes_on_from_is_removed(project, capsys):
    current = load_run(project, load_params(project.root), "segmentation").fingerprint
    kept = state(project, f"segmentation-{current[:16]}")
    old, gone = state(project, f"segmentation-{'0' * 16}"), state(project, f"no-such-run-{'1' * 16}")
    fresh = state(project, f"vqa-{'2' * 16}", age_s=5)
    held = state(project, f"captioning-{'3' * 16}")
    foreign = state(project, "notes-of-mine")
    (project.root / "state/locks").mkdir()
    with open(project.root / "state/locks/run-captioning.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for options in (["--dry-run"], []):
            assert sightline("clean-state", options) == 0
            out = capsys.readouterr().out
            assert out.count("remove state/") == 2 and "2.0 MB" in out.splitlines()[-1]
            assert f"state/{old.name} (1.0 MB): settings, data or code of the run have changed" in out
            assert f"state/{gone.name} (1.0 MB): no run no-such-run in params.yaml" in out
            assert f"keep state/{fresh.name} (1.0 MB): in use" in out and f"keep state/{held.name}" in out
            assert (old.exists(), gone.exists()) == (bool(options), bool(options))
    assert all(folder.exists() for folder in (kept, fresh, held, foreign))


def test_states_of_a_run_whose_data_is_not_here_are_kept(project, capsys):
    folder = state(project, f"segmentation-{'0' * 16}")
    shutil.rmtree(project.shards("voc"))
    assert sightline("clean-state") == 0
    assert folder.exists() and "the run's data is not here" in capsys.readouterr().out


def test_extracted_downloads_go_and_others_stay(project, capsys):
    document = yaml.safe_load((project.root / "params.yaml").read_text())
    names = list(ARCHIVES)[:2]
    for name, archive in zip(("one", "two"), names, strict=True):
        document["datasets"][name] = {"download": {"archives": [archive]}}
    (project.root / "params.yaml").write_text(yaml.safe_dump(document))
    downloads = project.root / "state/downloads"
    downloads.mkdir(parents=True)
    extracted, waiting = (downloads / ARCHIVES[name].file_name for name in names)
    part = downloads / f"{extracted.name}.part"
    for path in (extracted, waiting, part):
        path.write_bytes(bytes(500_000))
    project.raw("one").mkdir(parents=True)
    (project.raw("one") / f".{names[0]}.done").write_text("{}")
    assert sightline("clean-state") == 0
    assert "0.5 MB removed" in capsys.readouterr().out
    assert not extracted.exists() and waiting.exists() and part.exists()
