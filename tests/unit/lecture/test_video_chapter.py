"""The chapter on video decides by its runs' numbers, and says so where they do not bear a claim out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_modules.metrics.frame_level import DISTANCES
from lightning_modules.tasks.action import SHARES
from pipeline.measuring.claims import Claim, Results, chapters
from pipeline.system.project import Project


def numbers(run: str) -> dict[str, float]:
    """What a run of that name would score if all claims were true."""
    knows = "lstm" in run or "s2vt" in run
    if "action" in run:
        over_time = {f"top1/observed {share:g}": 0.15 + 0.8 * share * knows for share in SHARES}
        return {"top1": 0.95 if knows else 0.4, **over_time}
    if "frames" in run:
        errors = {f"error/after {d}": max(0.05, 0.8 - 0.3 * d) if knows else 0.6 for d in range(DISTANCES)}
        return {"frame_accuracy": 0.9 if knows else 0.4, "mAP": 0.95 if knows else 0.4, **errors}
    return {"CIDEr": 6.0 if knows else 3.0, "Bleu_4": 0.7, "then_order": 0.97 if knows else 0.52}


def decided(folder: Path, root: Path, **changed: dict[str, float]) -> dict[str, Claim]:
    runs = [
        run for run in yaml.safe_load((root / "lecture/params.yaml").read_text())["runs"] if run.startswith("video_")
    ]
    assert len(runs) == 24
    for run in runs:
        values = {**numbers(run), **next((v for name, v in changed.items() if name in run), {})}
        measured: list[dict[str, Any]] = [
            {"name": name, "value": value, "interval_95": [value - 0.02, value + 0.02]}
            for name, value in values.items()
        ]
        path = Project(folder).measured(run)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"measured": measured, "constant": dict.fromkeys(values, 0.1)}))
    (chapter,) = (module for module in chapters(root / "lecture/claims") if module.__name__ == "video")
    return {claim.name: claim for claim in chapter.claims(Results(Project(folder)))}


def test_all_claims_hold_of_numbers_that_bear_them_out(tmp_path: Path, root: Path) -> None:
    claims = decided(tmp_path, root)
    assert len(claims) == 4 and all(claim.holds for claim in claims.values())
    assert all(len(row) == len(claim.figure.columns) for claim in claims.values() for row in claim.figure.rows)
    assert "95%" in claims["order-of-frames"].because and len(claims["order-of-frames"].rows[0].measured) == 3


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("order-of-frames", {"action_lstm": {"top1": 0.8}}),
        ("order-of-frames", {"action_pool": {"top1": 0.7}}),
        ("action-over-time", {"action_lstm": {"top1/observed 0.1": 0.9}}),
        ("errors-after-a-change", {"frames_lstm": {"frame_accuracy": 0.45}}),
        ("order-in-a-caption", {"captions_s2vt": {"then_order": 0.6}}),
        ("order-in-a-caption", {"captions_s2vt": {"CIDEr": 0.05}}),
    ],
)
def test_a_claim_falls_with_its_numbers(tmp_path: Path, root: Path, name: str, changed: dict) -> None:
    claims = decided(tmp_path, root, **changed)
    assert not claims[name].holds
