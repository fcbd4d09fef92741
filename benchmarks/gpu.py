"""What a GPU gives, for machines that have one: `make gpu-check`.

One detector of torchvision's, trained as this project does it (Lightning, callbacks, our loader) and as torchvision's
plain loop does it (random images and boxes that lie on the device), each in float32 and in mixed precision: seconds of
a step, peak memory; and how many images the loader feeds while a step takes its own.
"""

from __future__ import annotations

import contextlib
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision
from torch import Tensor

from benchmarks import Figure
from benchmarks._project import make_project
from pipeline.loading.datamodule import TarDataModule
from pipeline.settings.params import Params
from pipeline.settings.sections import LoaderConfig
from pipeline.system.project import Project
from pipeline.training.checkpoints import build_task
from pipeline.training.fit import Placement, fast_precision, fit
from pipeline.training.run_files import EVENTS
from pipeline.training.runs import load_run

_OBJECTS, _CLASSES = 4, 7  # of an image; with background


@dataclass(frozen=True, kw_only=True)
class Check:
    """What is trained: so many steps, of which the first `warm` do not count."""

    architecture: str = "fasterrcnn_resnet50_fpn"
    image_size: int = 640
    batch: int = 16
    steps: int = 40
    warm: int = 8
    loader_processes: int = 8


@dataclass(frozen=True)
class Step:
    """Median seconds of a step; the most memory that it took on the device, in GiB, None on a CPU."""

    seconds: float
    gib: float | None


def measure() -> list[Figure]:
    if not torch.cuda.is_available():
        raise SystemExit("no GPU here: `make gpu-check` is for a machine that has one")
    print(torch.cuda.get_device_name(), file=sys.stderr)
    return figures(Check(), torch.device("cuda"))


def figures(check: Check, device: torch.device) -> list[Figure]:
    use_gpu = device.type == "cuda"
    mixed = fast_precision(use_gpu)
    kinds = ("32-true", mixed if mixed != "32-true" else "bf16-mixed")
    with tempfile.TemporaryDirectory(prefix="sightline-bench-") as folder:
        project, params = _project(Path(folder), check)
        feeds = _feeding_rate(project, params, check)
        ours = {kind: _ours(project, params, check, kind, use_gpu=use_gpu) for kind in kinds}
        plain = {kind: _plain(check, kind, device) for kind in kinds}
    what = f"{check.architecture}, {check.batch} images of {check.image_size} px"
    found = []
    for kind in kinds:
        step, beside = ours[kind], f"torchvision's plain loop, {kind}"
        found.append(
            Figure(
                what=f"step of {what}, {kind}",
                value=1000 * step.seconds,
                unit="ms",
                beside=beside,
                other=1000 * plain[kind].seconds,
                goal="ratio >= 0.95",
            )
        )
        if step.gib is not None:
            found.append(
                Figure(what=f"memory of it, {kind}", value=step.gib, unit="GiB", beside=beside, other=plain[kind].gib)
            )
    full, mixed_step = (ours[kind].seconds for kind in kinds)
    found.append(
        Figure(
            what=f"step of {what}, {kinds[1]}", value=1000 * mixed_step, unit="ms", beside=kinds[0], other=1000 * full
        )
    )
    found.append(
        Figure(
            what=f"images a second that {check.loader_processes} loader processes feed",
            value=feeds,
            unit="/s",
            beside="images a second that its steps take",
            other=check.batch / mixed_step,
            goal="ratio <= 0.8",
        )
    )
    return found


def _project(root: Path, check: Check) -> tuple[Project, Params]:
    run = {
        "dataset": "voc",
        "task": {"name": "detection", "image_size": check.image_size},
        "model": {"name": "torchvision_detector", "architecture": check.architecture, "norm": "batch"},
    }
    train = {"max_epochs": 1, "batch_size": check.batch, "log_every_steps": 1, "num_pictures": 0}
    loader = {"num_workers": check.loader_processes}
    images = check.batch * check.steps
    return make_project(root, images, check.image_size, runs={"check": run}, train=train, loader=loader)


def _feeding_rate(project: Project, params: Params, check: Check) -> float:
    """Images a second, of whole epochs after the first batches, which wait for the processes to start."""
    data = load_run(project, params, "check")
    loader = LoaderConfig(num_workers=check.loader_processes)
    task = build_task(data.run.to_dict(), data.spec)
    module = TarDataModule(
        project.shards("voc"), task, loader, batch_size=check.batch, micro_batch_size=None,
        eval_batch_size=check.batch, seed=0,
    )  # fmt: skip
    try:
        batches = iter(module.train_dataloader())
        for _ in range(check.warm):
            next(batches)
        start, count = time.perf_counter(), sum(1 for _ in batches)
        return count * check.batch / (time.perf_counter() - start)
    finally:
        module.close()


def _ours(project: Project, params: Params, check: Check, precision: str, *, use_gpu: bool) -> Step:
    """From one event line to the next, so that all between them counts."""
    data = load_run(project, params, "check")
    run = data.run.to_dict()
    run["train"]["precision"] = precision
    state = project.root / f"state-{precision}"
    state.mkdir()
    with contextlib.redirect_stdout(io.StringIO()), _memory(use_gpu) as memory:
        shards = str(project.shards("voc"))
        fit(run, data.spec.to_dict(), shards, str(state), Placement(use_gpu=use_gpu))
    lines = [json.loads(line) for line in (state / EVENTS).read_text().splitlines()]
    times = [line["time"] for line in lines if line["kind"] == "metrics" and "train/loss" in line["values"]]
    return _step(times, check, memory)


def _plain(check: Check, precision: str, device: torch.device) -> Step:
    """torchvision's reference loop: its model in training mode, sum of its losses, step."""
    model = torchvision.models.get_model(
        check.architecture, weights=None, weights_backbone=None, num_classes=_CLASSES,
        min_size=check.image_size, max_size=check.image_size,
    ).to(device)  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    kind = torch.float16 if precision == "16-mixed" else torch.bfloat16
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "16-mixed")
    images, targets = _random(check, device)
    times = []
    with _memory(device.type == "cuda") as memory:
        for _ in range(check.steps):
            with torch.autocast(device.type, kind, enabled=precision != "32-true"):
                loss = sum(model(images, targets).values())
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            loss.detach().item()  # waits for the device
            times.append(time.time())
    return _step(times, check, memory)


def _random(check: Check, device: torch.device) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(check.batch, 3, check.image_size, check.image_size, generator=generator).to(device)
    corners = torch.rand(check.batch, _OBJECTS, 2, generator=generator) * check.image_size / 2
    sides = (0.1 + 0.3 * torch.rand(check.batch, _OBJECTS, 2, generator=generator)) * check.image_size
    boxes = torch.cat([corners, corners + sides], dim=2).to(device)
    labels = torch.randint(1, _CLASSES, (check.batch, _OBJECTS), generator=generator).to(device)
    return list(images), [{"boxes": b, "labels": c} for b, c in zip(boxes, labels, strict=True)]


@contextlib.contextmanager
def _memory(use_gpu: bool) -> Iterator[list[float]]:
    """Fills the list with the most memory that the device gave, in GiB, where it is a GPU."""
    found: list[float] = []
    if use_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    yield found
    if use_gpu:
        found.append(torch.cuda.max_memory_allocated() / 2**30)


def _step(times: list[float], check: Check, memory: list[float]) -> Step:
    seconds = [b - a for a, b in zip(times[check.warm :], times[check.warm + 1 :], strict=False)]
    return Step(statistics.median(seconds), memory[0] if memory else None)
