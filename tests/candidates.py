"""A version that is fit to be champion."""

from __future__ import annotations

from pathlib import Path

from pipeline.tracking.champion import Candidate

FIT = Candidate(
    model="m",
    task="segmentation",
    checkpoint=Path("best.ckpt"),
    dataset="voc",
    metric="miou",
    mode="max",
    value=0.5,
    run_id="r",
    manifest_digest="d1",
    split_digest="s1",
    git_commit="c",
)
