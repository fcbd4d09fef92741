"""Independent runs at once: on a cluster of eight slots, how long all take beside the longest of them; and the shipped
five, small, on this machine, beside one after another.

The cluster is simulated: a `ray start` that says it has eight processors, on what this machine has, and trainings that
mostly wait, as for processors of their own: a stage in the loader sleeps at each sample, in each run for another time.
What they import and compute takes its time from this machine's few processors, which a real cluster would not share.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks import Figure, timed
from benchmarks._corpus import ROOT
from tests import dvc_project
from tests.integration.cluster import Cluster
from tests.local_training import drawn_voc
from tests.shipped import SHIPPED, tiny_datasets

SLOTS, SAMPLES, EPOCHS = 8, 48, 4
_SMALL = {
    "datasets": tiny_datasets(48, 12),
    "runs": SHIPPED,
    "train": {"max_epochs": 4, "batch_size": 8, "eval_batch_size": 8, "num_pictures": 2},
    "loader": {},
    "shards": {"samples": 16},
    "cluster": {},
    "tracking": {"system_metrics": False},
    "registry": {},
}
WAITS_S = (60, 90, 120, 150, 180, 210, 240, 360)  # of the runs


def measure() -> list[Figure]:
    return [*_on_slots(), _five()]


def _five() -> Figure:
    """The shipped runs on tiny data, from trainings to champions, two at a time and one after another."""
    took = []
    for jobs in ("2", "1"):
        with tempfile.TemporaryDirectory() as name:
            folder = dvc_project.make(ROOT, Path(name) / "project", _SMALL)
            repro = ["env", "-u", "OMP_NUM_THREADS", sys.executable, "-m", "pipeline.cli", "repro"]
            dvc_project.run(folder, *repro, *(f"vocab@{dataset}" for dataset in _SMALL["datasets"]))
            took.append(timed(partial(dvc_project.run, folder, *repro, "--jobs", jobs))[0])
    what = f"five runs from training to report, two at a time ({os.cpu_count()} processors)"
    return Figure(what=what, value=took[0], beside="one after another", other=took[1], goal="no slower")


def _on_slots() -> list[Figure]:
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        cluster = Cluster(stack, num_nodes=1, cpus=SLOTS)
        folder = _project(Path(name) / "project", cluster.address)
        repro = [sys.executable, "-m", "pipeline.cli", "repro"]
        dvc_project.run(folder, *repro, "vocab@voc")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RAY_AUTH_MODE", "token")
            trained = [f"train@{run}" for run in _runs()]
            took, _ = timed(lambda: dvc_project.run(folder, *repro, "--jobs", str(SLOTS), *trained))
        lines = map(json.loads, (folder / "state/costs.jsonl").read_text().splitlines())
        each = [line["time_s"] for line in lines if line["stage"] == "train"]
    assert len(each) == len(WAITS_S)
    what = f"trainings of {len(WAITS_S)} runs at once on {SLOTS} simulated slots ({os.cpu_count()} processors)"
    return [
        Figure(what=f"{what}, beside the longest", value=took, beside="the longest of them", other=max(each),
               goal="<= 1.2 x the longest"),
        Figure(what=f"{what}, beside their sum", value=took, beside="one after another, by their own times",
               other=sum(each)),
    ]  # fmt: skip


def _runs() -> dict[str, Any]:
    return {
        f"wait_{wait_s}": {
            "dataset": "voc",
            "task": {"name": "segmentation", "image_size": 64},
            "model": {"name": "fcn"},
            "loader": {"stages": {"records": [f"own.waiting:wait_{wait_s}"]}},
        }
        for wait_s in WAITS_S
    }


def _project(folder: Path, address: str) -> Path:
    dvc_project.make(
        ROOT,
        folder,
        {
            "datasets": drawn_voc(train=SAMPLES, val=8),
            "runs": _runs(),
            "train": {"max_epochs": EPOCHS, "batch_size": 8, "eval_batch_size": 8, "num_pictures": 0},
            "loader": {},
            "shards": {"samples": 16},
            "cluster": {"address": address, "num_workers": 1},
            "tracking": {"system_metrics": False},
        },
    )
    (folder / "own").mkdir()
    (folder / "own/__init__.py").touch()
    (folder / "own/waiting.py").write_text(
        "import time\n\n\ndef _waiting(samples, wait_s):\n    for sample in samples:\n"
        f"        time.sleep(wait_s / {SAMPLES * EPOCHS})\n        yield sample\n"
        + "".join(f"\n\ndef wait_{s}(samples):\n    return _waiting(samples, {s})\n" for s in WAITS_S)
    )
    dvc_project.run(folder, "git", "add", "-A")
    dvc_project.run(folder, "git", "commit", "-qm", "waiting")
    return folder
