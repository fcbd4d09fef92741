"""A run that starts from another, with the real DVC: the other is trained before, once, and both after a change."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.dvc_project import make, run
from tests.local_training import drawn_voc

SEGMENTATION = {"dataset": "voc", "task": {"name": "segmentation"}, "model": {"name": "fcn"}}
PARAMS: dict[str, Any] = {
    "datasets": drawn_voc(train=16, val=8),
    "runs": {  # in the order of the alphabet, which is not that of the work
        "a_tuned": {**SEGMENTATION, "init": {"from": "b_first", "parts": ["backbone"]}},
        "b_first": {**SEGMENTATION, "model": {"name": "fcn", "variant": "32s"}},
    },
    "train": {"max_epochs": 1, "batch_size": 8, "eval_batch_size": 8, "num_pictures": 0},
    "loader": {},
    "shards": {"samples": 16},
    "cluster": {"engine": "local"},
    "tracking": {"system_metrics": False},
    "registry": {},
}


def repro(folder: Path, target: str) -> str:
    return run(folder, sys.executable, "-m", "pipeline.cli", "repro", target)


def fingerprints(folder: Path) -> dict[str, str]:
    return {
        name: json.loads((folder / "artifacts" / name / "run.json").read_text())["fingerprint"]
        for name in PARAMS["runs"]
    }


def test_the_other_run_is_trained_first_and_once(root: Path, tmp_path: Path):
    folder = make(root, tmp_path / "project", PARAMS)
    said = repro(folder, "train")
    assert "a_tuned starts from b_first, which is trained first" in said
    assert said.count("train b_first: best at epoch") == said.count("train a_tuned: best at epoch") == 1
    first = fingerprints(folder)
    assert "trained first" not in repro(folder, "train")
    assert fingerprints(folder) == first

    PARAMS["runs"]["b_first"]["model"]["variant"] = "16s"
    (folder / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    said = repro(folder, "train@a_tuned")
    assert said.count("train b_first: best at epoch") == said.count("train a_tuned: best at epoch") == 1
    again = fingerprints(folder)
    assert all(again[name] != first[name] for name in first)
