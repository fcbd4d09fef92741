"""`sightline check` reads parts without their libraries, and says what it would say with them."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.settings import discover
from pipeline.settings.outline import _WITHOUT
from tests.shipped import SHIPPED, tiny_datasets
from tests.warm_process import forked

CONFIGURED = ("source", "world", "task", "model")
OUTLINES = """
import json, sys
from pipeline.settings.outline import outlines
from tests.unit.pipeline.settings.test_outline import described
with outlines():
    print(json.dumps(described()))
assert not {"torch", "numpy", "cv2"} & sys.modules.keys()
"""
# Parts whose settings need what the blanks stand for, each in another way.
NEEDY = {
    "calls_torch": "if not torch.tensor([self.depth]).bool().all(): raise ConfigError('no depth', value=self.depth)",
    "names_of_torch": "if self.kind not in NAMES: raise ConfigError('unknown kind', value=self.kind)",
    "texts_of_torch": "if self.kind not in TEXTS: raise ConfigError('unknown kind', value=self.kind)",
    "imports_late": "import numpy; assert numpy.sign(1) == 1"
    "\n        if numpy.sign(self.depth) < 1: raise ConfigError('no depth', value=self.depth)",
    "counts_of_torch": "if self.depth == torch.iinfo(torch.int8).min: raise ConfigError('no depth', value=self.depth)",
}
PART = """
from dataclasses import dataclass
import torch
from torch import nn
from contracts.errors import ConfigError
from lightning_modules.base.families import ClassifierSpec

NAMES = tuple(torch.__all__)
TEXTS = [str(torch.float32)]

@dataclass(frozen=True, kw_only=True)
class Config:
    depth: int = 3
    kind: str = "Tensor"

    def __post_init__(self) -> None:
        CHECK

class Model(nn.Module):
    spec_class = ClassifierSpec
"""


def described() -> dict[str, Any]:
    """Every part's default settings, and what it goes with."""
    found = {}
    for kind in CONFIGURED:
        for name in discover.names(kind):
            module = discover.load(kind, name, where="test")
            owner = getattr(module, "Task", module)
            spec = getattr(getattr(module, "Model", owner), "spec_class", None)
            found[f"{kind} {name}"] = [dataclasses.asdict(owner.Config()), getattr(spec, "__name__", None)]
    return json.loads(json.dumps(found))


def test_an_outline_has_the_settings_and_the_spec_of_the_part(root):
    out = subprocess.run([sys.executable, "-c", OUTLINES], cwd=root, capture_output=True, text=True, check=True)
    assert json.loads(out.stdout) == described()


@pytest.fixture(scope="module")
def project(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code with the needy parts in it."""
    folder = tmp_path_factory.mktemp("needy")
    for package in ("contracts", "lightning_modules", "pipeline"):
        shutil.copytree(root / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name, check in NEEDY.items():
        (folder / f"lightning_modules/models/{name}.py").write_text(PART.replace("CHECK", check))
    return folder


def write_params(folder: Path, model: dict[str, Any]) -> None:
    run = {"dataset": "voc", "task": {"name": "classification"}, "model": model}
    document = {
        "shards": {},
        "registry": {},
        "datasets": {"voc": tiny_datasets(4, 4)["voc"]},
        "runs": SHIPPED | {"needy": run},
    }
    document["runs"] = {name: run | {"dataset": "voc"} for name, run in document["runs"].items()}
    folder.mkdir(exist_ok=True)
    (folder / "params.yaml").write_text(json.dumps(document))


def check(project: Path, model: dict[str, Any], **environment: str) -> tuple[int, str]:
    write_params(project, model)
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "check"],
        cwd=project,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


CASES = (
    ("calls_torch", {"depth": 0}, "no depth: 0"),
    ("names_of_torch", {"kind": "Tenor"}, "unknown kind: 'Tenor'"),
    ("names_of_torch", {}, ""),
    ("texts_of_torch", {"kind": "torch.float32"}, ""),
    ("imports_late", {"depth": 0}, "no depth: 0"),
    ("counts_of_torch", {"depth": -128}, "no depth: -128"),
)
# What `check` says of every case with outlines, or that it would start again without, or what it says with the
# libraries: each in a fork of a process that has imported them, or has not.
ASKED = """
import os, sys
from pathlib import Path
from contracts.errors import SightlineError
from pipeline.settings.check import check
from pipeline.settings.outline import outlines
from pipeline.settings.params import read_params

def ask(folder):
    try:
        check(read_params(folder))
        return "well"
    except SightlineError as error:
        return str(error)

how, *folders = sys.argv[1:]
if how == "real":
    import lightning_modules.base.module, torch, torchvision
for folder in map(Path, folders):
    if os.fork() == 0:
        try:
            if how == "real":
                said = ask(folder)
            else:
                with outlines():
                    said = ask(folder)
        except BaseException:
            said = "again"
        (folder / how).write_text(said)
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def asked(project: Path, warm_socket: str) -> list[tuple[str, str]]:
    """What is said of every case with outlines and with the libraries."""
    folders = [project / str(number) for number in range(len(CASES))]
    for folder, (name, settings, _) in zip(folders, CASES, strict=True):
        write_params(folder, {"name": name, **settings})
    for how, socket in (("outlined", None), ("real", warm_socket)):
        subprocess.run(forked(socket, "-c", ASKED, how, *map(str, folders)), cwd=project, check=True)
    return [((folder / "outlined").read_text(), (folder / "real").read_text()) for folder in folders]


@pytest.mark.parametrize("number", range(len(CASES)), ids=[f"{name}-{wrong}" for name, _, wrong in CASES])
def test_settings_that_need_the_library_get_no_answer_without_it(asked, number):
    outlined, real = asked[number]
    assert outlined in ("again", real)
    wrong = CASES[number][2]
    assert wrong in real if wrong else real == "well"


@pytest.mark.parametrize(("name", "settings", "wrong"), [CASES[0], CASES[2]])
def test_settings_that_need_the_library_are_checked_by_it(project, name, settings, wrong):
    code, said = check(project, {"name": name, **settings})
    assert (code, said) == ((2, said) if wrong else (0, "params.yaml: 1 data sets, 6 runs, no mistakes\n"))
    assert wrong in said


def test_mistakes_of_every_kind_are_told_as_with_the_libraries(project):
    model = {"name": "image_classifier", "dropout": 2, "backbone": "resnet19", "norms": "batch"}
    told = check(project, model)
    assert told == check(project, model, **{_WITHOUT: "1"})
    assert told[0] == 2 and all(text in told[1] for text in ("dropout", "resnet19", "norms: unknown key"))
