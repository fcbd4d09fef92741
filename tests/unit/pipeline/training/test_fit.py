"""Training on the local engine: exact resume, the best checkpoint, errors that stop it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from contracts.errors import ConfigError, TrainingError
from lightning_modules.base.task import Mean
from pipeline.cluster.train import run_training
from pipeline.settings.params import load_params
from pipeline.settings.sections import ClusterConfig
from pipeline.training.callbacks import PictureWriter
from pipeline.training.checkpoints import BEST, newest_state
from pipeline.training.fit import Placement, fit
from pipeline.training.ledger import FOLDER as LEDGER
from pipeline.training.ledger import merge
from pipeline.training.predictor import load_predictor
from pipeline.training.resume import decide, decided
from pipeline.training.run_files import DONE, EVENTS, FAILURE
from pipeline.training.runs import load_run
from tests.local_training import Killed, arguments, drawn_pictures, final_weights

pytestmark = pytest.mark.filterwarnings("default")  # Lightning's own deprecations are not ours to fail on


def test_pictures_of_the_untrained_model_leave_the_training_as_it_is(tiny_project, tmp_path, unbroken, monkeypatch):
    """`unbroken` has them: neither its norms nor the order of its random numbers have moved."""
    from lightning_modules.tasks.segmentation import Task

    fit(**arguments(tiny_project, tmp_path / "without", num_pictures=0))
    assert not drawn_pictures(tmp_path / "without")
    assert final_weights(tmp_path / "without") == final_weights(unbroken)
    original = Task.predict

    def drawing(self, model, batch):
        torch.rand(3), np.random.rand(3)
        return original(self, model, batch)

    monkeypatch.setattr(Task, "predict", drawing)
    seen = []
    start = PictureWriter.on_train_start

    def watched(self, trainer, module):
        before = torch.get_rng_state(), np.random.get_state()[1].tolist(), [part.training for part in module.modules()]
        start(self, trainer, module)
        after = torch.get_rng_state(), np.random.get_state()[1].tolist(), [part.training for part in module.modules()]
        seen.append(torch.equal(before[0], after[0]) and before[1:] == after[1:])

    monkeypatch.setattr(PictureWriter, "on_train_start", watched)
    fit(**arguments(tiny_project, tmp_path / "drawing", max_epochs=1))
    assert seen == [True]


def test_a_damaged_newest_state_is_passed_over(tiny_project, tmp_path, unbroken, capsys):
    fit(**arguments(tiny_project, tmp_path, max_epochs=1))
    newest = newest_state(tmp_path)
    assert newest is not None
    newest.write_bytes(newest.read_bytes()[:-100])
    older = newest_state(tmp_path)
    assert older is not None
    assert older < newest
    assert newest.name in capsys.readouterr().out


def test_events_have_losses_metrics_and_pictures(unbroken):
    lines = [json.loads(line) for line in (unbroken / EVENTS).read_text().splitlines()]
    names = {name for line in lines if line["kind"] == "metrics" for name in line["values"]}
    assert {"train/loss", "val/mean_iou"} <= names
    drawn = drawn_pictures(unbroken)
    assert [line["step"] for line in drawn] == [0, 0, 5, 5, 10, 10], "two images before and after each of two epochs"
    assert len({line["name"] for line in drawn}) == 2, "always the same"
    assert all((unbroken / line["file"]).stat().st_size > 0 for line in drawn)


def test_best_checkpoint_predicts_alone(unbroken, tiny_project):
    data = load_run(tiny_project, load_params(tiny_project.root), "segmentation")
    from pipeline.shards.reader import SplitReader

    record = SplitReader(tiny_project.shards("voc"), data.manifest, "val").read(0)
    predictor = load_predictor(unbroken / BEST)
    asked = predictor.record({"image": record.image})
    predictions = predictor.predict(asked)
    json.dumps(predictor.answers(predictions))
    picture = predictor.picture(asked, predictions)
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3


def test_not_finite_loss_stops_and_names_the_samples(tiny_project, tmp_path, monkeypatch):
    from lightning_modules.tasks.segmentation import Task

    original = Task.losses

    def broken(*a):
        return {name: Mean(loss.total * float("nan"), loss.count) for name, loss in original(*a).items()}

    monkeypatch.setattr(Task, "losses", broken)
    with pytest.raises(TrainingError, match=r"step 0, samples \['"):
        fit(**arguments(tiny_project, tmp_path))
    assert "not finite" in json.loads((tmp_path / FAILURE).read_text())["text"]
    assert not (tmp_path / BEST).exists()
    assert not (tmp_path / DONE).exists()


@pytest.mark.parametrize(("before", "after"), [(None, 3), (3, None), (2, 5)])
def test_another_number_of_micro_batches_goes_on_with_the_same_samples(
    tiny_project, tmp_path, monkeypatch, before, after
):
    """As with another number of workers: 1, 2, 3 or 4 accumulation steps make the global batch of 8."""
    from lightning_modules.base.module import TaskModule

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    fit(**arguments(tiny_project, whole, ledger=True, micro_batch_size=before))
    original = TaskModule.training_step

    def dying(self, batch, batch_idx):
        if self.global_step == 7:  # in the second epoch, after the state of step 6
            raise Killed
        return original(self, batch, batch_idx)

    monkeypatch.setattr(TaskModule, "training_step", dying)
    with pytest.raises(Killed):
        fit(**arguments(tiny_project, broken, ledger=True, micro_batch_size=before))
    monkeypatch.undo()
    fit(**arguments(tiny_project, broken, ledger=True, micro_batch_size=after))
    steps = merge(broken / LEDGER)
    assert steps == merge(whole / LEDGER)
    assert [step.step for step in steps] == list(range(1, 11))
    keys = sorted(key for step in steps if step.epoch == 0 for key in step.keys)
    assert keys == sorted(set(keys)) and len(keys) == 40
    assert json.loads((broken / DONE).read_text()) == json.loads((whole / DONE).read_text())


def test_more_workers_than_samples_in_a_batch_are_refused(tiny_project, tmp_path):
    with pytest.raises(ConfigError, match="at least 9"):
        fit(**arguments(tiny_project, tmp_path), placement=Placement(world=9, rank=0))


def test_unknown_monitor_lists_the_metrics(tiny_project, tmp_path):
    with pytest.raises(ConfigError, match="mean_iou"):
        fit(**arguments(tiny_project, tmp_path, monitor="miou", monitor_mode="max"))


def test_without_ray_a_gpu_is_used_as_the_settings_say(tiny_project, tmp_path, monkeypatch):
    started, local = arguments(tiny_project, tmp_path, max_epochs=1), ClusterConfig(engine="local")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ConfigError, match="no GPU here"):
        run_training(started, replace(local, use_gpu="yes"), tmp_path)
    run_training(started, local, tmp_path)
    assert decided(tmp_path)["use_gpu"] is False, "the refused wish for a GPU left no trace"
    decide(tmp_path, use_gpu=True)  # as if the run had begun on another machine
    with pytest.raises(ConfigError, match=r"(?s)this run began on a GPU.*use_gpu: no"):
        run_training(started, local, tmp_path)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    run_training(started, replace(local, use_gpu="no"), tmp_path)  # would fail on the GPU that is not there
    assert decided(tmp_path)["use_gpu"] is False
