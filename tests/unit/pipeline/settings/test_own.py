"""Stages of the user's own: looked for without an import, only in the project, part of what a training depends on."""

from __future__ import annotations

import json
import sys

import pytest

from contracts.errors import ConfigError
from pipeline.settings import own
from pipeline.settings.check import check, write_settings
from pipeline.settings.own import OwnStages
from pipeline.settings.params import Params, load_params
from pipeline.training.runs import load_run


@pytest.fixture
def root(tmp_path, monkeypatch):
    (tmp_path / "own/parts").mkdir(parents=True)
    (tmp_path / "own/noise.py").write_text(
        "raise RuntimeError('imported')\nimport math as maths\nquiet: int = 1\n\ndef loud(samples):\n    yield\n"
    )
    (tmp_path / "own/parts/__init__.py").write_text("mild = 2\n")
    (tmp_path / "single.py").write_text("class Filter: ...\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


GOOD = ["own.noise:loud", "own.noise:quiet", "own.noise:maths", "own.parts:mild", "single:Filter"]


@pytest.mark.parametrize("name", GOOD)
def test_a_stage_is_found_without_an_import(root, name):
    own.check(OwnStages(examples=(name,)), root)
    assert not {"own", "single"} & set(sys.modules)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("os:system", "the file is not there"),
        ("own.nois:loud", "the file is not there"),
        ("own.noise:luod", "no such stage in this file"),
        ("single:Filter.x", "not the name of a stage"),
        ("../single:Filter", "not the name of a stage"),
        ("own.noise", "not the name of a stage"),
        ("", "not the name of a stage"),
    ],
)
def test_what_is_no_stage_of_the_project_is_told(root, name, told):
    with pytest.raises(ConfigError, match=told):
        own.check(OwnStages(records=(name,)), root)


def test_a_file_that_is_no_python_is_told(root):
    (root / "single.py").write_text("def (")
    with pytest.raises(ConfigError, match="is no Python"):
        own.check(OwnStages(records=("single:Filter",)), root)


def test_digests_follow_every_file_of_a_stages_package(root):
    stages = OwnStages(records=("own.noise:loud",), examples=("single:Filter",))
    before = own.digests(stages, root)
    assert sorted(before) == ["own/noise.py", "own/parts/__init__.py", "single.py"]
    (root / "own/parts/__init__.py").write_text("mild = 3\n")
    after = own.digests(stages, root)
    assert [name for name in after if after[name] != before[name]] == ["own/parts/__init__.py"]


def test_a_stage_is_loaded_from_the_project(root):
    assert own.load("own.parts:mild") == 2
    for name in ("own.parts", "own"):
        sys.modules.pop(name, None)
    sys.path.remove(str(root))


def with_stages(project, **stages: list[str]) -> Params:
    return Params(load_params(project.root).document | {"loader": {"stages": stages}})


def test_a_training_depends_on_its_stages(tiny_project, root):
    plain = load_run(tiny_project, load_params(tiny_project.root), "segmentation")

    def fingerprint(**stages: list[str]) -> str:
        return load_run(tiny_project, with_stages(tiny_project, **stages), "segmentation").fingerprint

    assert fingerprint(records=[], examples=[]) == plain.fingerprint
    file = tiny_project.root / "ownstage.py"
    try:
        file.write_text("def one(samples): ...\ndef two(samples): ...\n")
        found = [fingerprint(records=["ownstage:one"]), fingerprint(examples=["ownstage:one"])]
        found.append(fingerprint(records=["ownstage:two"]))
        file.write_text("def one(samples): yield\n")
        found.append(fingerprint(records=["ownstage:one"]))
        assert len({plain.fingerprint, *found}) == 5
    finally:
        file.unlink()


def test_check_tells_a_missing_stage_and_writes_what_training_depends_on(tiny_project, root):
    params = with_stages(tiny_project, records=["own.noise:luod"])
    with pytest.raises(ConfigError, match=r"- loader\.stages: no such stage in this file"):
        check(params)
    params = with_stages(tiny_project, records=["own.noise:loud"])
    check(params)
    write_settings(params, root / "settings")
    settings = json.loads((root / "settings/segmentation/train.json").read_text())
    assert settings["stages"] == {"records": ["own.noise:loud"], "examples": []}
    assert sorted(settings["own_code"]) == ["own/noise.py", "own/parts/__init__.py"]
