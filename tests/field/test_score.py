"""Files that people give the scorer, after public bug reports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.command import sightline


def run(folder: Path, predictions: str, *more: str) -> int:
    return sightline(
        "score", ["segmentation", "--truth", str(folder / "truth"), "--predictions", str(folder / predictions), *more]
    )


def test_binary_masks_of_255_are_no_perfect_score(field: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = field / "s11-binary-masks-255"
    for predictions in ("p01", "p255", "pnone"):
        assert run(folder, predictions) == 2
        out, err = capsys.readouterr()
        assert out == "" and "255" in err and "--ignore-index" in err
    scores = {}
    for predictions in ("p255", "pnone"):
        assert run(folder, predictions, "--ignore-index", "none") == 0
        scores[predictions] = json.loads(capsys.readouterr().out)["mean_iou"]
    assert scores["p255"] > scores["pnone"]


def test_camvids_void_is_11(shared_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = next((shared_dir / "data/camvid").rglob("valannot"))
    names = "sky,building,pole,road,pavement,tree,sign_symbol,fence,car,pedestrian,bicyclist"
    command = ["segmentation", "--truth", str(truth), "--predictions", str(truth)]
    assert sightline("score", [*command, "--ignore-index", "11", "--class-names", names]) == 2
    assert "a label is not a class id: 11" in capsys.readouterr().err  # the predictions are the truth, with its void
