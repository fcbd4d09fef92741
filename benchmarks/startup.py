"""Wall-clock time of commands in a fresh process, beside `import torch`."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

from benchmarks import Figure, timed

ROOT = Path(__file__).resolve().parents[1]
# Module, arguments, and whether it may import torch: those that resolve a run need its task and model.
COMMANDS: tuple[tuple[str, list[str], bool], ...] = (
    ("pipeline.stages.fetch", ["--help"], False),
    ("pipeline.stages.shard", ["--help"], False),
    ("pipeline.stages.vocab", ["--help"], False),
    ("pipeline.ledger", ["--help"], False),
    ("pipeline.score", ["--help"], False),
    ("pipeline.predict", ["--help"], False),
    ("pipeline.check", [], True),
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
    for module, arguments, may_import in COMMANDS:
        seconds, _ = timed(partial(_run, "-m", module, *arguments), repeats=3)
        imports = _run("-c", HAS_TORCH, module, *arguments).splitlines()[-1] == "torch"
        if imports and not may_import:
            raise AssertionError(f"{module} imports torch, which it does not need")
        what = f"python -m {' '.join([module, *arguments])}{' (imports torch)' if imports else ''}"
        figures.append(
            Figure(what=what, value=seconds, beside="import torch", other=torch, goal="ratio >= 6.7 (<= 0.15 of it)")
        )
    lightning, _ = timed(lambda: _run("-c", "import torch, pytorch_lightning, torchvision"), repeats=2)
    ours, _ = timed(lambda: _run("-c", "import pipeline.training, lightning_modules.tasks.captioning"), repeats=2)
    figures.append(
        Figure(
            what="imports of a training worker",
            value=ours,
            beside="import torch, pytorch_lightning, torchvision",
            other=lightning,
            goal="ratio >= 0.91",
        )
    )
    return figures


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
