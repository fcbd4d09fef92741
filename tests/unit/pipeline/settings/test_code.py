"""Code that changes the result makes another state; code that only draws or delivers does not."""

from __future__ import annotations

import pytest

from contracts.errors import ConfigError
from pipeline.settings.code import code_digest

RUN = {"task": {"name": "segmentation"}, "model": {"name": "fcn"}}


def test_what_trains_counts_and_what_does_not_train_does_not(code):
    before = code_digest(code, RUN, code)
    assert code_digest(code, RUN, code) == before

    def touched(name: str) -> str:
        path = code / name
        text = path.read_text()
        path.write_text(text + "\n# changed\n")
        digest = code_digest(code, RUN, code)
        path.write_text(text)
        return digest

    for name in (
        "lightning_modules/tasks/segmentation.py",
        "lightning_modules/models/fcn.py",
        "lightning_modules/base/module.py",
        "lightning_modules/blocks/pixels.py",
        "contracts/seeds.py",
        "pipeline/loading/sampling.py",
    ):
        assert touched(name) != before, name
    for name in (
        "pipeline/measuring/charts.py",
        "lightning_modules/reports/segmentation.py",
        "lightning_modules/tasks/vqa.py",
        "pipeline/tracking/mlflow_run.py",
        "dvc.yaml",
    ):
        assert touched(name) == before, name
    (code / "lightning_modules/blocks/new.py").write_text("")
    assert code_digest(code, RUN, code) != before


def test_without_a_dvc_yaml_all_code_counts(code, tmp_path):
    beside = code_digest(tmp_path / "project", RUN, code)
    assert beside == code_digest(code, RUN, code)
    (code / "dvc.yaml").unlink()
    everything = code_digest(tmp_path / "project", RUN, code)
    assert everything != beside
    (code / "pipeline/measuring/charts.py").write_text("")
    assert code_digest(tmp_path / "project", RUN, code) != everything


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stages: {train: {}}", "no list of what the stage train depends on"),
        ("[", "no list of what the stage train depends on"),
        ("stages: {train: {do: {deps: [pipeline/none.py]}}}", "(?s)no such file or folder.*none.py"),
        ("stages: {train: {do: {deps: ['pipeline/${item.nobody}.py']}}}", "(?s)no data set or run has.*nobody"),
    ],
)
def test_a_damaged_list_is_told(code, text, message):
    (code / "dvc.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        code_digest(code, RUN, code)
