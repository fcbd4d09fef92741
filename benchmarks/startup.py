"""Wall-clock time of commands in a fresh process, beside `import torch`, and of training up to its first step."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from benchmarks import Figure, timed
from benchmarks._project import make_project
from pipeline.training.run_files import EVENTS

ROOT = Path(__file__).resolve().parents[1]
# Module and arguments; none may import torch.
COMMANDS: tuple[tuple[str, list[str]], ...] = (
    ("pipeline.stages", ["fetch", "--help"]),
    ("pipeline.stages", ["shard", "--help"]),
    ("pipeline.cli", ["--help"]),
    ("pipeline.cli", ["score", "--help"]),
    ("pipeline.cli", ["check"]),
)
HAS_TORCH = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_module(sys.argv[0], run_name="__main__")
except SystemExit:
    pass
print("torch" if "torch" in sys.modules else "free")
"""


def measure() -> list[Figure]:
    torch, _ = timed(lambda: _run("-c", "import torch"), repeats=3)
    figures = []
    for module, arguments in COMMANDS:
        seconds, _ = timed(partial(_run, "-m", module, *arguments), repeats=3)
        imports = _run("-c", HAS_TORCH, module, *arguments).splitlines()[-1] == "torch"
        if imports:
            raise AssertionError(f"{module} imports torch, which it does not need")
        what = f"python -m {' '.join([module, *arguments])}"
        figures.append(
            Figure(what=what, value=seconds, beside="import torch", other=torch, goal="ratio >= 6.7 (<= 0.15 of it)")
        )
    lightning, _ = timed(lambda: _run("-c", "import torch, pytorch_lightning, torchvision"), repeats=2)
    ours, _ = timed(lambda: _run("-c", "import pipeline.training.fit, lightning_modules.tasks.captioning"), repeats=2)
    figures.append(
        Figure(
            what="imports of a training worker",
            value=ours,
            beside="import torch, pytorch_lightning, torchvision",
            other=lightning,
            goal="ratio >= 0.91",
        )
    )
    return figures + _first_steps()


LIGHTNING = """
import pytorch_lightning as pl
from pytorch_lightning.demos.boring_classes import BoringModel
pl.Trainer(max_steps=1, logger=False, enable_checkpointing=False, enable_progress_bar=False).fit(BoringModel())
"""
RAY = """
import os, secrets
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
import ray
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer
ray.init(num_cpus=2)
TorchTrainer(lambda: None, scaling_config=ScalingConfig(num_workers=2)).fit()
"""


def _first_steps() -> list[Figure]:
    """From the start of the train command to the end of its first step."""
    figures = []
    for engine, peer, script in (
        ("local", "Lightning's smallest script of one step", LIGHTNING),
        ("ray", "an empty TorchTrainer of two workers", RAY),
    ):
        other, _ = timed(partial(_run, "-c", script), repeats=2)
        ours = min(_first_step(engine) for _ in range(2))
        what = f"pipeline.stages train to the end of the first step, engine {engine}"
        figures.append(Figure(what=what, value=ours, beside=peer, other=other, goal="ratio >= 0.91 (<= 1.1 x)"))
    return figures


def _first_step(engine: str) -> float:
    with tempfile.TemporaryDirectory(prefix="sightline-bench-") as folder:
        root = Path(folder)
        with contextlib.redirect_stdout(io.StringIO()):
            make_project(root, 64, train={"batch_size": 2, "log_every_steps": 1})
        params = root / "params.yaml"
        params.write_text(params.read_text().replace("engine: local", f"engine: {engine}"))
        start = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, "-m", "pipeline.stages", "train", "fcn"],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            while not any("train/loss" in path.read_text() for path in root.glob(f"state/*/{EVENTS}")):
                if process.poll() is not None:
                    raise RuntimeError("training ended before its first step")
                time.sleep(0.02)
            seconds = time.perf_counter() - start
            process.terminate()
    return seconds


def _run(*arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    if result.returncode:
        raise RuntimeError(f"{' '.join(arguments[:3])}: {result.stderr[-500:]}")
    return result.stdout
