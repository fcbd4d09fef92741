"""Memory that is refused to a local training ends in a sentence, a status and an exit code."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from tests.local_training import mlflow_statuses
from tests.waiting import PATIENCE_S

LIMIT = 12 << 30  # of addresses: torch and MLflow take some 6 GiB of them, one batch of these images more than the rest


def test_a_local_training_without_memory_is_a_sentence_and_goes_on_with_less(tiny_project, root, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(tiny_project.root, folder)
    assert train(folder, root, image_size=8192).returncode == 2
    told = (folder / "log.txt").read_text()
    assert "TrainingError: training ran out of memory" in told
    assert "train.micro_batch_size" in told
    assert "Traceback" not in told
    assert mlflow_statuses(folder) == ["FAILED"]
    assert not (folder / "artifacts/segmentation").exists()
    assert train(folder, root, image_size=64).returncode == 0
    assert mlflow_statuses(folder) == ["FAILED", "FINISHED"]


def train(folder: Path, root: Path, *, image_size: int) -> subprocess.CompletedProcess[bytes]:
    document = yaml.safe_load((folder / "params.yaml").read_text())
    document["runs"]["segmentation"]["task"]["image_size"] = image_size
    document["train"]["num_pictures"] = 0  # the untrained model's would take a minute at this size
    (folder / "params.yaml").write_text(yaml.safe_dump(document))
    with open(folder / "log.txt", "w") as log:
        return subprocess.run(
            [sys.executable, "-m", "pipeline.stages", "train", "segmentation"],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT)),
            stdout=log,
            stderr=log,
            check=False,
            timeout=PATIENCE_S,
        )
