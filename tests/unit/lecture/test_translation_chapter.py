"""The chapter on translation from its world to its page, on a few pairs: the shipped runs take minutes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.measuring.page import PAGE
from pipeline.predicting.predict import predict
from pipeline.training.run_files import BEST
from tests.lecture_chapter import epochs, from_world_to_page

pytestmark = pytest.mark.filterwarnings("default")
LOOKS, VECTOR = "translate_additive_a", "translate_vector_a"


def test_from_pairs_to_page_and_a_sentence_of_ones_own(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def small(run: dict[str, Any]) -> None:
        epochs(1)(run)
        run["model"] |= {"embedding_channels": 8}

    project, claims = from_world_to_page(
        root, tmp_path, "translation", [LOOKS, VECTOR], prefix="translate_", num_records={"train": 64, "val": 24},
        change=small, like=lambda run: VECTOR if run.startswith(("translate_vector", "translate_reversed")) else LOOKS,
    )  # fmt: skip
    assert len(claims) == 4 and not claims["one-vector-is-a-bottleneck"].holds, "a step teaches nothing, and it is said"
    assert not claims["reversing-the-source-helps"].holds and not claims["attention-is-alignment"].holds
    assert (tmp_path / PAGE).read_text().count("data:image/svg+xml;base64,") == 4
    cells = claims["attention-is-alignment"].figure.rows
    assert cells[0][:2] == ("1 L", "1 The") and cells[-1][:2] == ("16 <eos>", "14 <eos>"), "the lecture's sentence"
    measured = json.loads(project.measured(VECTOR).read_text())
    assert "AER" not in measured["metrics"] and "BLEU" in measured["constant"]
    assert any("case:mixed" in row["source"] for row in measured["measured"] if row["name"] == "BLEU"), "the signature"

    found = predict(project.artifacts(LOOKS) / BEST, [], {"source": "The law was signed."}, tmp_path / "out", LOOKS)
    (answer,) = found["predictions"][0]["answers"]
    assert set(answer) == {"translation", "log_prob"} and Path(found["predictions"][0]["picture"]).is_file()
