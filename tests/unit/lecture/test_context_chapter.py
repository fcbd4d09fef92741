"""The two sentences: from the world to the gates on the page and to a prediction, on a few sentences."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import pytest

from contracts.errors import ConfigError
from pipeline.measuring.extras import errata, quiz
from pipeline.measuring.page import PAGE
from pipeline.predicting.predict import predict
from tests.lecture_chapter import epochs, from_world_to_page

pytestmark = pytest.mark.filterwarnings("default")
RUN = "sentences_lstm_20_a"


def test_from_world_to_gates_and_a_prediction(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    project, claims = from_world_to_page(
        root, tmp_path, "recurrent_context", [RUN], prefix="sentences_", num_records={"train": 64, "val": 48},
        change=epochs(1), like=lambda _: RUN,
    )  # fmt: skip
    assert claims.keys() == {"near-and-far-context", "forget-gate"}
    gates = claims["forget-gate"].figure
    assert {row[1] for row in gates.rows} == set(range(1, 26)) and all(0 < row[2] < 1 for row in gates.rows)
    start = [row[2] for row in gates.rows if row[0] == "forget, all units"]
    assert sum(start) / 25 == pytest.approx(0.73, abs=0.05), "after one step still its bias: sigmoid(1)"
    assert not claims["forget-gate"].holds, "one step teaches nothing, and the page says so"
    assert (tmp_path / PAGE).is_file()

    told = predict(
        project.artifacts(RUN) / "best.ckpt",
        [],
        {"text": "i grew up in italy it rained i speak fluent"},
        tmp_path / "out",
        RUN,
    )
    (prediction,) = told["predictions"]
    assert prediction["answers"][0].keys() == {"class", "probability"}
    assert cv2.imread(prediction["picture"]).shape[0] > 10 * 17, "a line a word, with its gates"
    with pytest.raises(ConfigError, match="text"):
        predict(project.artifacts(RUN) / "best.ckpt", [], {}, tmp_path / "out", RUN)


def test_the_lectures_quiz_and_errata_name_claims_of_its_page(root: Path) -> None:
    folder = root / "lecture/claims"
    names = re.findall(r'name="([a-z0-9-]+)",\n\s+says=', "".join(p.read_text() for p in folder.glob("*.py")))
    answered = {question.claim for question in quiz(folder, names)}
    assert {"vanishing-gradient", "forget-gate", "exploding-gradient"} <= answered
    rows = [erratum.slides[0] for erratum in errata(folder, names)]
    assert rows == sorted(rows) and {"S08", "S19", "S35"} <= set(rows), "in the lecture's order"
