"""Settings of training beyond one gradient run: optimizers over shared ones, stages, runs that start from others."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from contracts.errors import ConfigError
from lightning_modules.base.optimizer import OptimizerConfig, PartConfig, Phase
from pipeline.settings.check import check, write_settings
from pipeline.settings.extend import extend
from pipeline.settings.params import Params
from pipeline.settings.train_config import InitConfig
from pipeline.system.project import Project
from tests.command import sightline

RUN = "segmentation_fcn"


@pytest.fixture
def document(root: Path) -> dict[str, Any]:
    return yaml.safe_load((root / "params.yaml").read_text())


def train(document: dict[str, Any], **settings: Any) -> Any:
    document["runs"][RUN]["train"] = settings
    return Params(document).run(RUN).train


def message(document: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        check(Params(document))
    return str(caught.value)


def test_a_run_with_another_schedule_than_the_shared_one(document):
    assert document["train"]["optimizer"]["final_lr_fraction"] == 0.01, "which only cosine and linear have"
    optimizer = train(document, optimizer={"schedule": "step", "milestones": [2], "lr": 0.5}).optimizer
    assert optimizer == OptimizerConfig(lr=0.5, weight_decay=1e-4, schedule="step", milestones=(2.0,))


def test_stages_lay_their_optimizers_over_the_runs(document):
    parts = {"backbone": {"lr": "0.1x"}}
    stages = [{"epochs": 2, "freeze": ["backbone"]}, {"epochs": 3, "optimizer": {"name": "sgd", "parts": parts}}]
    found = train(document, optimizer={"lr": 0.5}, freeze=["head.0"], stages=stages, max_epochs=1)
    first, second = found.phases
    cosine = {"lr": 0.5, "weight_decay": 1e-4, "final_lr_fraction": 0.01}
    assert first == Phase(2, OptimizerConfig(**cosine), ("head.0", "backbone"))
    assert second == Phase(
        3, OptimizerConfig(name="sgd", parts={"backbone": PartConfig(lr="0.1x")}, **cosine), ("head.0",)
    )
    assert found.num_epochs == 5
    plain = train(document, max_epochs=4)
    assert plain.phases == (Phase(4, plain.optimizer),)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"optimizer": {"momentum": 0.9}}, "optimizer adamw has no setting momentum"),
        ({"optimizer": {"name": "adagrad"}}, "must be one of adamw, sgd, adam, rmsprop or adadelta"),
        ({"optimizer": {"parts": {"backbone": {"lr": "0.1"}}}}, "not a learning rate"),
        ({"optimizer": {"parts": {"backbone": {"freeze_until": "c9"}}}}, "must be one of c2, c3, c4 or c5"),
        ({"stages": [{"epochs": 0}]}, "epochs: must be 1 or more (is 0)"),
        ({"stages": [{"epochs": 1, "frezee": []}]}, "frezee: unknown key; did you mean 'freeze'?"),
        ({"stages": [{"epochs": 1, "optimizer": {"lr": -1}}]}, "lr: must be more than 0 (is -1"),
        ({"stages": [{"epochs": 2}], "validate_every_epochs": 3}, "no epoch would be validated"),
        ({"stages": 3}, "stages: must be a list (is 3)"),
        ({"stages": [3]}, "must be a mapping (is 3)"),
    ],
)
def test_mistakes_are_told(document, settings, said):
    document["runs"][RUN]["train"] = settings
    assert said in message(document)


def test_runs_that_start_from_others(document):
    runs = document["runs"]
    runs["tuned"] = {**runs[RUN], "init": {"from": RUN, "parts": ["backbone"]}}
    runs["twice"] = {**runs[RUN], "init": {"from": "tuned"}}
    check(Params(document))
    assert Params(document).starts() == {"tuned": RUN, "twice": "tuned"}
    settings = copy.deepcopy(Params(document).train_settings("twice"))
    assert settings["init"] == {"from": "tuned", "parts": [], "strict": True, "extend": False}
    before = settings["starts_from"]["run"]["starts_from"]
    assert before["run"] == Params(document).train_settings(RUN) and "starts_from" not in before["run"]
    for path, value in (
        (("runs", RUN, "model"), {"name": "fcn", "variant": "32s"}),
        (("datasets", "voc", "max_quarantined"), 0.5),
        (("shards", "quality"), 80),
    ):
        *parents, last = path
        section = document
        for key in parents:
            section = section[key]
        old, section[last] = section[last], value
        assert Params(document).train_settings("twice") != settings, path
        section[last] = old
    runs[RUN]["train"] = {**runs[RUN]["train"], "num_pictures": 1}
    assert Params(document).train_settings("twice") == settings, "what is drawn is no matter of weights"


@pytest.mark.parametrize(
    ("starts", "said"),
    [
        ({"a": "b"}, 'runs.a.init.from: no such run (is "b")'),
        ({"a": "a"}, "runs.a.init.from: it would start from itself: a <- a"),
        ({"a": "b", "b": "c", "c": "a"}, "runs.a.init.from: it would start from itself: a <- b <- c <- a"),
    ],
)
def test_starts_that_lead_nowhere(document, starts, said):
    run = document["runs"][RUN]
    document["runs"] = {name: {**run, "init": {"from": other}} for name, other in starts.items()}
    text = message(document)
    assert said in text and f"{len(starts)} mistake" in text


@pytest.mark.parametrize(
    ("init", "said"),
    [
        ({"parts": ["backbone"]}, "init.from: missing"),
        ({"from": 3}, "init.from: must be text (is 3)"),
        ({"from": "models:/a@champion", "part": ["backbone"]}, "init.part: unknown key; did you mean 'parts'?"),
        ({"from": "models:/a@champion", "source": "b"}, "init.source: unknown key; known keys: extend, from, parts"),
        ({"from": "away.ckpt"}, 'init.from: no such file (is "away.ckpt")'),
        ({"from": "models:/a@champion", "extend": True}, "a run is extended as a whole"),
    ],
)
def test_a_start_that_is_none(document, init, said):
    document["runs"][RUN]["init"] = init
    assert said in message(document)


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("some_run", "run"),
        ("weights/old.ckpt", "file"),
        ("/data/resnet.pth", "file"),
        ("models:/name@champion", "model"),
        ("runs:/0a1b/model", "model"),
        ("ResNet18_Weights.IMAGENET1K_V1", "torchvision"),
    ],
)
def test_what_a_start_names(document, source, kind):
    assert InitConfig(source=source).kind == kind


def test_other_weights_in_the_same_file_are_other_settings(document, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = document["runs"][RUN]
    document["runs"] = {"tuned": {**run, "init": {"from": "w.pt"}}, "twice": {**run, "init": {"from": "tuned"}}}
    found = []
    for text in ("a", "b"):
        Path("w.pt").write_text(text)
        write_settings(Params(document), tmp_path / "settings")
        found.append([(tmp_path / f"settings/{name}/train.json").read_text() for name in document["runs"]])
    assert all(before != after for before, after in zip(*found, strict=True)), "also of the run after that one"


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ({"max_epochs": 7}, "train.max_epochs: must be more than the 7 of run first (is 7)"),
        ({"max_epochs": 9, "batch_size": 3}, "train.batch_size: must be as that of run first, which it extends"),
        ({"max_epochs": 9, "optimizer": {"lr": 0.5}}, "train.optimizer.lr: must be as that of run first"),
        (
            {"max_epochs": 9, "early_stopping_patience": 3},
            "train.early_stopping_patience: must be as that of run",
        ),
        ({"stages": [{"epochs": 9}]}, "train.stages: a training with stages cannot be extended"),
    ],
)
def test_what_cannot_be_extended(document, train, said):
    run = document["runs"][RUN]
    first = {**run, "train": {"max_epochs": 7}}
    document["runs"] = {"first": first, "longer": {**run, "init": {"from": "first", "extend": True}, "train": train}}
    assert said in message(document)


def test_the_schedule_of_an_extended_run_is_its_own(document):
    run = document["runs"][RUN]
    longer = {"max_epochs": 9, "num_pictures": 0, "optimizer": {"schedule": "constant"}}
    document["runs"] = {
        "first": {**run, "train": {"max_epochs": 7}},
        "longer": {**run, "init": {"from": "first", "extend": True}, "train": longer},
    }
    params = Params(document)
    check(params)
    assert params.is_extended("first") and not params.is_extended("longer")


def test_a_run_more_in_params_yaml(root, tmp_path, capsys):
    text = (root / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text)
    epochs = Params(yaml.safe_load(text)).run(RUN).train.max_epochs
    extend(Project(tmp_path), RUN, 3, "longer")
    after = (tmp_path / "params.yaml").read_text()
    assert "sightline repro register@longer" in capsys.readouterr().out
    assert next(line for line in after.splitlines() if line not in text.splitlines()).lstrip().startswith("longer: {")
    assert Params(yaml.safe_load(after)).run("longer").train.max_epochs == epochs + 3
    with pytest.raises(ConfigError, match="there is a run of this name already"):
        extend(Project(tmp_path), RUN, 3, "longer")
    with pytest.raises(ConfigError, match="no such run"):
        extend(Project(tmp_path), "away", 3, "other")


@pytest.mark.parametrize("kept", [True, False])
def test_the_command_tells_where_no_state_was_kept(root, tmp_path, monkeypatch, capsys, kept):
    (tmp_path / "params.yaml").write_text((root / "params.yaml").read_text())
    artifacts = Project(tmp_path).artifacts(RUN)
    (artifacts / "last").mkdir(parents=True) if kept else artifacts.mkdir(parents=True)
    (artifacts / "best.ckpt").touch()
    monkeypatch.chdir(tmp_path)
    assert sightline("extend", [RUN, "--epochs", "3"]) == 0
    told = capsys.readouterr().out
    assert (f"dvc repro --force --single-item train@{RUN}" in told) is not kept
