"""Two runs of this project's own code, `sightline ui` on them, and a headless browser."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import Browser, Page, sync_playwright

from pipeline.settings.params import load_params
from pipeline.stages.evaluate import evaluate
from pipeline.stages.register import register
from pipeline.stages.train import train
from pipeline.system.project import Project
from pipeline.tracking import registry
from tests.answers import answer_in_process
from tests.mlflow_server import free_port

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
RUN = "segmentation"
WAIT_S = 90


@dataclass(frozen=True)
class Served:
    """What `sightline ui` printed, and where."""

    root: Path
    base: str
    told: str
    warned: str

    def link(self, kind: str) -> str:
        return next(line.split()[-1] for line in self.told.splitlines() if line.split()[:1] == [kind])


def train_twice(root: Path) -> None:
    """The same run with two learning rates, each trained, measured and registered."""
    document = yaml.safe_load((root / "params.yaml").read_text())
    document["runs"] = {RUN: document["runs"][RUN]}
    del document["runs"][RUN]["task"]["image_size"]  # so that the first one surely learns something
    for rate, epochs in ((5e-3, 4), (1e-3, 2)):
        document["train"] |= {"max_epochs": epochs, "validate_every_epochs": 2, "optimizer": {"lr": rate}}
        (root / "params.yaml").write_text(yaml.safe_dump(document))
        params = load_params(root)
        for stage in (train, evaluate, register):
            stage(Project(root), params, RUN)


@pytest.fixture(scope="module")
def store(tiny_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with two runs, moved since."""
    made = tmp_path_factory.mktemp("browser") / "made"
    shutil.copytree(tiny_project.root, made)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("SIGHTLINE_GIT_COMMIT", "c" * 40)
        patch.setattr(registry, "probe", answer_in_process)
        train_twice(made)
    return Path(shutil.move(made, made.with_name("moved")))


@pytest.fixture(scope="module")
def served(store: Path, root: Path) -> Iterator[Served]:
    port = free_port()
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"} | {"PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "pipeline.cli", "ui", "--port", str(port)]
    out, err = store / "ui.out", store / "ui.err"
    with open(out, "w") as told, open(err, "w") as warned:
        process = subprocess.Popen(command, cwd=store, env=environment, stdout=told, stderr=warned)
    try:
        deadline = time.monotonic() + WAIT_S
        while "list " not in out.read_text():
            assert process.poll() is None and time.monotonic() < deadline, out.read_text() + err.read_text()
            time.sleep(0.2)
        yield Served(store, f"http://127.0.0.1:{port}", out.read_text(), err.read_text())
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """For the tests of one file: while it is open its event loop is the process's, and no other test's can run."""
    executable = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    if executable is None:
        pytest.skip(f"no browser: none of {', '.join(CHROMIUM)} is installed")
    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of somebody who was never here before."""
    context = browser.new_context(viewport={"width": 1500, "height": 3000})
    context.set_default_timeout(WAIT_S * 1000)
    yield context.new_page()
    context.close()
