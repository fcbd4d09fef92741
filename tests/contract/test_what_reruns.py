"""Which change makes DVC train again: asked of DVC itself, on this project's own dvc.yaml and params.yaml.

Nothing is trained: every output is a small file, committed as if its stage had written it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo

from pipeline.settings.check import write_code, write_settings
from pipeline.settings.code import Code
from pipeline.settings.params import load_params
from tests import dvc_project

pytestmark = pytest.mark.filterwarnings("default")  # DVC's libraries' own


@pytest.fixture(scope="module")
def project(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repo]:
    params = yaml.safe_load((root / "params.yaml").read_text())
    folder = dvc_project.make(root, tmp_path_factory.mktemp("reruns") / "project", params)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with Repo(str(folder)) as repo:
            for stage in repo.index.stages:
                for out in stage.outs:
                    path = Path(out.fs_path)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(f"{stage.addressing}\n")
            for out in ("settings", "code"):
                (folder / "data" / out).unlink()
            write_settings(load_params(folder), folder / "data/settings")
            write_code(load_params(folder), folder / "data/code", folder)
            repo.commit(force=True)
        with Repo(str(folder)) as repo:
            assert repo.status().keys() == {"check"}, "which always runs"
            yield repo


def stale(repo: Repo) -> dict[str, set[str]]:
    """Stage -> the runs whose stage DVC would run again."""
    repo._reset()  # it keeps what it has read
    named = [name.split("@") for name in repo.status() if "@" in name]
    return {stage: {run for kind, run in named if kind == stage} for stage in ("train", "evaluate")}


def with_params(repo: Repo, sections: dict[str, dict[str, Any]]) -> dict[str, set[str]]:
    """What is stale once `check` has seen params.yaml with other values; params.yaml is put back."""
    folder = Path(repo.root_dir)
    text = (folder / "params.yaml").read_text()
    document = yaml.safe_load(text)
    for section, values in sections.items():
        place = document
        for key in section.split("."):
            place = place.setdefault(key, {})
        place.update(values)
    (folder / "params.yaml").write_text(yaml.safe_dump(document))
    try:
        write_settings(load_params(folder), folder / "data/settings")
        return stale(repo)
    finally:
        (folder / "params.yaml").write_text(text)
        write_settings(load_params(folder), folder / "data/settings")


OBJECTS = {"detection_faster_rcnn", "instances_mask_rcnn"}
ALL = {"captioning_attention", "vqa_lstm", "segmentation_fcn", "detection_faster_rcnn", "instances_mask_rcnn"}
NO_WEIGHTS = {
    "loader": {"num_workers": 4, "prefetch": 3, "start_method": "spawn", "cache_gib": 5},
    "train": {"log_every_steps": 3, "checkpoint_every_s": 7, "eval_batch_size": 8, "ledger": True},
    "cluster": {"num_workers": 1, "use_gpu": "no"},
    "tracking": {"flush_s": 1.0},
    "runs.vqa_lstm.train": {"seed": 0},  # what the default is anyway
}


@pytest.mark.parametrize(
    ("sections", "trained", "evaluated"),
    [
        (NO_WEIGHTS, set(), set()),
        ({"train": {"num_pictures": 1}}, set(), ALL),
        ({"train": {"seed": 1}}, ALL, set()),
        ({"loader": {"window": 2}}, ALL, set()),
        ({"runs.vqa_lstm.train.optimizer": {"lr": 1.0e-3}}, {"vqa_lstm"}, set()),
        ({"runs.segmentation_fcn.task": {"image_size": 64}}, {"segmentation_fcn"}, set()),
    ],
)
def test_settings(project, sections, trained, evaluated):
    assert with_params(project, sections) == {"train": trained, "evaluate": evaluated}


BESIDE = [
    "lightning_modules/drawing/shapes.py",
    "lightning_modules/drawing/text.py",
    "lightning_modules/reports/_plots.py",
    "contracts/errors.py",
    "pipeline/training/callbacks.py",
    "pipeline/measuring/charts.py",
    "pipeline/measuring/evaluation.py",
    "pipeline/tracking/mlflow_run.py",
    "pipeline/stages/train.py",
    "pipeline/settings/train_config.py",
]


@pytest.mark.parametrize(
    ("names", "trained", "evaluated"),
    [
        (BESIDE, set(), ALL),
        (["lightning_modules/base/module.py"], ALL, ALL),
        (["lightning_modules/blocks/rcnn.py", "lightning_modules/ops/matching.py"], OBJECTS, OBJECTS),
        (["lightning_modules/tasks/vqa.py"], {"vqa_lstm"}, {"vqa_lstm"}),
        (["lightning_modules/metrics/coco_map.py"], set(), OBJECTS),
        (["lightning_modules/reports/vqa.py"], set(), {"vqa_lstm"}),
        (["lightning_modules/models/fcn.py"], {"segmentation_fcn"}, {"segmentation_fcn"}),
    ],
)
def test_code(project, names, trained, evaluated):
    """The fingerprint that a training's state goes by agrees with DVC."""
    folder = Path(project.root_dir)
    params = load_params(folder)

    def digests() -> dict[str, str]:
        return {name: Code(folder).digest(run) for name, run in params.document["runs"].items()}

    before, texts = digests(), {name: (folder / name).read_text() for name in names}
    for name, text in texts.items():
        (folder / name).write_text(f"{text}\n# changed\n")
    write_code(params, folder / "data/code", folder)
    found, after = stale(project), digests()
    for name, text in texts.items():
        (folder / name).write_text(text)
    write_code(params, folder / "data/code", folder)
    assert found == {"train": trained, "evaluate": evaluated}
    assert {run for run in ALL if after[run] != before[run]} == trained
