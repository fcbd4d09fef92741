"""Batches written in place: equal to those of fresh memory, never overwritten while anything refers to them."""

from __future__ import annotations

import gc

import numpy as np
import torch

from lightning_modules.blocks.pixels import BatchRows, new_row, stack, stack_images, written_to
from pipeline.loading.batch_memory import BatchMemory
from pipeline.loading.datamodule import TarDataModule
from pipeline.settings.params import load_params
from pipeline.settings.sections import LoaderConfig
from pipeline.training.checkpoints import build_task
from pipeline.training.runs import load_run


def batch(value: int):
    return {
        "images": stack_images([np.full((4, 5, 3), value, np.uint8)] * 3),
        "labels": stack([np.full((4, 5), value + 1, np.int16)] * 3),
        "lengths": torch.tensor([value]),
        "keys": ["a"],
    }


BYTES = 192 + 128 + 64  # images of 180, labels of 120 and lengths of 8 bytes, each rounded up


def test_rows_are_stacked_without_a_copy():
    rows = BatchRows(3)
    with written_to(rows):
        images, labels = [], []
        for i in range(3):  # in turns, as tasks make them
            images.append(new_row((4, 5, 3), np.uint8))
            labels.append(new_row((4, 5), np.uint8))
            images[-1][:], labels[-1][:] = i, 10 * i
        stacked = stack(images)
        assert stacked.data_ptr() == images[0].ctypes.data and stacked.is_contiguous()
        assert stacked[:, 0, 0, 0].tolist() == [0, 1, 2] and stack(labels)[:, 0, 0].tolist() == [0, 10, 20]
        images[0][:] = 9
        assert stacked[0, 0, 0, 0] == 9
        shuffled = stack(images[::-1])  # rows, but not in order
        assert shuffled[:, 0, 0, 0].tolist() == [2, 1, 9]
        assert stack(images[:2])[:, 0, 0, 0].tolist() == [9, 1]
        assert stack([new_row((4, 5, 3), np.uint8)]).shape == (1, 4, 5, 3)  # more than there are rows
    assert new_row((4, 5, 3), np.uint8).base is None


def test_a_batch_comes_back_as_it_was_sent():
    memory = BatchMemory(2, BYTES)
    slot = memory.take()
    sent = memory.fill(lambda: batch(7), slot, 3)
    assert not any(isinstance(value, torch.Tensor) for value in sent.values())  # nothing is copied on the way
    received, expected = memory.receive(sent, slot), batch(7)
    assert received["keys"] == ["a"]
    for name in ("images", "labels", "lengths"):
        assert torch.equal(received[name], expected[name])
        assert received[name].dtype == expected[name].dtype and received[name].stride() == expected[name].stride()


def test_what_does_not_fit_gets_memory_of_its_own():
    memory = BatchMemory(1, 3 * 4 * 5 * 3)  # room for the images alone
    slot = memory.take()
    sent = memory.fill(lambda: batch(7), slot, 3)
    assert isinstance(sent["labels"], torch.Tensor) and not isinstance(sent["images"], torch.Tensor)
    assert torch.equal(memory.receive(sent, slot)["labels"], batch(7)["labels"])


def test_a_slot_is_free_when_nothing_refers_to_it():
    memory = BatchMemory(1, BYTES)
    slot = memory.take()
    received = memory.receive(memory.fill(lambda: batch(7), slot, 3), slot)
    assert memory.take() is None
    part = received["images"][0, :, 1:]  # a view keeps it, too
    del received
    gc.collect()
    assert memory.take() is None
    memory.restart()
    assert memory.take() is None  # in use, not on its way
    assert (part == 7).all()
    del part
    gc.collect()
    assert memory.take() == slot


def test_slots_on_their_way_are_free_after_a_restart():
    memory = BatchMemory(2, 64)
    assert {memory.take(), memory.take()} == {0, 1} and memory.take() is None
    memory.restart()
    assert {memory.take(), memory.take()} == {0, 1}


def module(tiny_project, workers: int) -> TarDataModule:
    data = load_run(tiny_project, load_params(tiny_project.root), "segmentation")
    return TarDataModule(
        tiny_project.shards(data.run.dataset),
        build_task(data.run.to_dict(), data.spec),
        LoaderConfig(num_workers=workers),
        batch_size=4,
        micro_batch_size=None,
        eval_batch_size=4,
        seed=3,
    )


def equal(a, b) -> bool:
    return a["keys"] == b["keys"] and torch.equal(a["images"], b["images"]) and torch.equal(a["labels"], b["labels"])


def test_a_worker_gives_the_batches_that_the_process_itself_gives(tiny_project):
    expected = list(module(tiny_project, 0).train_dataloader())
    loader = module(tiny_project, 1).train_dataloader()
    for _ in range(4):  # left early: what was on its way never comes
        assert equal(next(iter(loader)), expected[0])
        loader.load_state_dict({"epoch": 0, "batches": 0})
    memory = loader.dataset.memory
    kept = list(loader)  # all at once, which are more than there are slots
    assert len(kept) == len(expected) == 10
    assert all(equal(a, b) for a, b in zip(kept, expected, strict=True))
    loader.set_epoch(1)
    other = [given["images"].clone() for given in loader]  # one by one
    assert not torch.equal(other[0], expected[0]["images"])
    assert all(equal(a, b) for a, b in zip(kept, expected, strict=True))  # nobody wrote over them
    del kept
    gc.collect()
    memory.restart()
    assert sorted(iter(memory.take, None)) == list(range(1 * 2 + 3))  # no slot is lost
