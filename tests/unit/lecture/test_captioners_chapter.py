"""The captioners' chapter from its world to its page and to a caption for a photo, on a few scenes."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import pytest
import yaml

from pipeline.measuring.page import PAGE, write_page
from pipeline.predicting.predict import predict
from pipeline.settings.params import load_params
from pipeline.stages.evaluate import evaluate
from pipeline.stages.fetch import fetch
from pipeline.stages.shard import shard
from pipeline.stages.train import train
from pipeline.stages.vocab import vocab
from pipeline.system.project import Project, read_json
from pipeline.training.run_files import BEST

pytestmark = pytest.mark.filterwarnings("default")
HARD, FIRST = "captions_hard_a", "captions_first_a"


def test_from_scenes_to_page_and_a_caption(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    document = yaml.safe_load((root / "lecture/params.yaml").read_text())
    runs = [run for run in document["runs"] if run.startswith("captions_")]
    document["runs"] = {run: document["runs"][run] for run in (HARD, FIRST)}
    for run in document["runs"].values():
        del run["init"]  # not for a run of two steps
        run["train"] |= {"max_epochs": 15, "validate_every_epochs": 15}  # until captions name things, by heart
    document["datasets"] = {"captions": document["datasets"]["captions"]}
    document["datasets"]["captions"]["world"]["num_records"] = {"train": 64, "val": 24}
    document["tracking"] = {"system_metrics": False}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(document))
    (tmp_path / "claims").mkdir()
    shutil.copy(root / "lecture/claims/captioners.py", tmp_path / "claims")

    project, params = Project(tmp_path), load_params(tmp_path)
    for stage in (fetch, shard, vocab):
        stage(project, params, "captions")
    for run in (HARD, FIRST):
        train(project, params, run)
        evaluate(project, params, run)
    for run in runs:
        if run not in (HARD, FIRST, "captions_start"):  # they would differ by what is compared
            has_attention = run.startswith(("captions_soft", "captions_hard"))
            shutil.copytree(project.evaluation(HARD if has_attention else FIRST), project.evaluation(run))
    claims = {claim.name: claim for claim in write_page(project)}
    assert claims["baseline-against-variance"].holds, "it needs no training"
    assert not claims["image-enters-by-w-ih-v"].holds, "two steps teach nothing, and the page says so"
    page = (tmp_path / PAGE).read_text()
    assert page.count("data:image/webp;base64,") == 3 and "Best and worst captions by CIDEr-D" in page

    photo = next((project.raw("captions") / "val2017").glob("*.jpg"))
    for run in (HARD, FIRST):
        answer = predict(project.artifacts(run) / BEST, [photo], {}, tmp_path / "out", run)
        assert isinstance(answer["predictions"][0]["answers"][0]["caption"], str)
        assert cv2.imread(answer["predictions"][0]["picture"]) is not None
    document = read_json(project.measured(HARD), "", "")
    assert {"Bleu_4/argmax", "Bleu_4/sample", "pointing", "pointing/mask"} <= document["metrics"].keys()
