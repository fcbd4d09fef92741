"""Code that changes the result makes another state; code that only draws or delivers does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.errors import ConfigError
from pipeline.settings.code import Code

RUN = {"task": {"name": "segmentation"}, "model": {"name": "fcn"}}


def digest(code: Path) -> str:
    return Code(code).digest(RUN)


def test_what_trains_counts_and_what_does_not_train_does_not(code):
    before = digest(code)
    assert digest(code) == before

    def touched(name: str) -> str:
        path = code / name
        text = path.read_text()
        path.write_text(text + "\n# changed\n")
        changed = digest(code)
        path.write_text(text)
        return changed

    for name in (
        "lightning_modules/tasks/segmentation.py",
        "lightning_modules/models/fcn.py",
        "lightning_modules/base/module.py",
        "lightning_modules/blocks/pixels.py",  # by way of the model
        "contracts/seeds.py",
        "pipeline/loading/sampling.py",
    ):
        assert touched(name) != before, name
    for name in (
        "pipeline/measuring/charts.py",
        "lightning_modules/reports/segmentation.py",
        "lightning_modules/tasks/vqa.py",
        "lightning_modules/blocks/decoding.py",
        "lightning_modules/base/families.py",
        "pipeline/tracking/mlflow_run.py",
        "dvc.yaml",
    ):
        assert touched(name) == before, name
    (code / "lightning_modules/blocks/new.py").write_text("")
    assert digest(code) == before, "nothing imports it"
    with (code / "lightning_modules/models/fcn.py").open("a") as file:
        file.write("def later():\n    from lightning_modules.blocks import (\n        new,\n    )\n")
    assert "lightning_modules/blocks/new.py" in Code(code).covered(RUN)


def test_a_part_that_is_not_there_is_told(code):
    with pytest.raises(ConfigError, match=r"(?s)no such file or folder.*models/none.py"):
        Code(code).digest(RUN | {"model": {"name": "none"}})


def test_a_data_set_depends_on_its_sources_and_its_world(code):
    data = {"world": {"name": "recall"}, "sources": {"coco": {}, "vqa": {}}}
    shard, fetch = Code(code).covered(data, "shard"), Code(code).covered(data, "fetch")
    assert {"pipeline/ingest/sources/coco.py", "pipeline/ingest/sources/vqa.py"} <= set(shard)
    assert "pipeline/ingest/sources/yolo.py" not in shard and "pipeline/shards/writing.py" in shard
    assert [name for name in fetch if "worlds/" in name and "_" not in name] == ["pipeline/ingest/worlds/recall.py"]
    assert "pipeline/ingest/download.py" in Code(code).covered({"download": {}}, "fetch")
