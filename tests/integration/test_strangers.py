"""Parts of a stranger's, written by docs/adding.md, copied into the code and run from files to a champion.

tests/strangers holds a source, a task with its report, and a model, each where it belongs; no other file of the code is
touched, and params.yaml gets a data set and a run.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from pipeline.settings.code import PACKAGES
from tests.warm_process import forked

DATASET = {"origin": "local", "input": "dots", "sources": {"counts_csv": {"largest": 5}}}
RUN = {
    "dataset": "dots",
    "task": {"name": "counting"},
    "model": {"name": "tiny_counter"},
    "train": {"max_epochs": 12, "batch_size": 16, "validate_every_epochs": 12, "optimizer": {"lr": 0.01}},
}
MOST = 5
# The stages that dvc.yaml runs for this data set and run, in one process: torch and MLflow are imported once.
STAGES = """
from pathlib import Path
from pipeline.settings.params import load_params
from pipeline.stages.evaluate import evaluate
from pipeline.stages.fetch import fetch
from pipeline.stages.register import register
from pipeline.stages.shard import shard
from pipeline.stages.train import train
from pipeline.stages.vocab import vocab
from pipeline.system.project import Project

project, params = Project.here(), load_params(Path.cwd())
for stage in (fetch, shard, vocab):
    stage(project, params, "dots")
for stage in (train, evaluate, register):
    stage(project, params, "dots_count")

from pipeline.cli import app

try:
    app(["predict", "dots_count", "dots/test-0.png", "dots/test-1.png"])
except SystemExit as end:
    assert end.code == 0
app(["evaluate", "dots_count"])
"""


def draw(folder: Path) -> None:
    """Squares on a dark ground, as many as the CSV says."""
    folder.mkdir()
    generator = np.random.default_rng(2)
    for split, number in (("train", 240), ("val", 60), ("test", 40)):
        lines = ["image,count"]
        for i in range(number):
            pixels = generator.integers(0, 30, (32, 32, 3), np.uint8)
            places = generator.permutation(16)[: (count := i % (MOST + 1))]
            for place in places:
                y, x = 8 * (place // 4) + 2, 8 * (place % 4) + 2
                pixels[y : y + 4, x : x + 4] = generator.integers(180, 256, 3)
            cv2.imwrite(str(folder / f"{split}-{i}.png"), pixels)
            lines.append(f"{split}-{i}.png,{count}")
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def copy(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code with the stranger's files, the data beside it."""
    folder = tmp_path_factory.mktemp("stranger")
    without = shutil.ignore_patterns("__pycache__")
    for package in PACKAGES:
        shutil.copytree(root / package, folder / package, ignore=without)
    before = {path for path in folder.rglob("*") if path.is_file()}
    shutil.copytree(root / "tests" / "strangers", folder, ignore=without, dirs_exist_ok=True)
    added = {path for path in folder.rglob("*") if path.is_file()} - before
    assert sorted(path.name for path in added) == ["counting.py", "counting.py", "counts_csv.py", "tiny_counter.py"]
    shutil.copyfile(root / "dvc.yaml", folder / "dvc.yaml")
    (folder / "lecture").mkdir()
    shutil.copyfile(root / "lecture" / "params.yaml", folder / "lecture" / "params.yaml")
    document = yaml.safe_load((root / "params.yaml").read_text())
    document["datasets"]["dots"], document["runs"]["dots_count"] = DATASET, RUN
    document["cluster"]["engine"] = "local"
    document["tracking"] = {"system_metrics": False}
    (folder / "params.yaml").write_text(yaml.safe_dump(document))
    draw(folder / "dots")
    return folder


def python(copy: Path, warm_socket: str, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    environment |= {"SIGHTLINE_GIT_COMMIT": "c" * 40, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        forked(warm_socket, *arguments), cwd=copy, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    return done.stdout


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.mark.usefixtures("forked_probe")
def test_three_parts_of_a_stranger_from_files_to_a_champion(copy: Path, warm_socket: str) -> None:
    python(copy, "", "-m", "pipeline.cli", "check")
    out = python(copy, warm_socket, "-c", STAGES)
    metrics = read(copy / "evaluations" / "dots_count" / "measured.json")
    assert (metrics["metric"], metrics["metric_mode"], metrics["split"]) == ("MAE", "min", "val")
    assert read(copy / "metrics" / "dots_count.json")["value"] == metrics["value"]
    for measured, constant in ((metrics, metrics["constant"]), (metrics["test"], metrics["test"]["constant"])):
        assert measured["value"] < 0.5 * constant["MAE"] < 1
    (described,) = metrics["measured"]
    low, high = described["interval_95"]
    assert low < metrics["value"] < high and described["gain_interval_95"][1] < 0
    decision = read(copy / "registry" / "dots_count.json")
    assert (decision["decision"], decision["version"]) == ("champion", "1"), decision
    document = json.loads(out[out.index('{\n "model"') : out.rindex("\n}\n") + 2])
    assert [round(one["answers"][0]["count"]) for one in document["predictions"]] == [0, 1]
    assert all((copy / one["picture"]).is_file() for one in document["predictions"])
    assert (copy / "plots" / "dots_count" / "confusion.png").is_file()
    assert read(copy / "metrics" / "other" / "dots_count-dots-test.json")["value"] == metrics["test"]["value"]
    assert len(read(copy / "data" / "shards" / "dots" / "manifest.json")["splits"]) == 3


def test_the_contract_tests_find_them(copy: Path, root: Path, warm_socket: str) -> None:
    """As they are: no test gets a line."""
    shutil.copytree(root / "tests", copy / "tests", ignore=shutil.ignore_patterns("__pycache__", "strangers"))
    shutil.copyfile(root / "pyproject.toml", copy / "pyproject.toml")
    names = "counts_csv or counting or tiny_counter or dots_count or every_task or found_by_name_are_covered"
    files = [f"tests/contract/test_{name}.py" for name in ("parts", "families", "dvc_graph")]
    options = ["-vv", "-p", "no:cacheprovider", "-p", "no:xdist", "-W", "ignore:Module already imported", "-k", names]
    out = python(copy, warm_socket, "-m", "pytest", *options, *files)
    for name in (
        "test_config_is_strict_frozen_and_has_defaults[source-counts_csv]",
        "test_every_task_and_model_is_in_a_shipped_run",
        "test_a_batch_goes_all_the_way[local_project-dots_count]",
        "test_a_model_answers_to_its_inputs_alone[local_project-dots_count]",
        "test_groups_are_drawn_again_as_wholes[local_project-dots_count]",
        "test_a_model_is_built_from_its_spec_and_does_what_the_protocol_says[tiny_counter]",
        "test_the_imports_of_what_is_found_by_name_are_covered[train-task]",
    ):
        assert f"{name} PASSED" in out, out[-3000:]
