"""Measure a best checkpoint on a split: metrics, the constant predictor's beside them, predictions, plots, pictures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl

from lightning_modules.base.module import TaskModule
from lightning_modules.base.task import BaseTask
from lightning_modules.blocks.pixels import to_channels_last
from lightning_modules.metrics.bootstrap import percentile_intervals, replicates
from lightning_modules.metrics.measurement import Measurement, values_of
from lightning_modules.reports._plots import Plot
from pipeline.loading.datamodule import TarDataModule
from pipeline.settings.params import Run
from pipeline.settings.parse import parse
from pipeline.settings.sections import LoaderConfig
from pipeline.settings.train_config import TrainConfig
from pipeline.shards.manifest import load_manifest, split_digest
from pipeline.system.disk import renewed, write_lines
from pipeline.system.project import write_json
from pipeline.training.checkpoints import file_sha256, load_module
from pipeline.training.fit import Placement, quiet_lightning
from pipeline.training.reports import build_report


class Evaluation:
    """One pass over `split` with the checkpoint's weights, in this process or in each of several, where the first one
    has what was predicted and true, and alone can be asked for the numbers.

    Attributes:
        metrics: of the model, by name. constant: of the best predictor that ignores the input. losses: means.
        intervals: 95 % bootstrap intervals over groups, such as images. gain_intervals: of the difference to the
            constant predictor, both measured on the same resamples.

    Args:
        now: the run as params.yaml has it, which says how data is read and in which batches; None: as it was trained.
        placement: where this process stands.
    """

    def __init__(
        self,
        checkpoint: Path,
        shards: Path,
        split: str = "val",
        *,
        now: Run | None = None,
        placement: Placement | None = None,
    ):
        quiet_lightning()
        place = placement or Placement()
        self.is_first = place.rank == 0
        module, document = load_module(checkpoint)
        self.checkpoint_sha256 = file_sha256(checkpoint)
        self.run: dict[str, Any] = document["run"]
        run = self.run
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
            world=place.world,
            rank=place.rank,
        )
        self.split = split
        module.split_name = split
        trainer = pl.Trainer(
            accelerator="gpu" if place.use_gpu else "cpu",
            devices=1,
            strategy=place.strategy,
            plugins=list(place.plugins),
            precision=train.precision,  # type: ignore[arg-type]  # the one it was trained with
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        module.trainer = trainer
        trainer.datamodule = self.data  # type: ignore[attr-defined]
        trainer.validate(module, dataloaders=self.data.eval_dataloader(split), verbose=False)
        self.data.close()
        if self.is_first:
            self._score(trainer)

    def _score(self, trainer: pl.Trainer) -> None:
        module, prefix = self.module, f"{self.split}/"
        self.losses = {
            name.removeprefix(prefix): float(value)
            for name, value in trainer.callback_metrics.items()
            if name.removeprefix(prefix) in module.loss_names
        }
        self.report = build_report(self.run, module.task)
        task, truths, groups = module.task, module.truths, module.groups
        self.measured = task.measure(module.predictions, truths, groups, thorough=True)
        self.measured_constant = task.measure(self.report.constant(truths), truths, groups)
        self.metrics = values_of(self.measured)
        self.constant = values_of(self.measured_constant)

    @cached_property
    def drawn(self) -> dict[str, np.ndarray]:
        """Metric -> its values (1000,) float64 on the resamples, which are the same ones for each run on this split."""
        return replicates(self.measured)

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float]]:
        return percentile_intervals(self.drawn)

    @cached_property
    def gain_intervals(self) -> dict[str, tuple[float, float]]:
        drawn, constant = self.drawn, self.drawn_constant
        return percentile_intervals({name: drawn[name] - constant[name] for name in drawn.keys() & constant.keys()})

    @cached_property
    def drawn_constant(self) -> dict[str, np.ndarray]:
        """As `drawn`, of the constant predictor."""
        return replicates(self.measured_constant)

    def headline(self, test: Evaluation | None = None) -> dict[str, Any]:
        """What `metrics/<run>.json` holds: the task's metric in a line of `dvc metrics`.

        Args:
            test: of the same checkpoint on the test split, whose numbers stand under `test`.
        """
        name = self.module.task.metric
        low, high = self.intervals.get(name, (None, None))
        value, constant = self.metrics.get(name), self.constant.get(name)
        numbers = {"metric": name, "value": value, "low": low, "high": high, "constant": constant}
        return numbers | ({} if test is None else {"test": test.headline()})

    def document(self, run: str, test: Evaluation | None = None) -> dict[str, Any]:
        """What `evaluations/<run>/measured.json` holds. `measured` says of each number what it is and how sure it is;
        two runs with equal `split_digest` and `items_sha256` were asked the same.

        Args:
            test: of the same checkpoint on the test split; the document has its numbers under `test`.
        """
        task = self.module.task
        return {
            "run": run,
            "task": self.run["task_name"],
            "dataset": self.data.manifest["dataset"],
            **self._size(),
            "manifest_digest": self.data.manifest["digest"],
            "split_digest": split_digest(self.data.manifest, self.split),
            "items_sha256": _items_digest(self.module.groups),
            "checkpoint_sha256": self.checkpoint_sha256,
            "metric": task.metric,
            "metric_mode": task.metric_mode,
            **self._numbers(),
            **({} if test is None else {"test": {**test._size(), **test._numbers()}}),
        }

    def _size(self) -> dict[str, Any]:
        return {"split": self.split, "num_samples": len(self.module.items), "num_items": len(self.module.truths)}

    def _numbers(self) -> dict[str, Any]:
        return {
            "value": self.metrics.get(self.module.task.metric),
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

    @property
    def has_truth(self) -> bool:
        """Whether anything was compared: a test split may have questions, say, whose answers nobody tells."""
        named = [m for m in self.measured if self.module.task.metric in m.values]
        return any(m.num_items > 0 for m in named)

    def summary(self) -> str:
        """The task's metric in one line; a model that finds nothing has no interval."""
        metric = self.module.task.metric
        value, constant = (numbers.get(metric, float("nan")) for numbers in (self.metrics, self.constant))
        low, high = self.intervals.get(metric, (float("nan"), float("nan")))
        return (
            f"{metric} {value:.4f} (95 % interval {low:.4f} to {high:.4f}) on {len(self.module.items)} samples of "
            f"{self.split} (a constant predictor: {constant:.4f})"
        )

    def write(
        self,
        *,
        metrics: Path,
        predictions: Path,
        plots: Path,
        pictures: Mapping[str, np.ndarray],
        test: Evaluation | None = None,
    ) -> None:
        """Write what the stage gives: of `test` the headline alone. No file is written over: DVC's cache may hold the
        same one under another name."""
        self.write_details(predictions, plots, pictures)
        write_json(metrics, self.headline(test))

    def write_details(self, predictions: Path, plots: Path, pictures: Mapping[str, np.ndarray]) -> None:
        """Write a line an item, the report's plots, and the given pictures."""
        from pipeline.measuring.charts import write_chart

        task = self.module.task
        items = [item for items in self.module.items.values() for item in items]
        answers = ({"id": i.id, "key": i.key, **task.answer(self.module.predictions[i.id])} for i in items)
        write_lines(predictions, (json.dumps(answer, ensure_ascii=False) for answer in answers))
        with renewed(plots, inside=plots.parent) as folder:
            for plot in self.plots:
                write_chart(plot, folder)
            for key, picture in pictures.items():
                _write_png(folder / "pictures" / f"{key}.png", picture)

    @cached_property
    def plots(self) -> list[Plot]:
        """The report's."""
        return list(self.report.plots(self.module.predictions, self.module.truths))

    def pictures(self, count: int) -> Mapping[str, np.ndarray]:
        """The first `count` records of the split, drawn with predictions and truths, by key; the report's gallery."""
        drawn = {
            key: self.report.picture(self.data.record(self.split, key), *self.module.of_record(key))
            for key in list(self.module.items)[:count]
        }
        read = partial(self.data.record, self.split)
        return drawn | self.report.gallery(read, self.module.predictions, self.module.truths)


def lacking(manifest: Mapping[str, Any], split: str, task: BaseTask) -> list[str]:
    """What a run's task must have to be trained, by the names of `COUNTS`, and no sample of the split has: it could not
    be measured there."""
    totals = manifest["splits"][split]["totals"]
    return [name for name in task.requires if not totals.get(name)]


def on_test(
    checkpoint: Path, shards: Path, task: BaseTask, *, now: Run, placement: Placement | None = None
) -> Evaluation | None:
    """What is reported of a run, of whose task this is, beside the split that it was chosen on; None where there is no
    test split, or one without the truth, which is told."""
    manifest = load_manifest(shards)
    if "test" not in manifest["splits"]:
        return None
    evaluation = None
    if not (missing := lacking(manifest, "test", task)):
        evaluation = Evaluation(checkpoint, shards, "test", now=now, placement=placement)
    if evaluation is not None and not evaluation.is_first:
        return None
    if evaluation is None or not evaluation.has_truth:
        what = f"none of its samples has {', '.join(missing)}" if missing else "no truth is known of its items"
        print(f"evaluate {now.name}: the test split is not measured, as {what}", flush=True)
        return None
    return evaluation


def _items_digest(groups: Mapping[str, str]) -> str:
    """sha256 over the items that were asked for, with their groups: what a resample draws from."""
    lines = (f"{item}\t{group}\n" for item, group in sorted(groups.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _write_png(path: Path, picture: np.ndarray) -> None:
    import cv2

    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture[..., ::-1])
