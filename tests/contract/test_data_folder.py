"""`data/` is in the repository: its README tells what lands there, and git keeps nothing else of it."""

from __future__ import annotations

import subprocess

import yaml


def test_git_keeps_the_readme_and_ignores_what_the_stages_write(root):
    kept = subprocess.check_output(["git", "ls-files", "data"], cwd=root, text=True).split()
    assert kept == ["data/.gitignore", "data/README.md"]
    written = ["data/checked.json", "data/raw/coco/.gitignore", "data/shards/coco/manifest.json", "data/code"]
    ignored = subprocess.run(
        ["git", "check-ignore", *written], cwd=root, capture_output=True, text=True, check=True
    ).stdout.split()
    assert ignored == written, "so DVC has nothing to add"


def test_the_readme_names_every_output_of_a_stage(root):
    stages = yaml.safe_load((root / "dvc.yaml").read_text())["stages"]
    outs = [out for stage in stages.values() for out in stage.get("do", stage).get("outs", ())]
    names = {
        name.split("/")[1] for out in outs for name in ([out] if isinstance(out, str) else out) if name[:5] == "data/"
    }
    readme = (root / "data/README.md").read_text()
    assert {"raw", "shards", "vocab", "quarantine"} < names
    assert [name for name in names if f"`{name}" not in readme] == []
