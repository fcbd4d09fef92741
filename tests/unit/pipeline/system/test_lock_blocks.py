"""dvc.lock changed a stage at a time says what DVC's own way says, and is never half a file."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.serialize import load_yaml, modify_yaml, parse_yaml_for_update

from pipeline.system.lock_blocks import Modify, blocks_of, by_stage
from pipeline.system.repro import _dumped

NEW = {"cmd": "train 'a b'", "deps": [{"path": "x", "hash": "md5", "md5": "1e5", "size": 3}], "params": {"on": "yes"}}


@pytest.fixture
def lock(root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(root / "dvc.lock", tmp_path / "dvc.lock"))


def refused(*_: Any, **__: Any) -> Any:
    raise AssertionError("the whole file is parsed")


def ours(whole: Modify = refused) -> Modify:
    return by_stage(whole, parse_yaml_for_update, _dumped)


def change(modify: Modify, path: Path, stage: str, data: dict[str, Any]) -> None:
    """As DVC does after a stage."""
    with modify(str(path), fs=None) as document:
        document["stages"] = document.get("stages", {})
        if document["stages"].get(stage, {}) != data:
            document["stages"].update({stage: data})


@pytest.mark.parametrize("stage", ["check", "train@segmentation_fcn", "report", "train@new"])
def test_a_stage_is_changed_in_its_place_or_comes_last_as_by_dvc(lock: Path, stage: str):
    other = Path(shutil.copy(lock, lock.with_name("other.yaml")))
    change(ours(), lock, stage, NEW)
    change(modify_yaml, other, stage, NEW)
    assert load_yaml(lock)["stages"][stage] == NEW
    assert list(load_yaml(lock)["stages"].items()) == list(load_yaml(other)["stages"].items())
    changed = {name for name, block in blocks_of(lock.read_text()).items() if block not in other.read_text()}
    assert changed == set(), "the lines are not as DVC writes them"


def test_what_did_not_change_is_not_written(lock: Path):
    before = lock.stat()
    change(ours(), lock, "train@segmentation_fcn", load_yaml(lock)["stages"]["train@segmentation_fcn"])
    assert lock.stat().st_ino == before.st_ino and lock.stat().st_mtime_ns == before.st_mtime_ns


def test_settings_that_stages_share_are_written_out_in_each(lock: Path):
    """An alias would be one of its stage's lines alone, and DVC warns of names that are given twice."""
    shared = {"seed": 0}
    for stage in ("train@segmentation_fcn", "train@new"):
        change(ours(), lock, stage, {"cmd": "x", "params": {"params.yaml": {"a": shared, "b": shared}}})
    assert "&id" not in "".join(blocks_of(lock.read_text())[stage] for stage in ("train@segmentation_fcn", "train@new"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_yaml(lock)["stages"]["train@new"]["params"]["params.yaml"] == {"a": shared, "b": shared}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "schema: '2.0'\ndatasets:\n- name: x\n  type: url\nstages: {}\n",
        "schema: '2.0'\nstages:\n  # mine\n  a:\n    cmd: x\n",
        "schema: '2.0'\nstages:\n  a:\n    cmd: x\n<<<<<<< HEAD\n",
        "schema: '2.0'\nstages:\n  a:\n    params: &id001\n      x: 1\n  b:\n    params: *id001\n",
        "schema: '2.0'\nstages:\n  'a b':\n    cmd: x\n",
    ],
)
def test_a_file_of_another_kind_is_left_to_dvc(tmp_path: Path, text: str):
    lock = tmp_path / "dvc.lock"
    lock.write_text(text)
    with pytest.raises(AssertionError, match="whole file"):
        change(ours(), lock, "a", NEW)


def test_dvc_yaml_is_left_to_dvc(lock: Path):
    with pytest.raises(AssertionError, match="whole file"):
        change(ours(), Path(shutil.copy(lock, lock.with_name("dvc.yaml"))), "a", NEW)


def test_what_fails_in_between_leaves_the_file_as_it_was(lock: Path):
    before, modified = lock.read_bytes(), ours()(str(lock))
    modified.__enter__()["stages"].update({"check": NEW})
    assert not modified.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert lock.read_bytes() == before
