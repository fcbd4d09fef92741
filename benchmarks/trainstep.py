"""What Lightning, one Ray worker and our loader add to a training step, beside a bare PyTorch loop fed from memory.

Both train the same model on the same batches in one process of one thread: gradient clipping, AdamW, a schedule. The
bare loop's batches are made beforehand; ours are decoded and augmented by one loader process meanwhile.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
import yaml

from benchmarks import Figure
from lightning_modules.base import warmup_cosine
from pipeline.checkpoints import build_module
from pipeline.datamodule import TarDataModule
from pipeline.distributed import run_training
from pipeline.params import ClusterConfig, LoaderConfig, load_params
from pipeline.project import Project
from pipeline.runs import RunData, load_run
from pipeline.stages.fetch import fetch
from pipeline.stages.shard import shard
from pipeline.stages.vocab import vocab
from pipeline.training import EVENTS

ROOT = Path(__file__).resolve().parents[1]
BATCH, STEPS, WARM = 16, 30, 6
DOCUMENT = {
    "datasets": {
        "voc": {
            "origin": "generated",
            "input": "pipeline/worlds",
            "world": {"name": "voc_scenes", "image_size": 128, "num_images": {"train": BATCH * STEPS, "val": 4}},
            "sources": {"voc": {}},
        }
    },
    "runs": {"fcn": {"dataset": "voc", "task": {"name": "segmentation"}, "model": {"name": "fcn"}}},
    "train": {"max_epochs": 1, "batch_size": BATCH, "precision": "32-true", "log_every_steps": 1, "num_pictures": 0},
    "loader": {"num_workers": 1, "start_method": "fork"},
    "cluster": {"engine": "local"},
}


def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="sightline-bench-") as folder:
        root = Path(folder)
        (root / "params.yaml").write_text(yaml.safe_dump(DOCUMENT))
        project, params = Project(root), load_params(root)
        for stage in (fetch, shard, vocab):
            stage(project, params, "voc")
        data = load_run(project, params, "fcn")
        bare = _bare(data, project.shards("voc"))
        ours = _ours(data, project.shards("voc"), root / "state")
    return [
        Figure(
            what=f"training step through Lightning, Ray and our loader (FCN-8s, {BATCH} images of 128 px), median",
            value=1000 * ours,
            unit="ms",
            beside="bare loop fed from memory",
            other=1000 * bare,
            goal="ratio >= 0.95 (<= 1.05 x the bare step)",
        )
    ]


def _bare(data: RunData, shards: Path) -> float:
    """Median seconds of a step."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    train = data.run.train
    module = build_module(data.run.to_dict(), data.spec).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    loader = TarDataModule(
        shards, module.task, LoaderConfig(), batch_size=BATCH, micro_batch_size=None, eval_batch_size=BATCH, seed=0
    ).train_dataloader()
    batches = list(loader)
    optimizer = torch.optim.AdamW(module.parameters(), lr=train.optimizer.lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: warmup_cosine(step, total_steps=STEPS, warmup_fraction=0.05, final_fraction=0.01)
    )
    module.train()
    times = []
    for batch in batches:
        start = time.perf_counter()
        loss = torch.stack([part.float() for part in module.task.losses(module.model, batch).values()]).sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), train.gradient_clip_norm or 1.0)
        optimizer.step()
        schedule.step()
        times.append(time.perf_counter() - start)
    return statistics.median(times[WARM:])


def _ours(data: RunData, shards: Path, state: Path) -> float:
    """Median seconds between the event lines of successive steps: everything between them counts."""
    state.mkdir()
    arguments = {"run": data.run.to_dict(), "data": data.spec.to_dict(), "shards": str(shards), "state": str(state)}
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    run_training(arguments, ClusterConfig(num_workers=1), ROOT)
    lines = [json.loads(line) for line in (state / EVENTS).read_text().splitlines()]
    times = [line["time"] for line in lines if line["kind"] == "metrics" and "train/loss" in line["values"]]
    return statistics.median(b - a for a, b in zip(times[WARM:], times[WARM + 1 :], strict=False))
