"""The pass over the training split after the fit, on one process, that changes the best checkpoint a last time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytorch_lightning as pl
import torch

from lightning_modules.base.finish import finish
from lightning_modules.base.finite import check_state
from lightning_modules.base.module import TaskModule
from lightning_modules.base.task import Batch
from pipeline.loading.datamodule import TarDataModule
from pipeline.settings.sections import LoaderConfig
from pipeline.settings.train_config import TrainConfig
from pipeline.training.checkpoints import BEST, load_best, save_best, weights_digest

FINISHED = "finished"  # in a checkpoint's info


def finish_best(
    trainer: pl.Trainer, module: TaskModule, shards: Path, train: TrainConfig, loader: LoaderConfig, folder: Path
) -> None:
    """Finish the best checkpoint in the state folder, once: killed before it is written, the next call does it.

    Raises:
        TrainingError: a weight is not finite then.
    """
    path = folder / BEST
    document = load_best(path)
    if document["info"].get(FINISHED):
        return
    module.load_state_dict(document["state_dict"])
    module.to(trainer.strategy.root_device)
    data = TarDataModule(
        shards,
        module.task,
        loader,
        batch_size=train.batch_size,
        micro_batch_size=None,
        eval_batch_size=train.eval_batch_size,
        seed=train.seed,
    )

    def batches() -> Iterator[Batch]:
        for batch in data.eval_dataloader("train"):
            yield trainer.strategy.batch_to_device(batch)

    torch.manual_seed(train.seed)
    try:
        with trainer.precision_plugin.forward_context():
            changed = finish(module.task, module.model, batches, norms=train.recompute_norms)
    finally:
        data.close()
    if changed:
        weights = {name: value.cpu() for name, value in module.state_dict().items()}
        check_state({"state_dict": weights}, "the pass after the last epoch")
        info = {**document["info"], FINISHED: True, "weights_sha256": weights_digest(weights)}
        save_best(path, run=document["run"], data=module.task.data, weights=weights, info=info)
