"""`sightline`: every command of this project, each written in one of the files of `commands/`."""

from __future__ import annotations

# isort: off  # in this order they are listed
from pipeline.commands import project
from pipeline.commands import models
from pipeline.commands import data
from pipeline.commands._app import app
# isort: on

__all__ = ["app", "data", "models", "project"]  # importing a file adds its commands

if __name__ == "__main__":
    app(prog_name="sightline")
