"""Where numbers lie and who waits for them: what a machine without a GPU can tell of one.

Device "meta" stands for a GPU where reading a value, which would wait for it, must not happen: there it raises.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from lightning_modules.base.finite import StepWatch
from pipeline.loading.batch_memory import BatchMemory, Place, ahead
from pipeline.loading.datamodule import TarDataModule
from pipeline.settings.params import load_params
from pipeline.settings.sections import LoaderConfig
from pipeline.training.callbacks import Averaging
from pipeline.training.checkpoints import build_task
from pipeline.training.fit import fast_precision
from pipeline.training.runs import load_run


@pytest.mark.parametrize(("has_bf16", "precision"), [(True, "bf16-mixed"), (False, "16-mixed")])
def test_emulated_bf16_is_no_bf16(monkeypatch, has_bf16, precision):
    """torch says yes for every GPU since 2016, unless it is asked about the hardware."""
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or has_bf16
    )
    assert fast_precision(use_gpu=True) == precision


class Module(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)


def averaging_on(device: str, module: pl.LightningModule) -> Averaging:
    """Set up as Lightning does: the strategy knows its device, and the model still lies on the CPU."""
    averaging = Averaging(decay=0.5)
    trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(device)))
    averaging.setup(trainer, module, "fit")  # type: ignore[arg-type]
    return averaging


def test_averages_are_made_where_the_model_will_be():
    module = Module()
    averages = averaging_on("meta", module)._average_model
    assert averages is not None
    assert {value.device.type for value in averages.module.parameters()} == {"meta"}
    module.to("meta")
    for _ in range(2):
        averages.update_parameters(module)  # reads no value of the GPU: the counter is on the CPU
    assert averages.n_averaged.device.type == "cpu" and averages.n_averaged == 2


def test_averages_on_the_cpu_are_lightnings():
    torch.manual_seed(0)
    module = Module()
    averages = averaging_on("cpu", module)._average_model
    assert averages is not None
    first, expected = module.layer.weight.detach().clone(), None
    for step in range(3):
        with torch.no_grad():
            module.layer.weight.add_(step)
        averages.update_parameters(module)
        weight = module.layer.weight.detach()
        expected = first if expected is None else 0.5 * expected + 0.5 * weight
    torch.testing.assert_close(averages.module.layer.weight.detach(), expected)


def test_a_micro_batch_is_looked_at_with_its_step():
    watch = StepWatch()
    loss = torch.zeros((), device="meta")
    for _ in range(4):
        watch.add(["a"], {"part": loss}, loss)


def test_the_next_item_is_made_by_a_thread_while_one_is_used():
    made = []

    def items() -> Iterator[int]:
        for i in range(4):
            made.append(threading.current_thread())
            yield i

    stepping = ahead(items())
    assert next(stepping) == 0
    assert list(stepping) == [1, 2, 3]
    assert len(set(made)) == 1 and threading.main_thread() not in made
    left = ahead(items())
    assert next(left) == 0
    left.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


def test_what_goes_wrong_in_that_thread_is_raised_here():
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    stepping = ahead(items())
    assert next(stepping) == 1
    with pytest.raises(ValueError, match="broken"):
        next(stepping)


def data_module(tiny_project, run: str, workers: int) -> TarDataModule:
    data = load_run(tiny_project, load_params(tiny_project.root), run)
    task = build_task(data.run.to_dict(), data.spec)
    loader = LoaderConfig(num_workers=workers)
    shards = tiny_project.shards(data.run.dataset)
    sizes = {"batch_size": 4, "micro_batch_size": None, "eval_batch_size": 4}
    return TarDataModule(shards, task, loader, **sizes, seed=3)


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true")
def test_batches_are_pinned_outside_the_thread_that_trains(tiny_project, monkeypatch):
    """There is nothing to pin for here: who asks for it is told. The batches are those of an unpinned loader."""
    threads = set()

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        threads.add(threading.current_thread())
        return tensor.clone()

    expected = list(data_module(tiny_project, "segmentation", 0).train_dataloader())
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    loader = data_module(tiny_project, "segmentation", 1).train_dataloader()
    loader._loader._pin_memory = True
    next(iter(loader))  # left early
    loader.load_state_dict({"epoch": 0, "batches": 0})
    given = list(loader)
    assert [batch["keys"] for batch in given] == [batch["keys"] for batch in expected]
    assert all(torch.equal(a["images"], b["images"]) for a, b in zip(given, expected, strict=True))
    assert threads and threading.main_thread() not in threads


@pytest.mark.parametrize("run", ["captioning", "vqa", "segmentation", "detection", "instances"])
def test_all_tensors_of_a_batch_lie_in_the_memory_that_is_used_again(tiny_project, run):
    module = data_module(tiny_project, run, 1)
    dataset = module.train_dataloader().dataset
    ask = module.train_plan(0)[0]
    dataset.memory = memory = BatchMemory(1, dataset.batch_bytes(ask))
    sent, _ = dataset[ask._replace(slot=memory.take())]

    def tensors(value: object) -> Iterator[object]:
        if isinstance(value, dict | list | tuple):
            for below in value.values() if isinstance(value, dict) else value:
                yield from tensors(below)
        elif isinstance(value, torch.Tensor | Place):
            yield value

    found = list(tensors(sent))
    assert len(found) >= 2 and all(isinstance(value, Place) for value in found)
