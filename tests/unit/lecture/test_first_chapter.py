"""The way from a world to a page, on a few sequences: the shipped runs of the first chapter take minutes."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.measuring.page import PAGE
from pipeline.system.project import Project
from tests.lecture_chapter import epochs, from_world_to_page

pytestmark = pytest.mark.filterwarnings("default")
RUN = "recall_elman_5_a"


def test_from_world_to_page(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    _, claims = from_world_to_page(
        root, tmp_path, "recurrent", [RUN], prefix="recall_", num_records={"train": 64, "val": 48}, change=epochs(1),
        like=lambda _: RUN,
    )  # fmt: skip
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
