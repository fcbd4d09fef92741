"""Measure a best checkpoint on a split: metrics, the constant predictor's beside them, predictions, plots, pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from lightning_modules.base.module import TaskModule
from lightning_modules.blocks.pixels import to_channels_last
from lightning_modules.metrics.bootstrap import percentile_intervals, replicates
from lightning_modules.metrics.measurement import Measurement, values_of
from pipeline.loading.datamodule import TarDataModule
from pipeline.settings.params import Run
from pipeline.settings.parse import parse
from pipeline.settings.sections import LoaderConfig
from pipeline.settings.train_config import TrainConfig
from pipeline.system.disk import renewed, write_lines
from pipeline.system.project import write_json
from pipeline.training.checkpoints import file_sha256, load_module
from pipeline.training.fit import quiet_lightning
from pipeline.training.reports import build_report


class Evaluation:
    """One pass over `split` with the checkpoint's weights, in this process.

    Attributes:
        metrics: of the model, by name. constant: of the best predictor that ignores the input. losses: means.
        intervals: 95 % bootstrap intervals over groups, such as images. gain_intervals: of the difference to the
            constant predictor, both measured on the same resamples.

    Args:
        now: the run as params.yaml has it, which says how data is read and in which batches; None: as it was trained.
    """

    def __init__(self, checkpoint: Path, shards: Path, split: str = "val", *, now: Run | None = None):
        quiet_lightning()
        module, document = load_module(checkpoint)
        self.checkpoint_sha256 = file_sha256(checkpoint)
        run = document["run"]
        train = parse(TrainConfig, run["train"], "train", [])
        loader = parse(LoaderConfig, run["loader"], "loader", [])
        assert train is not None and loader is not None
        self.module: TaskModule = module
        if train.channels_last:
            to_channels_last(module)
        self.data = TarDataModule(
            shards,
            module.task,
            loader if now is None else now.loader,
            batch_size=train.batch_size,
            micro_batch_size=None,
            eval_batch_size=(train if now is None else now.train).eval_batch_size,
            seed=train.seed,
        )
        self.split = split
        module.split_name = split
        use_gpu = torch.cuda.is_available()
        trainer = pl.Trainer(
            accelerator="gpu" if use_gpu else "cpu",
            devices=1,
            precision=train.precision,  # type: ignore[arg-type]  # the one it was trained with
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        module.trainer = trainer
        trainer.datamodule = self.data  # type: ignore[attr-defined]
        trainer.validate(module, dataloaders=self.data.eval_dataloader(split), verbose=False)
        self.data.close()
        prefix = f"{split}/"
        self.losses = {
            name.removeprefix(prefix): float(value)
            for name, value in trainer.callback_metrics.items()
            if name.removeprefix(prefix) in module.loss_names
        }
        self.report = build_report(run, module.task)
        task, truths, groups = module.task, module.truths, module.groups
        self.measured = task.measure(module.predictions, truths, groups, thorough=True)
        self.measured_constant = task.measure(self.report.constant(truths), truths, groups)
        self.metrics = values_of(self.measured)
        self.constant = values_of(self.measured_constant)

    @cached_property
    def _drawn(self) -> dict[str, np.ndarray]:
        return replicates(self.measured)

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float]]:
        return percentile_intervals(self._drawn)

    @cached_property
    def gain_intervals(self) -> dict[str, tuple[float, float]]:
        drawn, constant = self._drawn, replicates(self.measured_constant)
        return percentile_intervals({name: drawn[name] - constant[name] for name in drawn.keys() & constant.keys()})

    def document(self, run: str) -> dict[str, Any]:
        """What `metrics/<run>.json` holds. `metrics` and `constant` are numbers alone, for `dvc metrics`; `measured`
        says of each what it is and how sure it is."""
        task = self.module.task
        return {
            "run": run,
            "dataset": self.data.manifest["dataset"],
            "split": self.split,
            "num_samples": len(self.module.items),
            "num_items": len(self.module.truths),
            "manifest_digest": self.data.manifest["digest"],
            "checkpoint_sha256": self.checkpoint_sha256,
            "metric": task.metric,
            "metric_mode": task.metric_mode,
            "value": self.metrics.get(task.metric),
            "metrics": dict(sorted(self.metrics.items())),
            "constant": dict(sorted(self.constant.items())),
            "losses": {name: value if np.isfinite(value) else None for name, value in sorted(self.losses.items())},
            "measured": [self._described(name, m) for m in self.measured for name in m.values],
            "not_computed": {name: reason for m in self.measured for name, reason in m.not_computed.items()},
        }

    def _described(self, name: str, measurement: Measurement) -> dict[str, Any]:
        out: dict[str, Any] = {
            "name": name,
            "value": self.metrics.get(name),
            "interval_95": self.intervals.get(name),
            "variant": measurement.variant,
            "source": measurement.source,
            "split": self.split,
            "num_items": measurement.num_items,
            "unit": measurement.unit,
        }
        if name in self.metrics and name in self.constant:
            out["gain_over_constant"] = self.metrics[name] - self.constant[name]
            out["gain_interval_95"] = self.gain_intervals.get(name)
        return out

    def logged(self) -> dict[str, float]:
        """What a chart of MLflow shows of it, by the names that training gives the same metrics. Intervals and the
        constant predictor's are in the run's description; losses have their curves."""
        return {f"{self.split}/{name}": value for name, value in self.metrics.items()}

    def summary(self) -> str:
        """The task's metric in one line; a model that finds nothing has no interval."""
        metric = self.module.task.metric
        value, constant = (numbers.get(metric, float("nan")) for numbers in (self.metrics, self.constant))
        low, high = self.intervals.get(metric, (float("nan"), float("nan")))
        return (
            f"{metric} {value:.4f} (95 % interval {low:.4f} to {high:.4f}) on {len(self.module.items)} samples of "
            f"{self.split} (a constant predictor: {constant:.4f})"
        )

    def write(self, run: str, *, metrics: Path, predictions: Path, plots: Path, num_pictures: int) -> None:
        """Write what the stage gives. No file is written over: DVC's cache may hold the same one under another name."""
        from pipeline.measuring.charts import write_plot

        task = self.module.task
        items = [item for items in self.module.items.values() for item in items]
        answers = ({"id": i.id, "key": i.key, **task.answer(self.module.predictions[i.id])} for i in items)
        write_lines(predictions, (json.dumps(answer, ensure_ascii=False) for answer in answers))
        with renewed(plots, inside=plots.parent) as folder:
            for plot in self.report.plots(self.module.predictions, self.module.truths):
                write_plot(plot, folder)
            for key, picture in self.pictures(num_pictures).items():
                _write_png(folder / "pictures" / f"{key}.png", picture)
        write_json(metrics, self.document(run))

    def pictures(self, count: int) -> Mapping[str, np.ndarray]:
        """The first `count` records of the split, drawn with predictions and truths, by key."""
        return {
            key: self.report.picture(self.data.record(self.split, key), *self.module.of_record(key))
            for key in list(self.module.items)[:count]
        }


def _write_png(path: Path, picture: np.ndarray) -> None:
    import cv2

    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture[..., ::-1])
