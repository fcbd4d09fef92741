"""The chapter on translation from its world to its page, on a few pairs: the shipped runs take minutes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

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
from pipeline.system.project import Project
from pipeline.training.run_files import BEST

pytestmark = pytest.mark.filterwarnings("default")
LOOKS, VECTOR = "translate_additive_a", "translate_vector_a"


def test_from_pairs_to_page_and_a_sentence_of_ones_own(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    document = yaml.safe_load((root / "lecture/params.yaml").read_text())
    runs = [run for run in document["runs"] if run.startswith("translate_")]
    document["runs"] = {run: document["runs"][run] for run in (LOOKS, VECTOR)}
    for run in document["runs"].values():
        run["train"] |= {"max_epochs": 1, "validate_every_epochs": 1}
        run["model"] |= {"name": run["model"]["name"], "embedding_channels": 8}
    document["datasets"] = {"pairs": document["datasets"]["pairs"]}
    document["datasets"]["pairs"]["world"]["num_records"] = {"train": 64, "val": 24}
    document["tracking"] = {"system_metrics": False}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(document))
    (tmp_path / "claims").mkdir()
    shutil.copy(root / "lecture/claims/translation.py", tmp_path / "claims")

    project, params = Project(tmp_path), load_params(tmp_path)
    for stage in (fetch, shard, vocab):
        stage(project, params, "pairs")
    for run in (LOOKS, VECTOR):
        train(project, params, run)
        evaluate(project, params, run)
    for run in runs:
        if run not in (LOOKS, VECTOR):  # they would differ by what is compared
            like = VECTOR if run.startswith(("translate_vector", "translate_reversed")) else LOOKS
            shutil.copytree(project.evaluation(like), project.evaluation(run))
    claims = {claim.name: claim for claim in write_page(project)}
    assert len(claims) == 3 and not claims["one-vector-is-a-bottleneck"].holds, "a step teaches nothing, and it is said"
    assert not claims["reversing-the-source-helps"].holds and not claims["attention-is-alignment"].holds
    assert (tmp_path / PAGE).read_text().count("data:image/svg+xml;base64,") == 3
    cells = claims["attention-is-alignment"].figure.rows
    assert cells[0][:2] == ("1 L", "1 The") and cells[-1][:2] == ("16 <eos>", "14 <eos>"), "the lecture's sentence"
    measured = json.loads(project.measured(VECTOR).read_text())
    assert "AER" not in measured["metrics"] and "BLEU" in measured["constant"]
    assert any("case:mixed" in row["source"] for row in measured["measured"] if row["name"] == "BLEU"), "the signature"

    found = predict(project.artifacts(LOOKS) / BEST, [], {"source": "The law was signed."}, tmp_path / "out", LOOKS)
    (answer,) = found["predictions"][0]["answers"]
    assert set(answer) == {"translation", "log_prob"} and Path(found["predictions"][0]["picture"]).is_file()
