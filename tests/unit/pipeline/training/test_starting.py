"""Starting from another run's weights: all of them or a part, and what does not fit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from contracts.errors import ConfigError, DataError
from contracts.records import DataSpec
from lightning_modules.base.optimizer import lr_factor
from pipeline.settings.params import Params, load_params
from pipeline.settings.train_config import InitConfig
from pipeline.stages.train import export
from pipeline.system.project import Project, write_json
from pipeline.tracking.lineage import Lineage
from pipeline.tracking.start import lay_start
from pipeline.training.beginning import lay_over, told, weights_of_file
from pipeline.training.checkpoints import BEST, build_module, file_sha256, newest_state, start_from, weights_digest
from pipeline.training.fit import START, fit
from pipeline.training.history import curves
from pipeline.training.run_files import BEGUN, EVENTS, LAST
from pipeline.training.runs import RunData, load_run
from pipeline.training.starting import for_fit, is_current
from tests.local_training import arguments, make_checkpoint

pytestmark = pytest.mark.filterwarnings("default")


def module_of(project: Project, run: str):
    data = load_run(project, load_params(project.root), run)
    return build_module(data.run.to_dict(), DataSpec.from_dict(data.spec.to_dict()))


def test_a_part_is_taken_and_the_rest_stays(tiny_project, tmp_path):
    path = make_checkpoint(tmp_path / BEST, seed=1)  # an FCN
    given = torch.load(path, weights_only=True)["state_dict"]
    module = module_of(tiny_project, "detection")
    before = {name: value.clone() for name, value in module.state_dict().items()}
    start_from(module, path, "backbone")
    after = module.state_dict()
    backbone = {name for name in after if name.startswith("model.backbone.")}
    assert backbone and all(torch.equal(after[name], given[name]) for name in backbone)
    assert all(torch.equal(after[name], before[name]) for name in after.keys() - backbone)
    assert any(not torch.equal(after[name], before[name]) for name in backbone)


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (None, r"head.6.bias is \(3,\) there and \(\d+,\) here"),
        ("head", r"head.6.weight is \(3, 256, 1, 1\) there and \(\d+, 256, 1, 1\) here"),
        ("decoder", "neither model has such a part"),
    ],
)
def test_what_does_not_fit_is_refused_with_both_shapes(tiny_project, tmp_path, part, said):
    path = make_checkpoint(tmp_path / BEST, seed=1)
    module = module_of(tiny_project, "segmentation")
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(DataError, match=f"(?s)the weights of run seg do not fit this model.*{said}"):
        start_from(module, path, part)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_weights_that_only_one_side_has_are_refused(tiny_project, tmp_path):
    path = make_checkpoint(tmp_path / BEST, seed=1)
    with pytest.raises(DataError, match=r"(?s)head.0.bias is \(256,\) there and nothing here.*and 34 more"):
        start_from(module_of(tiny_project, "detection"), path, None)


def test_training_starts_there_and_a_resumed_one_does_not_start_again(tiny_project, tmp_path, monkeypatch):
    """With a rate of next to nothing the weights are those of the start."""
    optimizer = {"name": "sgd", "lr": 1e-30, "weight_decay": 0.0}

    def given(name: str):
        found = arguments(tiny_project, tmp_path / name, max_epochs=1, ema_decay=None, optimizer=optimizer)
        found["run"]["init"] = {"from": "seg", "part": "backbone"}
        make_checkpoint(tmp_path / name / START, seed=1)
        return found

    fit(**given("whole"))
    trained = torch.load(tmp_path / "whole" / BEST, weights_only=True)["state_dict"]
    start = torch.load(tmp_path / "whole" / START, weights_only=True)["state_dict"]
    learnt = [n for n in trained if n.startswith("model.backbone.") and n.endswith("weight")]
    assert learnt and all(torch.allclose(trained[name], start[name]) for name in learnt)

    again = given("again")
    fit(**again)
    make_checkpoint(tmp_path / "again" / START, seed=2)
    fit(**again)
    weights = [torch.load(tmp_path / name / BEST, weights_only=True)["state_dict"] for name in ("whole", "again")]
    assert weights_digest(weights[0]) == weights_digest(weights[1])


def _is_resolved(checkpoint: Path) -> bool:
    return torch.load(checkpoint, weights_only=True)["run"]["train"]["precision"] != "auto"


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def with_runs(project: Project, **runs: dict[str, Any]) -> Params:
    document = load_params(project.root).document
    return Params({**document, "runs": {**document["runs"], **runs}})


def started_from(project: Project, source: str, **init: Any) -> RunData:
    """The run `tuned`, a small FCN that starts from `source`."""
    run = load_params(project.root).document["runs"]["segmentation"]
    return load_run(project, with_runs(project, tuned={**run, "init": {"from": source, **init}}), "tuned")


@pytest.fixture
def trained_run(tiny_project: Project) -> Iterator[Path]:
    """The artifacts of the run `segmentation`, as if it had been trained."""
    folder = tiny_project.artifacts("segmentation")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def record(project: Project, folder: Path) -> None:
    write_json(
        folder / "run.json",
        {
            **dict.fromkeys(("run_id", "git_commit"), "x"),
            **dict.fromkeys(("code", "manifest_digest"), "0" * 64),
            "git_changed": [],
            "checkpoint_sha256": file_sha256(folder / BEST),
            "fingerprint": load_run(project, load_params(project.root), "segmentation").fingerprint,
        },
    )


def test_the_fingerprint_counts_the_checkpoint(tiny_project, trained_run, tmp_path):
    params = load_params(tiny_project.root)
    with pytest.raises(DataError, match=r"(?s)the record of the training is not there"):
        started_from(tiny_project, "segmentation", parts=["backbone"])
    assert not is_current(tiny_project, params, "segmentation")
    found = []
    for seed in (1, 2):
        make_checkpoint(trained_run / BEST, seed=seed)
        record(tiny_project, trained_run)
        assert is_current(tiny_project, params, "segmentation")
        found.append(started_from(tiny_project, "segmentation", parts=["backbone"]))
    assert found[0].fingerprint != found[1].fingerprint
    with pytest.raises(DataError, match="have changed meanwhile"):
        lay_start(tiny_project, replace(found[1], start="0" * 64), tmp_path)
    lay_start(tiny_project, found[1], tmp_path)
    laid = torch.load(tmp_path / START, weights_only=True)["state_dict"]
    given = torch.load(trained_run / BEST, weights_only=True)["state_dict"]
    torch.manual_seed(found[1].run.train.seed)
    initial = build_module(found[1].run.to_dict(), found[1].spec).state_dict()
    assert all(torch.equal(v, (given if n.startswith("model.backbone.") else initial)[n]) for n, v in laid.items())
    write_json(trained_run / "run.json", {**_json(trained_run / "run.json"), "fingerprint": "0" * 64})
    assert not is_current(tiny_project, params, "segmentation"), "of other settings"


def test_a_file_of_other_software_with_what_does_not_fit(tiny_project, tmp_path, capsys):
    """Names without `model.`, behind `module.`, one head of another shape, one weight too many."""
    plain = module_of(tiny_project, "segmentation").model.state_dict()
    given = {f"module.{name}": torch.randn_like(v) if v.is_floating_point() else v for name, v in plain.items()}
    head = [name for name in given if name.startswith("module.head.")][-1]
    given |= {head: torch.zeros(99), "module.extra": torch.zeros(3)}
    torch.save({"epoch": 3, "state_dict": given}, tmp_path / "other.pth")
    for strict, name in ((True, "strict"), (False, "loose")):
        data = started_from(tiny_project, str(tmp_path / "other.pth"), strict=strict)
        (tmp_path / name).mkdir()
        if strict:
            with pytest.raises(
                DataError, match=r"(?s)do not fit.*is \(99,\) there and .*extra is there and not here.*"
            ):
                lay_start(tiny_project, data, tmp_path / name)
            assert not list((tmp_path / name).iterdir())
            continue
        lay_start(tiny_project, data, tmp_path / name)
        begun = _json(tmp_path / name / BEGUN)
        assert begun["tensors"] == len(plain) - 1 and begun["of_tensors"] == len(plain)
        assert list(begun["kept"]) == [head.replace("module.", "model.")] and begun["unused"] == ["model.extra"]
        said = capsys.readouterr().out
        assert f"{len(plain) - 1} of {len(plain)} tensors" in said and "as initialised: model.head" in said
        laid = torch.load(tmp_path / name / START, weights_only=True)["state_dict"]
        taken = [n for n in plain if f"model.{n}" not in begun["kept"]]
        assert all(torch.equal(laid[f"model.{n}"], given[f"module.{n}"]) for n in taken)


def test_weights_of_torchvision_are_the_backbones(tiny_project, tmp_path, monkeypatch):
    """Those of a random ResNet-18 in torch's cache, under the published file's name."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    weights = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    published = torchvision.models.resnet18().state_dict()
    torch.save(published, folder / Path(weights.url).name)
    run = load_params(tiny_project.root).document["runs"]["segmentation"]
    run = {**run, "model": {**run["model"], "backbone": "resnet18"}, "init": {"from": str(weights)}}
    data = load_run(tiny_project, with_runs(tiny_project, tuned=run), "tuned")
    assert data.start is None
    lay_start(tiny_project, data, tmp_path)
    laid = torch.load(tmp_path / START, weights_only=True)["state_dict"]
    assert torch.equal(laid["model.backbone.stages.0.0.weight"], published["conv1.weight"])
    assert torch.equal(laid["model.backbone.stages.3.1.bn2.running_var"], published["layer4.1.bn2.running_var"])
    loaded = _json(tmp_path / BEGUN)
    assert loaded["tensors"] == loaded["of_tensors"] and not loaded["kept"] and not loaded["unused"]

    small = started_from(tiny_project, str(weights))
    with pytest.raises(DataError, match="none of them does"):
        lay_start(tiny_project, small, tmp_path / "small")
    with pytest.raises(ConfigError, match="torchvision has no such weights"):
        lay_start(tiny_project, started_from(tiny_project, "ResNet18_Weights.NONE"), tmp_path / "none")


@pytest.mark.parametrize(
    ("content", "said"), [(b"no checkpoint", "no code in it was run"), ({"epoch": 3}, "there are no weights")]
)
def test_a_file_that_is_none(tmp_path, content, said):
    path = tmp_path / "weights.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(DataError, match=said):
        weights_of_file(path)


def test_a_part_that_the_model_has_not(tiny_project):
    module = module_of(tiny_project, "segmentation")
    with pytest.raises(ConfigError, match="the model has no such part"):
        lay_over(module, dict(module.state_dict()), InitConfig(source="a", parts=("decoder",)))


def test_what_was_loaded_is_told_in_one_line():
    kept = {f"model.head.{i}": "(3,) there and (4,) here" for i in range(7)}
    text = told({"tensors": 5, "of_tensors": 12, "values": 1234567, "kept": kept, "unused": ["model.x"]})
    assert text.startswith("5 of 12 tensors, 1,234,567 values; as initialised: model.head.0 (")
    assert "and 2 more" in text and text.endswith("not used: model.x")


def test_an_extended_training_goes_on_where_the_other_ended(tiny_project, trained_run, tmp_path):
    """Optimizer, steps and curves go on, the schedule is that of all epochs, and a longer training is no worse."""
    run = load_params(tiny_project.root).document["runs"]["segmentation"]
    usual = {"log_every_steps": 1, "precision": "auto"}
    longer = {**run, "init": {"from": "segmentation", "extend": True}, "train": {"max_epochs": 4, **usual}}
    short = {**run, "train": {"keep_state": True, **usual}}
    params = with_runs(tiny_project, segmentation=short, longer=longer)
    first = load_run(tiny_project, params, "segmentation")
    given = arguments(tiny_project, tmp_path / "first") | {"run": first.run.to_dict()}
    fit(**given)
    export(tiny_project, first, tmp_path / "first", "id", Lineage(""))
    with pytest.raises(DataError, match="has kept no state"):
        lay_start(tiny_project, load_run(tiny_project, params, "longer"), tmp_path / "longer")
    export(tiny_project, first, tmp_path / "first", "id", Lineage(""), keeps=True)

    data, state = load_run(tiny_project, params, "longer"), tmp_path / "longer"
    state.mkdir(exist_ok=True)
    lay_start(tiny_project, data, state)
    begun = _json(state / BEGUN)
    assert begun["step"] == _json(tmp_path / "first" / "done.json")["step"]
    assert _is_resolved(state / BEST), "also where no later epoch is better"
    fit(**given | {"run": for_fit(data.run.to_dict()), "state": str(state)})
    assert _json(state / "done.json") == {"step": 2 * begun["step"], "epochs": 4}
    assert torch.load(state / BEST, weights_only=True)["run"]["name"] == "longer"
    assert _is_resolved(state / BEST)

    found, before = curves(state / EVENTS), curves(tmp_path / "first" / EVENTS)
    assert found["train/loss"][: len(before["train/loss"])] == before["train/loss"], "its curve begins with the other's"
    last, config = newest_state(state), data.run.train.optimizer
    assert last is not None
    rate = torch.load(last, weights_only=True)["optimizer_states"][0]["param_groups"][0]["lr"]
    steps = 2 * begun["step"]
    assert rate == pytest.approx(config.lr * lr_factor(config, steps, total_steps=steps, steps_per_epoch=steps // 4))
    kept = newest_state(trained_run / LAST)
    assert kept is not None
    before_that = torch.load(kept, weights_only=True)["lr_schedulers"][0]["last_epoch"]
    assert torch.load(last, weights_only=True)["lr_schedulers"][0]["last_epoch"] == 2 * before_that == steps
