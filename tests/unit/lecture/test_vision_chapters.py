"""The chapters on segmentation and detection from their world to their page, on a few scenes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.measuring.page import PAGE, write_page
from tests.lecture_chapter import epochs, from_world_to_page

pytestmark = pytest.mark.filterwarnings("default")
FEW = {"train": 16, "val": 8}


def short(run: dict[str, Any]) -> None:
    epochs(1)(run)
    run["train"]["batch_size"] = 8
    run.pop("init", None)  # of a run of another chapter


def test_segmentation_and_proposals(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Costs follow from shapes, so that few scenes give the shipped ones; scores do not."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    project, claims = from_world_to_page(
        root, tmp_path, "segmentation", ["segment_fcn8_a"], prefix="segment_", num_records=FEW, change=short,
        like=lambda run: "segment_fcn8_a",
    )  # fmt: skip
    expensive = claims["full-resolution-is-expensive"]
    assert [round(row.value, 3) for row in expensive.rows[:4]] == [1.546, 1.546, 0.242, 1.922]
    assert expensive.rows[4].value > 5 * expensive.rows[6].value and expensive.holds
    assert "6.4 times the FLOPs of FCN-8s, 8.2 times" in expensive.because
    assert not claims["finer-maps-bring-detail-back"].holds, "all have one score here"
    assert not claims["switches-bring-detail-back"].holds

    shutil.copy(root / "lecture/claims/proposals.py", tmp_path / "claims")
    claims = {claim.name: claim for claim in write_page(project)}
    places, few = claims["too-many-places"], claims["segments-propose-well"]
    assert "A picture of 112 x 128 px has 52,243,968 boxes" in places.because
    value = {row.what: row.value for row in few.rows}
    assert value["Selective Search: recall_50@100"] == 1 and few.holds
    assert value["random boxes: MABO@100"] < value["Selective Search: MABO@100"] < 1
    assert all(row.measured[0].low <= row.value <= row.measured[0].high for row in few.rows)
    assert "<code>sightline page</code>" in (tmp_path / PAGE).read_text()


def test_detectors(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    trained = ["detect_faster_a", "detect_grid_boxes_a", "detect_retinanet_a", "detect_yolo_a"]
    _, claims = from_world_to_page(
        root, tmp_path, "detectors", trained, prefix="detect_", num_records=FEW, change=short,
        like=lambda run: "detect_faster_a",
    )  # fmt: skip
    losses = {"RPN: object or not", "RPN: box", "class", "box"}
    drawn = {row[2] for row in claims["four-losses-at-once"].figure.rows}
    assert drawn == losses | {f"four steps, {loss}" for loss in losses}
    stages = claims["one-stage-is-cheaper-two-are-better"]
    gflop = {row.what.partition(":")[0]: row.value for row in stages.rows if "GFLOP" in row.what}
    assert len(gflop) == 8 and not stages.holds and all(value > 0.1 for value in gflop.values())
    assert gflop["YOLOv1"] < gflop["Faster R-CNN"], "a smaller image, and no second look"
    grid = claims["an-rpn-that-knows-classes"]
    assert "1,078 numbers an image" in grid.because and not grid.holds, "a step teaches nothing"
    assert not claims["rounding-costs-boxes"].holds, "both are the same run here"
    easy = claims["easy-background-does-not-count"]
    shares = {(row.measured[0].name, row.what.partition(":")[0]): row.value for row in easy.rows}
    assert 0 < shares["hardest", "gamma 0"] < shares["hardest", "gamma 2"] < 1
    assert easy.figure.rows[-1] == (100, 1.0, "gamma 2"), "all of it"
    assert len(claims["a-grid-is-coarse"].rows) == 4 * 8, "four kinds of errors of eight detectors"
    (picture,) = grid.pictures.values()
    assert isinstance(picture, np.ndarray) and picture.shape[1] > 2 * 300 and picture.std() > 30


def test_given_regions(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What regions cost follows from shapes, as what they score does not."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    _, claims = from_world_to_page(
        root, tmp_path, "regions", ["regions_rcnn_a", "regions_fast_a"], prefix="regions_", num_records=FEW,
        change=short, like=lambda run: "regions_rcnn_a", others=["detect_faster_a"],
    )  # fmt: skip
    shared = claims["one-network-for-all-proposals"]
    gflop = {row.what: row.value for row in shared.rows if "GFLOP" in row.what}
    assert gflop["R-CNN: GFLOP at 400 regions"] == pytest.approx(16 * gflop["R-CNN: GFLOP at 25 regions"])
    assert gflop["R-CNN: GFLOP at 100 regions"] > 5 * gflop["Fast R-CNN: GFLOP at 100 regions"]
    many = claims["few-proposals-beat-many-windows"]
    costs = [row.value for row in many.rows if "GFLOP" in row.what]
    assert costs[0] == pytest.approx(3.71 * costs[1]) and not many.holds, "both are the same run here"
    assert not claims["svms-and-regression-add"].holds and claims["own-proposals-are-no-worse"].holds


def test_classes_of_whole_images(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    _, claims = from_world_to_page(
        root, tmp_path, "classification", ["classify_multilabel_a"], prefix="classify_", num_records=FEW,
        change=short, like=lambda run: run,
    )  # fmt: skip
    claim = claims["a-network-says-what-is-there"]
    assert not claim.holds, "two steps teach nothing"
    assert claim.rows[2].value == pytest.approx(0.0556, abs=2e-3)
    assert len(claim.figure.rows) > 3
