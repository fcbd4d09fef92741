"""Code that trains otherwise does not go on from what other code trained."""

from __future__ import annotations

import os
import subprocess
import sys

STATE = """
from pipeline.settings.params import load_params
from pipeline.system.project import Project
from pipeline.training.runs import load_run
project = Project.here()
print(project.state("segmentation", load_run(project, load_params(project.root), "segmentation").fingerprint).name)
"""


def test_a_changed_loss_does_not_meet_the_old_state(code, tiny_project):
    """Other code in front of the installed one, as after an edit; asked as the stage asks."""

    def state() -> str:
        environment = os.environ | {"PYTHONPATH": str(code)}
        command = [sys.executable, "-c", STATE]
        return subprocess.check_output(command, cwd=tiny_project.root, env=environment, text=True).strip()

    before = state()
    task = code / "lightning_modules/base/pixel_task.py"
    text = task.read_text()
    assert "return Mean(total," in text
    task.write_text(text.replace("return Mean(total,", "return Mean(100 * total,"))
    assert state() != before
