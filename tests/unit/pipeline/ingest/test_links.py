"""Outputs may be links into DVC's cache (`.dvc/config`): a stage that runs again puts new files in their place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.measuring.evaluation import Evaluation
from pipeline.settings.params import load_params
from pipeline.stages.fetch import fetch
from pipeline.stages.shard import shard
from pipeline.stages.train import export
from pipeline.stages.vocab import vocab
from pipeline.system.project import Project, write_json
from pipeline.tracking.lineage import Lineage
from pipeline.training.checkpoints import BEST, build_module, save_best
from pipeline.training.run_files import DONE
from pipeline.training.runs import load_run

pytestmark = pytest.mark.filterwarnings("default")  # Lightning's own


@pytest.fixture
def project(tiny_project: Project, tmp_path: Path) -> Project:
    return Project(Path(shutil.copytree(tiny_project.root, tmp_path / "project")))


def leaves_links_alone(outputs: list[Path], cache: Path, again: Callable[[], object]) -> None:
    """Link every file of the outputs into `cache`, spoil them there so that a stage that wrote the same bytes into
    them would be seen, and run the stage."""
    files = [file for path in outputs for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()]
    assert files
    cache.mkdir(parents=True)
    for i, file in enumerate(files):
        os.link(file, cache / str(i))
        (cache / str(i)).write_bytes(b"the cache's own")
    again()
    assert {path.read_bytes() for path in cache.iterdir()} == {b"the cache's own"}
    assert all(file.read_bytes() != b"the cache's own" for file in files if file.exists())


@pytest.mark.parametrize("stage", [fetch, shard, vocab])
def test_data_stages(project: Project, tmp_path: Path, stage: Callable[..., None]) -> None:
    outputs = {
        fetch: [project.raw("voc")],
        shard: [project.shards("voc"), project.quarantine("voc")],
        vocab: [project.vocabulary("voc")],
    }[stage]
    leaves_links_alone(outputs, tmp_path / "cache", lambda: stage(project, load_params(project.root), "voc"))


def test_training_and_evaluation(project: Project, tmp_path: Path) -> None:
    data = load_run(project, load_params(project.root), "segmentation")
    state = tmp_path / "state"
    weights = build_module(data.run.to_dict(), data.spec).state_dict()
    state.mkdir()
    info = {"epoch": 0, "step": 1, "metrics": {"val/mean_iou": 0.5}}
    save_best(state / BEST, run=data.run.to_dict(), data=data.spec, weights=weights, info=info)
    write_json(state / DONE, {"step": 1, "epochs": 1})
    artifacts = project.artifacts("segmentation")

    def train() -> None:
        export(project, data, state, "run", Lineage("c" * 40))

    train()
    leaves_links_alone([artifacts], tmp_path / "cache/train", train)

    evaluation = Evaluation(artifacts / BEST, project.shards("voc"), now=data.run)
    folders = {"predictions": project.predictions("seg"), "plots": project.plots("seg")}

    def write() -> None:
        evaluation.write(metrics=project.metrics("seg"), pictures=evaluation.pictures(1), **folders)

    write()
    leaves_links_alone([*folders.values(), project.metrics("seg")], tmp_path / "cache/evaluate", write)
