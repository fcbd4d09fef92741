"""What the shipped params.yaml names, small: what must hold for every task, model and generated data set is tested with
these, so that a new one needs no line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
_SHIPPED = yaml.safe_load((ROOT / "params.yaml").read_text())
_GENERATED = {name: entry for name, entry in _SHIPPED["datasets"].items() if entry["origin"] == "generated"}
# The runs on generated data, without their own training.
SHIPPED = {
    name: {"dataset": run["dataset"], **{part: {"name": run[part]["name"]} for part in ("task", "model")}}
    for name, run in _SHIPPED["runs"].items()
    if run["dataset"] in _GENERATED
}
# Those on a user's own data, with the data sets, read where they lie.
LOCAL_DATASETS = {
    name: {**entry, "input": str(ROOT / entry["input"])}
    for name, entry in _SHIPPED["datasets"].items()
    if entry["origin"] == "local" and (ROOT / entry["input"]).is_dir()
}
LOCAL = {name: run for name, run in _SHIPPED["runs"].items() if run["dataset"] in LOCAL_DATASETS}


def tiny_datasets(train: int, val: int) -> dict[str, Any]:
    """`datasets` of a params.yaml: the shipped generated ones with so many images of 64 pixels."""
    return {
        name: {
            **entry,
            "world": {
                "name": entry["world"]["name"],
                "seed": 5 + i,
                "image_size": 64,
                "num_records": {"train": train, "val": val},
            },
        }
        for i, (name, entry) in enumerate(_GENERATED.items())
    }
