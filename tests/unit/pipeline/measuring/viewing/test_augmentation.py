"""What augmentation makes of samples: what training itself gets, with what lies on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from contracts.errors import SightlineError
from contracts.seeds import derive_seed
from pipeline.measuring.viewing import augmentation
from pipeline.measuring.viewing.augmentation import Changes, show_changes
from pipeline.settings.params import load_params
from pipeline.shards.manifest import load_manifest
from pipeline.shards.reader import SplitReader
from pipeline.system.project import Project


@pytest.fixture(autouse=True)
def few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augmentation, "NUM_SAMPLES", 2)


def shown(project: Project, dataset: str, *runs: str, seed: int = 0) -> list[Changes]:
    manifest = load_manifest(project.shards(dataset))
    return show_changes(project, manifest, SplitReader(project.shards(dataset), manifest, "train"), runs, seed=seed)


def with_runs(project: Project, folder: Path, **runs: Any) -> Project:
    """The same data, other runs."""
    document = yaml.safe_load((project.root / "params.yaml").read_text())
    (folder / "params.yaml").write_text(yaml.safe_dump(document | {"runs": runs}))
    (folder / "data").symlink_to(project.root / "data")
    return Project(folder)


def test_every_run_of_the_data_set_has_samples_as_they_are_and_drawn(tiny_project: Project):
    found = shown(tiny_project, "voc")
    assert [one.runs for one in found] == [["detection"], ["segmentation"]]
    for one in found:
        assert len(one.rows) == 2 and all(len(row.draws) == augmentation.NUM_DRAWS for row in one.rows)
        assert all(len({row.plain, *row.draws}) > 1 for row in one.rows), "something is drawn"
        assert "horizontal_flip: 0.5" in one.settings and "letterbox" in one.settings
    assert [row.key for row in found[0].rows] != [row.key for row in shown(tiny_project, "voc", seed=1)[0].rows]


@pytest.mark.parametrize("run", ["segmentation", "detection", "captioning", "instances"])
def test_pixels_are_those_that_training_gets(tiny_project: Project, run: str, monkeypatch: pytest.MonkeyPatch):
    params = load_params(tiny_project.root)
    dataset = params.run_dataset(run)
    manifest = load_manifest(tiny_project.shards(dataset))
    reader = SplitReader(tiny_project.shards(dataset), manifest, "train")
    _, task = augmentation._made(tiny_project, params, run, manifest)
    record = reader.read(3)
    seed = derive_seed(0, 1, record.key)  # as `loading/requests.py` makes it
    wanted = task.encode(record, seed)["image"]
    drawn: dict[str, Any] = {}

    def note(picture: np.ndarray, *on: Any) -> np.ndarray:
        drawn["picture"], drawn["on"] = picture, on
        return picture

    monkeypatch.setattr(augmentation, "draw_objects", note)
    monkeypatch.setattr(augmentation, "label_map", note)
    noting = augmentation._Noting(task._augment)
    task._augment = noting
    noting.seen(task, record, seed, manifest["classes"])
    np.testing.assert_array_equal(drawn["picture"], wanted)
    if run == "segmentation":
        np.testing.assert_array_equal(drawn["on"][0], task.encode(record, seed)["labels"])
    elif run in ("detection", "instances"):
        assert len(drawn["on"][0]) >= len(task.encode(record, seed)["boxes"]) > 0
        assert (drawn["on"][3] is not None) == (run == "instances")
    else:
        assert drawn["on"][3] is not None, "the record's masks are carried along"


def test_runs_with_the_same_augmentation_are_shown_once_and_no_more_than_three(tiny_project: Project, tmp_path: Path):
    def run(**augment: Any) -> dict[str, Any]:
        task = {"name": "detection", "augment": augment}
        return {"dataset": "voc", "task": task, "model": {"name": "faster_rcnn"}}

    runs = {"a": run(scale=0.1), "b": run(scale=0.1), **{f"more{i}": run(rotate=i) for i in (10, 20, 30, 40)}}
    project = with_runs(tiny_project, tmp_path, **runs)
    found = shown(project, "voc")
    assert [one.runs for one in found] == [["a", "b"], ["more10"], ["more20"], ["more30", "more40"]]
    assert not found[3].rows and "--run" in found[3].note
    assert [bool(one.rows) for one in shown(project, "voc", "more40", "more30", "more20", "more10")] == [True] * 4
    assert shown(project, "coco") == []


def test_nothing_is_drawn_where_nothing_is_asked(tiny_project: Project, tmp_path: Path):
    none = {"name": "segmentation", "augment": {"brightness_contrast": 0.0, "horizontal_flip": 0.0}}
    project = with_runs(tiny_project, tmp_path, still={"dataset": "voc", "task": none, "model": {"name": "fcn"}})
    (one,) = shown(project, "voc")
    assert one.settings.endswith("nothing is drawn at random")


def test_a_run_that_cannot_be_made_is_told_and_a_named_one_refused(tiny_project: Project, tmp_path: Path):
    wrong = {"dataset": "voc", "task": {"name": "unicorn"}, "model": {"name": "fcn"}}
    right = {"dataset": "voc", "task": {"name": "segmentation"}, "model": {"name": "fcn"}}
    project = with_runs(tiny_project, tmp_path, wrong=wrong, right=right)
    found = shown(project, "voc")
    assert [one.runs for one in found] == [["right"], ["wrong"]] and "unicorn" in found[1].note
    with pytest.raises(SightlineError, match="unicorn"):
        shown(project, "voc", "wrong")
    (tmp_path / "params.yaml").write_text("[broken")
    assert "cannot be read" in shown(project, "voc")[0].note
