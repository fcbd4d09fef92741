"""The way from a world to a page, on a few sequences: the shipped runs of the first chapter take minutes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from pipeline.measuring.page import PAGE, write_page
from pipeline.settings.params import load_params
from pipeline.stages.evaluate import evaluate
from pipeline.stages.fetch import fetch
from pipeline.stages.shard import shard
from pipeline.stages.train import train
from pipeline.stages.vocab import vocab
from pipeline.system.project import Project

pytestmark = pytest.mark.filterwarnings("default")
RUN = "recall_elman_5_a"


def test_from_world_to_page(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    document = yaml.safe_load((root / "lecture/params.yaml").read_text())
    runs = [run for run in document["runs"] if run.startswith("recall_")]
    document["runs"] = {RUN: document["runs"][RUN]}
    document["datasets"] = {"recall_5": document["datasets"]["recall_5"]}
    document["datasets"]["recall_5"]["world"]["num_records"] = {"train": 64, "val": 48}
    document["train"] |= {"max_epochs": 1, "validate_every_epochs": 1}
    document["tracking"] = {"system_metrics": False}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(document))
    (tmp_path / "claims").mkdir()
    shutil.copy(root / "lecture/claims/recurrent.py", tmp_path / "claims")

    project, params = Project(tmp_path), load_params(tmp_path)
    for stage in (fetch, shard, vocab):
        stage(project, params, "recall_5")
    for stage in (train, evaluate):
        stage(project, params, RUN)
    for run in runs:
        if run != RUN:  # they would differ by what is compared
            shutil.copytree(project.evaluation(RUN), project.evaluation(run))
    claims = {claim.name: claim for claim in write_page(project)}
    for name in ("wirings", "vanishing-gradient"):
        assert claims[name].holds, "it needs no training"
    assert not claims["exploding-gradient"].holds, "gradients grow, yet no step along one does harm"
    assert not claims["memory-by-lag"].holds, "two steps teach nothing, and the page says so"
    page = (tmp_path / PAGE).read_text()
    assert page.count("Not borne out.") == 3 and page.count("Borne out.") == 2
    assert f"evaluate@{RUN}" in page


def test_the_second_project_shares_the_repositorys_store(root: Path, tmp_path: Path) -> None:
    assert Project(root / "lecture").tracking_root == root
    assert Project(root / "lecture").store_root == root / "lecture", "training states stay with their project"
    assert Project(tmp_path).tracking_root == tmp_path
