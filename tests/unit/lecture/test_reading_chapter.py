"""The chapter on reading words from its world to its page, on a few of them: the shipped runs take minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from pipeline.ingest.worlds.words import Config, picture_of
from pipeline.measuring.page import PAGE
from pipeline.predicting.predict import predict
from pipeline.training.run_files import BEST
from tests.lecture_chapter import epochs, from_world_to_page

pytestmark = pytest.mark.filterwarnings("default")
LOOKS, CTC = "read_attention_a", "read_ctc_a"


def test_from_words_to_page_and_a_word_of_ones_own(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def small(run: dict[str, Any]) -> None:
        epochs(1)(run)
        run["model"] |= {"channels": 8, "layers": 1}

    project, claims = from_world_to_page(
        root, tmp_path, "reading", [LOOKS, CTC], prefix="read_", num_records={"train": 64, "val": 24},
        change=small, like=lambda run: LOOKS,
    )  # fmt: skip
    assert len(claims) == 3 and not claims["attention-reads-both-scripts"].holds, "a step teaches nothing"
    assert claims["two-scripts-in-one-model"].holds, "each is the same model here"
    assert (tmp_path / PAGE).read_text().count("data:image/svg+xml;base64,") >= 3
    walk = claims["attention-walks-as-one-reads"]
    assert {row[2] for row in walk.figure.rows} <= {"Latin", "Arabic"} and len(walk.pictures) == 2

    document = yaml.safe_load((tmp_path / "params.yaml").read_text())
    assert document["datasets"]["words"]["sources"] == {"word_images": {}}
    picture = picture_of(np.random.default_rng(0), "word", "latin", Config().height)
    cv2.imwrite(str(tmp_path / "own.png"), picture[..., ::-1])
    found = predict(project.artifacts(LOOKS) / BEST, [tmp_path / "own.png"], {}, tmp_path / "out", LOOKS)
    (answer,) = found["predictions"][0]["answers"]
    assert set(answer) == {"text", "log_prob"} and Path(found["predictions"][0]["picture"]).is_file()
