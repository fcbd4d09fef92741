"""The captioners' chapter from its world to its page and to a caption for a photo, on a few scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import pytest

from pipeline.measuring.page import PAGE
from pipeline.predicting.predict import predict
from pipeline.system.project import read_json
from pipeline.training.run_files import BEST
from tests.lecture_chapter import epochs, from_world_to_page

pytestmark = pytest.mark.filterwarnings("default")
HARD, FIRST = "captions_hard_a", "captions_first_a"


def test_from_scenes_to_page_and_a_caption(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def small(run: dict[str, Any]) -> None:
        del run["init"]  # not for a run of some steps
        epochs(15)(run)  # until captions name things, by heart

    project, claims = from_world_to_page(
        root, tmp_path, "captioners", [HARD, FIRST], prefix="captions_", num_records={"train": 64, "val": 24},
        change=small, like=lambda run: HARD if run.startswith(("captions_soft", "captions_hard")) else FIRST,
        beside=["captions_start"],
    )  # fmt: skip
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
